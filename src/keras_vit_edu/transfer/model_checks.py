"""What a model must be to classify photographs, and to learn to."""

from typing import Any

import keras

from keras_vit_edu._image_model import gives_probabilities, shapes_of
from keras_vit_edu.transfer.freezing import last_activation
from keras_vit_edu.transfer.preprocessing import Preprocessing


def check_classifier(model: Any, preprocessing: Any, num_classes: int) -> None:
    """Complain unless a model takes what the preprocessing gives, and gives a logit for each class.

    Raises:
        ValueError: if it does not, or if `preprocessing` is no `Preprocessing`.
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
            "The model must give logits; the softmax is taken here, once. "
            f"Received: {model.name}, which ends in {getattr(activation, '__name__', activation)}"
        )
    if getattr(model, "preprocessor", None) is not None:
        raise ValueError(
            "keras_hub's `predict` would preprocess what has been preprocessed; set `model.preprocessor = None`. "
            f"Received: {model.name}, with a preprocessor of its own"
        )
    if len(takes) != 3 or any(None not in (a, b) and a != b for a, b in zip(takes, gives, strict=True)):
        raise ValueError(
            f"The preprocessing must give what the model takes. Received: images of shape {gives}, and "
            f"{model.name}, which takes {takes}"
        )


def check_precision(model: Any) -> None:
    """Complain about weights of few bits: most steps are lost in their rounding, and the loss stays where it is."""
    # Those of the values: torch's `model.half()` changes them behind Keras's back.
    dtypes = {keras.backend.standardize_dtype(weight.value.dtype) for weight in model.weights} - {"float32"}
    other = next((dtype for dtype in sorted(dtypes) if keras.backend.is_float_dtype(dtype)), None)
    if other is not None:
        mixed = other if other in ("bfloat16", "float16") else "bfloat16"
        raise ValueError(
            f"Weights must be float32 to learn; the policy mixed_{mixed} has such weights and computes in {mixed}. "
            f"Received: {model.name} with weights of {other}"
        )
