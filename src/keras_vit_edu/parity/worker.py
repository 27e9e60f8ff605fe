"""One backend's side of a parity run, as a process of its own: `python -m keras_vit_edu.parity.worker JOB.json`.

It runs in two phases. Checks that need files of every backend write their files in the first phase and read all files
in the second. All other checks run in the first phase. Between the phases it waits for a line on standard input that
says which backend wrote what. It ends if standard input is closed, because its parent process is gone. Each line of
standard output is a JSON object about a finished step. Checks run user code, so they do not see these streams: their
input is empty, and their output goes to the log.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import keras

from keras_vit_edu import _keras_internals
from keras_vit_edu._machine import environment, round_to_tf32
from keras_vit_edu.parity import own_code
from keras_vit_edu.parity.arrays import write
from keras_vit_edu.parity.checks import CannotRunHere, Check, Scene
from keras_vit_edu.parity.run import STEP
from keras_vit_edu.parity.standard_checks import standard


def main(job_file: str) -> None:
    answers, steps = take_standard_streams()
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    settle(job["tf32"])
    if not job["own_code"] and keras.backend.backend() != "tensorflow":
        _keras_internals.leave_tensorflow_out()
    checks = own_code.checks(job["own_code"]) if job["own_code"] else standard()
    Worker(Path(job["folder"]), job["suite"], [checks[name] for name in job["checks"]], answers, steps).run()


def take_standard_streams() -> tuple[IO[str], IO[str]]:
    """Standard input and output, for this process alone; what else runs in it gets an empty input and the log."""
    answers, steps = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    return answers, steps


def settle(tf32: bool) -> None:
    """Make the numbers comparable: no setting of the user's, and products of matrices in full float32 if asked for."""
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")
    round_to_tf32(tf32)


class Worker:
    """Runs checks and writes what they measure.

    Args:
        folder: of the run; this backend writes into the subfolder of its name.
        suite: `"quick"` or `"full"`.
        checks: in the order they run.
        answers: where to read the line from.
        steps: where to write the steps to.
    """

    def __init__(self, folder: Path, suite: str, checks: Iterable[Check], answers: IO[str], steps: IO[str]) -> None:
        self.backend = keras.backend.backend()
        self.folder = folder
        self.suite = suite
        self.checks = list(checks)
        self.answers = answers
        self.steps = steps

    def run(self) -> None:
        """Both phases."""
        self._say(environment=environment())
        for check in self.checks:
            self._attempt(check, "prepared" if check.prepare else "measured")
        self._say(waiting=True)
        line = self.answers.readline()
        if not line:
            return
        prepared = json.loads(line)
        for check in self.checks:
            if self.backend in prepared.get(check.name, ()):
                self._attempt(check, "measured", prepared[check.name])

    def _attempt(self, check: Check, step: str, prepared: Iterable[str] = ()) -> None:
        self._say(check=check.name, step="begun")
        began = time.monotonic()
        error, excused = None, False
        try:
            scene = Scene(
                self.backend,
                self.suite,
                self._files(check, self.backend),
                {backend: self._files(check, backend) for backend in prepared},
            )
            scene.folder.mkdir(parents=True, exist_ok=True)
            if step == "prepared" and check.prepare:
                check.prepare(scene)
            else:
                write(self.folder / self.backend / f"{check.name}.npz", check.run(scene), check.tolerances)
        except (Exception, SystemExit) as problem:
            traceback.print_exc()  # into the log
            error = ": ".join(filter(None, [type(problem).__name__, " ".join(str(problem).split())]))
            excused = isinstance(problem, CannotRunHere)
        seconds = round(time.monotonic() - began, 2)
        self._say(check=check.name, step="failed" if error else step, error=error, excused=excused, seconds=seconds)

    def _files(self, check: Check, backend: str) -> Path:
        return self.folder / backend / "files" / check.name

    def _say(self, **step: Any) -> None:
        print(json.dumps({STEP: step}), file=self.steps, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
