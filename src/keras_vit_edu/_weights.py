"""Weights handed from one variable to another."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


def copy_of(value: Any) -> np.ndarray:
    """A variable's value, or a tensor, as an array of its own, to assign to another variable.

    Assigned as it is, JAX's two variables would hold one array, and Keras lets each step of `fit` and `predict` reuse
    the memory of the weights that it was given: the other variable's value would be gone ("Array has been deleted").
    """
    return np.array(keras.ops.convert_to_numpy(value))


def copy_variables(source: Sequence[Any], target: Sequence[Any]) -> None:
    """Assign the values of variables to others, in order."""
    for theirs, ours in zip(source, target, strict=True):
        ours.assign(copy_of(theirs.value))
