"""The handler notes signals, and the work stops where stopping is safe."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from keras_vit_edu import _interruption
from keras_vit_edu._interruption import check, has_come, held

pytestmark = pytest.mark.any_backend
SOURCE = Path(_interruption.__file__).read_text()  # a program that begins with it needs no Keras
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.fixture(autouse=True)
def ours_for_sigterm():
    """What comes outside of a block must not end the tests."""
    received = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    before = handlers()
    yield received
    assert handlers() == before
    assert not has_come()
    signal.signal(signal.SIGTERM, former)


@BOTH
def test_a_signal_is_acted_on_at_the_next_check(number):
    steps = []
    with pytest.raises(KeyboardInterrupt, match=number.name), held():  # noqa: PT012
        for step in range(5):
            if step == 2:
                send(number)
                steps.append("the handler raised nothing")
            check()
            steps.append(step)
    assert steps == [0, 1, "the handler raised nothing"]


@BOTH
def test_a_signal_that_no_check_saw_is_acted_on_at_the_end(number):
    with pytest.raises(KeyboardInterrupt, match=number.name), held():  # noqa: PT012
        send(number)
        assert has_come()


def test_an_error_in_the_block_is_the_cause():
    error = ValueError("of its own")
    with pytest.raises(KeyboardInterrupt, match="SIGTERM") as caught, held():  # noqa: PT012
        send()
        raise error
    assert caught.value.__cause__ is error


def test_a_short_block_hands_the_signal_over_and_raises_its_error(ours_for_sigterm):
    with pytest.raises(ValueError, match="of its own"), held(hand_over=True):  # noqa: PT012
        send()
        raise ValueError("of its own")
    assert ours_for_sigterm == [signal.SIGTERM]


def test_an_exit_stays_an_exit():
    with pytest.raises(SystemExit), held():  # noqa: PT012
        send()
        raise SystemExit(3)


def test_a_second_signal_goes_to_the_former_handler_at_once(ours_for_sigterm):
    reached = []
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"), held():  # noqa: PT012
        send()
        assert ours_for_sigterm == []
        send()
        assert ours_for_sigterm == [signal.SIGTERM]
        reached.append("the end")
    assert reached
    reached = []
    with pytest.raises(KeyboardInterrupt), held():  # noqa: PT012
        send(signal.SIGINT)
        send(signal.SIGINT)  # Python's own handler raises
        reached.append("after the second")
    assert not reached


def test_a_short_block_hands_the_signal_over(ours_for_sigterm):
    with held(hand_over=True):
        send()
        assert ours_for_sigterm == []
    assert ours_for_sigterm == [signal.SIGTERM]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_signals_inside_a_finalizer_are_not_lost():
    class Finalized:
        """Python ignores what its finalizer raises, as it does in JAX's garbage-collection callback."""

        def __del__(self):
            for _ in range(2):
                send(signal.SIGINT)
                sum(range(1000))  # the handler runs here

    reached = []
    with pytest.raises(KeyboardInterrupt), held():  # noqa: PT012
        Finalized()
        reached.append("after the finalizer")
        check()
        reached.append("after the check")
    assert reached == ["after the finalizer"]


def test_a_signal_while_the_handlers_are_restored_is_acted_on(ours_for_sigterm, monkeypatch):
    restore = signal.signal

    def interrupted(number, handler):
        before = restore(number, handler)
        if handler is signal.default_int_handler:  # SIGINT is restored, SIGTERM is not
            monkeypatch.setattr(signal, "signal", restore)
            send(signal.SIGTERM)
            send(signal.SIGINT)
        return before

    with pytest.raises(KeyboardInterrupt), held(hand_over=True):
        monkeypatch.setattr(signal, "signal", interrupted)
    assert ours_for_sigterm == [signal.SIGTERM]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_ends_at_sigterm():
    def wait():
        started.set()
        time.sleep(60)

    ours = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    fork = multiprocessing.get_context("fork")
    started = fork.Event()
    with held():
        child = fork.Process(target=wait)
        child.start()
        started.wait()
        child.terminate()
        child.join(5)
        code = child.exitcode
        child.kill()
        child.join()
    signal.signal(signal.SIGTERM, ours)
    assert code == -signal.SIGTERM


def test_a_block_inside_of_another_leaves_it_to_the_outer_one():
    reached = []
    with pytest.raises(KeyboardInterrupt), held():  # noqa: PT012
        with held(hand_over=True):
            send()
        reached.append("after the inner block")
    assert reached


def test_other_threads_change_nothing():
    seen = []

    def work():
        with held():
            seen.append(handlers())
            check()

    before = handlers()
    with pytest.raises(KeyboardInterrupt), held():  # noqa: PT012
        send()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        inside = handlers()
        check()
    assert seen == [inside]
    assert handlers() == before


def test_a_signal_that_is_ignored_stays_ignored():
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held():
            send(signal.SIGINT)
            check()
    finally:
        signal.signal(signal.SIGINT, former)


@BOTH
def test_the_systems_own_action_follows_a_second_signal(number):
    code = (
        f"signal.signal({int(number)}, signal.SIG_DFL)\n"
        "with held():\n"
        f"    os.kill(os.getpid(), {int(number)}); print('one', flush=True)\n"
        f"    os.kill(os.getpid(), {int(number)}); print('two', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", SOURCE + code], capture_output=True, text=True, check=False)
    assert done.stdout == "one\n", done.stderr
    assert done.returncode == -number


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no terminals of this kind here")
def test_a_second_ctrl_c_shows_the_cursor_again():
    import pty

    code = (
        "from rich.console import Console\n"
        "hold_for_good()\n"
        "Console().show_cursor(False)\n"
        "for _ in range(2): os.kill(os.getpid(), signal.SIGINT)\n"
    )
    ours, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-c", SOURCE + code], stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal's end
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert process.wait(60) == 130
    hide, show = b"\x1b[?25l", b"\x1b[?25h"
    assert hide in shown
    assert show in shown.partition(hide)[2]
