"""A model in an untrusted `.keras` file: every size is checked before anything is built or read.

The file is a zip of a configuration, `config.json`, and weights in HDF5, `model.weights.h5`. A few bytes of
HDF5 can claim to be terabytes, so what it holds is compared with its length first.
"""

import contextlib
import math
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vit_edu import _files, _keras_internals
from keras_vit_edu._building import budget_for, within
from keras_vit_edu._configuration import check_numbers
from keras_vit_edu._tensor_file import FREE_ARRAYS, LARGEST_FILE, MOST_ARRAYS

CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"
LARGEST_EXPANSION = 4  # of weights in the zip; Keras does not pack them at all
MOST_OBJECTS = 50_000  # groups and arrays in the HDF5 file
PIECE = 1 << 20  # numbers looked at together
BFLOAT16_STORED = np.dtype("V2")  # HDF5 has no bfloat16: Keras writes two bytes of no kind


def load_keras_file(file: str | Path) -> keras.Model:
    """The model in a `.keras` file, uncompiled; no code of the file is run.

    Args:
        file: what `model.save` wrote, of layers of Keras and of this library.

    Raises:
        ValueError: if it is no such file, is damaged, holds code, or anything in it is larger than the file allows; in
            one line that names the file.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(Path(folder, "a.keras"))
        ...     load_keras_file(Path(folder, "a.keras")).output_shape
        (None, 2)
    """
    file = Path(file)
    try:
        with _files.open_regular(file) as stream, _files.open_zip(stream) as archive:
            _check_entries(archive)
            config = _read_config(archive)
            with _extracted(archive) as weights:
                return _load(config, weights)
    except Exception as error:  # of zips, of HDF5, and whatever Keras raises for a configuration that makes no sense
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{file} cannot be loaded: {reason}") from None


def _check_entries(archive: zipfile.ZipFile) -> None:
    names = [entry.filename for entry in archive.infolist()[:4]]
    if sorted(names) != sorted({CONFIG, WEIGHTS, METADATA}):
        shown = ", ".join(names)[:100]
        raise ValueError(f"a .keras file has {CONFIG}, {WEIGHTS} and {METADATA}, and this one {shown}")
    weights = archive.getinfo(WEIGHTS)
    if weights.file_size > min(LARGEST_EXPANSION * weights.compress_size, LARGEST_FILE):
        raise ValueError(f"{WEIGHTS} unpacks to {weights.file_size:,} bytes, from {weights.compress_size:,}")


def _read_config(archive: zipfile.ZipFile) -> dict[str, Any]:
    with archive.open(CONFIG) as stream:
        data = stream.read(_files.LARGEST_JSON + 1)
    if len(data) > _files.LARGEST_JSON:
        raise ValueError(f"{CONFIG} has more than {_files.LARGEST_JSON:,} bytes")
    config = _files.parse_json(data)
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} holds no object")
    check_numbers(config)
    config.pop("compile_config", None)  # an optimizer would take twice the memory of the weights
    return config


@contextlib.contextmanager
def _extracted(archive: zipfile.ZipFile) -> Iterator[Path]:
    """The weights in a file of their own."""
    size = archive.getinfo(WEIGHTS).file_size
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, WEIGHTS)
        try:
            with archive.open(WEIGHTS) as packed, open(target, "wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{WEIGHTS} is damaged ({error})") from None
        if target.stat().st_size != size:
            raise ValueError(f"{WEIGHTS} has another size than the zip says")
        yield target


def _load(config: dict[str, Any], weights: Path) -> keras.Model:
    stored = _shapes(weights)
    elements = sum(math.prod(shape) * count for shape, count in stored.items())
    with _keras_internals.safe_mode(), within(budget_for(elements, stored.total(), is_filled_later=True)):
        model: Any = keras.saving.deserialize_keras_object(config)
    if not isinstance(model, keras.Model):
        raise ValueError(f"{CONFIG} is of a {type(model).__name__}, which is no model")
    missing = Counter(tuple(weight.shape) for weight in model.weights) - stored  # Keras saves no counter of a Dropout
    if missing:
        raise ValueError(f"{WEIGHTS} lacks arrays of the shapes {str(list(missing)[:3])[1:-1]}")
    model.load_weights(weights)
    return model


def _shapes(file: Path) -> "Counter[tuple[int, ...]]":
    """The shapes of all arrays in an HDF5 file, each of which must lie in the file itself, as it is, and be finite."""
    import h5py

    found: Counter[tuple[int, ...]] = Counter()
    room, seen = file.stat().st_size, 0
    most = min(FREE_ARRAYS + room // 1000, MOST_ARRAYS)

    def walk(group: Any) -> None:
        nonlocal room, seen
        for name in group:
            seen += 1
            if seen > MOST_OBJECTS:
                raise ValueError(f"{WEIGHTS} holds more than {MOST_OBJECTS:,} objects")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{WEIGHTS} holds a link, {name[:80]!r}")
            entry = group[name]
            if isinstance(entry, h5py.Group):
                walk(entry)
                continue
            is_plain = isinstance(entry, h5py.Dataset) and entry.shape is not None
            is_plain = is_plain and (entry.dtype.kind in "fiub" or entry.dtype == BFLOAT16_STORED)
            if not is_plain or entry.chunks or entry.external or entry.is_virtual or entry.dtype.itemsize > 8:
                raise ValueError(f"{WEIGHTS} holds {name[:80]!r}, which is no plain array of numbers")
            room -= entry.size * entry.dtype.itemsize
            found[tuple(entry.shape)] += 1
            if room < 0 or found.total() > most:
                raise ValueError(f"{WEIGHTS} tells of more numbers, or more arrays, than there is room for in it")
            _check_finite(entry, name)

    with h5py.File(file, "r") as opened:
        walk(opened)
    return found


def _check_finite(dataset: Any, name: str) -> None:
    is_bfloat16 = dataset.dtype == BFLOAT16_STORED
    if dataset.dtype.kind != "f" and not is_bfloat16:
        return
    for piece in _pieces(dataset):
        if not np.isfinite(piece.view("bfloat16") if is_bfloat16 else piece).all():
            raise ValueError(f"weights are finite numbers, and {name[:80]!r} holds NaN or infinity")


def _pieces(dataset: Any, index: tuple[int, ...] = ()) -> Iterator[np.ndarray]:
    """What lies at `index`, in arrays of at most `PIECE` numbers."""
    length, *inner = dataset.shape[len(index) :] or (1,)
    if math.prod(inner) > PIECE:
        for i in range(length):
            yield from _pieces(dataset, (*index, i))
        return
    rows = PIECE // max(math.prod(inner), 1)
    for i in range(0, length, rows):
        yield np.asarray(dataset[(*index, slice(i, i + rows))] if dataset.shape else dataset[()])
