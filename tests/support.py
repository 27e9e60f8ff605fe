"""What several test files share. Nothing here computes an expected value."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.parity.testing import constructor_arguments as constructor_arguments
from keras_vit_edu.parity.testing import revived as revived

BACKEND = keras.backend.backend()

# Those of `ViTClassifier` that came after the first configurations were written.
LATER_ARGUMENTS = (
    "stem",
    "stem_filters",
    "stem_strides",
    "stem_pools",
    "stem_dropout",
    "stem_normalization",
    "stochastic_depth",
    "hidden_dropout",
    "projection_dropout",
    "embedding_dropout",
    "locality",
)

BEFORE_KEYWORDS = (
    "num_classes", "image_shape", "patch_size", "projection_dim", "num_layers", "num_heads", "key_dim", "mlp_dim"
)  # fmt: skip


def vit_classifier(*sizes: Any, **flat: Any) -> ViTClassifier:
    """A classifier with the course's sizes but for these: arguments of it, its backbone and its stem in one list."""
    return ViTClassifier.from_config({**dict(zip(BEFORE_KEYWORDS, sizes, strict=False)), **flat})


def opened_vit(backbone: Any, num_classes: int, pre_logits_dim: int | None = None, **head: Any) -> ViTClassifier:
    """A classifier with the head that `open_vit` gives it: one token, a layer with tanh or none, no dropout."""
    units = () if pre_logits_dim is None else (pre_logits_dim,)
    defaults = {"head": "token", "head_units": units, "head_dropout": 0.0, "head_activation": "tanh"}
    return ViTClassifier(backbone, num_classes, **{**defaults, "head_dtype": backbone.dtype_policy, **head})


def on_one_backend(*cases: Any) -> list[Any]:
    """Cases of a test that prove on one backend what the other cases prove on each."""
    return [
        pytest.param(*case, marks=pytest.mark.any_backend)
        if isinstance(case, tuple)
        else pytest.param(case, marks=pytest.mark.any_backend)
        for case in cases
    ]


def to_numpy(x: Any) -> np.ndarray:
    """A float64 array (so that bfloat16 is an ordinary number), ints and bools as they are."""
    x = ops.convert_to_tensor(x)
    if keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
        return ops.convert_to_numpy(ops.cast(x, "float32")).astype("float64")
    return ops.convert_to_numpy(x)


def relative_difference(actual: Any, expected: Any) -> float:
    """The largest difference, as a share of the largest expected value. NaN stays NaN, so it never passes a bound."""
    actual, expected = np.asarray(actual, "float64"), np.asarray(expected, "float64")
    assert actual.shape == expected.shape, f"shapes differ: {actual.shape} and {expected.shape}"
    return float(np.max(np.abs(actual - expected)) / np.max(np.abs(expected)))


def assert_agree(actual: Any, expected: Any, tolerance: float) -> None:
    """Largest difference at most `tolerance` of the largest expected value."""
    difference = relative_difference(actual, expected)
    assert difference <= tolerance, f"differs by {difference:.2e} of the largest value, {tolerance:.0e} is allowed"


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of tensors, compiled by the backend: tf.function, jax.jit; torch runs eagerly, as Keras's fit does."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    return function


def compilers() -> dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """Every compiler of the backend that runs, by name: each takes a function of tensors and gives it compiled."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return {"tf.function": tf.function, "XLA": lambda function: tf.function(function, jit_compile=True)}
    if BACKEND == "jax":
        import jax

        return {"jax.jit": jax.jit}
    import torch

    # The default compiler writes C++; where there is none to build it, the same traced graph is run as it is.
    cpp = any(shutil.which(name) for name in ("g++", "clang++", "c++"))
    return {"torch.compile": lambda function: torch.compile(function, backend="inductor" if cpp else "aot_eager")}


def fingerprint(array: np.ndarray) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of an array's dtype, shape and little-endian bytes."""
    array = np.asarray(array)
    array = array.astype(array.dtype.newbyteorder("<"))
    header = f"{array.dtype.name}{array.shape}".encode()
    return hashlib.sha256(header + array.tobytes()).hexdigest()[:16]


def variable_shapes(layer: keras.layers.Layer) -> dict[str, tuple[int, ...]]:
    """Shape by path of every variable."""
    return {variable.path: tuple(variable.shape) for variable in layer.variables}


def copy_weights(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """Give `target` the weights of `source`; both built alike."""
    target.set_weights(source.get_weights())


def random_weights(layer: keras.layers.Layer, scale: float = 0.3, seed: int = 0) -> None:
    """Replace every weight, biases and norms included, by random numbers, so that none is 0 or 1 and none hides."""
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(0, scale, w.shape).astype("float32") for w in layer.get_weights()])


def shapes(outputs: Any) -> list[tuple[int | None, ...]]:
    """The shapes of one or several tensors."""
    outputs = outputs if isinstance(outputs, Sequence) else [outputs]
    return [tuple(x.shape) for x in outputs]
