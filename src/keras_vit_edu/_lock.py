"""A folder that one process at a time works in."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[bool]:
    """Hold a lock on a folder that is there, in its file `.lock`.

    The operating system lets go of it when the process ends, however it ends.

    Args:
        folder: of which nobody else is to have the lock meanwhile.

    Yields:
        Whether the lock is ours; False if another process, or another part of this one, has it.

    Raises:
        OSError: if the file cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(folder) as first, locked(folder) as second:
        ...     first, second
        (True, False)
    """
    with open(Path(folder) / LOCK, "a+b") as file:
        is_ours = _lock(file)
        try:
            yield is_ours
        finally:
            if is_ours:
                _unlock(file)


if sys.platform == "win32":

    def _lock(file: IO[bytes]) -> bool:
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:

    def _lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
