"""Logits of 32 fixed images, which a preset with weights records, so that anyone can see whether theirs are the same.

The images are the first 32 test images of the bundled sample of MNIST, whatever the preset was trained on: it is
numbers that are compared, not answers, and everyone has these images.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_vit_edu import datasets

COUNT = 32
IMAGES = f"the first {COUNT} test images of mnist-sample"


def reference_logits(model: keras.Model) -> np.ndarray:
    """What a classifier of 28x28 grey images makes of the fixed images.

    Args:
        model: images `(B, 28, 28, 1)` in [0, 1] to logits `(B, num_classes)`.

    Returns:
        float32 `(32, num_classes)`.

    Raises:
        ValueError: if the model takes other images.

    Examples:
        >>> from keras_vit_edu.models import ViTClassifier
        >>> reference_logits(ViTClassifier.from_preset("vit_mnist_d16", load_weights=False)).shape
        (32, 10)
    """
    images = datasets.load("mnist-sample").x_test[:COUNT].astype("float32") / np.float32(255)
    if tuple(model.input_shape[1:]) != images.shape[1:]:
        raise ValueError(
            f"The fixed images have shape {images.shape[1:]}. Received: {model.name}, which takes {model.input_shape}"
        )
    return keras.ops.convert_to_numpy(keras.ops.cast(model(images, training=False), "float32"))


def recorded_logits(metadata: Mapping[str, Any]) -> np.ndarray:
    """The logits in the metadata of a preset with weights, float32 `(32, num_classes)`."""
    return np.array(metadata["reference_logits"], "float32")
