"""Our attention layer from Keras's own, and back."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_vit_edu._weights import copy_of


def from_keras(layer: keras.layers.MultiHeadAttention, from_config: Callable[[dict[str, Any]], Any]) -> Any:
    """What `from_config` makes of the layer's configuration, with the layer's weights.

    Keras keeps the query kernel as `(D, h, d)` and the output kernel as `(h, dv, D)`; flattened, they are ours.
    """
    if not isinstance(layer, keras.layers.MultiHeadAttention):
        raise ValueError(f"Expected a `keras.layers.MultiHeadAttention`. Received: {layer}")
    if not layer.built:
        raise ValueError(f"The layer has no weights yet: build or call it first. Received: {layer}")
    config = layer.get_config()
    theirs_only = {
        "attention_axes": tuple(config.pop("attention_axes")) != (1,),  # (1,): over the one axis of rank 3
        "use_gate": config.pop("use_gate"),
        "sliding_window": config.pop("sliding_window") is not None,
        "output_shape": config["output_shape"] is not None and len(config["output_shape"]) > 1,
    }
    for argument, is_used in theirs_only.items():
        if is_used:
            raise ValueError(
                f"MyMultiHeadAttention does not support this `{argument}`: it attends over axis 1 of three, without "
                f"gate and window, and its output has one width. "
                f"Received: {layer.name} with {argument}={layer.get_config()[argument]}"
            )
    ours = from_config(config)
    _build_as(ours, _keras_projections(layer))
    _copy(_keras_projections(layer), _our_projections(ours))
    return ours


def to_keras(layer: Any) -> keras.layers.MultiHeadAttention:
    """Keras's layer with this layer's configuration and weights."""
    if not layer.built:
        raise ValueError(f"The layer has no weights yet: build or call it first. Received: {layer}")
    theirs = keras.layers.MultiHeadAttention.from_config(layer.get_config())
    _build_as(theirs, _our_projections(layer))
    _copy(_our_projections(layer), _keras_projections(theirs))
    return theirs


def _our_projections(layer: Any) -> tuple[Any, Any, Any, Any]:
    return layer.q_dense, layer.k_dense, layer.v_dense, layer.out_dense


def _keras_projections(layer: keras.layers.MultiHeadAttention) -> tuple[Any, Any, Any, Any]:
    return layer.query_dense, layer.key_dense, layer.value_dense, layer.output_dense


def _build_as(layer: Any, projections: Sequence[Any]) -> None:
    """Build an attention layer for tokens as wide as these projections take them."""
    query, key, value, _ = (projection.kernel.shape[0] for projection in projections)
    layer.build((None, None, query), (None, None, value), (None, None, key))


def _copy(sources: Sequence[Any], targets: Sequence[Any]) -> None:
    """Give each target the kernel and bias of its source; Keras has the heads on an axis of their own."""
    for source, target in zip(sources, targets, strict=True):
        if source.quantization_mode is not None:
            raise ValueError(
                "Cannot copy weights of a quantized layer. Quantize after copying. "
                f"Received: {source.path}, quantized to {source.quantization_mode}"
            )
        target.kernel.assign(copy_of(source.kernel).reshape(target.kernel.shape))  # with LoRA's update, if there is one
        if source.bias is not None:
            target.bias.assign(copy_of(source.bias).reshape(target.bias.shape))
