"""Argument checks that several files share. Each raises a `ValueError` that repeats the received value."""

import difflib
import math
import numbers
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_vit_edu._types import DataFormat

MOST_CLASSES = 100_000
LONGEST_SEQUENCE = 1000  # more layers or dimensions than any model has


def positive_int(name: str, value: Any, minimum: int = 1) -> int:
    """`value` as an int of at least `minimum`; bools and floats are refused."""
    try:
        if isinstance(value, (bool, np.bool_)):  # NumPy 1 accepts `np.True_` as an index
            raise TypeError
        value_as_int = operator.index(value)
    except TypeError:
        raise ValueError(
            f"`{name}` must be a whole number, {minimum} or more. Received: {name}={shown(value)}"
        ) from None
    if value_as_int < minimum:
        raise ValueError(f"`{name}` must be {minimum} or more. Received: {name}={shown(value)}")
    return value_as_int


def dropout_rate(name: str, value: Any) -> float:
    """`value` as a float in [0, 1)."""
    rate = number(value)
    if not 0 <= rate < 1:
        raise ValueError(
            f"`{name}` must be a number in [0, 1): 1 would drop everything. Received: {name}={shown(value)}"
        )
    return rate


def non_negative(name: str, value: Any) -> float:
    """`value` as a finite float of at least 0."""
    finite = number(value)
    if not 0 <= finite < math.inf:
        raise ValueError(f"`{name}` must be a finite number, 0 or more. Received: {name}={shown(value)}")
    return finite


def number(value: Any) -> float:
    """`value` as a float; NaN, which is in no range, if it is not a real number or is too large for a float."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def is_number(value: Any) -> bool:
    """Whether `value` is a finite int or float, but not a bool."""
    return isinstance(value, (int, float)) and math.isfinite(number(value))


def ints(name: str, value: Any) -> tuple[int, ...]:
    """A sequence of whole numbers of at least 1 as a tuple. It may be empty."""
    entries = sequence(value)
    if entries is None:
        raise ValueError(f"`{name}` must be a list of whole numbers. Received: {name}={shown(value)}")
    return tuple(positive_int(name, entry) for entry in entries)


def image_shape(value: Any) -> tuple[int, int, int]:
    """A sequence of three whole numbers of at least 1 as a tuple."""
    entries = sequence(value)
    if entries is None or len(entries) != 3:
        raise ValueError(
            '`image_shape` must be (H, W, C), or (C, H, W) for data_format="channels_first". '
            f"Received: image_shape={shown(value)}"
        )
    height, width, channels = (positive_int("image_shape", side) for side in entries)
    return height, width, channels


def sequence(value: Any) -> tuple[Any, ...] | None:
    """The entries of a list, tuple, range, one-dimensional array or shape; None for any other value.

    Strings, dictionaries, sets and generators give None: their entries are not numbers, have no order, or can be read
    only once.
    """
    is_indexed = hasattr(value, "__len__") and hasattr(value, "__getitem__") and hasattr(value, "__iter__")
    if not is_indexed or isinstance(value, (str, bytes, bytearray, Mapping)):
        return None
    try:
        return tuple(value) if len(value) <= LONGEST_SEQUENCE else None
    except (TypeError, ValueError):  # an array of no dimension, a shape of unknown rank
        return None


def shown(value: Any) -> str:
    """A value as an error message shows it: its `repr` on one line, shortened if it is long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python does not print a whole number with more than 4,300 digits
        text = f"a {type(value).__name__} with thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}..."


def pair_of_ints(name: str, value: Any) -> tuple[int, int]:
    """An int `n` as `(n, n)`, or a sequence of two ints as a tuple. Both must be at least 1."""
    entries = sequence(value)
    pair = (value, value) if entries is None else entries
    try:
        first, second = (positive_int(name, entry) for entry in pair)
    except ValueError:
        raise ValueError(
            f"`{name}` must be a whole number or a pair of whole numbers, 1 or more. Received: {name}={shown(value)}"
        ) from None
    return first, second


