"""Fair comparisons of running times on a machine that does other things too.

The candidates take turns, so that whatever else the machine does falls on all of them, and they are compared round by
round: a ratio says more than two times measured one after the other.
"""

import dataclasses
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long one candidate took, by one clock: medians over the rounds, each with its quartiles.

    Attributes:
        milliseconds: of a call.
        quartiles: of the same.
        ratio: its time by the baseline's time in the same round.
        ratio_quartiles: of the same.
    """

    milliseconds: float
    quartiles: tuple[float, float]
    ratio: float
    ratio_quartiles: tuple[float, float]


# Seconds that pass, and seconds that processors spend on this process, all its threads together. On an idle machine
# with one thread they are equal; on a busy one only the second still says something about the code.
CLOCKS = {"elapsed": time.perf_counter, "processor": time.process_time}


def compare(
    candidates: dict[str, Callable[[], Any]], baseline: str, rounds: int, warm_up: int = 3
) -> dict[str, dict[str, Timing]]:
    """Run the candidates in turn and compare each with the baseline.

    Args:
        candidates: by name, functions that return tensors; each is waited for.
        baseline: name of the candidate that the others are measured by.
        rounds: how often every candidate is timed. The order turns round after every round.
        warm_up: untimed calls of each at first, which compile and fill caches.

    Returns:
        By clock (`"elapsed"`, `"processor"`) and name of the candidate, its timing.
    """
    for function in candidates.values():
        for _ in range(warm_up):
            wait_for(function())
    seconds: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in candidates} for clock in CLOCKS}
    order = list(candidates)
    for _ in range(rounds):
        for name in order:
            start = {clock: read() for clock, read in CLOCKS.items()}
            wait_for(candidates[name]())
            for clock, read in CLOCKS.items():
                seconds[clock][name].append(read() - start[clock])
        order.reverse()
    return {clock: timings(by_name, baseline) for clock, by_name in seconds.items()}


def timings(seconds: dict[str, list[float]], baseline: str) -> dict[str, Timing]:
    """What came of each candidate, from its seconds in every round."""
    return {name: _timing(own, seconds[baseline]) for name, own in seconds.items()}


def _timing(seconds: list[float], baseline: list[float]) -> Timing:
    milliseconds = [1e3 * own for own in seconds]
    ratios = [own / other for own, other in zip(seconds, baseline, strict=True)]
    return Timing(
        statistics.median(milliseconds), _quartiles(milliseconds), statistics.median(ratios), _quartiles(ratios)
    )


def _quartiles(values: list[float]) -> tuple[float, float]:
    lower, _, upper = statistics.quantiles(values, n=4)
    return lower, upper


def wait_for(output: Any) -> None:
    """Return when `output`, a tensor or a nest of them, has been computed."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        jax.block_until_ready(output)
    elif keras.backend.backend() == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
    else:
        import tensorflow as tf

        tf.test.experimental.sync_devices()


# Threads. -------------------------------------------------------------------------------------------------------------


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fix_threads(threads: int) -> None:
    """Let this process, whatever its backend, use so many cores. To be called before the backend is imported.

    Raises:
        ValueError: if the process has fewer cores, or the system cannot bind it to some of them.
    """
    if not 1 <= threads <= cores():
        raise ValueError(f"This process has {cores()} cores. Received: threads={threads}")
    if threads < cores():
        if not hasattr(os, "sched_setaffinity"):
            raise ValueError("Only Linux binds a process to some of its cores.")
        # JAX and TensorFlow start as many threads as they may use cores.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["OMP_NUM_THREADS"] = str(threads)  # torch


def machine() -> dict[str, Any]:
    """What the times were measured on."""
    import keras

    backend = keras.backend.backend()
    return {
        "backend": backend,
        "versions": {package: _version(package) for package in ("keras_vit_edu", "keras", backend, "numpy")},
        "python": platform.python_version(),
        "processor": _processor(),
        "device": _device(backend),
        "threads": cores(),
        "load": os.getloadavg()[0],
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            return next(line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _device(backend: str) -> str:
    if backend == "jax":
        import jax

        return jax.devices()[0].device_kind
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "gpu") if gpus else "cpu"
