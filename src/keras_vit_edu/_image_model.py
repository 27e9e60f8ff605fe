"""Input and output shapes of an image model: functional, Sequential or subclassed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np


class Shapes(NamedTuple):
    """The shapes of one input image (None for any size) and of its output."""

    image: tuple[int | None, ...]
    output: tuple[int | None, ...]


def shapes_of(model: Any, image_shape: Sequence[int | None] | None = None) -> Shapes:
    """Find the input and output shapes of a model. A model that is not built is called on zeros, which builds it.

    Args:
        model: a `keras.Model` that maps one batch of images to one tensor.
        image_shape: image shape for calling a model that is subclassed or not built.

    Returns:
        The shapes without the batch axis.

    Raises:
        ValueError: if it is not a Keras model, has several inputs or outputs, or cannot be called on such an image.

    Examples:
        >>> model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
        >>> shapes_of(model, (4, 4, 1))
        Shapes(image=(4, 4, 1), output=(3,))
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"The model must be a `keras.Model`. Received: {type(model).__name__}")
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if inputs and outputs:
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError(
                "The model must take one batch of images and give one tensor. "
                f"Received: {model.name} with {len(inputs)} inputs and {len(outputs)} outputs"
            )
        return Shapes(tuple(inputs[0].shape[1:]), tuple(outputs[0].shape[1:]))
    found = outputs_on_zeros(model, image_shape)
    return Shapes(tuple(image_shape or ()), found.shape[1:])


def outputs_on_zeros(model: Any, image_shape: Sequence[int | None] | None) -> np.ndarray:
    """The output of a model for two images of zeros. The first call builds the model."""
    if image_shape is None or None in image_shape:
        raise ValueError(
            "The image size of this model is unknown: build the model first, or give `image_size`. "
            f"Received: {model.name}, a {type(model).__name__}"
        )
    images = np.zeros((2, *(side for side in image_shape if side is not None)), "float32")
    try:
        found = model(images, training=False)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"The model cannot be called on images of shape {tuple(image_shape)} ({type(error).__name__}: {reason}). "
            f"Received: {model.name}, a {type(model).__name__}"
        ) from error
    if not keras.ops.is_tensor(found):
        raise ValueError(
            "The model must take one batch of images and give one tensor. "
            f"Received: {model.name}, which gives a {type(found).__name__}"
        )
    array = keras.ops.convert_to_numpy(keras.ops.cast(found, "float32"))
    if array.ndim < 2 or len(array) != 2:
        raise ValueError(
            "The model must give a row for each image. "
            f"Received: {model.name}, which gives shape {array.shape} for 2 images"
        )
    return array


def gives_probabilities(model: Any, image_shape: Sequence[int | None]) -> bool:
    """Whether the outputs of a model look like probabilities instead of logits."""
    if getattr(model, "outputs", None):
        return False
    found = outputs_on_zeros(model, image_shape)
    return found.shape[-1] > 1 and bool((found >= 0).all() and np.allclose(found.sum(axis=-1), 1, atol=1e-3))
