"""Numbers and weights that the standard checks draw, the same everywhere."""

import zlib

import keras
import numpy as np

from keras_vit_edu import random
from keras_vit_edu.models import ViTClassifier


def drawn(name: str, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """Normal numbers in float32, the same everywhere; another name gives others."""
    return (scale * random.normal(zlib.crc32(name.encode()) >> 1, (0,), shape)).astype("float32")


def draw_weights(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    """Give every weight of a built layer drawn numbers, so that none is 0 or 1 and hides; the weights by path."""
    weights = {relative_path(layer, weight): drawn(relative_path(layer, weight), weight.shape, 0.6)
               for weight in layer.weights}  # fmt: skip
    for weight in layer.weights:
        weight.assign(weights[relative_path(layer, weight)])
    return weights


def relative_path(layer: keras.layers.Layer, weight: keras.Variable) -> str:
    """A weight's path inside of its layer, as the oracle calls it."""
    return weight.path.removeprefix(f"{layer.name}/").removeprefix("backbone/")


def program_p() -> ViTClassifier:
    """The course's model, as the seed 0 makes it."""
    random.set_seed(0)
    return ViTClassifier.from_preset("vit_mnist_program_p", load_weights=False)
