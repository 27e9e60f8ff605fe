"""How a head reads tokens, and the part of a `ViTClassifier` after its backbone as a model of its own."""

import weakref
from typing import Any

import keras
import numpy as np

from keras_vit_edu._keras_internals import origin
from keras_vit_edu.explain.inside import Inside
from keras_vit_edu.models import ViTClassifier

_heads: "weakref.WeakKeyDictionary[ViTClassifier, keras.Model]" = weakref.WeakKeyDictionary()


def read_by_head(model: Any, inside: Inside) -> np.ndarray:
    """How much the head reads each token after the last block, `(B, T)`; each row sums to 1.

    A class token is all that the head `"token"` reads. A mean reads its tokens alike, `SequencePooling` by its weights.
    `"flatten"` reads each patch with weights of its own, and counts as a mean. The head of another model is not known:
    if it has prefix tokens, the first one counts, else all patches alike.
    """
    grid = inside.grid
    head = getattr(model, "head", None) if isinstance(model, ViTClassifier) else None
    if head is None:
        head = "token" if grid.num_prefix_tokens else "mean"
    read = np.zeros((len(inside.output), grid.num_tokens))
    if head == "token":
        read[:, 0] = 1
    elif head == "sequence" and inside.pooling is not None:
        read[:, grid.num_prefix_tokens :] = inside.pooling
    else:
        read[:, 0 if head == "mean_with_prefix" else grid.num_prefix_tokens :] = 1
    return read / read.sum(axis=1, keepdims=True)


def head_model(model: Any, purpose: str) -> keras.Model:
    """The model from tokens `(B, T, D)`, after the last normalisation, to logits, with the classifier's own layers.

    Args:
        model: a `ViTClassifier`.
        purpose: what it is for, for the error.

    Raises:
        ValueError: if it is another model, whose head is not known.
    """
    if not isinstance(model, ViTClassifier):
        raise ValueError(
            f"{purpose} needs a `ViTClassifier`, whose head is known. Received: {model.name}, a {type(model).__name__}"
        )
    if model not in _heads:
        _heads[model] = keras.Model(_tokens(model), model.output, name=f"{model.name}_head")
    return _heads[model]


def _tokens(model: ViTClassifier) -> Any:
    """The symbolic tokens that the backbone hands to the head."""
    tensor = model.output
    while True:
        operation, inputs = origin(tensor)
        if operation is model.backbone:
            return tensor
        tensor = inputs[0]
