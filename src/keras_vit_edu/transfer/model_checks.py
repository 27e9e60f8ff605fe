"""Check that a model can classify photographs, and that it can be trained."""

from typing import Any

import keras

from keras_vit_edu._image_model import gives_probabilities, shapes_of
from keras_vit_edu.transfer.freezing import last_activation
from keras_vit_edu.transfer.preprocessing import Preprocessing


def check_classifier(model: Any, preprocessing: Any, num_classes: int) -> None:
    """Check that a model fits its preprocessing, and gives a logit for each class.

    Raises:
        ValueError: if it does not, or if `preprocessing` is not a `Preprocessing`.
    """
    if not isinstance(preprocessing, Preprocessing):
        raise ValueError(f"`preprocessing` must be a Preprocessing. Received: {type(preprocessing).__name__}")
    gives = preprocessing.output_shape
    takes, outputs = shapes_of(model, gives)
    if outputs != (num_classes,):
        raise ValueError(
            f"The model must give a logit for each of the {num_classes} class names. "
            f"Received: {model.name} with outputs of shape {(None, *outputs)}"
        )
    activation = last_activation(model)
    if gives_probabilities(model, gives):
        activation = keras.activations.softmax
    if activation is not keras.activations.linear:
        raise ValueError(
            "The model must give logits, because the softmax is computed here. "
            f"Received: {model.name}, which ends in {getattr(activation, '__name__', activation)}"
        )
    if getattr(model, "preprocessor", None) is not None:
        raise ValueError(
            "keras_hub's `predict` would preprocess a second time. Set `model.preprocessor = None`. "
            f"Received: {model.name}, with its own preprocessor"
        )
    if len(takes) != 3 or any(None not in (a, b) and a != b for a, b in zip(takes, gives, strict=True)):
        raise ValueError(
            f"The preprocessing must give images of the model's shape. Received: images of shape {gives}, and "
            f"{model.name}, which takes {takes}"
        )


def check_precision(model: Any) -> None:
    """Raise ValueError if weights are not float32: in lower precision rounding would lose most updates."""
    # The dtypes of the values: torch's `model.half()` changes them without Keras's knowledge.
    dtypes = {keras.backend.standardize_dtype(weight.value.dtype) for weight in model.weights} - {"float32"}
    other = next((dtype for dtype in sorted(dtypes) if keras.backend.is_float_dtype(dtype)), None)
    if other is not None:
        mixed = other if other in ("bfloat16", "float16") else "bfloat16"
        raise ValueError(
            f"Weights must be float32 for training. Use the policy mixed_{mixed} to compute in {mixed}. "
            f"Received: {model.name} with weights of {other}"
        )
