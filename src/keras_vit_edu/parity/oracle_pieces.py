"""The pieces of the oracle, in float64 NumPy: dense layers, norms, activations; and gradients by differences.

Nothing here imports Keras or our layers. `oracle.py` puts the pieces together.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Weights = Mapping[str, np.ndarray]


def within(weights: Weights, child: str) -> dict[str, np.ndarray]:
    """The weights of the child called `child`, by their paths inside of it."""
    return {path.removeprefix(f"{child}/"): w for path, w in weights.items() if path.startswith(f"{child}/")}


def dense(weights: Weights, x: np.ndarray) -> np.ndarray:
    """x W + b: `(..., D_in)` to `(..., D_out)`, with W `kernel` and b `bias`, which may be absent."""
    return float64(x) @ float64(weights["kernel"]) + float64(weights.get("bias", 0))


def layer_norm(weights: Weights, x: np.ndarray, epsilon: float = 1e-6) -> np.ndarray:
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, over the last axis."""
    x = float64(x)
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return float64(weights["gamma"]) * centred / np.sqrt(variance + epsilon) + float64(weights["beta"])


_erf = np.vectorize(math.erf, otypes=["float64"])


def gelu(x: np.ndarray) -> np.ndarray:
    """x Phi(x), with Phi the normal distribution function: the exact GELU (Hendrycks and Gimpel 2016), not tanh's."""
    return x * (1 + _erf(x / math.sqrt(2))) / 2


def softmax(x: np.ndarray) -> np.ndarray:
    """exp(x) / sum(exp(x)), over the last axis."""
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


ACTIVATIONS: dict[str | None, Callable[[np.ndarray], np.ndarray]] = {
    None: lambda x: x,
    "linear": lambda x: x,
    "gelu": gelu,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
}


def dropout(x: np.ndarray, keep: np.ndarray, rate: float) -> np.ndarray:
    """x / (1 - rate) where `keep` (as `keras_vit_edu.random.dropout_mask` gives it), 0 elsewhere."""
    return np.where(keep, float64(x) / (1 - rate), 0.0)


def gradient(function: Callable[[np.ndarray], Any], x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """The gradient of a function with one number as its value, by central differences; wrong by about step**2.

    Examples:
        >>> gradient(lambda x: (x**3).sum(), np.array([1.0, 2.0])).round(6).tolist()
        [3.0, 12.0]
    """
    x = float64(x)
    slopes = np.empty_like(x)
    for index in np.ndindex(x.shape):
        nudge = np.zeros_like(x)
        nudge[index] = step
        slopes[index] = (function(x + nudge) - function(x - nudge)) / (2 * step)
    return slopes


def float64(x: Any) -> np.ndarray:
    """An array of float64."""
    return np.asarray(x, "float64")
