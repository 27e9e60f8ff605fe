"""An array in a file: first its header is read, then it is checked, then its data is read.

A compressed file of some megabytes can hold gigabytes. So a reader of datasets takes the sizes of the arrays from their
headers, refuses arrays that are too large or do not fit together, and only then unpacks the data. Errors behind the
header (a checksum, a wrong length) are found before memory is filled: a dataset of more than 256 MiB is checked once
before it is read.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

LARGEST = 4 << 30  # bytes of a dataset's arrays, all together
LARGEST_PACKED = 1 << 30  # bytes of compressed arrays, unpacked: this takes 3 to 4 seconds
MOST_IMAGES = 10_000_000  # in each part
CHECKED_FIRST = 256 << 20  # bytes; larger datasets are checked before they are read
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class ArrayFile:
    """An array in a file, known by its header.

    Attributes:
        where: its name in error messages.
        dtype: dtype of the array.
        shape: shape of the array.
        is_packed: whether it is compressed.
        chunks: yields its bytes in pieces, `nbytes` in all; raises a `ValueError` if it cannot.
        is_fortran: whether the first axis varies fastest.
    """

    where: str
    dtype: np.dtype
    shape: tuple[int, ...]
    is_packed: bool
    chunks: Callable[[], Iterator[bytes]]
    is_fortran: bool = False

    @property
    def nbytes(self) -> int:
        """Size of the unpacked data, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def check(self) -> None:
        """Check the data once, in little memory. Raises a `ValueError` if `read` would."""
        for _ in self.chunks():
            pass

    def read(self) -> np.ndarray:
        """Read the array."""
        data = np.empty(self.nbytes, "uint8")
        done = 0
        for chunk in self.chunks():
            data[done : done + len(chunk)] = np.frombuffer(chunk, "uint8")
            done += len(chunk)
        array = data.view(self.dtype)
        return array.reshape(self.shape[::-1]).T if self.is_fortran else array.reshape(self.shape)


def check_sizes(arrays: Mapping[str, ArrayFile]) -> None:
    """Raise an error if arrays are too large, before any data is read."""
    for array in arrays.values():
        if array.shape and array.shape[0] > MOST_IMAGES:
            raise ValueError(
                f"{array.where}: a dataset may have at most {MOST_IMAGES:,} images. Received: {array.shape[0]:,}"
            )
    check_bytes("a dataset", sum(array.nbytes for array in arrays.values()))
    packed = sum(array.nbytes for array in arrays.values() if array.is_packed)
    if packed > LARGEST_PACKED:
        raise ValueError(
            f"{next(iter(arrays.values())).where}: compressed files may hold at most {LARGEST_PACKED >> 30} GiB. "
            f"Uncompress larger ones (gunzip; `numpy.savez`). Received: {packed:,} bytes"
        )


def check_bytes(what: str, size: int) -> None:
    """Raise an error for more than `LARGEST` bytes."""
    if size > LARGEST:
        raise ValueError(f"The images of {what} may take at most {LARGEST >> 30} GiB. Received: {size:,} bytes")


def check_data(arrays: Mapping[str, ArrayFile]) -> None:
    """Check the data of a large dataset before any of it is kept."""
    if sum(array.nbytes for array in arrays.values()) > CHECKED_FIRST:
        for array in arrays.values():
            array.check()


def exactly(pieces: Iterator[bytes], wanted: int, where: str, shape: tuple[int, ...]) -> Iterator[bytes]:
    """Yield `pieces`; raise an error if they are not `wanted` bytes in all."""
    done = 0
    for piece in pieces:
        done += len(piece)
        if done > wanted:
            raise ValueError(f"{where} is too long: its header says {shape}, {wanted} bytes, and more follow.")
        yield piece
    if done < wanted:
        raise ValueError(f"{where} is truncated: its header says {shape}, {wanted} bytes, and {done} follow.")
