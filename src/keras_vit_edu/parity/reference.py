"""The committed reference: expected results for a single backend.

`reference.npz` holds the float64 oracle's outputs, gradients and logits, and digests of what must be equal to the bit:
initial weights, dropout masks, batches, augmented images, patches. `tools/make_parity_reference.py` makes it. It has no
losses of a training: the oracle does not train.
"""

import functools
import hashlib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

import numpy as np

from keras_vit_edu.parity.checks import Check, Measurement
from keras_vit_edu.parity.compare import EQUAL_BITS

FILE = "reference.npz"


def digest(array: np.ndarray) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of an array's dtype, shape and little-endian bytes."""
    little = array.astype(array.dtype.newbyteorder("<"))
    return hashlib.sha256(f"{array.dtype.name}{array.shape}".encode() + little.tobytes()).hexdigest()[:16]


def reference_of(check: Check, measurements: Iterable[Measurement]) -> dict[str, np.ndarray]:
    """The entries of a reference for the measurements of a check: an array or a digest each, by `check/row/name`."""
    kept = {}
    for measurement in measurements:
        value = measurement.actual if measurement.expected is None else measurement.expected
        if check.tolerances[measurement.row] == EQUAL_BITS:
            value = np.array(digest(value))
        kept[f"{check.name}/{measurement.row}/{measurement.name}"] = value
    return kept


def committed(check: str, row: str) -> Mapping[str, np.ndarray]:
    """The part of the committed reference for one row, by name."""
    prefix = f"{check}/{row}/"
    return {key.removeprefix(prefix): value for key, value in _load().items() if key.startswith(prefix)}


@functools.cache
def _load() -> dict[str, np.ndarray]:
    with resources.as_file(resources.files(__package__) / FILE) as file:
        return read(file)


def read(file: Path) -> dict[str, np.ndarray]:
    """Everything in a reference file, by `check/row/name`."""
    with np.load(file, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays}
