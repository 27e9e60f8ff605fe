"""Prepare a classifier of keras_hub for this library: it must give logits, and may get a new head."""

import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_vit_edu import _checks
from keras_vit_edu._keras_internals import layers_within
from keras_vit_edu._weights import copy_variables
from keras_vit_edu.models import ViTBackbone, ViTClassifier
from keras_vit_edu.transfer import hub
from keras_vit_edu.transfer.open_box import BACKBONES, HEADS, head_dropout, open_vit


def open_or_wrap(
    theirs: Any,
    preset: str,
    num_new_classes: int | None = None,
    image_size: int | Sequence[int] | None = None,
    load_weights: bool = True,
    dtype: Any = None,
) -> Any:
    """Open a ViT or DeiT. Use a model of another family unchanged, and print a line about it.

    Args:
        theirs: the classifier from keras_hub.
        preset: the preset that it was loaded from.
        num_new_classes: number of classes of a new head of zeros; None for the preset's head.
        image_size: image size if it differs from the preset's.
        load_weights: whether `theirs` has the preset's weights.
        dtype: a dtype policy; None for the preset's.

    Returns:
        A `ViTClassifier`, or `theirs`; without an activation at its end.

    Raises:
        ValueError: if the head cannot be replaced, if it gives neither logits nor their softmax, or if the image size
            of the model cannot be changed.
        NoHead: a `ValueError`, if layers below the head have no weights.
    """
    if keras.saving.get_registered_name(type(theirs.backbone)) in BACKBONES:
        return _opened(theirs, image_size, num_new_classes)
    has_new_head = num_new_classes is not None
    if has_new_head:
        _check_new_head(theirs)
        if load_weights:
            _copy_below_head(preset, theirs, dtype)
    model = _wrapped(theirs, image_size, has_new_head)
    print(f"keras_vit_edu: {preset} is used unchanged; there are no attention maps.", file=sys.stderr)
    return model


def height_and_width(model: Any) -> tuple[int | None, int | None]:
    """The image size of a model of keras_hub; None for any size."""
    shape = model.input_shape[1:]
    is_first = getattr(model.backbone, "data_format", "channels_last") == "channels_first"
    return (shape[1], shape[2]) if is_first else (shape[0], shape[1])


def _opened(theirs: Any, image_size: int | Sequence[int] | None, num_new_classes: int | None) -> ViTClassifier:
    """Rebuild keras_hub's classifier from our layers, without an activation, and with a new head if requested."""
    if num_new_classes is not None:
        return _with_new_head(theirs, open_vit(theirs.backbone, image_size), num_new_classes)
    opened = open_vit(theirs, image_size)
    _check_activation(theirs, theirs.activation)
    if opened.activation is keras.activations.linear:
        return opened
    head = {name: getattr(opened, name) for name in ("head", "head_units", "head_dropout", "head_activation")}
    classifier = ViTClassifier(opened.backbone, opened.num_classes, **head, head_dtype=opened.head_dtype)
    copy_variables(_head_weights(opened), _head_weights(classifier))
    return classifier


def _with_new_head(theirs: Any, backbone: ViTBackbone, num_classes: int) -> ViTClassifier:
    """The opened backbone with a Dense layer of zeros on the class token, or on the mean if there is no class token."""
    classifier = ViTClassifier(
        backbone,
        num_classes,
        head=HEADS[theirs.pooling] if backbone.num_prefix_tokens else "mean_with_prefix",
        head_units=(),
        head_dropout=head_dropout(theirs),
        head_dtype=theirs.output_dense.dtype_policy,
    )
    _set_to_zero(classifier.get_layer("logits"))
    return classifier


def _head_weights(model: ViTClassifier) -> list[Any]:
    return [weight for layer in model.layers if layer is not model.backbone for weight in layer.weights]


def _wrapped(theirs: Any, image_size: int | Sequence[int] | None, new_head: bool) -> Any:
    """keras_hub's classifier itself, without an activation, and with a head of zeros if requested."""
    if image_size is not None and None not in height_and_width(theirs):
        wanted = _checks.pair_of_ints("image_size", image_size)
        if wanted != height_and_width(theirs):
            raise ValueError(
                "`image_size` can be changed for ViT, DeiT and CNNs only. "
                f"Received: image_size={image_size} for {theirs.name}, which takes {height_and_width(theirs)}"
            )
    of_backbone = {id(layer) for layer in layers_within(theirs.backbone)}
    head = [
        layer
        for layer in layers_within(theirs)
        if isinstance(layer, keras.layers.Dense) and id(layer) not in of_backbone
    ][-1:]
    if not head or head[0].units != theirs.output_shape[-1]:
        raise ValueError(f"A classifier must end in a Dense layer. Received: {theirs.name}, a {type(theirs).__name__}")
    if new_head:
        _set_to_zero(head[0])
    else:
        _check_activation(theirs, head[0].activation)
    head[0].activation = keras.activations.linear
    theirs.activation = None
    theirs.preprocessor = None  # keras_hub's `predict` and `fit` would preprocess a second time
    # The model still holds the preprocessor's unbuilt layers. With them Keras on JAX would run the whole model once
    # more, uncompiled, before every `predict_on_batch`.
    for layer in layers_within(theirs):
        layer.built = True
    return theirs


def _check_new_head(theirs: Any) -> None:
    """Raise ValueError early if a model cannot get a new head."""
    if not isinstance(theirs.layers[-1], keras.layers.Dense):
        raise ValueError(
            f"A new head replaces the Dense layer at the end of a classifier. Received: {theirs.name}, a "
            f"{type(theirs).__name__}, which ends in a {type(theirs.layers[-1]).__name__} and only has its own classes"
        )


def _copy_below_head(preset: str, theirs: Any, dtype: Any) -> None:
    """Copy the preset's weights between the backbone and the head into a model with a new head.

    For another number of classes keras_hub loads only the weights of the backbone.
    """
    fresh = _weights_below_head(theirs)
    if not fresh:
        return
    try:
        own = hub.load_preset(preset, **({} if dtype is None else {"dtype": dtype}))
    except hub.NoHead as error:
        raise hub.NoHead(
            f"{type(theirs).__name__} has layers between backbone and head, and their weights are missing. {error}"
        ) from None
    copy_variables(_weights_below_head(own), fresh)


def _weights_below_head(theirs: Any) -> list[Any]:
    """The weights outside the backbone and the last layer."""
    others = {id(weight) for weight in (*theirs.backbone.weights, *theirs.layers[-1].weights)}
    return [weight for weight in theirs.weights if id(weight) not in others]


def _check_activation(theirs: Any, activation: Any) -> None:
    activation = keras.activations.get(activation)
    if activation not in (keras.activations.linear, keras.activations.softmax):
        raise ValueError(
            "The head of a preset must give logits, or their softmax. "
            f"Received: {theirs.name}, whose head ends in {getattr(activation, '__name__', activation)}"
        )


def _set_to_zero(layer: Any) -> None:
    layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
