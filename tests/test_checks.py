"""Checks of arguments: what is right comes back as a plain number, what is wrong is repeated in the error."""

import math
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_vit_edu import _checks

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("value", [1, 7, np.int64(7), np.uint8(7)])
def test_a_whole_number_comes_back_as_an_int(value):
    checked = _checks.positive_int("num_heads", value)
    assert checked == int(value)
    assert type(checked) is int


@pytest.mark.parametrize("value", [2.0, 2.5, "2", None, True, np.True_, [2], np.array([2, 3]), np.float32(2)])
def test_no_whole_number_is_refused(value):
    with pytest.raises(ValueError, match=r"`num_heads` must be a whole number, 1 or more\. Received: num_heads="):
        _checks.positive_int("num_heads", value)


@pytest.mark.parametrize("value", [0, -1])
def test_a_number_below_the_minimum_is_refused(value):
    with pytest.raises(ValueError, match=rf"`num_heads` must be 1 or more\. Received: num_heads={value}$"):
        _checks.positive_int("num_heads", value)


@pytest.mark.parametrize("value", [-(10**5000), [10**5000]], ids=["number", "list"])
@pytest.mark.parametrize("check", [_checks.positive_int, _checks.dropout_rate, _checks.non_negative])
def test_a_number_that_python_does_not_write_is_refused_by_name(check, value):
    with pytest.raises(ValueError, match=r"`num_heads` must be .* with thousands of digits"):
        check("num_heads", value)


def test_a_path_is_like_a_name():
    assert _checks.did_you_mean(Path("some-nams"), ["some-name", "other"]) == "Did you mean some-name?"


def test_the_minimum_itself_is_taken():
    assert _checks.positive_int("num_prefix_tokens", 0, minimum=0) == 0
    with pytest.raises(ValueError, match=r"`num_prefix_tokens` must be 0 or more\. Received: num_prefix_tokens=-1"):
        _checks.positive_int("num_prefix_tokens", -1, minimum=0)


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 1 - 2**-53, np.float32(0.25), np.float64(0.25)])
def test_a_rate_in_its_range_comes_back_as_a_float(value):
    checked = _checks.dropout_rate("rate", value)
    assert checked == value
    assert type(checked) is float


@pytest.mark.parametrize(
    "value",
    [1, 1.0, -0.1, -1, 2, pytest.param(10**400, id="beyond floats"), math.nan, math.inf, "0.5", None, False, [0.5]],
)
def test_another_rate_is_refused(value):
    expected = f"`rate` must be a number in [0, 1): 1 would drop everything. Received: rate={repr(value)[:200]}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        _checks.dropout_rate("rate", value)


@pytest.mark.parametrize(
    ("value", "expected"), [(3, (3, 3)), ((3, 5), (3, 5)), ([3, 5], (3, 5)), (np.int32(3), (3, 3)), ((1, 1), (1, 1))]
)
def test_one_int_stands_for_a_pair(value, expected):
    assert _checks.pair_of_ints("patch_size", value) == expected


@pytest.mark.parametrize(
    "value", [0, -2, 2.0, (2,), (2, 2, 2), (), (2, 0), (-1, 2), (2, 2.0), "22", None, True, (2, None)]
)
def test_no_pair_is_refused_and_repeated_whole(value):
    expected = (
        f"`patch_size` must be a whole number or a pair of whole numbers, 1 or more. Received: patch_size={value!r}"
    )
    with pytest.raises(ValueError, match=re.escape(expected) + "$"):
        _checks.pair_of_ints("patch_size", value)


# Labels. --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        [2, 0, 1],
        (2, 0, 1),
        np.array([2, 0, 1], "uint8"),
        np.array([2, 0, 1], "uint64"),
        np.array([2, 0, 1], ">i8"),
        np.array([1, 0, 2], "int64")[::-1],
    ],
)
def test_labels_of_every_integer_dtype_become_int32(value):
    labels = _checks.labels("`y`", value, num_classes=3, count=3)
    assert labels.dtype == np.int32
    assert labels.dtype.isnative
    assert labels.tolist() == [2, 0, 1]


