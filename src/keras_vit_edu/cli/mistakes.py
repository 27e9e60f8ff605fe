"""A user's mistake is one line on the error output."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator

import keras_vit_edu
from keras_vit_edu import _backend
from keras_vit_edu._install import what_is_missing

if not _backend.ONLY_HELP:
    from keras_vit_edu._files import printable

LONGEST_LINE = 2000  # characters of a complaint


class UsersMistake(Exception):
    """Something in what the user gave; its text is all that is shown."""


@contextlib.contextmanager
def checking(only_ours: bool = False) -> Iterator[None]:
    """A `ValueError` in here is about what the user gave. (From anywhere else it is a bug, and keeps its traceback.)

    Args:
        only_ours: only one that this library itself raises; for long work, in which NumPy or Keras may complain too.
    """
    try:
        yield
    except (ValueError, ImportError) as error:
        if only_ours and isinstance(error, ValueError) and not _is_ours(error):
            raise
        raise UsersMistake(_text(error)) from None


def _text(error: ValueError | ImportError) -> str:
    return (what_is_missing(error) if isinstance(error, ImportError) else None) or str(error)


def _is_ours(error: BaseException) -> bool:
    """Whether an error was raised in this library's own code."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).partition(".")[0] == keras_vit_edu.__name__


def complain(text: str, status: int) -> int:
    text = printable(" ".join(text.split()))
    shown = text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}..."  # a file may have a name of megabytes
    print(f"{_backend.COMMAND}: {shown}", file=sys.stderr)
    return status
