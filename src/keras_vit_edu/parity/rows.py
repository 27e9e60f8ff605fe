"""Compare the measurements of the backends, row by row of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from keras_vit_edu.parity import reference
from keras_vit_edu.parity.checks import Check, Measurement
from keras_vit_edu.parity.compare import EQUAL_BITS, Difference, Tolerance, difference, largest
from keras_vit_edu.parity.results import Results

REFERENCE = "the committed reference"
EXPECTED = "what is expected"

# A gradient that is 0 up to rounding is small compared with the others. Its difference is divided by this share of the
# largest gradient instead.
SMALL = {"gradients": 0.1}  # by row; outputs are measured by themselves


@dataclass(frozen=True)
class Comparison:
    """One array of one backend, and what it was compared with."""

    name: str
    against: str
    difference: Difference


@dataclass(frozen=True)
class Cell:
    """One backend in one row.

    Attributes:
        worst: the comparison that is furthest apart; None if there was nothing to compare with.
        passed: whether all comparisons passed; None if there were none.
        error: why the check did not run; None if it did.
        failures: the comparisons that did not pass.
    """

    worst: Comparison | None = None
    passed: bool | None = None
    error: str | None = None
    failures: tuple[Comparison, ...] = ()


@dataclass(frozen=True)
class Row:
    """One row of the report.

    Attributes:
        check: the name of the check.
        row: which of its rows.
        what: a line about the check.
        tolerance: of this row.
        cells: by backend.
        between: the largest difference between two backends; None with only one.
    """

    check: str
    row: str
    what: str
    tolerance: Tolerance
    cells: Mapping[str, Cell]
    between: Difference | None = None

    @property
    def passed(self) -> bool | None:
        """Whether all that was compared passed; None if there was nothing to compare."""
        compared = [cell.passed for cell in self.cells.values() if cell.passed is not None]
        return all(compared) if compared else None


def rows(results: Sequence[Results], checks: Sequence[Check]) -> list[Row]:
    """Compare results of several backends, or of one, check by check."""
    found = []
    for check in checks:
        ran = [each for each in results if check.name in each.checks]
        failed = {each.label: _failed(each.checks[check.name]) for each in ran if each.checks[check.name]["error"]}
        measured = {each.label: each.measurements(check.name) for each in ran if each.label not in failed}
        # With files of all backends the names are the same only in one run: there each backend read them all.
        same_names = check.prepare is None or len({each.folder.parent for each in ran}) == 1
        for row, tolerance in check.tolerances.items():
            arrays = {
                backend: {m.name: m for m in measurements if m.row == row} for backend, measurements in measured.items()
            }
            committed = reference.committed(check.name, row) if check.referenced else None
            cells = {
                each.label: failed.get(each.label) or _cell(each.label, arrays, row, tolerance, committed, same_names)
                for each in ran
            }
            found.append(Row(check.name, row, check.what, tolerance, cells, _between(arrays, row)))
    return found


def _failed(outcome: Mapping[str, Any]) -> Cell:
    return Cell(passed=None if outcome["excused"] else False, error=outcome["error"])


def _cell(
    backend: str,
    arrays: Mapping[str, Mapping[str, Measurement]],
    row: str,
    tolerance: Tolerance,
    committed: Mapping[str, np.ndarray] | None,
    same_names: bool,
) -> Cell:
    """Every comparison of one backend's arrays in one row."""
    mine = arrays[backend]
    expected = {name: m.expected for name, m in mine.items() if m.expected is not None}
    comparisons = _compared(mine, expected, EXPECTED, row)
    if committed is not None:
        comparisons += _with_reference(mine, committed, tolerance, row) + _lacking(backend, mine, REFERENCE, committed)
    alone = {name: m for name, m in mine.items() if m.expected is None}
    for other, theirs in arrays.items():
        if other != backend:
            comparisons += _compared(alone, {name: m.actual for name, m in theirs.items()}, other, row)
            comparisons += _lacking(backend, mine, other, theirs) if same_names else []
    failures = tuple(each for each in comparisons if not each.difference.within(tolerance))
    worst = max(failures or comparisons, key=lambda each: _badness(each.difference, tolerance), default=None)
    return Cell(worst, not failures if comparisons else None, None, failures)


def _lacking(here: str, mine: Mapping[str, Any], there: str, theirs: Mapping[str, Any]) -> list[Comparison]:
    """The arrays that only one side has."""
    return [
        Comparison(name, there, Difference(problem=f"{there if name in mine else here} has no such array"))
        for name in sorted(mine.keys() ^ theirs.keys())
    ]


def _compared(
    measurements: Mapping[str, Measurement], expected: Mapping[str, np.ndarray], against: str, row: str
) -> list[Comparison]:
    floor = SMALL.get(row, 0.0) * max((largest(array) for array in expected.values()), default=0.0)
    return [
        Comparison(name, against, difference(measurements[name].actual, array, max(largest(array), floor)))
        for name, array in expected.items()
        if name in measurements
    ]


def _with_reference(
    measurements: Mapping[str, Measurement], committed: Mapping[str, np.ndarray], tolerance: Tolerance, row: str
) -> list[Comparison]:
    if tolerance != EQUAL_BITS:
        return _compared(measurements, committed, REFERENCE, row)
    same = Difference(0.0, 0.0, None, equal_bits=True)
    other = Difference(problem="other bits than in the reference")
    return [
        Comparison(name, REFERENCE, same if reference.digest(measurements[name].actual) == value else other)
        for name, value in committed.items()
        if name in measurements
    ]


def _badness(found: Difference, tolerance: Tolerance) -> float:
    """A number to rank differences by: larger is worse, and a problem is the worst."""
    if found.problem is not None:
        return float("inf")
    return found.absolute if tolerance.measure in ("absolute", "equal bits") else found.relative


def _between(arrays: Mapping[str, Mapping[str, Measurement]], row: str) -> Difference | None:
    """The largest difference between two backends in a row."""
    differences = [
        comparison.difference
        for one, other in combinations(arrays.values(), 2)
        for comparison in _compared(one, {name: m.actual for name, m in other.items()}, "", row)
    ]
    return max(differences, key=lambda each: _badness(each, Tolerance("relative")), default=None)
