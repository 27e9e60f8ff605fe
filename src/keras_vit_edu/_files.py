"""Read files with a size limit, write them in one step, and make text from them safe to print."""

import contextlib
import json
import os
import re
import secrets
import stat
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LARGEST_JSON = 4 << 20  # bytes; Python's objects take up to 40 times as much
LARGEST_CONTENTS = 1 << 20  # bytes of a zip's table of contents: about ten thousand entries
ASIDE = re.compile(r"\.[0-9a-f]{8}\.new")  # the suffix of a file that is being written
# Invisible characters that some scripts and emoji need: zero-width non-joiner and joiner.
JOINERS = "\u200c\u200d"


# Reading. -------------------------------------------------------------------------------------------------------------


def read_bounded(file: str | Path, limit: int) -> bytes:
    """All bytes of a regular file.

    Args:
        file: its path.
        limit: the largest size in bytes.

    Raises:
        ValueError: if it is not a regular file (a folder, a pipe or a device, which may never end), if it holds more
            than `limit` bytes, or if it cannot be read.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a").write_bytes(b"abc")
        ...     read_bounded(Path(folder, "a"), limit=3)
        b'abc'
    """
    with open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            data = stream.read(limit + 1) if size <= limit else b""
        except OSError as error:
            raise ValueError(f"The file cannot be read: {error.strerror or error}. Received: {file}") from None
    if data is None:  # some files in /proc have no data yet
        raise ValueError(f"There is nothing to read. Received: {file}")
    if size > limit or len(data) > limit:  # the file may have grown meanwhile
        raise ValueError(f"The file may have at most {limit:,} bytes. Received: {file} with {max(size, len(data)):,}")
    return data


