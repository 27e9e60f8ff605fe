"""One model with everything in it that the package registers."""

from typing import Any

import keras
import numpy as np

from keras_vit_edu.initializers import HeNormal, TruncatedNormal
from keras_vit_edu.layers import (
    ConvStem,
    MyMultiHeadAttention,
    PatchEncoder,
    Patches,
    PortableDropout,
    RelativePositionBias,
    ShiftedPatches,
    TransformerBlock,
)
from keras_vit_edu.models import CNNClassifier, ViTBackbone, ViTClassifier

IMAGE_SHAPE = (8, 12, 3)
SIZES = {"projection_dim": 8, "num_layers": 1, "num_heads": 2, "key_dim": 3, "mlp_dim": 10}


def classifier(name: str, head: str) -> ViTClassifier:
    """A small classifier with that head; two kinds have what is for small data too."""
    patches: dict[str, Any] = {"patch_size": (4, 3)}
    if head == "mean":
        bias = RelativePositionBias(locality=1.0)
        patches = {"patch_size": 4, "stem": ShiftedPatches(4), "position_bias": bias}
    if head == "sequence":
        patches = {"patch_size": 4, "stem": ConvStem((3, 4)), "stochastic_depth": 0.3}
    backbone = ViTBackbone(IMAGE_SHAPE, num_prefix_tokens=1, name=f"{name}_backbone", **patches, **SIZES)
    return ViTClassifier(backbone, 4, head=head, head_units=(6,), name=name)


def convolutional(name: str) -> CNNClassifier:
    """A small network of convolutions."""
    return CNNClassifier(4, IMAGE_SHAPE, filters=(3, 5), convolutions=1, head_units=(6,), name=name)


def opened(name: str) -> ViTClassifier:
    """As `open_vit` makes them, small."""
    backbone = ViTBackbone(IMAGE_SHAPE, 4, num_prefix_tokens=1, embedding_dropout=0.2, name=f"{name}_backbone", **SIZES)
    return ViTClassifier(
        backbone, 4, head="mean_with_prefix", head_units=(5,), head_dropout=0.0, head_activation="tanh",
        head_dtype="float32", name=name,
    )  # fmt: skip


def everything() -> keras.Model:
    """Images to 4 logits, through every layer, both models, every head, and initializers in the configuration."""
    images = keras.Input(IMAGE_SHAPE)
    patches = Patches((2, 4))(images)
    tokens = PatchEncoder(12, 8, num_prefix_tokens=2, grid_size=(4, 3))(patches)
    tokens = TransformerBlock(2, 4, 10, kernel_initializer=HeNormal(seed=1), seed=2)(tokens)
    memory = ViTBackbone(IMAGE_SHAPE, 4, kernel_initializer=TruncatedNormal(stddev=0.2), **SIZES)(images)
    attention = MyMultiHeadAttention(2, 4, value_dim=5, output_shape=6, kernel_initializer=HeNormal())
    x = attention(tokens, memory, use_causal_mask=True)
    x = PortableDropout(0.3, noise_shape=(None, 1, None))(x)
    x = keras.layers.Dense(4, name="own")(keras.layers.GlobalAveragePooling1D()(x))
    heads = [classifier(head, head)(images) for head in ("flatten", "token", "mean", "sequence")]
    heads.append(convolutional("cnn")(images))
    heads.append(opened("opened")(images))
    return keras.Model(images, keras.layers.Add()([x, *heads]), name="everything")


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Images and labels to try it with."""
    rng = np.random.default_rng(0)
    return rng.random((6, *IMAGE_SHAPE), "float32"), rng.integers(0, 4, 6).astype("int32")
