"""Copy weights between variables."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_vit_edu._keras_internals import held_value


def copy_of(value: Any) -> np.ndarray:
    """Copy a variable's value, or a tensor, to assign it to another variable.

    Without a copy, two variables on JAX would share one array. Keras lets each step of `fit` and `predict` reuse the
    memory of its weights, so the other variable would lose its value ("Array has been deleted").
    """
    return np.array(keras.ops.convert_to_numpy(value))


def copy_variables(source: Sequence[Any], target: Sequence[Any]) -> None:
    """Assign the values of `source` to `target`, in order."""
    for theirs, ours in zip(source, target, strict=True):
        ours.assign(copy_of(theirs.value))


def unshare(model: Any) -> None:
    """Copy the optimizer's variables where Keras lets them share arrays with the weights.

    On JAX, after `fit` with a moving average, averages and weights share their arrays. `evaluate` or `predict` donates
    this memory, and the next `fit` would fail ("Array has been deleted").
    """
    optimizer = getattr(model, "optimizer", None)
    if keras.backend.backend() != "jax" or optimizer is None:
        return
    weights = {id(held_value(variable)) for variable in model.variables}
    for variable in optimizer.variables:
        value = held_value(variable)
        if value is not None and id(value) in weights:
            variable.assign(copy_of(variable.value))
