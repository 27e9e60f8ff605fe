"""Differences and tolerances, against cases worked out by hand."""

import math

import ml_dtypes
import numpy as np
import pytest

from keras_vit_edu.parity.arrays import BFLOAT16, load_arrays, save_arrays
from keras_vit_edu.parity.compare import EQUAL_BITS, Tolerance, difference

pytestmark = pytest.mark.any_backend

RELATIVE, ABSOLUTE = Tolerance("relative", 0.1), Tolerance("absolute", 0.1)
ALL = (EQUAL_BITS, RELATIVE, ABSOLUTE)
X = np.array([1.0, -4.0], "float32")


def test_equal_arrays_are_within_every_tolerance():
    found = difference(X, X.copy())
    assert (found.absolute, found.relative, found.ulps, found.equal_bits) == (0, 0, 0, True)
    assert all(found.within(tolerance) for tolerance in ALL)


def test_absolute_and_relative_to_the_largest_expected_value():
    found = difference(np.array([1.0, -3.0], "float32"), X)
    assert (found.absolute, found.relative) == (1.0, 0.25)
    assert difference(X, np.array([1.0, -3.0], "float32")).relative == pytest.approx(1 / 3)
    assert difference(np.array([2.0, -4.0], "float32"), X, scale=100.0).relative == 0.01


def test_a_tolerance_takes_its_own_measure_and_its_limit_passes():
    found = difference(np.array([1.0, -3.0]), np.array([1.0, -4.0]))  # 1, a quarter
    assert found.within(Tolerance("absolute", 1.0))
    assert not found.within(Tolerance("absolute", 0.99))
    assert found.within(Tolerance("relative", 0.25))
    assert not found.within(Tolerance("relative", 0.249))
    assert not found.within(EQUAL_BITS)


def ulps(actual, expected, dtype="float32"):
    return difference(np.array([actual], dtype), np.array([expected], dtype)).ulps


def test_ulps_count_the_floats_in_between():
    one_up = 1 + 2**-23
    assert ulps(1.0, one_up) == ulps(one_up, 1.0) == ulps(-1.0, -one_up) == 1
    assert ulps(1.0, 1 - 2**-24) == 1  # below a power of two they lie twice as close
    assert ulps(1.0, 2.0) == 2**23
    assert ulps(0.0, 2.0**-149) == 1  # the smallest
    assert ulps(-(2.0**-149), 2.0**-149) == 2  # across zero
    assert ulps(-0.0, 0.0) == 0
    assert ulps(1.0, 1 + 2**-10, "float16") == 1
    assert ulps(1.0, 1 + 2**-52, "float64") == 1
    top = np.finfo("float64").max
    assert ulps(-top, top, "float64") == 2 * (0x7FEFFFFFFFFFFFFF)  # would not fit into an int64


def test_ulps_are_of_the_actual_dtype():
    assert difference(np.array([1.0], "float32"), np.array([1 + 2**-23 + 2**-40])).ulps == 1


@pytest.mark.parametrize(("actual", "expected"), [([math.nan], [math.nan]), ([1.0], [math.nan]), ([math.nan], [1.0])])
def test_nan_is_never_equal_not_even_to_itself(actual, expected):
    found = difference(np.array(actual, "float32"), np.array(expected, "float32"))
    assert not any(found.within(tolerance) for tolerance in ALL)
    assert not found.within(Tolerance("absolute", math.inf))
    assert "NaN" in str(found)


def test_nan_is_counted_and_its_side_named():
    found = difference(np.array([1.0, math.nan, math.nan]), np.array([math.nan, 0.0, 0.0]))
    assert found.problem == "NaN: 2 of the actual values and 1 of the expected values, of 3"


def test_equal_infinities_are_equal_and_others_infinitely_far():
    infinite = np.array([math.inf, -math.inf, 1.0])
    same = difference(infinite, infinite.copy())
    assert (same.absolute, same.relative, same.ulps) == (0, 0, None)
    assert all(same.within(tolerance) for tolerance in ALL)
    for other in ([math.inf, math.inf, 1.0], [1.0, -math.inf, 1.0]):
        found = difference(infinite, np.array(other))
        assert found.absolute == found.relative == math.inf
        assert not any(found.within(tolerance) for tolerance in ALL)


