"""Program P in JAX alone: pure functions under `jax.jit`, AdamW by hand."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.baselines import DROPOUT, EPSILON, HEAD_DROPOUT, HEADS, LAYERS, LEARNING_RATE, PATCH, WEIGHT_DECAY

BETA_1, BETA_2 = 0.9, 0.999


def dense(w: Mapping[str, Any], name: str, x: Any) -> Any:
    return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]


def norm(w: Mapping[str, Any], name: str, x: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-6) * w[f"{name}/gamma"] + w[f"{name}/beta"]


def dropout(key: Any, rate: float, x: Any) -> Any:
    if key is None:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


gelu = partial(jax.nn.gelu, approximate=False)


def forward(w: Mapping[str, Any], images: Any, key: Any = None) -> Any:
    """Images to logits; with a key, dropout acts."""
    keys = iter([None] * 15 if key is None else jax.random.split(key, 15))
    b = len(images)
    patches = images.reshape(b, 4, PATCH, 4, PATCH).swapaxes(2, 3).reshape(b, 16, PATCH**2)
    x = dense(w, "patch_encoder/projection", patches) + w["patch_encoder/position_embedding"]
    for i in range(LAYERS):
        block = f"transformer_block_{i}"
        y = norm(w, f"{block}/attention_norm", x)
        q, k, v = (dense(w, f"{block}/attention/{n}_dense", y).reshape(b, 16, HEADS, -1) for n in "qkv")
        scores = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(q.shape[-1]))
        heads = jnp.einsum("bhts,bshd->bthd", dropout(next(keys), DROPOUT, scores), v).reshape(b, 16, -1)
        x = x + dense(w, f"{block}/attention/out_dense", heads)
        y = gelu(dense(w, f"{block}/mlp_hidden", norm(w, f"{block}/mlp_norm", x)))
        y = gelu(dense(w, f"{block}/mlp_output", dropout(next(keys), DROPOUT, y)))
        x = x + dropout(next(keys), DROPOUT, y)
    x = dropout(next(keys), HEAD_DROPOUT, norm(w, "encoder_norm", x).reshape(b, -1))
    for i in range(2):
        x = dropout(next(keys), HEAD_DROPOUT, gelu(dense(w, f"head_dense_{i}", x)))
    return dense(w, "logits", x)


def loss(w: Mapping[str, Any], images: Any, labels: Any, key: Any) -> Any:
    log_shares = jax.nn.log_softmax(forward(w, images, key))
    return -jnp.take_along_axis(log_shares, labels[:, None], axis=1).mean()


@partial(jax.jit, donate_argnums=0)
def train(state: Any, images: Any, labels: Any) -> tuple[Any, Any]:
    w, m, v, t, key = state
    key, now = jax.random.split(key)
    value, g = jax.value_and_grad(loss)(w, images, labels, now)
    t = t + 1
    rate = LEARNING_RATE * jnp.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
    m = jax.tree.map(lambda m, g: m + (g - m) * (1 - BETA_1), m, g)
    v = jax.tree.map(lambda v, g: v + (g * g - v) * (1 - BETA_2), v, g)
    w = jax.tree.map(
        lambda w, m, v: w * (1 - LEARNING_RATE * WEIGHT_DECAY) - rate * m / (jnp.sqrt(v) + EPSILON), w, m, v
    )
    return (w, m, v, t, key), value


class PlainJax:
    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        w = {name: jnp.array(array) for name, array in weights.items()}
        zeros = {name: jnp.zeros_like(array) for name, array in w.items()}
        self.state = (
            w,
            zeros,
            {name: array.copy() for name, array in zeros.items()},
            jnp.float32(0),
            jax.random.key(0),
        )

    def parameters(self) -> int:
        return sum(array.size for array in self.state[0].values())

    def logits(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(jax.jit(forward)(self.state[0], images))

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        self.state, value = train(self.state, images, labels)
        return float(value)
