"""Report a user's mistake in one line on the error output."""

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
# What the library says of its arguments, and what the command says instead.
AS_OPTIONS = {
    "pass `overwrite=True`": "pass --overwrite",
    "Pass `overwrite=True`": "Pass --overwrite",
    "pass `image_size=64`": "pass --image-size 64",
    "Pass `path=...`": "Pass --data PATH",
    "Choose one with `augmentation`": "Choose one with --augmentation",
    "Choose the test images with `data`": "Choose the test images with --data",
    "Load one with `datasets.load(name, path)`": "Choose one with --dataset NAME",
    "call `datasets.load_data(path)`": "leave out --dataset",
}


class UsersMistake(Exception):
    """A mistake in the user's input. The command shows its text, and nothing else."""


@contextlib.contextmanager
def checking(only_ours: bool = False) -> Iterator[None]:
    """Turn a `ValueError` or `ImportError` in the block into a `UsersMistake`.

    (Elsewhere it is a bug, and keeps its traceback.)

    Args:
        only_ours: leave a `ValueError` alone that this library did not raise. For long work, where NumPy or Keras may
            raise one too.
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
    """Whether this library's own code raised an error."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).partition(".")[0] == keras_vit_edu.__name__


def complain(text: str, status: int) -> int:
    """Print a line on the error output; returns the exit status."""
    for argument, option in AS_OPTIONS.items():
        text = text.replace(argument, option)
    text = printable(" ".join(text.split()))
    shown = text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}..."  # a file may have a name of megabytes
    print(f"{_backend.COMMAND}: {shown}", file=sys.stderr)
    return status