def test_other_shapes_are_a_problem_with_a_name():
    found = difference(np.zeros((2, 3)), np.zeros((3, 2)))
    assert found.problem == str(found) == "shape (2, 3), expected (3, 2)"
    assert not any(found.within(tolerance) for tolerance in ALL)
    assert difference(np.zeros(1), np.float64(0)).problem  # no broadcasting


def test_bits_are_dtype_and_sign_of_zero_too():
    assert not difference(np.zeros(1), np.zeros(1, "float32")).within(EQUAL_BITS)
    assert not difference(np.array([0.0]), np.array([-0.0])).within(EQUAL_BITS)
    assert difference(np.array([0.0]), np.array([-0.0])).within(RELATIVE)


def test_complex_numbers_are_compared_as_pairs():
    actual, expected = np.array([1 + 2j, 4j], "complex64"), np.array([1 + 3j, 4j], "complex64")
    found = difference(actual, expected)
    assert (found.absolute, found.relative, found.ulps) == (1, 0.25, 2**22)
    assert difference(actual, actual.copy()).within(EQUAL_BITS)
    assert "NaN" in str(difference(np.array([complex(0, math.nan)]), np.array([0j])))
    real = difference(np.array([1.0], "float32"), np.array([1 + 0j], "complex64"))
    assert (real.absolute, real.equal_bits) == (0, False)


def test_bfloat16_has_its_own_steps():
    found = difference(np.array([1 + 2**-7, 2], BFLOAT16), np.array([1.0, 2.0]))
    assert (found.absolute, found.relative, found.ulps, found.equal_bits) == (2**-7, 2**-8, 1, False)
    assert difference(np.array([2], BFLOAT16), np.array([2], BFLOAT16)).within(EQUAL_BITS)
    assert "NaN" in str(difference(np.array([math.nan], BFLOAT16), np.array([0.0])))


@pytest.mark.parametrize("dtype", ["complex64", BFLOAT16, "float16", "bool", "int32"])
def test_arrays_come_back_from_their_file(tmp_path, dtype):
    array = np.array([0, 1, 3]).astype(dtype)
    save_arrays(tmp_path / "a.npz", {"a": array})
    assert difference(load_arrays(tmp_path / "a.npz")["a"], array).within(EQUAL_BITS)


def test_floats_of_8_bits_come_back_as_float32(tmp_path):
    save_arrays(tmp_path / "a.npz", {"a": np.array([1.5], ml_dtypes.float8_e4m3fn)})
    assert load_arrays(tmp_path / "a.npz")["a"].tolist() == [1.5]


def test_ints_and_bools():
    found = difference(np.array([True, False]), np.array([True, True]))
    assert (found.absolute, found.relative, found.ulps, found.equal_bits) == (1, 1, None, False)
    assert difference(np.array([3, 8], "int32"), np.array([3, 4], "int32")).absolute == 4


def test_a_difference_where_zero_was_expected_is_relatively_infinite():
    assert difference(np.array([1e-9]), np.zeros(1)).relative == math.inf
    assert difference(np.zeros(1), np.zeros(1)).relative == 0


def test_empty_arrays_are_equal():
    assert difference(np.zeros((0, 3)), np.zeros((0, 3))).within(EQUAL_BITS)


def test_in_words():
    assert [str(tolerance) for tolerance in (EQUAL_BITS, Tolerance("relative", 2e-6), Tolerance("absolute", 1e-4))] == [
        "equal bits", "2e-06 of the largest", "1e-04",
    ]  # fmt: skip
    assert str(difference(np.float32([1 + 2**-23]), np.float32([1]))) == "1.2e-07, 1.2e-07 of the largest, 1 ULP"


def test_an_infinity_on_both_sides_hides_nothing():
    found = difference(np.array([-np.inf, 1.0, 2.0]), np.array([-np.inf, 100.0, -8.0]))
    assert found.relative == 99 / 100
    assert not found.within(Tolerance("relative", 1e-5))
