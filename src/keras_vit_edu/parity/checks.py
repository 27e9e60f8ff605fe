"""Define a check, and keep the list of checks.

A check runs once per backend, in a separate process. It yields measurements: arrays, each in a row of the report, most
of them with the expected array. A row has one tolerance. To add a check, write one function:

    @check("logits", {"logits": Tolerance("relative", 1e-5)})
    def logits(scene: Scene) -> Iterator[Measurement]:
        \"\"\"The first line says what it looks at.\"\"\"
        yield Measurement("logits", "digits", actual, expected)

An array without an expected array is compared with the same array of every other backend. `standard_checks.py` lists
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
        name: name of the array, unique in its row.
        actual: result of the backend.
        expected: expected result, from the float64 oracle, from NumPy, or from another computation of the same numbers.
            None to compare with the other backends only.
    """

    row: str
    name: str
    actual: np.ndarray
    expected: np.ndarray | None = None


class CannotRunHere(Exception):
    """A check raises this if the backend or device lacks a feature, such as a dtype. It does not count as a failure."""


@dataclass(frozen=True)
class Scene:
    """Where a check runs.

    Attributes:
        backend: the backend that computes.
        suite: `"quick"` or `"full"`.
        folder: folder for the files of this check and this backend.
        prepared: for a check with `prepare`, the folders that it filled, by backend, this backend included.
    """

    backend: str
    suite: str
    folder: Path
    prepared: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One entry of the list.

    Attributes:
        name: name in `--checks` and in the report.
        tolerances: tolerance of each row.
        run: yields the measurements.
        prepare: runs first on every backend, and writes files that `run` may read on every backend; None for nothing.
        referenced: whether its arrays do not depend on the machine, so that they can be compared with the committed
            reference.
        what: one line about the check.
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
    """Decorator: add a function to the list. `what` is the first line of its docstring. Arguments as in `Check`."""

    def enter(run: Callable[[Scene], Iterable[Measurement]]) -> Callable[[Scene], Iterable[Measurement]]:
        what = (run.__doc__ or "").strip().partition("\n")[0]
        CHECKS[name] = Check(name, dict(tolerances), run, prepare, referenced, what)
        return run

    return enter
