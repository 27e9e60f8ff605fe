"""The arrays of an npz file, a zip of `.npy` files. Opening it reads only headers."""

import contextlib
import io
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from keras_vit_edu._files import open_regular, open_zip
from keras_vit_edu.datasets.array_file import CHUNK, ArrayFile, exactly
from keras_vit_edu.datasets.idx import most_packed

NPY = b"\x93NUMPY"
HEADER = 1 << 14  # largest header of an array, in bytes
# What zipfile, zlib and NumPy raise for files that are damaged, encrypted or of another kind.
UNREADABLE = (
    OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RuntimeError,
    SyntaxError, MemoryError, NotImplementedError, RecursionError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def open_npz(file: Path) -> "Contents":
    """Open an npz file.

    Accessing an array that cannot be read raises an error: see `Contents`.

    Raises:
        ValueError: if it is not a regular file or not an npz file.
    """
    try:
        with _opened(file) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
    except UNREADABLE as error:
        raise ValueError(complaint(file, error)) from None
    return Contents(file, entries)


class Contents(dict[str, ArrayFile]):
    """Arrays by name. An array's header is read when the array is accessed."""

    def __init__(self, file: Path, entries: dict[str, zipfile.ZipInfo]) -> None:
        super().__init__()
        self.file, self.entries = file, entries

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def names(self) -> list[str]:
        """The names of all arrays."""
        return list(self.entries)

    def __missing__(self, name: str) -> ArrayFile:
        try:
            self[name] = _array(self.file, name, self.entries[name])
        except UNREADABLE as error:
            raise ValueError(complaint(self.file, error)) from None
        return self[name]


def complaint(file: Path, error: Exception) -> str:
    """The message for an npz file that cannot be read."""
    text = (str(error).rstrip(".") or type(error).__name__).splitlines()[0]
    return text if text.startswith(f"{file} cannot be read") else f"{file} cannot be read as an npz file: {text}"


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    with open_regular(file) as stream:
        begin = stream.read(len(NPY))
        if begin == NPY:
            raise ValueError("it holds one array without a name")
        if begin and not begin.startswith(b"PK"):
            raise ValueError("it is pickled (or no npz at all), and a pickle could run code, so it is not opened")
        stream.seek(0)
        with open_zip(stream) as archive:
            yield archive


def _array(file: Path, name: str, entry: zipfile.ZipInfo) -> ArrayFile:
    where = f"{file} cannot be read as an npz file: {name}"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{where} is compressed by another method than NumPy's")
    if entry.compress_size > most_packed(entry.file_size):
        raise ValueError(f"{where} takes {entry.compress_size} bytes, and unpacked {entry.file_size}")
    with _opened(file) as archive, archive.open(entry) as stream:
        begin = io.BytesIO(stream.read(HEADER))
    shape, is_fortran, dtype = _header(begin, where)
    start = begin.tell()
    array = ArrayFile(where, dtype, shape, entry.compress_type != zipfile.ZIP_STORED, lambda: chunks(), is_fortran)
    if entry.file_size - start != array.nbytes:
        kind = "truncated" if entry.file_size - start < array.nbytes else "too long"
        raise ValueError(
            f"{where} is {kind}: its header says {shape}, {array.nbytes} bytes, and {entry.file_size - start} follow"
        )

    def chunks() -> Iterator[bytes]:
        try:
            with _opened(file) as archive, archive.open(entry) as stream:
                stream.read(start)
                yield from exactly(iter(lambda: stream.read(CHUNK), b""), array.nbytes, where, shape)
        except UNREADABLE as error:
            raise ValueError(complaint(file, error)) from None

    return array


def _header(stream: BinaryIO, where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the shape, whether the first axis varies fastest, and the dtype."""
    version = np.lib.format.read_magic(stream)
    readers: dict[Any, Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"{where} has format {version}; only 1.0 and 2.0 are supported")
    shape, is_fortran, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError(f"{where} is pickled, and a pickle could run code, so it is not opened")
    if min(shape, default=0) < 0:
        raise ValueError(f"{where} has the shape {shape}")
    return shape, is_fortran, dtype
