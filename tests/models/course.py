"""The course's Program P as it stands there, from Keras's own layers: what our `vit_mnist_program_p` is measured by.

Only `tf.image.extract_patches`, which TensorFlow alone has, became a reshape and a transpose.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

num_classes = 10
input_shape = (28, 28, 1)
patch_size = 7
num_patches = (28 // patch_size) ** 2
num_heads = 4
transformer_layers = 4


class CoursePatches(layers.Layer):
    def call(self, images: Any) -> Any:
        x = ops.reshape(images, (-1, 4, patch_size, 4, patch_size, 1))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, num_patches, patch_size**2))


class CoursePatchEncoder(layers.Layer):
    def __init__(self, projection_dim: int) -> None:
        super().__init__()
        self.projection = layers.Dense(units=projection_dim)
        self.position_embedding = layers.Embedding(input_dim=num_patches, output_dim=projection_dim)

    def call(self, patch: Any) -> Any:
        positions = ops.arange(0, num_patches, 1)
        return self.projection(patch) + self.position_embedding(positions)


def create_vit_classifier(
    projection_dim: int = 64, key_dim: int = 64, mlp_head_units: tuple[int, ...] = (2048, 1024)
) -> keras.Model:
    """The course's function of this name; its `key_dim` is `projection_dim`."""
    inputs = layers.Input(shape=input_shape)
    patches = CoursePatches()(inputs)
    encoded_patches = CoursePatchEncoder(projection_dim)(patches)
    for _ in range(transformer_layers):
        x1 = layers.LayerNormalization(epsilon=1e-6)(encoded_patches)
        attention_output = layers.MultiHeadAttention(num_heads=num_heads, key_dim=key_dim, dropout=0.1)(x1, x1)
        x2 = layers.Add()([attention_output, encoded_patches])
        x3 = layers.LayerNormalization(epsilon=1e-6)(x2)
        x3 = layers.Dense(projection_dim * 2, activation="gelu")(x3)
        x3 = layers.Dropout(0.1)(x3)
        x3 = layers.Dense(projection_dim, activation="gelu")(x3)
        x3 = layers.Dropout(0.1)(x3)
        encoded_patches = layers.Add()([x3, x2])
    representation = layers.LayerNormalization(epsilon=1e-6)(encoded_patches)
    representation = layers.Flatten()(representation)
    representation = layers.Dropout(0.5)(representation)
    for units in mlp_head_units:
        representation = layers.Dense(units, activation="gelu")(representation)
        representation = layers.Dropout(0.5)(representation)
    logits = layers.Dense(num_classes)(representation)
    return keras.Model(inputs=inputs, outputs=logits)


def our_paths_in_the_courses_order(head_layers: int) -> list[str]:
    """Our path of each of the course's weights, in the order in which its layers were made."""
    paths = ["patch_encoder/projection/kernel", "patch_encoder/projection/bias", "patch_encoder/position_embedding"]
    for i in range(transformer_layers):
        for layer, weights in (
            ("attention_norm", ("gamma", "beta")),
            ("attention/q_dense", ("kernel", "bias")),
            ("attention/k_dense", ("kernel", "bias")),
            ("attention/v_dense", ("kernel", "bias")),
            ("attention/out_dense", ("kernel", "bias")),
            ("mlp_norm", ("gamma", "beta")),
            ("mlp_hidden", ("kernel", "bias")),
            ("mlp_output", ("kernel", "bias")),
        ):
            paths += [f"transformer_block_{i}/{layer}/{weight}" for weight in weights]
    paths += ["encoder_norm/gamma", "encoder_norm/beta"]
    for layer in [*(f"head_dense_{i}" for i in range(head_layers)), "logits"]:
        paths += [f"{layer}/kernel", f"{layer}/bias"]
    return paths


def weights_of(classifier: keras.Model) -> dict[str, np.ndarray]:
    """The weights of a `ViTClassifier` by path, without the names of the classifier and of the backbone in it."""
    return {
        weight.path.removeprefix(f"{classifier.name}/").removeprefix("backbone/"): ops.convert_to_numpy(weight)
        for weight in classifier.weights
    }


def give_weights(theirs: keras.Model, ours: keras.Model) -> None:
    """Give the course's model the weights of ours. Keras's attention keeps its heads apart, so kernels are reshaped."""
    by_path = weights_of(ours)
    head_layers = sum(path.startswith("head_dense") for path in by_path) // 2
    paths = our_paths_in_the_courses_order(head_layers)
    assert sorted(paths) == sorted(by_path)
    theirs.set_weights(
        [np.reshape(by_path[path], weight.shape) for path, weight in zip(paths, theirs.weights, strict=True)]
    )
