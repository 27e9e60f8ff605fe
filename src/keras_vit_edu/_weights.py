"""Weights handed from one variable to another."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_vit_edu._keras_internals import held_value


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


def unshare(model: Any) -> None:
    """Give the optimizer's variables arrays of their own, where Keras let them share those of the weights.

    On JAX `fit` with a moving average ends so: averages and weights are the same arrays, and `evaluate` or `predict`
    give their memory away. The next `fit` would fail ("Array has been deleted").
    """
    optimizer = getattr(model, "optimizer", None)
    if keras.backend.backend() != "jax" or optimizer is None:
        return
    weights = {id(held_value(variable)) for variable in model.variables}
    for variable in optimizer.variables:
        value = held_value(variable)
        if value is not None and id(value) in weights:
            variable.assign(copy_of(variable.value))
