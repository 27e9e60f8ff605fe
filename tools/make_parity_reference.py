"""Make the reference that `keras-vit-edu parity` compares a single backend with.

    keras-vit-edu parity --suite quick --out FOLDER
    python tools/make_parity_reference.py FOLDER

What the float64 oracle and NumPy expect is taken as it is. Initial weights and seeds, which nothing but a backend can
tell, are taken only if all three backends agree on every bit. Every check must have run on every backend.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import keras_vit_edu
from keras_vit_edu.parity import reference
from keras_vit_edu.parity.results import load_results
from keras_vit_edu.parity.standard_checks import standard

OUT = Path(reference.__file__).with_name(reference.FILE)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the results of all three backends")
    results = load_results(parser.parse_args(arguments).folder, keras_vit_edu.__version__, "quick")
    checks = [check for check in standard().values() if check.referenced]
    if {each.backend for each in results} != {"tensorflow", "torch", "jax"}:
        parser.error("the results must be of all three backends")
    failed = [
        f"{check.name} on {each.backend}"
        for check in checks
        for each in results
        if each.checks.get(check.name, {"error": "it did not run"})["error"]
    ]
    if failed:
        parser.error(f"these checks did not come to their end: {', '.join(failed)}")
    kept = {}
    for check in checks:
        of_each = [reference.reference_of(check, each.measurements(check.name)) for each in results]
        for others in of_each[1:]:
            np.testing.assert_equal(others, of_each[0])
        kept.update(of_each[0])
    np.savez_compressed(OUT, **kept)
    print(f"{OUT}: {len(kept)} entries, {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
