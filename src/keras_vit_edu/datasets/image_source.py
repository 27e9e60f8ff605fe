"""The source of an image: a path, a binary stream or an image of Pillow; with errors for anything else."""

import contextlib
import errno
import functools
import io
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from keras_vit_edu._files import printable

LARGEST_STREAM = 256 << 20  # bytes
CHUNK = 1 << 20
_TURNS = threading.Condition()
_BUSY: set[int] = set()  # ids of sources that a thread is reading

# Brands of the file type box, the first thing in an HEIF file (ISO/IEC 23008-12, 23000-22).
AVIF_BRANDS = (b"avif", b"avis")
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")


def is_stream(value: Any) -> bool:
    """Whether it is a stream of bytes, such as `io.BytesIO` or a file opened with `"rb"`."""
    return callable(getattr(value, "read", None))


def is_pillow_image(value: Any) -> bool:
    """Whether it is an image of Pillow. Does not import Pillow."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


def path_of(value: Any, what: str = "A file") -> str:
    """The path in a string or `os.PathLike`.

    Raises:
        ValueError: if it is neither, or empty: `Path("")` would be the working directory.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError(f"{what} must be given as a path. Received: {type(value).__name__}")
    path = os.fsdecode(value)
    if not path:
        raise ValueError(f"{what} must be given as a path. Received: an empty text")
    return path


def name_of(source: Any) -> str:
    """The name of a source for a message, on one line."""
    if isinstance(source, (str, os.PathLike)):
        return printable(os.fsdecode(source))
    name = getattr(source, "name", None) or getattr(source, "filename", None)
    return printable(name) if isinstance(name, str) and name else f"a {type(source).__name__}"


@contextlib.contextmanager
def alone_with(source: Any) -> Iterator[None]:
    """Wait until no other thread reads this source. A stream has one position, an image of Pillow one decoder."""
    with _TURNS:
        _TURNS.wait_for(lambda: id(source) not in _BUSY)
        _BUSY.add(id(source))
    try:
        yield
    finally:
        with _TURNS:
            _BUSY.remove(id(source))
            _TURNS.notify_all()


def content_of(stream: BinaryIO) -> bytes:
    """Read a whole stream, from its beginning if it is seekable; at most 256 MiB.

    Raises:
        ValueError: if it cannot be read, gives no bytes, or holds more.
    """
    data = io.BytesIO()
    try:
        with alone_with(stream):
            if stream.seekable():
                stream.seek(0)
            while data.tell() <= LARGEST_STREAM and (some := stream.read(CHUNK)):
                data.write(some)
    except Exception as error:  # the object may be anything
        reason = str(error).rstrip(".") or type(error).__name__
        hint = "; a file must be opened in binary mode" if isinstance(error, TypeError) else ""
        raise ValueError(f"The stream cannot be read: {reason}{hint}. Received: {name_of(stream)}") from None
    if data.tell() > LARGEST_STREAM:
        raise ValueError(f"A stream holds at most {LARGEST_STREAM:,} bytes. Received: {name_of(stream)} with more")
    if not data.tell():
        raise ValueError(f"The file is empty. Received: {name_of(stream)}")
    return data.getvalue()


def regular_file(source: Any) -> str:
    """The path of an existing, ordinary file that is not empty.

    Raises:
        ValueError: if it is not; says why.
    """
    path, name = path_of(source, "An image file"), name_of(source)
    if os.path.isdir(path):
        if os.path.islink(path) and leads_above(path, os.path.realpath(os.path.dirname(os.path.abspath(path)))):
            raise ValueError(f"The link leads in a circle, to a folder that it lies in. Received: {name}")
        names_in(path)  # raises an error, if it cannot be opened
        raise ValueError(f"A folder is no image file. Received: {name}")
    if not os.path.isfile(path):
        if leads_to_itself(path):
            raise ValueError(f"The link leads in a circle, to itself. Received: {name}")
        kind = "This is no ordinary file" if os.path.exists(path) else "There is no such file"
        raise ValueError(f"{kind}. Received: {name}")
    if os.path.getsize(path) == 0:
        raise ValueError(f"The file is empty. Received: {name}")
    return path


def names_in(folder: str | Path) -> list[str]:
    """The names in a folder. Raises an error if it cannot be listed, or its files cannot be opened by name."""
    try:
        os.stat(os.path.join(folder, "."))
        return os.listdir(folder)
    except OSError as error:
        raise ValueError(f"The folder cannot be opened: {error.strerror}. Received: {name_of(folder)}") from None


def leads_to_itself(path: str | Path) -> bool:
    """Whether a path is a link that leads back to itself, directly or through other links."""
    try:
        os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        return getattr(error, "errno", None) == errno.ELOOP
    return False


def leads_above(path: str | Path, *folders: str) -> bool:
    """Whether a path leads to one of these folders, or to a folder above it. They are absolute, links resolved."""
    real = os.path.join(os.path.realpath(path), "")
    return any(os.path.join(folder, "").startswith(real) for folder in folders)


# HEIF. ----------------------------------------------------------------------------------------------------------------


def heif_kind(source: str | io.BytesIO) -> str | None:
    """`"HEIC"` or `"AVIF"` if the first bytes say that the file is one."""
    try:
        if isinstance(source, io.BytesIO):
            head = source.getvalue()[:64]
        else:
            with open(source, "rb") as file:
                head = file.read(64)
    except OSError:  # Pillow will report it
        return None
    if head[4:8] != b"ftyp":
        return None
    size = min(max(int.from_bytes(head[:4], "big"), 16), len(head))
    brands = {head[8:12], *(head[start : start + 4] for start in range(16, size - 3, 4))}
    if brands.intersection(AVIF_BRANDS):
        return "AVIF"
    return "HEIC" if brands.intersection(HEIF_BRANDS) else None


@functools.cache
def can_read_heif() -> bool:
    """Let Pillow read HEIF files if pillow-heif is installed; returns whether it can."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True
