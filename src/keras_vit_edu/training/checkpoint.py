"""Checkpoints on disk: save one at the end of each epoch, and load the newest. `session.py` resumes a run.

A checkpoint is one safetensors file with everything that the rest of the run depends on: the weights, the optimizer
(with its moving average), the dropout counters, the number of finished epochs and their history. It is written under
another name, flushed to the disk and renamed in one step, so a crash leaves no half-written checkpoint. A checksum in
the header detects faulty disks. Batches depend only on the seed and the epoch, so an interrupted epoch is run again
from its beginning with the same result.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors
import safetensors.numpy

from keras_vit_edu._files import write_atomically

FORMAT_VERSION = 1
SPARE_BYTES = 100 << 20  # room for the history in a checkpoint, beside the state of the model
KEPT = 2  # the newest, and the one before in case the newest is damaged
NUMBERED = re.compile(r"\b(seed_generator|adam_?w?|sgd|lion)(_\d+)?/|\b(opened_)?vit_(backbone|classifier)(_\d+)?[/_]")
FILE_NAME = re.compile(r"epoch-(\d{5,})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint besides its arrays."""

    file: Path
    epochs_done: int
    history: dict[str, list[float]]


def state_arrays(model: keras.Model) -> dict[str, np.ndarray]:
    """All variables that training changes, under names that are the same on every backend and in every process.

    They are the variables of the model (weights and dropout counters) and of its optimizer (step, moments, moving
    average). A name holds the position and the path of its variable.
    """
    return {name: _to_numpy(variable) for name, variable in _variables(model).items()}


def _variables(model: keras.Model) -> dict[str, Any]:
    named = {}
    for owner, variables in (("model", model.variables), ("optimizer", model.optimizer.variables)):
        for position, variable in enumerate(variables):
            named[_unnumbered(f"{owner}/{position:04}/{variable.path}")] = variable
    return named


def _unnumbered(name: str) -> str:
    """Remove the numbers that Keras appends to default names, such as adam_w_1 and dense_7. They differ per process."""
    return re.sub(r"_\d+(?=[/_]|$)", "", re.sub(NUMBERED, "", name))


def _to_numpy(variable: Any) -> np.ndarray:
    array = keras.ops.convert_to_numpy(variable.value)
    # Counters are int64, uint32 or int32, depending on the backend. A file always holds int64.
    return array.astype("int64" if array.dtype.kind in "iu" else array.dtype, order="C")


def save_checkpoint(folder: Path, model: keras.Model, epochs_done: int, history: Mapping[str, list[float]]) -> Path:
    """Write a checkpoint in one step, and remove all but the newest two.

    Args:
        folder: folder of the checkpoints; created if it does not exist.
        model: compiled, with a built optimizer.
        epochs_done: number of finished epochs.
        history: their metrics, JSON.

    Returns:
        The file.

    Raises:
        OSError: if it cannot be written. The former checkpoints are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = state_arrays(model)
    header = {
        "format_version": str(FORMAT_VERSION),
        "epochs_done": str(epochs_done),
        "history": json.dumps(history),
    }
    header["sha256"] = _checksum(header, arrays)
    file = folder / f"epoch-{epochs_done:05}.safetensors"
    write_atomically(file, safetensors.numpy.save(arrays, metadata=header))
    for old in _files(folder)[KEPT:]:
        old.unlink()
    return file


def load_newest(folder: Path, model: keras.Model, complain: Callable[[str], None]) -> Checkpoint | None:
    """Load the newest undamaged checkpoint into `model`.

    Args:
        folder: folder of the checkpoints; it may be missing.
        model: compiled, with a built optimizer.
        complain: receives a one-line message for each damaged checkpoint that is skipped.

    Returns:
        The checkpoint; None if there is no checkpoint.

    Raises:
        RunFolderError: if all checkpoints are damaged, or if the checkpoint is from another model or optimizer, or in a
            newer format.
    """
    files = _files(folder)
    largest = SPARE_BYTES + 2 * sum(8 * math.prod(variable.shape) for variable in _variables(model).values())
    for file in files:
        try:
            found, arrays = _read(file, largest)
        except _Damaged as error:
            complain(f"{file} is damaged ({error}); taking the checkpoint before it.")
            continue
        _assign(model, arrays, file)
        return found
    if files:
        raise RunFolderError(f"Every checkpoint in {folder} is damaged.")
    return None


class RunFolderError(ValueError):
    """A run folder cannot be used. The message is for the user who named the folder."""


class NewerFormat(RunFolderError):
    """A newer version of this library wrote the checkpoint."""


class _Damaged(Exception):
    pass


def _files(folder: Path) -> list[Path]:
    """The checkpoint files, newest first."""
    if not folder.is_dir():
        return []
    numbers = {file: int(found[1]) for file in folder.iterdir() if (found := FILE_NAME.fullmatch(file.name))}
    return sorted(numbers, key=numbers.__getitem__, reverse=True)


def _read(file: Path, largest: float = math.inf) -> tuple[Checkpoint, dict[str, np.ndarray]]:
    """Read a checkpoint and its arrays. The checksum is checked before anything else."""
    try:
        if not file.is_file() or file.stat().st_size > largest:
            raise _Damaged(f"it is not a file, or larger than {largest:,} bytes, the limit for this model")
        with safetensors.safe_open(file, framework="numpy") as stored:
            header = dict(stored.metadata() or {})
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
    # ValueError and the others: for arrays that NumPy does not have
    except (OSError, safetensors.SafetensorError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise _Damaged(error) from None
    if header.pop("sha256", None) != _checksum(header, arrays):
        raise _Damaged("its checksum is wrong")
    version = header.get("format_version", "")
    if version.isdecimal() and int(version[:9]) > FORMAT_VERSION:
        raise NewerFormat(
            f"{file} is a checkpoint of format {version[:9]}; this version of keras_vit_edu reads up to "
            f"{FORMAT_VERSION}. Update it to resume this run, or choose another folder."
        )
    try:
        epochs_done, history = int(header["epochs_done"]), json.loads(header["history"])
    except (LookupError, ValueError, RecursionError) as error:
        raise _Damaged(f"its epochs or its history cannot be read: {error!r}") from None
    if not isinstance(history, dict) or not all(_is_column(column) for column in history.values()):
        raise _Damaged("its history is not a table of numbers")
    if len({len(column) for column in history.values()}) > 1:
        raise _Damaged("the columns of its history have different lengths")
    return Checkpoint(file, epochs_done, history), arrays


def _is_column(values: Any) -> bool:
    """Whether the values are a list of numbers."""
    return isinstance(values, list) and all(isinstance(value, (int, float)) for value in values)


def _checksum(header: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _assign(model: keras.Model, arrays: Mapping[str, np.ndarray], file: Path) -> None:
    variables = _variables(model)
    arrays = {_unnumbered(name): array for name, array in arrays.items()}  # older versions kept the numbers of layers
    expected = {(name, tuple(variable.shape)) for name, variable in variables.items()}
    stored = {(name, array.shape) for name, array in arrays.items()}
    if expected != stored:
        differing = sorted(expected ^ stored)
        raise RunFolderError(
            f"{file} is from another model or optimizer. {len(differing)} variables exist on one side only, "
            f"first {differing[0]}."
        )
    for name, variable in variables.items():
        variable.assign(arrays[name].astype(keras.backend.standardize_dtype(variable.dtype)))
