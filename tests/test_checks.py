"""Checks of arguments: what is right comes back as a plain number, what is wrong is repeated in the error."""

import math
import re

import numpy as np
import pytest

from keras_vit_edu import _checks


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
    expected = f"`rate` must be a number in [0, 1): 1 would drop everything. Received: rate={value!r}"
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
