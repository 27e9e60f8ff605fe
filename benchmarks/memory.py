"""Peak memory: how far a process grows while it computes, and how far a training step of Program P makes it grow.

    python -m benchmarks memory --backend torch

Each program is measured in a fresh process, after a few steps: what was compiled, and what the optimizer keeps, is
there by then and is not counted.
"""

import ctypes
import dataclasses
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from benchmarks.timing import wait_for

WARM_UP, MEASURED = 3, 5  # calls
NOT_COUNTED = (
    "TensorFlow counts its memory with oneDNN only, which it leaves out on this processor. Set TF_ENABLE_ONEDNN_OPTS=1."
)
SETTLE = 0.3  # seconds until a backend has freed what it used: JAX does so a little after it gives the result


@dataclasses.dataclass(frozen=True)
class Growth:
    """What a computation added to a process.

    Attributes:
        before: MiB of the process between two computations.
        growth: MiB by which its peak during one lay higher.
    """

    before: float
    growth: float


def growth(function: Callable[[], Any]) -> Growth:
    """Call `function` until it is warm, then measure the process while it is called again.

    Raises:
        SystemExit: where the system is not Linux with glibc, which alone tells the peak since a moment of our choice;
            where TensorFlow does not count its memory.
    """
    for _ in range(WARM_UP):
        wait_for(function())
    time.sleep(SETTLE)
    _give_back_what_is_free()
    before = resident()
    forget_the_peak()
    in_use = _tensorflow("current")
    for _ in range(MEASURED):
        wait_for(function())
        time.sleep(SETTLE)
    return Growth(before, max(peak() - before, _tensorflow("peak") - in_use, 0.0))


def _give_back_what_is_free() -> None:
    """Else a buffer that the allocator kept would be used again, and the process not grow."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        raise SystemExit("Peak memory is measured on Linux with glibc only.") from None


def forget_the_peak() -> None:
    """From now on `peak` tells the largest since this moment."""
    Path("/proc/self/clear_refs").write_text("5")  # proc(5)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        try:
            tf.config.experimental.reset_memory_stats("CPU:0")
        except ValueError:
            raise SystemExit(NOT_COUNTED) from None


def _tensorflow(which: str) -> float:
    """MiB that TensorFlow has in use: it keeps what it once had, so the process does not show it. 0 elsewhere."""
    if keras.backend.backend() != "tensorflow":
        return 0.0
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("CPU:0")[which] / 1024**2


def resident() -> float:
    """MiB that this process holds now."""
    return _status("VmRSS")


def peak() -> float:
    """MiB that this process held at most since it began, or since `forget_the_peak`."""
    return _status("VmHWM")


def _status(field: str) -> float:
    """MiB, of a line like `VmHWM:   123456 kB`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def in_a_fresh_process(module: str, **arguments: Any) -> dict[str, Any]:
    """What `measure(**arguments)` of a module gives in a process of its own, of the same backend and threads.

    Raises:
        RuntimeError: if that process fails; with what it said.
    """
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", module, json.dumps(arguments)], capture_output=True, text=True
    )
    if process.returncode:
        raise RuntimeError(f"{module} with {arguments} failed:\n{process.stderr}")
    return json.loads(process.stdout.splitlines()[-1])


# A training step of Program P. ----------------------------------------------------------------------------------------


def run(rounds: int) -> dict[str, list[Growth]]:
    """By program, its growth in each round."""
    from benchmarks import step

    return {
        program: [Growth(**in_a_fresh_process("benchmarks.memory", program=program)) for _ in range(rounds)]
        for program in ["ours", *step.others()]
    }


def measure(program: str) -> dict[str, Any]:
    """One program's growth, in this process."""
    from benchmarks import step

    ours = step.Ours()
    images, labels = step.batch()
    measured = ours if program == "ours" else step.others()[program](ours.weights())
    del ours
    return dataclasses.asdict(growth(lambda: measured.step(images, labels)))


def show(measured: Mapping[str, list[Growth]]) -> None:
    """Print a table; with several rounds, the largest of each."""
    print(f"\n{'training step of Program P':40}{'MiB before':>12}{'growth, MiB':>14}{'ratio':>8}")
    of_ours = max(one.growth for one in measured["ours"])
    for program, growths in measured.items():
        largest = max(growths, key=lambda one: one.growth)
        print(f"  {program:38}{largest.before:12.0f}{largest.growth:14.1f}{largest.growth / of_ours:8.2f}")


if __name__ == "__main__":
    print(json.dumps(importlib.import_module(sys.argv[1]).measure(**json.loads(sys.argv[2]))))
