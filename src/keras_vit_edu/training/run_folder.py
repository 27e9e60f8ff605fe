"""The folder that a run writes into."""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras

from keras_vit_edu._files import is_aside, remove_leftovers, write_atomically
from keras_vit_edu._install import install_command
from keras_vit_edu.training.checkpoint import Checkpoint, NewerFormat, RunFolderError, load_newest
from keras_vit_edu.training.run_record import read_record

# What a run and its evaluation may leave in the folder. `overwrite` removes these and nothing else.
FILES = (
    "history.csv", "accuracy.png", "loss.png", "summary.txt", "model.png", "model.keras", "evaluate.json",
    "confusion.png", "mistakes.png", "run.json",
)  # fmt: skip
CHECKPOINTS = "checkpoint"
CLASSIFIER = "classifier"  # the artifact of a fine-tuning
LOCK = ".lock"
AUGMENTATION = "augmentation.png"  # examples, drawn before there is a run
CHOOSE = "Choose another folder, or pass `overwrite=True`."
START_AGAIN = "Pass `overwrite=True` to start the run again."


def default_run(preset: str | Path, dataset: str, seed: int) -> Path:
    """The folder in which `keras-vit-edu train` keeps a run: `runs/PRESET-DATASET-BACKEND-SEED`.

    Args:
        preset: name or folder of the preset.
        dataset: name of the dataset.
        seed: of the recipe.

    Examples:
        >>> default_run("vit_mnist_pure", "mnist", 0).name.split("-")[::3]
        ['vit_mnist_pure', '0']
    """
    return Path("runs") / f"{Path(preset).resolve().name}-{dataset}-{keras.backend.backend()}-{seed}"


