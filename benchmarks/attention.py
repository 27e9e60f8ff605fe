"""`MyMultiHeadAttention` against `keras.layers.MultiHeadAttention`, forward and backward, at four shapes.

Both have the same weights and must give the same output before they are timed. `fit` compiles by tf.function and
jax.jit and runs torch eagerly; so does this.
"""

import statistics
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks.timing import Timing, compare
from keras_vit_edu.layers import MyMultiHeadAttention

SHAPES = ((8, 197, 768, 12), (256, 16, 64, 4), (64, 65, 192, 3), (1, 1025, 384, 6))  # batch, tokens, width, heads
AGREE = 2e-6  # of the largest output
THEIRS, OURS = "keras layer", "ours"


def run(rounds: int) -> dict[str, dict[str, dict[str, Timing]]]:
    """Every comparison, by its title and clock."""
    comparisons = {}
    for batch, tokens, width, heads in SHAPES:
        x = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(batch, tokens, width)).astype("float32"))
        shape = f"({batch}, {tokens}, {width}, {heads})"
        for dropout, passes in ((0.0, (forward, forward_and_backward)), (0.1, (forward,))):
            ours = MyMultiHeadAttention(heads, width // heads, dropout=dropout)
            ours.build(x.shape, x.shape)
            theirs = ours.to_keras()
            agree(ours, theirs, x)
            for direction in passes:
                title = f"{shape} {direction.__name__.replace('_', ' ')}" + (", dropout set" if dropout else "")
                pair = {THEIRS: direction(theirs, x), OURS: direction(ours, x)}
                comparisons[title] = compare(pair, THEIRS, rounds)
    ratios = [by_clock["elapsed"][OURS].ratio for title, by_clock in comparisons.items() if "dropout" not in title]
    print(f"geometric mean of ours / {THEIRS}, without dropout: {statistics.geometric_mean(ratios):.3f}")
    return comparisons


def agree(ours: Any, theirs: Any, x: Any) -> None:
    """Complain unless both layers compute the same."""
    mine, other = (ops.convert_to_numpy(layer(x, x)) for layer in (ours, theirs))
    difference = np.abs(mine - other).max() / np.abs(other).max()
    if not difference <= AGREE:
        raise RuntimeError(f"the outputs differ by {difference:.1e} of the largest")


def forward(layer: Any, x: Any) -> Callable[[], Any]:
    """Self-attention at inference."""
    if keras.backend.backend() == "torch":
        import torch

        def function() -> Any:
            with torch.no_grad():
                return layer(x, x, training=False)

        return function
    return _compiled(lambda x: layer(x, x, training=False), layer, x)


def forward_and_backward(layer: Any, x: Any) -> Callable[[], Any]:
    """Self-attention, and the gradients of the sum of squares by input and weights."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        weights = [variable.value for variable in layer.trainable_variables]

        def function() -> Any:
            leaf = x.detach().requires_grad_()
            total = layer(leaf, leaf, training=False).square().sum()
            return torch.autograd.grad(total, [leaf, *weights])

        return function
    if backend == "tensorflow":
        import tensorflow as tf

        def gradients(x: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                total = tf.reduce_sum(tf.square(layer(x, x, training=False)))
            return tape.gradient(total, [x, *(variable.value for variable in layer.trainable_variables)])

        return _compiled(gradients, layer, x)
    return _compiled(lambda x: ops.sum(ops.square(layer(x, x, training=False))), layer, x, differentiated=True)


def _compiled(function: Callable[[Any], Any], layer: Any, x: Any, differentiated: bool = False) -> Callable[[], Any]:
    """By tf.function, or by jax.jit as a function of the weights too, and of it the gradient by both."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        graph = tf.function(function)
        return lambda: graph(x)
    import jax

    weights = [variable.value for variable in layer.trainable_variables]

    def of_weights(weights: Any, x: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(layer.trainable_variables, weights, strict=True))):
            return function(x)

    compiled = jax.jit(jax.grad(of_weights, argnums=(0, 1)) if differentiated else of_weights)
    return lambda: compiled(weights, x)