def test_labels_in_a_tensor_of_the_backend():
    labels = _checks.labels("`y`", keras.ops.convert_to_tensor(np.array([2, 0, 1], "int32")))
    assert type(labels) is np.ndarray
    assert labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ([1.9, 0], "whole numbers.*Received: float64"),
        ([3.0, 0.0], "whole numbers.*Received: float64"),  # it may have been computed, and be 2.9999 next time
        ([np.nan, 0], "whole numbers.*Received: float64"),
        ([np.inf, 0], "whole numbers.*Received: float64"),
        ([True, False], "whole numbers.*Received: bool"),
        (["1", "0"], "whole numbers.*Received: <U1"),
        ([1 + 0j], "whole numbers.*Received: complex128"),
        (np.array([1, 0], object), "whole numbers.*Received: object"),
        (np.array([1, 2], "m8[s]"), "whole numbers.*Received: timedelta64"),
        (np.array(["2020-01-01"], "M8[D]"), "whole numbers.*Received: datetime64"),
        (np.array([(1,)], [("a", "i4")]), "whole numbers"),
        (np.ma.array([1, 2], mask=[False, True]), "whole numbers"),
        ([1, None], "whole numbers.*Received: object"),
        ([[0, 1], [1]], "whole numbers"),
        ([2**70], "whole numbers.*Received: object"),
        (np.eye(3), r"rows\.argmax\(axis=1\).*Received: float64 of shape \(3, 3\)"),
        (np.eye(3, dtype="int32"), r"rows\.argmax\(axis=1\).*Received: int32 of shape \(3, 3\)"),
        (np.array([[1], [2]]), r"shape \(2, 1\)"),
        (3, r"Received: int64 of shape \(\)"),
        (None, "whole numbers"),
        ({0: 1}, "whole numbers"),
        ((label for label in (0, 1)), "whole numbers"),
        ([], r"one at least.*shape \(0,\)"),
        (np.zeros(0, int), r"one at least.*shape \(0,\)"),
        ([0, -1], "`y` must be 0 to 3. Received: from -1 to 0"),
        ([0, 4], "`y` must be 0 to 3. Received: from 0 to 4"),
        ([2**40 + 3], "`y` must be 0 to 3. Received: from 1099511627779"),
        (np.array([2**64 - 1], "uint64"), "`y` must be 0 to 3. Received: from 18446744073709551615"),
    ],
)
def test_what_is_no_label_of_four_classes(value, complaint):
    with pytest.raises(ValueError, match=complaint):
        _checks.labels("`y`", value, num_classes=4)


@pytest.mark.parametrize("value", [[2**31], [2**40 + 3], np.array([2**64 - 1], "uint64"), [-1]])
def test_without_a_number_of_classes_labels_fit_into_int32(value):
    with pytest.raises(ValueError, match=r"`y` must be (below|0 or more)"):
        _checks.labels("`y`", value)
    assert _checks.labels("`y`", [2**31 - 1]).tolist() == [2**31 - 1]


def test_as_many_labels_as_images():
    with pytest.raises(ValueError, match=r"`y` must be 3, one per image\. Received: 2"):
        _checks.labels("`y`", [0, 1], count=3)


# Sequences. -----------------------------------------------------------------------------------------------------------


class Shape:
    """Entries, a length and places, as `tf.TensorShape` has them, and no base class of sequences."""

    def __init__(self, *sizes):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def __iter__(self):
        return iter(self.sizes)

    def __getitem__(self, i):
        return self.sizes[i]


@pytest.mark.parametrize(
    "value",
    [(2, 3), [2, 3], range(2, 4), np.array([2, 3]), np.array([2, 3], "uint8"), [np.int64(2), 3], Shape(2, 3)],
    ids=lambda value: type(value).__name__,
)
def test_any_sequence_of_ints_is_a_tuple_of_ints(value):
    for checked in (_checks.ints("filters", value), _checks.pair_of_ints("patch_size", value)):
        assert checked == (2, 3)
        assert [type(entry) for entry in checked] == [int, int]


@pytest.mark.parametrize("value", [np.array(3), np.array(3, "uint8"), np.int8(3)])
def test_an_array_without_dimensions_is_an_int(value):
    assert _checks.pair_of_ints("patch_size", value) == (3, 3)


@pytest.mark.parametrize(
    "value",
    ["23", b"23", {2: 0, 3: 0}, {2, 3}, (size for size in (2, 3)), np.ones((2, 2), "int32"), np.array([2.0, 3.0]),
     Shape(2, None), range(10**12), np.array(["2", "3"]), None, 2.5],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_sequence_of_ints_is_refused_in_one_line(value):
    for check in (_checks.ints, _checks.pair_of_ints, lambda name, value: _checks.image_shape(value)):
        with pytest.raises(ValueError, match="Received: ") as caught:
            check("filters", value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


def test_known_sizes_are_the_ints():
    assert _checks.known_sizes((2, None, np.int32(3), object(), 4.0)) == (2, None, 3, None, None)
