"""IDX files, MNIST's own format: 0, 0, type, rank; one big-endian uint32 per dimension; the data. Gzipped or not."""

import io
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from keras_vit_edu._files import open_regular
from keras_vit_edu.datasets.array_file import CHUNK, ArrayFile, exactly

GZIP = b"\x1f\x8b"
PACKED_AT_ONCE = 1 << 16  # compressed bytes
SMALL_MEMBER = 1 << 14  # bytes; a gzip file of smaller members takes long to read


def open_idx(file: Path) -> ArrayFile:
    """Read the header of an IDX file.

    Raises:
        ValueError: if it is not a regular file, is not an IDX file of unsigned bytes, or has not the length of its
            header.
    """
    with open_regular(file) as stream:
        length = os.fstat(stream.fileno()).st_size
        first = stream.read(CHUNK)
    is_packed = first.startswith(GZIP)
    begin = next(_unpacked(io.BytesIO(first), file), b"") if is_packed else first
    if len(begin) < 4 or begin[:3] != b"\0\0\x08":
        raise ValueError(
            f"{file} cannot be read: it is no IDX file of unsigned bytes: "
            f"it begins with {begin[:4].hex(' ') or 'nothing'}."
        )
    rank = begin[3]
    start = 4 + 4 * rank
    if len(begin) < start:
        raise ValueError(f"{file} is truncated: its header ends after {len(begin)} of {start} bytes.")
    shape = tuple(int(side) for side in np.frombuffer(begin, ">u4", count=rank, offset=4))
    wanted = math.prod(shape)
    if not is_packed and length - start != wanted:
        raise ValueError(
            f"{file} is {'truncated' if length - start < wanted else 'too long'}: its header says {shape}, "
            f"{wanted} bytes, and {length - start} follow."
        )
    if is_packed and length > most_packed(start + wanted):
        raise ValueError(f"{file} is too long: its header says {shape}, {wanted} bytes, and the file has {length}.")

    def chunks() -> Iterator[bytes]:
        with open_regular(file) as stream:
            pieces = _unpacked(stream, file) if is_packed else _plain(stream)
            yield from exactly(_without_start(pieces, start), wanted, str(file), shape)

    return ArrayFile(str(file), np.dtype("uint8"), shape, is_packed, chunks)


def most_packed(size: int) -> int:
    """The largest compressed size of `size` bytes, headers included. Deflate stores what it cannot shorten."""
    return size + size // 20 + CHUNK


def _plain(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(CHUNK):
        yield piece


def _unpacked(stream: BinaryIO, file: Path) -> Iterator[bytes]:
    """The content of a gzip file, in pieces of at most `CHUNK` bytes."""
    unpack = zlib.decompressobj(wbits=31)  # 31: with gzip's header and checksum
    packed, done, members = b"", 0, 1
    while True:
        packed = packed or stream.read(PACKED_AT_ONCE)
        if not packed:
            raise ValueError(f"{file} cannot be read: the compressed data is cut off.")
        try:
            piece = unpack.decompress(packed, CHUNK)
        except zlib.error as error:
            raise ValueError(f"{file} cannot be read: {error}") from None
        packed = unpack.unconsumed_tail
        done += len(piece)
        if piece:
            yield piece
        if unpack.eof:  # another member follows, as `cat` and bgzip write them, or the end
            packed = unpack.unused_data or stream.read(PACKED_AT_ONCE)
            if not packed:
                return
            members += 1
            if members > 16 + done // SMALL_MEMBER:
                raise ValueError(f"{file} cannot be read: it is compressed in too many parts.")
            unpack = zlib.decompressobj(wbits=31)


def _without_start(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    """All but the first `count` bytes."""
    for piece in pieces:
        yield piece[count:] if count else piece
        count = max(count - len(piece), 0)
