"""Real processes, really interrupted. The long form is `python -m tests.training.resume_harness`."""

import pytest

from tests.support import BACKEND
from tests.training.resume_harness import Harness, can_mount


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    harness = Harness(tmp_path_factory.mktemp("resume"))
    harness.prepare()
    return harness


# SIGINT, SIGTERM and SIGKILL in turn; where there is one signal only, it is SIGINT.
def test_a_run_interrupted_by_signals_ends_the_same_when_resumed(harness):
    harness.interrupt_in_a_row(3 if BACKEND == "torch" else 1, seed=1)
    assert not harness.lost


@pytest.mark.any_backend
def test_a_run_killed_while_it_writes_a_checkpoint(harness):
    assert harness.check(*harness.kill_in_a_write(seed=0))


@pytest.mark.any_backend
def test_a_run_on_a_full_disk(harness):
    if not can_mount():
        pytest.skip("making a small disk needs root")
    assert harness.check(*harness.fill_the_disk(seed=0))
