"""Real processes, really interrupted. The long form is `python -m tests.training.resume_harness`."""

import signal

import pytest

from tests.training.resume_harness import Harness, can_mount


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    harness = Harness(tmp_path_factory.mktemp("resume"))
    harness.prepare()
    return harness


# SIGINT may come while the backend computes; SIGTERM is handled alike, and SIGKILL by nobody.
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.any_backend),
        pytest.param(signal.SIGKILL, marks=pytest.mark.any_backend),
    ],
    ids=lambda number: number.name,
)
def test_a_run_ended_by_a_signal_ends_the_same_when_gone_on_with(harness, number):
    assert harness.check(*harness.interrupt_at_random(number, seed=1))


@pytest.mark.any_backend
def test_a_run_killed_while_it_writes_a_checkpoint(harness):
    assert harness.check(*harness.kill_in_a_write(seed=0))


@pytest.mark.any_backend
def test_a_run_on_a_full_disk(harness):
    if not can_mount():
        pytest.skip("making a small disk needs root")
    assert harness.check(*harness.fill_the_disk(seed=0))
