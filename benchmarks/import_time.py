"""How long `import keras_vit_edu` takes after `import keras`, each time in a fresh process."""

import subprocess
import sys

from benchmarks.timing import Timing, timings

PROGRAM = """
import time
began = time.perf_counter()
import keras
between = time.perf_counter()
import keras_vit_edu
print(between - began, time.perf_counter() - between)
"""


def run(rounds: int) -> dict[str, dict[str, dict[str, Timing]]]:
    """The seconds that pass, with `import keras` as the baseline."""
    processes = [
        subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
        for _ in range(rounds)
    ]
    of_keras, ours = zip(*([float(word) for word in process.stdout.split()] for process in processes), strict=True)
    return {"import": {"elapsed": timings({"keras": list(of_keras), "then keras_vit_edu": list(ours)}, "keras")}}
