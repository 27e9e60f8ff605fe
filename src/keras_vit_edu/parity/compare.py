"""Measure the difference between two arrays, and compare it with a tolerance."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tolerance:
    """The largest difference that passes.

    Attributes:
        measure: `"equal bits"`; `"relative"`, the largest difference as a share of the largest expected value; or
            `"absolute"`, the largest difference.
        limit: the largest difference that passes; 0 for equal bits.
    """

    measure: str
    limit: float = 0.0

    def __str__(self) -> str:
        if self.measure == "equal bits":
            return self.measure
        return f"{self.limit:.0e}" + (" of the largest" if self.measure == "relative" else "")


EQUAL_BITS = Tolerance("equal bits")


@dataclass(frozen=True)
class Difference:
    """The difference between two arrays.

    Attributes:
        absolute: the largest difference of two elements; NaN if there is a NaN in either array.
        relative: `absolute` as a share of the largest expected value.
        ulps: the largest number of steps from one float to the next, in the actual array's dtype, between two
            elements; None if the dtype is not a float, or an element is not finite.
        equal_bits: whether dtype and every bit are the same, and nothing is NaN.
        problem: why the numbers cannot be compared, such as different shapes; None if they can.
    """

    absolute: float = math.nan
    relative: float = math.nan
    ulps: int | None = None
    equal_bits: bool = False
    problem: str | None = None

    def within(self, tolerance: Tolerance) -> bool:
        """Whether the difference passes. NaN, or a problem, never passes."""
        if self.problem is not None:
            return False
        if tolerance.measure == "equal bits":
            return self.equal_bits
        return getattr(self, tolerance.measure) <= tolerance.limit

    def __str__(self) -> str:
        if self.problem is not None:
            return self.problem
        ulps = "" if self.ulps is None else f", {self.ulps:,} ULP"
        return f"{self.absolute:.1e}, {self.relative:.1e} of the largest{ulps}"


def difference(actual: np.ndarray, expected: np.ndarray, scale: float | None = None) -> Difference:
    """Compare an array with the expected array.

    Args:
        actual: numbers or bools; bfloat16 too; a complex number counts as two.
        expected: of the same shape; float64 for what an oracle computed.
        scale: the largest expected value, if it is to be taken from more than this array; None to take it from here.

    Examples:
        >>> difference(np.array([1.0, 2.5]), np.array([1.0, 2.0]))
        Difference(absolute=0.5, relative=0.25, ulps=1125899906842624, equal_bits=False, problem=None)
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        return Difference(problem=f"shape {actual.shape}, expected {expected.shape}")
    equal_bits = actual.dtype == expected.dtype and actual.tobytes() == expected.tobytes()
    if "c" in (actual.dtype.kind, expected.dtype.kind):
        actual, expected = _in_pairs(actual), _in_pairs(expected)
    counts = {"actual": _count_nan(actual), "expected": _count_nan(expected)}
    if any(counts.values()):
        found = " and ".join(f"{count} of the {name} values" for name, count in counts.items() if count)
        return Difference(problem=f"NaN: {found}, of {actual.size:,}")
    if actual.size == 0:
        return Difference(0.0, 0.0, None, equal_bits)
    wide, wide_expected = actual.astype("float64"), expected.astype("float64")
    unequal = wide != wide_expected  # an infinity minus itself would be NaN
    with np.errstate(over="ignore"):
        absolute = float(np.abs(wide[unequal] - wide_expected[unequal]).max(initial=0.0))
    scale = largest(expected) if scale is None else scale
    relative = 0.0 if absolute == 0 else absolute / scale if scale else math.inf
    # An infinity in place of a finite number counts as infinitely far, also relative to a large value.
    relative = math.inf if absolute == math.inf else relative
    return Difference(absolute, relative, _ulps(actual, expected), equal_bits)


def largest(array: np.ndarray) -> float:
    """The largest finite absolute value; 0 if there is none. (Relative to infinity every difference would be 0.)"""
    wide = (_in_pairs(array) if array.dtype.kind == "c" else array).astype("float64")
    return float(np.abs(wide[np.isfinite(wide)]).max(initial=0.0))


def _in_pairs(array: np.ndarray) -> np.ndarray:
    """Real and imaginary parts along a new last axis."""
    return np.stack([array.real, array.imag], axis=-1)


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _count_nan(array: np.ndarray) -> int:
    return int(np.isnan(array).sum()) if _is_float(array) else 0


def _ulps(actual: np.ndarray, expected: np.ndarray) -> int | None:
    if not _is_float(actual) or not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return None
    with np.errstate(over="ignore"):
        expected = expected.astype(actual.dtype)
    ours, theirs = _position(actual), _position(expected)
    low, high = np.minimum(ours, theirs), np.maximum(ours, theirs)
    return int((high.view("uint64") - low.view("uint64")).max())  # as uint64, where the distance always fits


def _position(array: np.ndarray) -> np.ndarray:
    """The position of each float in the order of all floats of its dtype, int64; both zeros have position 0."""
    bits = array.view(f"i{array.itemsize}").astype("int64")
    magnitude = bits & (2 ** (8 * array.itemsize - 1) - 1)
    return np.where(bits < 0, -magnitude, magnitude)
