"""The clock of the benchmarks: what is slower has the larger ratio."""

import pytest
from keras import ops

from benchmarks import timing


def test_what_takes_longer_has_the_larger_ratio():
    def work(repetitions):
        def function():
            for _ in range(repetitions):
                total = sum(range(1000))
            return ops.convert_to_tensor(float(total))

        return function

    compared = timing.compare({"once": work(20), "ten times": work(200)}, baseline="once", rounds=9)
    assert set(compared) == {"elapsed", "processor"}
    assert compared["processor"]["ten times"].ratio > 2
    for timings in compared.values():
        assert timings["once"].ratio == 1
        low, high = timings["once"].quartiles
        assert 0 < low <= timings["once"].milliseconds <= high


def test_candidates_take_turns():
    calls = []
    candidates = {name: lambda name=name: calls.append(name) or ops.zeros(()) for name in "ab"}
    timing.compare(candidates, baseline="a", rounds=3, warm_up=1)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"


@pytest.mark.parametrize("threads", [0, 10_000])
def test_more_cores_than_there_are_cannot_be_had(threads):
    with pytest.raises(ValueError, match=f"Received: threads={threads}"):
        timing.fix_threads(threads)
