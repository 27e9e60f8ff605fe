"""An array in a file: known by its header, then checked, then read.

A compressed file of some megabytes can hold gigabytes. So whoever reads a dataset learns from the headers how large its
arrays are, refuses what is too large or does not fit together, and only then lets the data be unpacked. What goes wrong
after the header (a checksum, an end that comes too soon or too late) is found before memory is filled: an array of more
than 256 MiB is gone through once before it is read.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

LARGEST = 4 << 30  # bytes of a dataset's arrays, all together
LARGEST_PACKED = 1 << 30  # of those that are compressed: unpacking as many takes 3 to 4 seconds
MOST_IMAGES = 10_000_000  # for training, and for the test
CHECKED_FIRST = 256 << 20  # bytes of a dataset; larger ones are gone through before they are read
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class ArrayFile:
    """An array that lies in a file, of which the header is read.

    Attributes:
        where: what to call it in a complaint.
        dtype: of the array.
        shape: of the array.
        is_packed: whether it is compressed.
        chunks: gives its bytes piece by piece, `nbytes` in all; a `ValueError` if it cannot.
        is_fortran: whether the first axis runs fastest.
    """

    where: str
    dtype: np.dtype
    shape: tuple[int, ...]
    is_packed: bool
    chunks: Callable[[], Iterator[bytes]]
    is_fortran: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the data, unpacked."""
        return math.prod(self.shape) * self.dtype.itemsize

    def check(self) -> None:
        """Go through the data once, in little memory; a `ValueError` if `read` would fail."""
        for _ in self.chunks():
            pass

    def read(self) -> np.ndarray:
        """The array."""
        data = np.empty(self.nbytes, "uint8")
        done = 0
        for chunk in self.chunks():
            data[done : done + len(chunk)] = np.frombuffer(chunk, "uint8")
            done += len(chunk)
        array = data.view(self.dtype)
        return array.reshape(self.shape[::-1]).T if self.is_fortran else array.reshape(self.shape)


def check_sizes(arrays: Mapping[str, ArrayFile]) -> None:
    """Complain about arrays that are too large, before anything of them is read."""
    for array in arrays.values():
        if array.shape and array.shape[0] > MOST_IMAGES:
            raise ValueError(
                f"{array.where}: a dataset may have at most {MOST_IMAGES:,} images. Received: {array.shape[0]:,}"
            )
    check_bytes("a dataset", sum(array.nbytes for array in arrays.values()))
    packed = sum(array.nbytes for array in arrays.values() if array.is_packed)
    if packed > LARGEST_PACKED:
        raise ValueError(
            f"{next(iter(arrays.values())).where}: compressed files may hold at most {LARGEST_PACKED >> 30} GiB; "
            f"larger ones are read uncompressed (gunzip; `numpy.savez`). Received: {packed:,} bytes"
        )


def check_bytes(what: str, size: int) -> None:
    """Complain about more than `LARGEST` bytes."""
    if size > LARGEST:
        raise ValueError(f"The images of {what} may take at most {LARGEST >> 30} GiB. Received: {size:,} bytes")


def check_data(arrays: Mapping[str, ArrayFile]) -> None:
    """Go through the data of a large dataset before any of it is kept."""
    if sum(array.nbytes for array in arrays.values()) > CHECKED_FIRST:
        for array in arrays.values():
            array.check()


def exactly(pieces: Iterator[bytes], wanted: int, where: str, shape: tuple[int, ...]) -> Iterator[bytes]:
    """Hand `pieces` on; complain if they are not `wanted` bytes in all."""
    done = 0
    for piece in pieces:
        done += len(piece)
        if done > wanted:
            raise ValueError(f"{where} is too long: its header says {shape}, {wanted} bytes, and more follow.")
        yield piece
    if done < wanted:
        raise ValueError(f"{where} is truncated: its header says {shape}, {wanted} bytes, and {done} follow.")
