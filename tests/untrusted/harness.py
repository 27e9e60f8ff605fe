"""Thousands of changed files: `KERAS_BACKEND=jax python -m tests.untrusted.harness --seconds 120`.

Says how many loaded and how many were refused, what took the most memory and time, and everything that is no
`ValueError`. Exits 1 if there is any of those, or a refusal took more than 500 MB or 5 s of CPU.
"""

import argparse
import collections
import importlib.util
import sys
import tempfile
import time
import warnings
from pathlib import Path

import keras

from tests.untrusted.mutations import Outcome, attempt, load, make_sources

MOST_MEGABYTES, MOST_SECONDS = 500, 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="Print every refusal.")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: collections.Counter[str] = collections.Counter()
    wrong: list[Outcome] = []
    dearest, longest = Outcome("", None, 0, 0), Outcome("", None, 0, 0)
    with tempfile.TemporaryDirectory() as folder:
        sources = make_sources(Path(folder), with_hub=importlib.util.find_spec("keras_hub") is not None)
        for kind, path in sources.items():
            load(kind, path)
        end, seed = time.monotonic() + arguments.seconds, arguments.seed
        while time.monotonic() < end:
            for kind, path in sources.items():
                outcome = attempt(kind, path, Path(folder, "changed" + path.suffix), seed)
                counts[f"{kind} {'loaded' if outcome.error is None else 'refused'}"] += 1
                is_slow = outcome.error is not None and (
                    outcome.megabytes > MOST_MEGABYTES or outcome.seconds > MOST_SECONDS
                )
                if not outcome.is_right or is_slow:
                    wrong.append(outcome)
                    print(f"WRONG: {outcome.what}: {type(outcome.error).__name__}: {str(outcome.error)[:200]}")
                if outcome.error is not None:
                    if arguments.show:
                        print(f"{outcome.what}: {str(outcome.error)[:200]}")
                    dearest = max(dearest, outcome, key=lambda each: each.megabytes)
                    longest = max(longest, outcome, key=lambda each: each.seconds)
                seed += 1
    print(f"{keras.backend.backend()}: {counts.total():,} files: {dict(sorted(counts.items()))}")
    print(f"most memory {dearest.megabytes:.0f} MB ({dearest.what}); longest {longest.seconds:.2f} s ({longest.what})")
    print(f"{len(wrong)} wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
