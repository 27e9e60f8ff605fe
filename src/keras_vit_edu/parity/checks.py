"""What a check is, and the list of them.

A check runs in a process of its own backend and yields measurements: arrays, each in a row of the report, most with the
array that it should be. A row has one tolerance. To add a check is to write one function:

    @check("logits", {"logits": Tolerance("relative", 1e-5)})
    def logits(scene: Scene) -> Iterator[Measurement]:
        \"\"\"The first line says what it looks at.\"\"\"
        yield Measurement("logits", "digits", actual, expected)

An array with no expected one is compared with the same array of every other backend. `standard_checks.py` lists
the standard checks.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit_edu.parity.compare import Tolerance

SUITES = ("quick", "full")


@dataclass(frozen=True)
class Measurement:
    """One array of a check.

    Attributes:
        row: one of the check's rows.
        name: of the array, in its row.
        actual: what the backend computed.
        expected: what it should be: from the float64 oracle, from NumPy, or from another path to the same numbers. None
            if nothing but the other backends can tell.
    """

    row: str
    name: str
    actual: np.ndarray
    expected: np.ndarray | None = None


class CannotRunHere(Exception):
    """Raised by a check for what this backend or device cannot do, such as computing in some dtype: no failure."""


@dataclass(frozen=True)
class Scene:
    """Where a check runs.

    Attributes:
        backend: the one that computes.
        suite: `"quick"` or `"full"`.
        folder: a folder of this check and this backend, to write into.
        prepared: for a check with `prepare`, the folders that it filled, by backend; this one is among them.
    """

    backend: str
    suite: str
    folder: Path
    prepared: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One entry of the list.

    Attributes:
        name: what `--checks` and the report call it.
        tolerances: by row.
        run: yields the measurements.
        prepare: run before, in every backend, to write files that `run` of every backend may read; None for nothing.
        referenced: whether its arrays are the same wherever and however they are computed, so that values committed
            with the package can be compared with them.
        what: a line about it.
    """

    name: str
    tolerances: Mapping[str, Tolerance]
    run: Callable[[Scene], Iterable[Measurement]]
    prepare: Callable[[Scene], Any] | None = None
    referenced: bool = False
    what: str = ""


CHECKS: dict[str, Check] = {}


def check(
    name: str,
    tolerances: Mapping[str, Tolerance],
    prepare: Callable[[Scene], Any] | None = None,
    referenced: bool = False,
) -> Callable[[Callable[[Scene], Iterable[Measurement]]], Callable[[Scene], Iterable[Measurement]]]:
    """Put the function below into the list, its docstring's first line as `what`; arguments as in `Check`."""

    def enter(run: Callable[[Scene], Iterable[Measurement]]) -> Callable[[Scene], Iterable[Measurement]]:
        what = (run.__doc__ or "").strip().partition("\n")[0]
        CHECKS[name] = Check(name, dict(tolerances), run, prepare, referenced, what)
        return run

    return enter
