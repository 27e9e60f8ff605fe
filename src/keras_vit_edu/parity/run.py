"""Run checks on several backends, each in a separate process."""

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from keras_vit_edu import _backend, _interruption
from keras_vit_edu._install import install_command
from keras_vit_edu._version import __version__
from keras_vit_edu.parity.results import Results, ResultsError, is_ours

STEP = "keras_vit_edu.parity"  # marks the lines of a worker: a backend may print its own

OnStep = Callable[[str, Mapping[str, Any]], None]


def run(
    folder: Path,
    backends: Sequence[str],
    suite: str,
    checks: Sequence[str],
    tf32: bool = False,
    own_code: Mapping[str, Any] | None = None,
    on_step: OnStep = lambda backend, step: None,
) -> list[Results]:
    """Run checks on every one of `backends`, all at the same time.

    Args:
        folder: each backend writes into a subfolder of its name; what an earlier run left there is removed.
        backends: one that is unknown, not installed or broken gets results that say so, and does not stop the others.
        suite: `"quick"` or `"full"`.
        checks: their names.
        tf32: leave TF32 on.
        own_code: for a user's function; see `own_code.py`.
        on_step: called as `on_step(backend, step)` with every step of every worker.

    Returns:
        The results, in the order of `backends`; those of known backends are in `folder` as well.
    """
    results = {backend: Results(backend, folder / backend, suite, __version__, tf32) for backend in backends}
    for found in results.values():
        found.broken = _unavailable(found.backend)
    known = [found for found in results.values() if found.backend in _backend.BACKENDS]
    startable = [found for found in known if found.broken is None]
    job = {"folder": str(folder), "suite": suite, "checks": list(checks), "tf32": tf32, "own_code": own_code}
    for found in known:
        if found.folder.exists() and not is_ours(found.folder):
            raise ResultsError(f"{found.folder} exists and holds something other than results; name another folder.")
    for found in known:
        shutil.rmtree(found.folder, ignore_errors=True)
        found.folder.mkdir(parents=True)
        (found.folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    threads = max((os.cpu_count() or 1) // max(len(startable), 1), 1)
    with contextlib.ExitStack() as processes:
        workers = {found.backend: processes.enter_context(_Worker(found, threads)) for found in startable}
        _attend(workers, on_step)
    for found in startable:
        for name in checks if found.broken is None else ():
            found.checks.setdefault(name, {"error": "it did not run", "excused": False, "seconds": 0.0})
    for found in known:
        found.save()
    return list(results.values())


def _unavailable(backend: str) -> str | None:
    """Why a backend cannot be started; None if it can be tried."""
    if backend not in _backend.BACKENDS:
        return f"there is no backend {backend!r}; there are {', '.join(_backend.BACKENDS)}"
    if backend not in _backend.installed_backends():
        return f"it is not installed: {install_command(backend)}"
    return None


class _Worker:
    """A process of one backend. The end of the `with` block kills it."""

    def __init__(self, results: Results, threads: int) -> None:
        self.results = results
        self.threads = threads
        self.waits = False
        self.prepared: set[str] = set()
        self.log = results.folder / "log.txt"

    def __enter__(self) -> "_Worker":
        self._log: IO = open(self.log, "wb")
        environment = {
            **os.environ,
            "KERAS_BACKEND": self.results.backend,
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),  # it imports what we can import
            "PYTHONUNBUFFERED": "1",
        }
        environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        environment.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # or the first one takes all of a GPU's memory
        environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):  # more threads than cores wait for each other
            environment.setdefault(name, str(self.threads))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "keras_vit_edu.parity.worker", str(self.results.folder / "job.json")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        return self

    def __exit__(self, *error: Any) -> None:
        self.process.kill()  # before its output is closed, for which one must wait while it is being read
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        self._log.close()

    def steps(self) -> Iterator[dict[str, Any]]:
        """The steps that the process reports, until it ends."""
        for line in self.process.stdout or ():
            at = line.find(f'{{"{STEP}": ')  # something else may stand before it on the line
            if at >= 0:
                with contextlib.suppress(ValueError):
                    yield json.loads(line[at:])[STEP]

    def take(self, step: Mapping[str, Any]) -> None:
        """Record a step."""
        if "environment" in step:
            self.results.environment = step["environment"]
        elif "waiting" in step:
            self.waits = True
        elif step["step"] == "prepared":
            self.prepared.add(step["check"])
        elif step["step"] in ("measured", "failed"):
            self.results.checks[step["check"]] = {name: step[name] for name in ("error", "excused", "seconds")}

    def ended(self) -> None:
        """Record an error if the process ended before its work was finished."""
        status = self.process.wait()
        if status != 0 or not self.waits:
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            self.results.broken = f"its process ended with status {status}: {lines[-1] if lines else 'no message'}"

    def go_on(self, prepared: Mapping[str, Sequence[str]]) -> None:
        """Start the second phase: tell the process which backends wrote files for which check."""
        with contextlib.suppress(OSError):  # it may have died meanwhile
            self.process.stdin.write(json.dumps(prepared) + "\n")  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]


def _attend(workers: Mapping[str, _Worker], on_step: OnStep) -> None:
    """Wait for all workers. Start the second phase when all of them have finished the first phase."""
    happenings: queue.Queue[tuple[str, dict[str, Any] | None]] = queue.Queue()

    def listen(backend: str, worker: _Worker) -> None:
        with contextlib.suppress(ValueError):  # closed, after an interruption
            for step in worker.steps():
                happenings.put((backend, step))
        happenings.put((backend, None))

    for backend, worker in workers.items():
        threading.Thread(target=listen, args=(backend, worker), daemon=True).start()
    in_first_phase, running = set(workers), set(workers)
    while running:
        _interruption.check()
        try:
            backend, step = happenings.get(timeout=0.5)
        except queue.Empty:
            continue
        worker = workers[backend]
        if step is None:
            running.discard(backend)
            worker.ended()
        else:
            worker.take(step)
            on_step(backend, step)
        if backend in in_first_phase and (step is None or worker.waits):
            in_first_phase.discard(backend)
            if not in_first_phase:
                checks = sorted({name for worker in workers.values() for name in worker.prepared})
                prepared = {name: [backend for backend, worker in workers.items() if name in worker.prepared]
                            for name in checks}  # fmt: skip
                for backend in running:
                    workers[backend].go_on(prepared)