def labels(
    what: str, value: Any, num_classes: int | None = None, count: int | None = None, received: str = ""
) -> np.ndarray:
    """Labels as an int32 array `(n,)`. All class indices of this package are checked here.

    Labels must have an integer dtype. Floats are refused, even 3.0, because a cast would turn 3.7 into the valid class
    3. Bools, strings, objects and one-hot rows are refused too.

    Args:
        what: the name of the labels in errors, such as `"`labels`"`.
        value: an array, a list or a tensor.
        num_classes: every label must be below this; None for below 2**31.
        count: required number of labels; None for at least one.
        received: a noun for labels out of range, in errors; may be empty.

    Raises:
        ValueError: if they are not whole numbers in that range, of shape `(n,)`, or of another count.
    """
    try:
        array = keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else np.asarray(value)
    except (TypeError, ValueError, OverflowError):  # a list of lists of different lengths
        raise ValueError(f"{what} must be whole numbers of shape (n,). Received: {type(value).__name__}") from None
    if array.dtype.kind not in "iu" or array.ndim != 1 or not len(array) or np.ma.is_masked(value):
        hint = "; of rows with a 1 per class, take `rows.argmax(axis=1)`" if array.ndim == 2 else ""
        raise ValueError(
            f"{what} must be whole numbers of shape (n,), one at least{hint}. "
            f"Received: {array.dtype} of shape {array.shape}"
        )
    if count is not None and len(array) != count:
        raise ValueError(f"{what} must be {count:,}, one per image. Received: {len(array):,}")
    smallest, largest = int(array.min()), int(array.max())
    if num_classes is not None and not 0 <= smallest <= largest < num_classes:
        found = f"{received} from {smallest} to {largest}".strip()
        raise ValueError(f"{what} must be 0 to {num_classes - 1}. Received: {found}")
    if smallest < 0:
        raise ValueError(f"{what} must be 0 or more. Received: {smallest}")
    if largest >= 2**31:
        raise ValueError(f"{what} must be below 2**31. Received: {largest}")
    return array.astype("int32")


def known_sizes(shape: Iterable[Any]) -> tuple[int | None, ...]:
    """A shape with None for every size that is not an int: unknown, symbolic, or a tensor while torch traces.

    Checks must compare the result of this function. (`torch.jit.trace` replaces sizes by tensors. They hash by
    identity, and a decision that depends on one becomes a constant of the trace.)
    """
    return tuple(int(size) if isinstance(size, (int, np.integer)) else None for size in shape)


def data_format(value: Any) -> DataFormat:
    """`value`, or Keras's global setting for None."""
    chosen = keras.config.image_data_format() if value is None else value
    if chosen not in ("channels_last", "channels_first"):
        raise ValueError(
            f'`data_format` must be "channels_last", "channels_first" or None. Received: data_format={value!r}'
        )
    return chosen


def did_you_mean(name: Any, names: Iterable[str], at_most: int = 1) -> str:
    """A question with the most similar of the valid names; empty if none is similar."""
    near = difflib.get_close_matches(str(name), list(names), n=at_most)
    return f"Did you mean {' or '.join(near)}?" if near else ""


def json_object(kind: str, values: Any, fields: Sequence[str]) -> None:
    """Raise ValueError if `values` is not a JSON object or has other fields. `kind` is its name in errors."""
    if not isinstance(values, dict):
        raise ValueError(f"{kind} is a JSON object. Received: {type(values).__name__}")
    for name in values:
        if name not in fields:
            hint = did_you_mean(name, fields) or f"It has {', '.join(fields)}."
            raise ValueError(f"{kind} has no field {name!r}. {hint}")


def class_names(value: Any, distinct: bool = True) -> tuple[str, ...]:
    """A list of non-empty texts as a tuple. With `distinct` no two may be equal."""
    is_list = isinstance(value, (list, tuple)) and 0 < len(value) <= MOST_CLASSES
    if not is_list or not all(isinstance(name, str) and name.strip() for name in value):
        raise ValueError(
            f"`class_names` must be a list of 1 to {MOST_CLASSES:,} texts, none of them empty. Received: {value!r:.200}"
        )
    different = len(set(value)) if distinct else len(value)
    if different < len(value):
        raise ValueError(
            "`class_names` must be texts, no two of them equal. "
            f"Received: {len(value)} texts, {different} different ones"
        )
    return tuple(value)
