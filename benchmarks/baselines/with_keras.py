"""Program P from Keras's own layers: as the handout has it on TensorFlow, and the same on any backend."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.baselines import DROPOUT, EPSILON, HEAD_DROPOUT, HEADS, LAYERS, LEARNING_RATE, PATCH, WEIGHT_DECAY


class CoursePatches(layers.Layer):
    """The handout's, with `tf.image.extract_patches`."""

    def call(self, images: Any) -> Any:
        import tensorflow as tf

        sides = [1, PATCH, PATCH, 1]
        patches = tf.image.extract_patches(images, sizes=sides, strides=sides, rates=[1, 1, 1, 1], padding="VALID")
        return tf.reshape(patches, [tf.shape(images)[0], -1, patches.shape[-1]])


class ReshapedPatches(layers.Layer):
    """The same from operations that every backend has."""

    def call(self, images: Any) -> Any:
        x = ops.reshape(images, (-1, 4, PATCH, 4, PATCH))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4)), (-1, 16, PATCH**2))


class PatchEncoder(layers.Layer):
    """The handout's."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = layers.Dense(64)
        self.position_embedding = layers.Embedding(16, 64)

    def call(self, patch: Any) -> Any:
        return self.projection(patch) + self.position_embedding(ops.arange(16))


def create_vit_classifier(patches: layers.Layer, gelu: Any) -> keras.Model:
    """The handout's function of this name."""
    inputs = layers.Input((28, 28, 1))
    encoded_patches = PatchEncoder()(patches(inputs))
    for _ in range(LAYERS):
        x1 = layers.LayerNormalization(epsilon=1e-6)(encoded_patches)
        attention_output = layers.MultiHeadAttention(num_heads=HEADS, key_dim=64, dropout=DROPOUT)(x1, x1)
        x2 = layers.Add()([attention_output, encoded_patches])
        x3 = layers.LayerNormalization(epsilon=1e-6)(x2)
        for units in (128, 64):
            x3 = layers.Dense(units, activation=gelu)(x3)
            x3 = layers.Dropout(DROPOUT)(x3)
        encoded_patches = layers.Add()([x3, x2])
    representation = layers.LayerNormalization(epsilon=1e-6)(encoded_patches)
    representation = layers.Flatten()(representation)
    representation = layers.Dropout(HEAD_DROPOUT)(representation)
    for units in (2048, 1024):
        representation = layers.Dense(units, activation=gelu)(representation)
        representation = layers.Dropout(HEAD_DROPOUT)(representation)
    return keras.Model(inputs, layers.Dense(10)(representation))


class OnBatches:
    """A model, compiled as the handout does it and trained by `train_on_batch`; with `xla`, compiled by XLA too."""

    def __init__(self, model: keras.Model, xla: bool = False) -> None:
        self.model = model
        model.compile(
            keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY, epsilon=EPSILON),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
            jit_compile=True if xla else "auto",
        )

    def parameters(self) -> int:
        return self.model.count_params()

    def logits(self, images: np.ndarray) -> np.ndarray:
        return self.model.predict_on_batch(images)

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        return float(self.model.train_on_batch(images, labels)[0])


class WithKeras(OnBatches):
    """The handout's program, from Keras's layers."""

    def __init__(self, weights: Mapping[str, np.ndarray], as_in_the_handout: bool = False, xla: bool = False) -> None:
        if as_in_the_handout:
            import tensorflow as tf

            model = create_vit_classifier(CoursePatches(), tf.nn.gelu)
        else:
            model = create_vit_classifier(ReshapedPatches(), "gelu")
        ordered = [weights[path] for path in _paths()]
        model.set_weights(
            [np.reshape(array, weight.shape) for array, weight in zip(ordered, model.weights, strict=True)]
        )
        super().__init__(model, xla)


def _paths() -> list[str]:
    """Our path of each weight, in the order in which the handout makes its layers."""
    paths = ["patch_encoder/projection/kernel", "patch_encoder/projection/bias", "patch_encoder/position_embedding"]
    for i in range(LAYERS):
        block = f"transformer_block_{i}"
        paths += [f"{block}/attention_norm/{w}" for w in ("gamma", "beta")]
        paths += [f"{block}/attention/{d}_dense/{w}" for d in ("q", "k", "v", "out") for w in ("kernel", "bias")]
        paths += [f"{block}/mlp_norm/{w}" for w in ("gamma", "beta")]
        paths += [f"{block}/mlp_{d}/{w}" for d in ("hidden", "output") for w in ("kernel", "bias")]
    paths += ["encoder_norm/gamma", "encoder_norm/beta"]
    return paths + [f"{d}/{w}" for d in ("head_dense_0", "head_dense_1", "logits") for w in ("kernel", "bias")]
