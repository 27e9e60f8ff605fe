"""Run a function of a model's parts once, compiled where that pays, and differentiate it; NumPy in, NumPy out.

What was compiled for the last model is kept, so that a second call with the same shapes does not compile again.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit_edu._inference import turn

_last: tuple[Any, dict[Hashable, Callable[..., Any]]] = (None, {})  # a model, and what was compiled for it, by key


def run(model: keras.Model, function: Callable[..., Any], inputs: Sequence[np.ndarray], key: Hashable = None) -> Any:
    """What `function(*tensors)` returns, as NumPy arrays.

    Args:
        model: whose weights the function uses.
        function: of a tensor for each input; returns tensors, in tuples, lists and dictionaries. It must do the same in
            every call with the same `key`.
        inputs: float arrays.
        key: says what the function does, for functions that are called often. Without it, what was compiled is not
            kept.
    """
    return _as_numpy(_call(model, function, inputs, key, with_gradients=False))


def outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """The output of a model, without dropout."""
    return run(model, lambda images: model(images, training=False), [images], key="outputs")


def gradients(
    model: keras.Model, function: Callable[..., Any], inputs: Sequence[np.ndarray], key: Hashable = None
) -> list[np.ndarray]:
    """As `run`, of a function that returns one number: its gradient for each input."""
    return list(_as_numpy(_call(model, function, inputs, key, with_gradients=True)))


def _call(
    model: keras.Model, function: Callable[..., Any], inputs: Sequence[np.ndarray], key: Hashable, with_gradients: bool
) -> Any:
    global _last
    make = {"tensorflow": _on_tensorflow, "torch": _on_torch, "jax": _on_jax}[keras.backend.backend()]
    with turn(model):
        if _last[0] is not model:
            _last = (model, {})
        compiled = _last[1].get((key, with_gradients)) or make(model, function, with_gradients)
        if key is not None:
            _last[1][key, with_gradients] = compiled
        return compiled([np.asarray(x, "float32") for x in inputs])


def _as_numpy(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _as_numpy(entry) for name, entry in found.items()}
    if isinstance(found, (list, tuple)):
        return type(found)(_as_numpy(entry) for entry in found)
    return ops.convert_to_numpy(ops.cast(found, "float32") if ops.is_tensor(found) else found)


def _on_tensorflow(model: Any, function: Callable[..., Any], with_gradients: bool) -> Callable[..., Any]:
    import tensorflow as tf

    @tf.function(reduce_retracing=False)
    def compiled(tensors: list) -> Any:
        if not with_gradients:
            return function(*tensors)
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            number = function(*tensors)
        return tape.gradient(number, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return lambda arrays: compiled([tf.convert_to_tensor(x) for x in arrays])


def _on_torch(model: Any, function: Callable[..., Any], with_gradients: bool) -> Callable[..., Any]:
    import torch

    def call(arrays: list) -> Any:
        tensors = [ops.convert_to_tensor(x) for x in arrays]
        if not with_gradients:
            with torch.no_grad():
                return function(*tensors)
        tensors = [tensor.clone().requires_grad_(True) for tensor in tensors]
        with torch.enable_grad():
            number = function(*tensors)
        found = torch.autograd.grad(number, tensors, allow_unused=True)
        return [torch.zeros_like(x) if dx is None else dx for x, dx in zip(tensors, found, strict=True)]

    return call


def _on_jax(model: Any, function: Callable[..., Any], with_gradients: bool) -> Callable[..., Any]:
    import jax

    def pure(tensors: list, values: list) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(model.variables, values, strict=True))):
            return function(*tensors)

    compiled = jax.jit(jax.grad(pure) if with_gradients else pure)
    return lambda arrays: compiled(
        [ops.convert_to_tensor(x) for x in arrays], [variable.value for variable in model.variables]
    )