@contextlib.contextmanager
def open_regular(file: str | Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading; raise ValueError for anything else. Never blocks on a pipe."""
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"The file cannot be opened: {reason}. Received: {file}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"This is no regular file. Received: {file}")
    with open(descriptor, "rb") as stream:
        yield stream


def open_zip(stream: BinaryIO) -> zipfile.ZipFile:
    """Open the zip in a stream and read its table of contents.

    Raises:
        zipfile.BadZipFile: if it is not a zip, or if its table of contents is longer than `LARGEST_CONTENTS`.
    """
    careful = _Careful(stream)
    archive = zipfile.ZipFile(cast(BinaryIO, careful))
    careful.limit = None
    return archive


class _Careful:
    """A stream with a limit on every read: `zipfile` trusts the stated length of the table of contents."""

    def __init__(self, stream: BinaryIO) -> None:
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable
        self._read = stream.read
        self.limit: int | None = LARGEST_CONTENTS

    def read(self, size: int = -1) -> bytes:
        if self.limit is None:
            return self._read(size)
        data = self._read(size if 0 <= size <= self.limit else self.limit + 1)
        if len(data) > self.limit:
            raise zipfile.BadZipFile(f"its table of contents is longer than {self.limit:,} bytes")
        return data


def check_lies_in(folder: Path, name: str, kind: str, error: type[ValueError]) -> None:
    """Raise `error` if a file of the folder is a link to another place. `kind` names the contents of the folder."""
    file = folder / name
    if file.is_file() and file.resolve().parent != folder.resolve():
        raise error(
            f"The files of {kind} must lie in its folder, and {name} is a link that leads out of it. "
            f"Received: {file}, which is {file.resolve()}"
        )


def read_json(file: str | Path, limit: int = LARGEST_JSON) -> Any:
    """Read the value in a JSON file.

    Args:
        file: its path.
        limit: the largest size in bytes.

    Raises:
        ValueError: as `read_bounded` and `parse_json`; the message names the file.
    """
    data = read_bounded(file, limit)
    try:
        return parse_json(data)
    except ValueError as error:
        raise ValueError(f"{file} cannot be read as JSON: {error}") from None


def parse_json(data: bytes | str) -> Any:
    """Parse JSON in UTF-8. The bytes may begin with a byte-order mark, which Windows writes.

    Raises:
        ValueError: if it is not JSON, is nested too deep, or holds NaN or infinity, which are not JSON.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is beyond all floats")
    return number


# Writing. -------------------------------------------------------------------------------------------------------------


def write_atomically(file: Path, data: bytes) -> None:
    """Replace the content of `file` in one step: after a crash it holds the old content or the new."""
    with replacing(file) as stream:
        stream.write(data)


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """Yield a stream whose content replaces `file` in one step, when the block ends without an error.

    Until then the content is in a temporary file beside `file`, under a name that no other writer uses. Temporary files
    of killed processes are removed.
    """
    remove_leftovers(file)
    stream = _aside(file)
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            if fcntl is None:
                stream.close()  # Windows does not rename an open file
            os.replace(stream.name, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(stream.name)
        raise
    if os.name == "posix":  # flushing the folder makes the rename durable
        descriptor = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_together(folder: Path, files: dict[str, bytes], remove_first: str | None = None) -> None:
    """Replace several files of a folder, in the order of `files`; each file is replaced in one step.

    All content is on the disk before the first file is replaced. A full disk leaves the old files unchanged.

    Args:
        folder: holds the files.
        files: their content, by name. The last one is the manifest that names the others.
        remove_first: name of a file to remove before the first replacement.
    """
    with contextlib.ExitStack() as writers:
        for name in reversed(files):  # the stack closes them in reverse order
            stream = writers.enter_context(replacing(folder / name))
            stream.write(files[name])
            stream.flush()
            os.fsync(stream.fileno())
        if remove_first is not None:
            (folder / remove_first).unlink(missing_ok=True)


def _aside(file: Path) -> BinaryIO:
    """Create a temporary file beside `file`. A lock marks it as in use; a killed process leaves an unlocked file."""
    while True:
        stream = open(file.with_name(f"{file.name}.{secrets.token_hex(4)}.new"), "xb")  # noqa: SIM115
        if fcntl is not None:
            with contextlib.suppress(OSError):  # some file systems have no locks; nothing is removed there
                fcntl.flock(stream, fcntl.LOCK_EX)
        if os.path.lexists(stream.name):
            return stream
        stream.close()  # another process removed it before it was locked


def is_aside(name: str, *of: str) -> bool:
    """Whether `name` is a temporary name of one of the files `of`."""
    return any(name.startswith(file) and ASIDE.fullmatch(name[len(file) :]) for file in of)


def remove_leftovers(file: Path) -> None:
    """Remove temporary files that killed processes left beside `file`, but not those in use."""
    with contextlib.suppress(OSError):  # no permission to list the folder
        for name in os.listdir(file.parent):
            if is_aside(name, file.name):
                with contextlib.suppress(OSError, ValueError):
                    _remove_unless_in_use(file.with_name(name))


def _remove_unless_in_use(file: Path) -> None:
    if fcntl is None or file.is_symlink():  # Windows does not remove an open file, and temporary files are never links
        file.unlink()
        return
    with open_regular(file) as stream:
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)  # raises an error if the writer holds the lock
        file.unlink()


def to_json(name: str, content: Mapping[str, Any], limit: int = LARGEST_JSON) -> bytes:
    """The content of a JSON file, of at most `limit` bytes."""
    try:
        data = (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} would not be JSON: {error}") from None
    if len(data) > limit:
        largest = max(content, key=lambda field: len(json.dumps(content[field])))
        raise ValueError(
            f"{name} must have at most {limit:,} bytes, or it could not be loaded again. "
            f"Received: {len(data):,} bytes, most of them of `{largest}`"
        )
    return data


def check_writable(file: Path) -> None:
    """Check that a file can be written, before the work for its content begins. Its folder is created.

    Raises:
        ValueError: if it cannot be written; the message says why.
    """
    try:
        if file.exists() and not file.is_file():
            raise ValueError(f"This is no regular file. Received: {file}")
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
        if file.exists():
            with open(file, "ab"):
                pass
    except OSError as error:
        raise ValueError(f"The file cannot be written: {error.strerror or error}. Received: {file}") from None


# Printing. ------------------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Escape every control character and direction mark of `text`, for a terminal, a report or a picture.

    Untrusted class or file names may hold ESC, newlines, NUL, or marks that reverse the direction of the text.

    Examples:
        >>> print(printable("cat\\x1b[2J\\n"))
        cat\\x1b[2J\\n
    """
    return "".join(map(_printable_character, text))


def _printable_character(character: str) -> str:
    is_safe = character.isprintable() or character in JOINERS or unicodedata.category(character) == "Zs"
    return character if is_safe else character.encode("unicode_escape").decode("ascii")
