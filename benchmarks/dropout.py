"""`PortableDropout` against `keras.layers.Dropout`, and what dropout takes of a training step of Program P."""

import types
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks.timing import Timing, compare
from keras_vit_edu.layers import PortableDropout
from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.training import Recipe

SHAPE = (256, 16, 128)  # of a batch after the hidden layer of a block's MLP: 524,288 elements
RATE = 0.1


def run(rounds: int) -> dict[str, dict[str, dict[str, Timing]]]:
    """What `compare` gives, by title; the baseline is the first candidate."""
    x = ops.convert_to_tensor(np.random.default_rng(0).normal(size=SHAPE).astype("float32"))
    baseline = "keras Dropout"
    return {
        "forward": compare({name: forward(layer, x) for name, layer in layers().items()}, baseline, rounds),
        "forward and gradient": compare(
            {name: gradient(layer, x) for name, layer in layers().items()}, baseline, rounds
        ),
        "training step of Program P": compare(
            {
                "no dropout": training_step(nothing),
                "keras Dropout": training_step(keras.layers.Dropout.call),
                "PortableDropout": training_step(PortableDropout.call),
            },
            "no dropout",
            max(rounds // 10, 5),
        ),
    }


def layers() -> dict[str, keras.layers.Layer]:
    candidates = {
        "keras Dropout": keras.layers.Dropout(RATE),
        # On torch Keras goes another, slower way once a seed is given.
        "keras Dropout, seed given": keras.layers.Dropout(RATE, seed=0),
        "PortableDropout": PortableDropout(RATE, seed=0),
    }
    for layer in candidates.values():
        layer.build(SHAPE)
    return candidates


def forward(layer: keras.layers.Layer, x: Any) -> Callable[[], Any]:
    """The layer in training, compiled as Keras's `fit` compiles: by tf.function and jax.jit, not at all on torch."""
    if keras.backend.backend() == "torch":
        return lambda: layer(x, training=True)
    return _compiled(layer, lambda x: layer(x, training=True), x)


def gradient(layer: keras.layers.Layer, x: Any) -> Callable[[], Any]:
    """The gradient of the sum of squares of what the layer gives, by its input."""
    backend = keras.backend.backend()
    if backend == "torch":

        def function() -> Any:
            leaf = x.detach().requires_grad_()
            ops.sum(ops.square(layer(leaf, training=True))).backward()
            return leaf.grad

        return function
    if backend == "tensorflow":
        import tensorflow as tf

        def tensorflow_gradient(x: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                total = ops.sum(ops.square(layer(x, training=True)))
            return tape.gradient(total, x)

        return _compiled(layer, tensorflow_gradient, x)
    import jax

    return _compiled(layer, jax.grad(lambda x: ops.sum(ops.square(layer(x, training=True)))), x)


def _compiled(layer: keras.layers.Layer, function: Callable[[Any], Any], x: Any) -> Callable[[], Any]:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        graph = tf.function(function)
        return lambda: graph(x)
    import jax

    state = layer.seed_generator.state

    @jax.jit
    def stateless(seed_and_counter: Any, x: Any) -> Any:
        with keras.StatelessScope(state_mapping=[(state, seed_and_counter)]) as scope:
            output = function(x)
        return output, scope.get_current_value(state)

    def step() -> Any:
        output, seed_and_counter = stateless(state.value, x)
        state.assign(seed_and_counter)
        return output

    return step


def nothing(layer: keras.layers.Layer, inputs: Any, training: bool = False) -> Any:
    return inputs


def training_step(dropout: Callable[..., Any]) -> Callable[[], Any]:
    """One step of `train_on_batch` on a batch of Program P's size.

    Args:
        dropout: what the dropout layers of the model do when they are called. With a model whose rate is 0 the
            attention would take another path, and the difference would not be dropout's.
    """
    keras.utils.set_random_seed(0)
    model = ViTClassifier.from_preset("vit_mnist_program_p", load_weights=False)
    for layer in model._flatten_layers():
        if isinstance(layer, PortableDropout):
            layer.call = types.MethodType(dropout, layer)
    recipe = Recipe()
    model.compile(
        optimizer=recipe.build_optimizer(model, steps_per_epoch=1),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(recipe.batch_size, 28, 28, 1)).astype("float32")
    labels = rng.integers(0, 10, recipe.batch_size)
    return lambda: model.train_on_batch(images, labels)
