"""The clock and the scales of the benchmarks: what is slower has the larger ratio, what is larger weighs more."""

import subprocess
import sys

import numpy as np
import pytest
from keras import ops

from benchmarks import attention, memory, sweep, timing

pytestmark = pytest.mark.any_backend


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


# Memory, and its growth with the number of tokens. --------------------------------------------------------------------


def why_not_measured():
    """Why peak memory is not measured here, or nothing."""
    if sys.platform != "linux":
        return "peak memory is measured on Linux only"
    try:
        memory.forget_the_peak()
    except SystemExit as reason:
        return str(reason)
    return ""


measured = pytest.mark.skipif(bool(why_not_measured()), reason=why_not_measured())


@measured
def test_the_growth_is_what_a_call_takes_for_a_while():
    megabytes = 64

    def call():
        np.ones(megabytes * 1024**2, "uint8").sum()  # touched, then given back
        return ops.zeros(())

    assert memory.growth(call).growth == pytest.approx(megabytes, abs=6)


@measured
def test_a_second_call_shows_what_it_takes_though_the_first_has_taken_it_before():
    def call():
        return ops.sum(ops.ones((16, 1024, 1024)) * 2.0)  # 64 MiB, twice where nothing is joined

    first, second = memory.growth(call).growth, memory.growth(call).growth
    assert min(first, second) > 50


@measured
@pytest.mark.parametrize("path", ["explicit", "fused"])
def test_the_cost_of_a_size_is_measured(path):
    cost = sweep.measure(path, tokens=64, rounds=2)
    assert cost["tokens"] == 64
    assert cost["milliseconds"]["processor"] > 0
    assert cost["mebibytes"] >= 0


def test_paths_that_differ_are_not_timed():
    scores = np.ones((2, 3), "float32")
    sweep.agree(scores, scores * (1 + 1e-7))
    for wrong in (scores * 1.001, scores * np.nan):
        with pytest.raises(RuntimeError, match="the paths differ"):
            sweep.agree(wrong, scores)


def test_layers_that_give_nothing_but_nan_are_not_timed():
    x = np.ones((1, 2, 3), "float32")
    with pytest.raises(RuntimeError, match="the outputs differ by nan"):
        attention.agree(lambda x, y: x * np.nan, lambda x, y: x, x)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["import", "--rounds", "1"], "2 rounds at least"), (["attention", "--picture", "x.png"], "--sweep")],
)
def test_options_that_would_do_nothing_are_refused_at_once(arguments, complaint):
    process = subprocess.run([sys.executable, "-m", "benchmarks", *arguments], capture_output=True, text=True)
    assert process.returncode == 2
    assert complaint in process.stderr


def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match="unexpected keyword argument 'nothing'"):
        memory.in_a_fresh_process("benchmarks.sweep", nothing=1)
