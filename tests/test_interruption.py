"""Signals are noted by their handler and acted on where stopping is safe."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from keras_vit_edu import _interruption
from keras_vit_edu._interruption import check, has_come, held

pytestmark = pytest.mark.any_backend
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


def test_an_error_in_the_block_is_what_comes_out():
    with pytest.raises(ValueError, match="of its own"), held():  # noqa: PT012
        send()
        raise ValueError("of its own")


def test_a_second_signal_goes_to_the_former_handler_at_once(ours_for_sigterm):
    with held():
        send()
        assert ours_for_sigterm == []
        send()
        assert ours_for_sigterm == [signal.SIGTERM]
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
    with held():
        send()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        inside = handlers()
        with pytest.raises(KeyboardInterrupt):
            check()
        _interruption._received.clear()  # acted on
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
        "import os, signal\n"
        "from keras_vit_edu._interruption import held\n"
        f"signal.signal({int(number)}, signal.SIG_DFL)\n"
        "with held():\n"
        f"    os.kill(os.getpid(), {int(number)}); print('one', flush=True)\n"
        f"    os.kill(os.getpid(), {int(number)}); print('two', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "one\n", done.stderr
    assert done.returncode == -number
