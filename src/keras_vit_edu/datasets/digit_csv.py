"""Read images from a CSV file with a label and the pixels in each line, such as Kaggle's digits."""

import codecs
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_vit_edu._files import open_regular, printable

LARGEST_CSV = 256 << 20  # bytes; MNIST's 60,000 training images take 110 MB
LONGEST_LINE = 1 << 20  # bytes
CHUNK = 1 << 22  # bytes


def read_csv(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read images and labels from a CSV file, with or without a header.

    Args:
        file: each line has a label and the pixels of a square grey image, 0 to 255, as whole numbers with commas.

    Returns:
        uint8 images `(n, H, H)` and int64 labels `(n,)`, each 0 to 999.

    Raises:
        ValueError: if it is not a regular file, is larger than 256 MiB, has no labels, or is not such a table. Names
            the line.
    """
    with open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > LARGEST_CSV:
            raise ValueError(f"{file}: a CSV file may have at most {LARGEST_CSV >> 20} MiB. Received: {size:,} bytes")
        columns = _columns(file, stream.readline(LONGEST_LINE))
        has_names = not _is_numbers(stream)
        labels, pixels = [], []
        lines = int(has_names)
        for text in _whole_lines(stream, file):
            table = _table(text, columns, file, lines)
            lines += len(table)
            labels.append(table[:, 0].astype("int64"))
            if table[:, 1:].size and table[:, 1:].max() > 255:
                raise ValueError(f"{file}: pixels must be 0 to 255. Received: {table[:, 1:].max()}")
            pixels.append(table[:, 1:].astype("uint8"))
    if not labels:
        raise ValueError(f"{file}: there must be a line with a label and pixels. Received: none")
    side = math.isqrt(columns - 1)
    return np.concatenate(pixels).reshape(-1, side, side), np.concatenate(labels)


def has_labels(file: Path) -> bool:
    """Whether the first line of a CSV file belongs to a table with labels."""
    try:
        with open_regular(file) as stream:
            _columns(file, stream.readline(LONGEST_LINE))
    except ValueError:
        return False
    return True


def _columns(file: Path, line: bytes) -> int:
    """The number of columns, from the first line."""
    entries = _entries(line)
    is_names = any(entry and not entry.isdigit() for entry in entries)
    if is_names and entries[0].lower() != "label":
        raise ValueError(
            f"{file} has no labels: its first column must be `label`. (Kaggle's test.csv has no labels. Use train.csv: "
            f"a part of it is kept for the test.) Received: {printable(entries[0][:40])!r}"
        )
    if len(entries) < 2 or math.isqrt(len(entries) - 1) ** 2 != len(entries) - 1:
        raise ValueError(
            f"{file} is no CSV file of images: a line must have a label and the pixels of a square, such as 1 + 784. "
            f"Received: {len(entries)} columns"
        )
    return len(entries)


def _entries(line: bytes) -> list[str]:
    text = line.decode("utf-8-sig", "replace").rstrip("\r\n")
    return [entry.strip().strip('"') for entry in text.split(",")]


def _is_numbers(stream) -> bool:  # type: ignore[no-untyped-def]
    """Whether the first line has numbers. Moves the stream to the first line of numbers."""
    stream.seek(0)
    line = stream.readline(LONGEST_LINE)
    if all(entry.isdigit() for entry in _entries(line)):
        stream.seek(len(codecs.BOM_UTF8) if line.startswith(codecs.BOM_UTF8) else 0)  # a mark that Excel writes
        return True
    return False


def _whole_lines(stream, file: Path) -> Iterator[bytes]:  # type: ignore[no-untyped-def]
    """Pieces of some megabytes, each ending with a line break."""
    rest = b""
    while piece := stream.read(CHUNK):
        text = rest + piece
        end = text.rfind(b"\n") + 1
        if not end and len(text) > LONGEST_LINE + CHUNK:
            raise ValueError(f"{file}: a line may have at most {LONGEST_LINE:,} bytes.")
        if end:
            yield text[:end]
        rest = text[end:]
    if rest.strip():
        yield rest + b"\n"


def _table(text: bytes, columns: int, file: Path, lines_before: int) -> np.ndarray:
    """Parse whole numbers of at most three digits, uint16 `(lines, columns)`."""
    text = text.replace(b"\r", b"").replace(b" ", b"")
    while b"\n\n" in text:
        text = text.replace(b"\n\n", b"\n")
    characters = np.frombuffer(text.lstrip(b"\n"), "uint8")
    is_break = characters == ord("\n")
    is_end = is_break | (characters == ord(","))
    digits = characters - np.uint8(ord("0"))  # other characters wrap to 10 or more
    ends = np.flatnonzero(is_end)
    widths = np.diff(ends, prepend=-1) - 1  # of each number
    line_ends = np.flatnonzero(is_break[ends])
    wrong = [
        np.flatnonzero(np.diff(line_ends, prepend=-1) != columns),  # lines
        np.searchsorted(ends[line_ends], np.flatnonzero((digits >= 10) & ~is_end)),
        np.searchsorted(line_ends, np.flatnonzero((widths < 1) | (widths > 3))),
    ]
    lines = [int(places[0]) for places in wrong if len(places)]
    if lines:
        raise ValueError(
            f"{file}, line {lines_before + min(lines) + 1} or after: a line must have {columns} whole numbers of at "
            "most three digits, separated by commas."
        )
    values = digits[ends - 1].astype("uint16")
    for place, factor in ((2, 10), (3, 100)):
        longer = widths >= place
        values[longer] += np.uint16(factor) * digits[ends[longer] - place]
    return values.reshape(-1, columns)
