"""Ctrl-C and SIGTERM: the handler notes the signal, and the work stops where stopping is safe.

Python can raise a handler's exception between any two instructions. Inside JAX's garbage-collection callback Python
ignores the exception, and the request is lost. Inside a training step the exception leaves a model without weights, or
crashes the process. So the handler here raises nothing. It notes the signal, and long work calls `check` between
batches.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

STATUS = 130  # the exit status of an interrupted process, as shells report it
SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what batch systems send
SHOW_CURSOR = b"\x1b[?25h"  # a progress display hides it

_hold: "_Hold | None" = None  # while signals are held


@contextlib.contextmanager
def held(hand_over: bool = False) -> Iterator[None]:
    """Hold SIGINT and SIGTERM inside the block. `check` acts on them, or the end of the block does.

    A second signal goes to the former handler at once. Nothing changes inside another such block, or outside of the
    main thread, where Python runs no handlers. A forked child starts with the former handlers.

    Args:
        hand_over: give the signal to the former handler when the block ends. For short blocks in a program that may
            have its own handlers.

    Raises:
        KeyboardInterrupt: if a signal came. An error of the block is its cause.
    """
    global _hold
    if _hold is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    hold, error = _Hold(), None
    try:
        _hold = hold
        hold.begin()
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        _hold = None
        try:
            hold.restore()
        finally:  # also if a restored handler raised
            if hand_over:
                for number in hold.received:
                    _give(number, hold.former[number])
            elif hold.received and (error is None or isinstance(error, Exception)):  # else the block is ending already
                raise _interrupt(hold.received[0]) from error


def hold_for_good() -> None:
    """Hold the signals until the process ends. Our own command calls this first."""
    global _hold
    _hold = _Hold(is_command=True)
    _hold.begin()


def check() -> None:
    """Raise `KeyboardInterrupt` if a signal came. Call it between batches, in the main thread."""
    if _hold is not None and _hold.received and threading.current_thread() is threading.main_thread():
        raise _interrupt(_hold.received[0])


def has_come() -> bool:
    """Whether a signal came inside the block that holds signals now."""
    return _hold is not None and bool(_hold.received)


@dataclass
class _Hold:
    """The handlers that `note` replaces, and the signals that wait."""

    is_command: bool = False  # a second signal ends the process
    former: dict[int, Any] = field(default_factory=dict)
    received: list[int] = field(default_factory=list)

    def begin(self) -> None:
        for number in SIGNALS:
            former = signal.getsignal(number)
            if former not in (signal.SIG_IGN, None):  # ignored, or set outside of Python
                self.former[int(number)] = former
                signal.signal(number, self.note)

    def note(self, number: int, frame: Any) -> None:
        if not self.received or _hold is not self:  # the first, or one that comes during `restore`
            self.received.append(number)
            if self.is_command and os.isatty(2):
                os.write(2, b"\nstopping after this step; once more ends at once\n")
        elif self.is_command:
            _end_at_once()
        else:
            signal.signal(number, self.former[number])
            _give(number, self.former[number])

    def restore(self) -> None:
        """Restore the former handlers. Clear `_hold` first: then a signal that comes meanwhile is noted."""
        try:
            for number, former in self.former.items():
                signal.signal(number, former)
        finally:  # once more, if a restored handler raised
            for number, former in self.former.items():
                signal.signal(number, former)


def _restore_in_child() -> None:
    """In a forked child: the parent acts on its own signals, and SIGTERM must end the child."""
    global _hold
    if _hold is not None:
        hold, _hold = _hold, None
        hold.received.clear()
        hold.restore()
        for number in hold.received:  # came to the child meanwhile
            _give(number, hold.former[number])


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_restore_in_child)


def _interrupt(number: int) -> KeyboardInterrupt:
    return KeyboardInterrupt(signal.Signals(number).name)


def _give(number: int, handler: Any) -> None:
    """Act on a signal as its restored handler does."""
    if callable(handler):
        handler(number, None)
    else:  # the system's own action
        os.kill(os.getpid(), number)


def _end_at_once() -> NoReturn:
    with contextlib.suppress(Exception):  # also if the signal came inside another flush
        sys.stdout.flush()
    for stream in (1, 2):
        if os.isatty(stream):
            with contextlib.suppress(OSError):
                os.write(stream, SHOW_CURSOR)
    os.write(2, b"keras-vit-edu: interrupted\n")
    os._exit(STATUS)