class RunFolder:
    """The folder of one run, new or to be resumed.

    `run.json` is written first, with `"status": "running"`, and last, with `"finished"`: a run that is half done can be
    told from one that came to its end. While a process works in the folder it holds a lock there, which the operating
    system lets go when the process ends, however it ends.

    Args:
        path: where; parents are created. An unfinished run in there will be resumed.
        overwrite: replace a finished run, or an unfinished one of another configuration. An unfinished run of the same
            configuration is resumed. The old run is removed as soon as `configure` says what takes its place: a call
            that is refused before leaves it alone.
        lock: False for a folder that no other process knows of.

    Raises:
        RunFolderError: if there is a finished run (or something that is no run) at `path`, if another process works in
            it, or if it cannot be written.
    """

    def __init__(self, path: str | Path, overwrite: bool = False, lock: bool = True) -> None:
        self.path = Path(path)
        self.record: dict[str, Any] = {}
        self._held: Any = None
        self._overwrite = overwrite
        self._is_to_be_cleared = False
        try:
            self._open(lock)
        except OSError as error:
            self.close()
            raise RunFolderError(f"The run folder {self.path} cannot be written: {error.strerror or error}") from None
        except BaseException:
            self.close()
            raise

    def _open(self, lock: bool) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"The run folder {self.path} is a file.")
        is_run = (self / "run.json").is_file()
        if self.path.is_dir() and not is_run and not all(map(_comes_before_a_run, os.listdir(self.path))):
            raise RunFolderError(f"{self.path} exists and holds something other than a run. Choose another folder.")
        self.path.mkdir(parents=True, exist_ok=True)
        if lock:
            self._lock()
        if not is_run:
            return
        try:
            self.record = self._read_record()
            if self.record.get("status") == "finished":
                raise RunFolderError(f"{self.path} holds a finished run. {CHOOSE}")
        except RunFolderError:
            if not self._overwrite:
                raise
            self.record = {}
            self._is_to_be_cleared = True

    def _lock(self) -> None:
        try:
            import filelock
        except ImportError:
            raise RunFolderError(f"Run folders need filelock: {install_command('cli')}") from None
        lock = filelock.FileLock(self / LOCK)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise RunFolderError(
                f"Another process is working in {self.path}, or a `RunFolder` of this one that was not closed."
            ) from None
        self._held = lock

    def _clear(self) -> None:
        self._is_to_be_cleared = False
        self.record = {}
        for folder in (CHECKPOINTS, CLASSIFIER):
            shutil.rmtree(self / folder, ignore_errors=True)
        for name in FILES:  # run.json is the last of them: until then the folder is a run's
            remove_leftovers(self / name)
            (self / name).unlink(missing_ok=True)

    def _read_record(self) -> dict[str, Any]:
        try:
            return read_record(self.path)
        except RunFolderError as error:
            raise RunFolderError(f"{error} {START_AGAIN}") from None

    def close(self) -> None:
        """Let go of the lock."""
        if self._held is not None:
            self._held.release()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __str__(self) -> str:
        return str(self.path)

    def configure(
        self,
        configuration: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
        present: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        """Say what the run is; an unfinished run in this folder must be the same.

        Args:
            configuration: JSON; everything that decides how the run comes out, on whatever backend.
            defaults: what entries mean that a run does not have which an older version began, laid out as the
                configuration is.
            present: from a configuration of an older version to the one that this version would write.

        Raises:
            RunFolderError: if the run that was begun here was configured otherwise; names what differs.
        """
        configuration = json.loads(json.dumps(configuration))
        if self.record:
            begun = completed(present(self.record.get("configuration", {})), configuration, defaults or {})
            differing = list(differences(begun, configuration))
            if differing and not self._overwrite:
                raise RunFolderError(f"{self.path} holds another run: {'; '.join(differing)}. {CHOOSE}")
            self._is_to_be_cleared = bool(differing)
        if self._is_to_be_cleared:
            self._clear()
        self.record["configuration"] = configuration

    def checkpoints(self, phase: str | None = None) -> Path:
        """The folder of the checkpoints: of the run, or of a phase that has its own."""
        return self / CHECKPOINTS if phase is None else self / CHECKPOINTS / phase

    def load_newest(
        self, model: keras.Model, complain: Callable[[str], None], phase: str | None = None
    ) -> Checkpoint | None:
        """Put the state of the run's newest sound checkpoint into `model`.

        Args:
            model: compiled, its optimizer built.
            complain: called with one line for each checkpoint that is damaged and therefore passed over.
            phase: the name of a phase that has checkpoints of its own.

        Returns:
            What the checkpoint says; None if there is no checkpoint.

        Raises:
            RunFolderError: if no checkpoint can be used; with `overwrite` they are removed instead, unless a newer
                version has written one.
        """
        folder = self.checkpoints(phase)
        try:
            return load_newest(folder, model, complain)
        except RunFolderError as error:
            if isinstance(error, NewerFormat):
                raise
            if not self._overwrite:
                raise RunFolderError(f"{error} {START_AGAIN}") from None
            complain(f"{error} Starting again.")
            shutil.rmtree(folder)
            return None

    def update(self, **entries: Any) -> None:
        """Add entries to `run.json`, which is replaced in one step: never half-written.

        A run that is running, or running again, is rid of what said when and why it stopped.
        """
        if self._is_to_be_cleared:
            self._clear()
        if entries.get("status") == "running":
            for name in ("stopped", "reason"):
                self.record.pop(name, None)
        self.record.update(entries)
        write_atomically(self / "run.json", (json.dumps(self.record, indent=2, allow_nan=False) + "\n").encode())

    def write_history(self, history: Mapping[str, Sequence[float]]) -> None:
        """Write `history.csv`: a row per epoch, counted from 1."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["epoch", *history])
        for epoch, row in enumerate(zip(*history.values(), strict=True), start=1):
            writer.writerow([epoch, *row])
        write_atomically(self / "history.csv", text.getvalue().encode())

    def files(self) -> list[Path]:
        """What the run has written so far."""
        return [self / name for name in sorted(FILES) if (self / name).is_file()]


def _comes_before_a_run(name: str) -> bool:
    """Whether a file may lie in a folder without a run: `run.json` is the first file that a run writes."""
    return name in (LOCK, AUGMENTATION) or is_aside(name, "run.json")


def completed(before: Any, now: Any, defaults: Any) -> Any:
    """`before`, with the entries that only `now` has taken from `defaults`, if they are there."""
    if not all(isinstance(value, Mapping) for value in (before, now, defaults)):
        return before
    missing = {
        key: json.loads(json.dumps(defaults[key], default=repr)) for key in now if key not in before and key in defaults
    }
    return {key: completed(value, now.get(key), defaults.get(key)) for key, value in before.items()} | missing


def differences(before: Any, now: Any, path: str = "") -> Any:
    """What two JSON values differ in, a line each: `recipe.epochs was 3 and is 5`."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield f"{path} was {json.dumps(before)} and is {json.dumps(now)}"


def now() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
