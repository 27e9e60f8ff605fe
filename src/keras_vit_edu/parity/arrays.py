"""Write and read the arrays of a check, in an npz file."""

import math
import zipfile
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from keras_vit_edu import _files
from keras_vit_edu.parity.checks import Measurement

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def save_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an npz file. Float and int types of at most 8 bits that NumPy lacks are stored as float32."""
    is_small = {name: array.dtype.kind == "V" and array.dtype != BFLOAT16 for name, array in arrays.items()}
    known = {name: array.astype("float32") if is_small[name] else array for name, array in arrays.items()}
    np.savez(file, **dict[str, Any](known))


def load_arrays(file: Path) -> dict[str, np.ndarray]:
    """Read what `save_arrays` wrote. (NumPy stores the bits of a bfloat16, but not its type.)

    Raises:
        ValueError: if the stated size of an array is larger than the file.
    """
    with _files.open_regular(file) as stream, _files.open_zip(stream) as archive:
        for entry in archive.infolist():
            _check_array(archive, entry)
    with np.load(file, allow_pickle=False) as stored:
        arrays = dict[str, np.ndarray](stored)
    return {name: array.view(BFLOAT16) if array.dtype == "V2" else array for name, array in arrays.items()}


def _check_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Raise ValueError if an array is compressed, or if its header states another size than its entry has."""
    formats = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with archive.open(entry) as stream:
        shape, _, dtype = formats[np.lib.format.read_magic(stream)](stream)
        size = stream.tell() + math.prod(shape) * dtype.itemsize
    if entry.compress_type != zipfile.ZIP_STORED or dtype.hasobject or size != entry.file_size:
        raise ValueError(f"{entry.filename[:80]!r} has {entry.file_size:,} bytes, and tells of {size:,}")


def write(file: Path, measurements: Iterable[Measurement], rows: Container[str]) -> None:
    """Write measurements into an npz file.

    Raises:
        ValueError: if a measurement could not be compared: its row is not in `rows`, or its name occurs twice.
    """
    arrays = {}
    for measurement in measurements:
        if measurement.row not in rows:
            raise ValueError(f"There is no tolerance for the row {measurement.row!r} of {measurement.name!r}.")
        if f"actual/{measurement.row}/{measurement.name}" in arrays:
            raise ValueError(f"Two arrays of {measurement.row!r} are called {measurement.name!r}.")
        arrays[f"actual/{measurement.row}/{measurement.name}"] = measurement.actual
        if measurement.expected is not None:
            arrays[f"expected/{measurement.row}/{measurement.name}"] = measurement.expected
    save_arrays(file, arrays)


def read(file: Path) -> list[Measurement]:
    """Read what `write` wrote."""
    arrays = load_arrays(file)
    actual, expected = (
        {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        for prefix in ("actual/", "expected/")
    )
    found = []
    for key, array in actual.items():
        row, _, name = key.partition("/")
        found.append(Measurement(row, name, array, expected.get(key)))
    return found
