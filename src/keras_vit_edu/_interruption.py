"""Ctrl-C and requests to end: noted by the signal's handler, acted on where stopping is safe.

An exception raised by a handler can surface between any two instructions. Inside JAX's garbage-collection callback it
is ignored, so the request is lost; inside a training step it leaves a model without weights, or ends in a segmentation
fault. So the handler here raises nothing. It notes the request, and long work calls `check` between its batches.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

STATUS = 130  # of a process that was interrupted, as a shell reports it
SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what batch systems send

_former: dict[int, Any] = {}  # the handlers that ours replaces; empty when it replaces none
_received: list[int] = []


@contextlib.contextmanager
def held(hand_over: bool = False) -> Iterator[None]:
    """Hold SIGINT and SIGTERM back inside the block, and act on them where `check` is called, or at the block's end.

    A second signal goes to the former handler at once. Outside of the main thread, where Python runs no handlers, and
    inside another such block, nothing changes.

    Args:
        hand_over: give the signal to the former handler when the block ends: for a short block, in a program that may
            have handlers of its own.

    Raises:
        KeyboardInterrupt: if a signal came, and the block raised nothing itself.
    """
    if _former or threading.current_thread() is not threading.main_thread():
        yield
        return
    formers = {int(number): signal.getsignal(number) for number in SIGNALS}
    try:
        for number, former in formers.items():
            if former not in (signal.SIG_IGN, None):  # ignored, or set outside of Python
                _former[number] = former
                signal.signal(number, _note)
        yield
    finally:
        received = _let_go()
    if received and hand_over:
        _give(received[0], formers[received[0]])
    elif received:
        _raise(received[0])


def _let_go() -> list[int]:
    """Put the former handlers back; the signals that came."""
    for number, former in list(_former.items()):
        signal.signal(number, former)
    received = _received.copy()
    _former.clear()
    _received.clear()
    return received


def hold_for_good() -> None:
    """Hold the signals back until the process ends: for our own command, from its first line on."""
    for number in SIGNALS:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            _former[number] = _end_at_once
            signal.signal(number, _note)


def check() -> None:
    """Raise `KeyboardInterrupt` if a signal has come; to be called between batches, in the main thread."""
    if _received and threading.current_thread() is threading.main_thread():
        _raise(_received[0])


def has_come() -> bool:
    """Whether a signal has come that nothing has acted on yet."""
    return bool(_received)


def _raise(number: int) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _note(number: int, frame: Any) -> None:
    _received.append(number)
    is_first, former = len(_received) == 1, _former[number]
    if former is _end_at_once:
        if not is_first:
            _end_at_once()
        elif os.isatty(2):
            os.write(2, b"\nstopping after this step; once more ends at once\n")
    elif not is_first:
        _let_go()
        _give(number, former)


def _give(number: int, handler: Any) -> None:
    """Let a handler, which is in its place again, have a signal."""
    if callable(handler):
        handler(number, None)
    else:  # the system's own action
        os.kill(os.getpid(), number)


def _end_at_once() -> NoReturn:
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os.write(2, b"keras-vit-edu: interrupted\n")
    os._exit(STATUS)
