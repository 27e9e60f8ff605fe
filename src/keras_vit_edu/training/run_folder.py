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

# The files that a run and its evaluation may write. `overwrite` removes these and nothing else.
FILES = (
    "history.csv", "accuracy.png", "loss.png", "summary.txt", "model.png", "model.keras", "evaluate.json",
    "confusion.png", "mistakes.png", "run.json",
)  # fmt: skip
CHECKPOINTS = "checkpoint"
CLASSIFIER = "classifier"  # the artifact that `fine_tune` saves
LOCK = ".lock"
AUGMENTATION = "augmentation.png"  # examples, drawn before the run begins
CHOOSE = "Choose another folder, or pass `overwrite=True`."
START_AGAIN = "Pass `overwrite=True` to start the run again."


def default_run(preset: str | Path, dataset: str, seed: int) -> Path:
    """The folder in which `keras-vit-edu train` keeps a run: `runs/PRESET-DATASET-BACKEND-SEED`.

    Args:
        preset: name or folder of the preset.
        dataset: name of the dataset.
        seed: of the recipe.

    Returns:
        A relative path.

    Examples:
        >>> default_run("vit_mnist_pure", "mnist", 0).name.split("-")[::3]
        ['vit_mnist_pure', '0']
    """
    return Path("runs") / f"{Path(preset).resolve().name}-{dataset}-{keras.backend.backend()}-{seed}"


class RunFolder:
    """The folder of one run: a new run, or a run to resume.

    `run.json` is written first with `"status": "running"` and last with `"finished"`, so an unfinished run is
    recognized. While a process works in the folder it holds a lock. The operating system releases the lock when the
    process ends, even after a crash.

    Args:
        path: path of the folder; parents are created. An unfinished run in the folder is resumed.
        overwrite: replace a finished run, or an unfinished run with another configuration. An unfinished run with the
            same configuration is resumed. The old run is removed in `configure`; an error before that leaves the old
            run unchanged.
        lock: False for a folder that no other process uses.

    Raises:
        RunFolderError: if `path` holds a finished run or is not a run folder, if another process works in it, or if it
            cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, RunFolder(f"{folder}/run") as run:
        ...     run.configure({"seed": 0})
        ...     run.update(status="running")
        ...     sorted(file.name for file in run.path.iterdir())
        ['.lock', 'run.json']
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
        for name in FILES:  # run.json comes last: until then this is still a run folder
            remove_leftovers(self / name)
            (self / name).unlink(missing_ok=True)

    def _read_record(self) -> dict[str, Any]:
        try:
            return read_record(self.path)
        except RunFolderError as error:
            raise RunFolderError(f"{error} {START_AGAIN}") from None

    def close(self) -> None:
        """Release the lock."""
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
        """Set the configuration of the run. An unfinished run in this folder must have the same configuration.

        Args:
            configuration: JSON; everything that determines the result of the run, on any backend.
            defaults: values for entries that are missing in the `run.json` of an older version, nested like the
                configuration.
            present: maps a configuration of an older version to the one that this version would write.

        Raises:
            RunFolderError: if the unfinished run has another configuration; the message lists the differences.
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
        """The folder of the run's checkpoints, or of a phase's checkpoints.

        Args:
            phase: name of a phase that has checkpoints of its own. Defaults to the run's.

        Returns:
            The path; the folder need not exist.
        """
        return self / CHECKPOINTS if phase is None else self / CHECKPOINTS / phase

    def load_newest(
        self, model: keras.Model, complain: Callable[[str], None], phase: str | None = None
    ) -> Checkpoint | None:
        """Load the run's newest undamaged checkpoint into `model`.

        Args:
            model: compiled, with a built optimizer.
            complain: receives a one-line message for each damaged checkpoint that is skipped.
            phase: name of a phase with separate checkpoints; None for the checkpoints of the run.

        Returns:
            The checkpoint; None if there is no checkpoint.

        Raises:
            RunFolderError: if no checkpoint can be used. With `overwrite` the checkpoints are removed instead, unless a
                newer version wrote them.
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
        """Add entries to `run.json`. The file is replaced in one step, so it is never half-written.

        The status `"running"` clears `stopped` and `reason`.

        Args:
            **entries: what to add, JSON.
        """
        if self._is_to_be_cleared:
            self._clear()
        if entries.get("status") == "running":
            for name in ("stopped", "reason"):
                self.record.pop(name, None)
        self.record.update(entries)
        write_atomically(self / "run.json", (json.dumps(self.record, indent=2, allow_nan=False) + "\n").encode())

    def write_history(self, history: Mapping[str, Sequence[float]]) -> None:
        """Write `history.csv`: one row per epoch, counted from 1.

        Args:
            history: for each column, such as `"loss"`, a value for each epoch.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["epoch", *history])
        for epoch, row in enumerate(zip(*history.values(), strict=True), start=1):
            writer.writerow([epoch, *row])
        write_atomically(self / "history.csv", text.getvalue().encode())

    def files(self) -> list[Path]:
        """The files that the run has written so far."""
        return [self / name for name in sorted(FILES) if (self / name).is_file()]


def _comes_before_a_run(name: str) -> bool:
    """Whether a file may exist before the run begins. A run writes `run.json` first."""
    return name in (LOCK, AUGMENTATION) or is_aside(name, "run.json")


def completed(before: Any, now: Any, defaults: Any) -> Any:
    """`before`, plus the entries of `defaults` that `now` has and `before` lacks."""
    if not all(isinstance(value, Mapping) for value in (before, now, defaults)):
        return before
    missing = {
        key: json.loads(json.dumps(defaults[key], default=repr)) for key in now if key not in before and key in defaults
    }
    return {key: completed(value, now.get(key), defaults.get(key)) for key, value in before.items()} | missing


def differences(before: Any, now: Any, path: str = "") -> Any:
    """The differences of two JSON values, one line each: `recipe.epochs was 3 and is 5`."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield f"{path} was {json.dumps(before)} and is {json.dumps(now)}"


def now() -> str:
    """The current time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
