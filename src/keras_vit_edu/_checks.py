"""Argument checks that several files share. Each raises one `ValueError` that repeats what was given."""

import operator
from typing import Any


def positive_int(name: str, value: Any, minimum: int = 1) -> int:
    """`value` as an int of at least `minimum`; bools and floats are refused."""
    try:
        if isinstance(value, bool):
            raise TypeError
        value_as_int = operator.index(value)
    except TypeError:
        raise ValueError(
            f"`{name}` must be a whole number, {minimum} or more. Received: {name}={value!r}"
        ) from None
    if value_as_int < minimum:
        raise ValueError(f"`{name}` must be {minimum} or more. Received: {name}={value!r}")
    return value_as_int


def dropout_rate(name: str, value: Any) -> float:
    """`value` as a float in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"`{name}` must be a number in [0, 1): 1 would drop everything. Received: {name}={value!r}")
    return float(value)


def pair_of_ints(name: str, value: Any) -> tuple[int, int]:
    """An int `n` as `(n, n)`, a pair of ints as it is."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"`{name}` must be an int or a pair of ints. Received: {name}={value!r}")
        return positive_int(name, value[0]), positive_int(name, value[1])
    return positive_int(name, value), positive_int(name, value)
