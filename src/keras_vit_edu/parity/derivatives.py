"""Outputs and gradients of any Keras layer, as NumPy arrays, on whichever backend runs."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit_edu._types import Tensor


def output_and_gradients(
    layer: keras.layers.Layer,
    inputs: Sequence[np.ndarray],
    cotangent: np.ndarray | None = None,
    call: Callable[..., Tensor] | None = None,
    training: bool = False,
) -> tuple[np.ndarray, list[np.ndarray], dict[str, np.ndarray]]:
    """Run a layer forward and backward.

    The gradients are those of `sum(output * cotangent)`. The layer is left as it was: with `training`, the next call
    draws the same dropout masks again.

    Args:
        layer: a built layer or model.
        inputs: its positional arguments, float arrays.
        cotangent: of the output's shape; None for ones.
        call: what to differentiate, `call(layer, *inputs) -> output`, for keyword arguments such as masks; None for
            `layer(*inputs, training=training)`.
        training: passed on if `call` is None.

    Returns:
        The output; the gradient of each input; the gradient of each trainable weight, named as by `by_path`.

    Examples:
        >>> layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", name="dense")
        >>> layer.build((None, 2))
        >>> output, (input_gradient,), gradients = output_and_gradients(layer, [np.array([[2.0, 3.0]], "float32")])
        >>> output.tolist(), input_gradient.tolist(), gradients["dense/kernel"].tolist()
        ([[5.0]], [[1.0, 1.0]], [[2.0], [3.0]])
    """
    call = call or (lambda layer, *inputs: layer(*inputs, training=training))
    differentiate = {"tensorflow": _on_tensorflow, "jax": _on_jax, "torch": _on_torch}[keras.backend.backend()]
    state = [(variable, ops.convert_to_numpy(variable)) for variable in layer.non_trainable_variables]
    try:
        output, input_gradients, weight_gradients = differentiate(layer, list(inputs), cotangent, call)
    finally:
        for variable, value in state:
            variable.assign(value)
    named = zip(by_path(layer.trainable_variables), weight_gradients, strict=True)
    return (
        ops.convert_to_numpy(output),
        [ops.convert_to_numpy(gradient) for gradient in input_gradients],
        {name: ops.convert_to_numpy(gradient) for name, gradient in named},
    )


def by_path(variables: Iterable[keras.Variable]) -> dict[str, keras.Variable]:
    """Variables by their paths; where several have one path, the second is called `path (2)`, and so on."""
    named: dict[str, keras.Variable] = {}
    for variable in variables:
        name, count = variable.path, 1
        while name in named:
            count += 1
            name = f"{variable.path} ({count})"
        named[name] = variable
    return named


def _weighted_sum(output: Any, cotangent: np.ndarray | None) -> Any:
    if cotangent is None:
        return ops.sum(output)
    return ops.sum(output * ops.cast(cotangent, output.dtype))


def _on_tensorflow(layer: Any, inputs: list, cotangent: Any, call: Callable) -> tuple[Any, list, list]:
    import tensorflow as tf

    tensors = [tf.convert_to_tensor(x) for x in inputs]
    weights = [variable.value for variable in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        output = call(layer, *tensors)
        loss = _weighted_sum(output, cotangent)
    zero = tf.UnconnectedGradients.ZERO
    input_gradients, weight_gradients = tape.gradient(loss, (tensors, weights), unconnected_gradients=zero)
    return output, input_gradients, [tf.convert_to_tensor(gradient) for gradient in weight_gradients]


def _on_torch(layer: Any, inputs: list, cotangent: Any, call: Callable) -> tuple[Any, list, list]:
    import torch

    tensors = [ops.convert_to_tensor(x).clone().requires_grad_(True) for x in inputs]
    weights = [variable.value for variable in layer.trainable_variables]
    output = call(layer, *tensors)
    gradients = torch.autograd.grad(_weighted_sum(output, cotangent), [*tensors, *weights], allow_unused=True)
    filled = [
        torch.zeros_like(x) if gradient is None else gradient
        for x, gradient in zip([*tensors, *weights], gradients, strict=True)
    ]
    return output, filled[: len(tensors)], filled[len(tensors) :]


def _on_jax(layer: Any, inputs: list, cotangent: Any, call: Callable) -> tuple[Any, list, list]:
    import jax

    def loss(weights: list, tensors: list) -> tuple[Any, Any]:
        mapping = list(zip(layer.trainable_variables, weights, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            output = call(layer, *tensors)
            return _weighted_sum(output, cotangent), output

    weights = [variable.value for variable in layer.trainable_variables]
    tensors = [ops.convert_to_tensor(x) for x in inputs]
    differentiated = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))  # eager JAX compiles every step
    (_, output), (weight_gradients, input_gradients) = differentiated(weights, tensors)
    return output, input_gradients, weight_gradients
