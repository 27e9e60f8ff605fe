"""The names of a model's weights in files. They do not change: files depend on them."""

from collections.abc import Iterator
from typing import Any

import keras

from keras_vit_edu.layers import TransformerBlock


def weights_by_name(model: Any) -> dict[str, keras.Variable]:
    """The weights of a model by the names that presets and artifacts have for them.

    `backbone/patch_encoder/projection/kernel`, `backbone/transformer_block_0/attention/q_dense/kernel`,
    `logits/bias`: the path of a variable from its layer on, after `backbone/` if the layer lies in the backbone. What
    stands before the layer in the path are names of models, which vary. So do the names inside a user's own stem or
    position bias: the weights of those are numbered, `backbone/stem/0000`. LoRA's matrices have no names.
    """
    backbone: Any = getattr(model, "backbone", None)
    named: dict[str, keras.Variable] = {}
    for prefix, owner in (("backbone/", backbone), ("", model)):
        for layer in getattr(owner, "layers", ()):
            if layer is not backbone:
                is_users = owner is backbone and layer is backbone.stem and _is_users(layer)
                named.update((f"{prefix}{name}", weight) for name, weight in _of_layer(layer, is_users))
    return {name: weight for name, weight in named.items() if not weight.name.startswith("lora_")}


def _of_layer(layer: keras.layers.Layer, is_users: bool) -> Iterator[tuple[str, keras.Variable]]:
    """The names, from the layer's own on, and the weights of a layer."""
    if is_users:
        yield from ((f"{layer.name}/{number:04d}", weight) for number, weight in enumerate(layer.weights))
        return
    bias = layer.position_bias if isinstance(layer, TransformerBlock) else None
    numbers = {} if bias is None or not _is_users(bias) else {id(weight): n for n, weight in enumerate(bias.weights)}
    for weight in layer.weights:
        within = f"/{weight.path}".rpartition(f"/{layer.name}/")[2]
        number = numbers.get(id(weight))
        yield f"{layer.name}/{within if number is None else f'position_bias/{number:04d}'}", weight


def _is_users(layer: keras.layers.Layer) -> bool:
    """Whether a layer is not one of this library."""
    return not keras.saving.get_registered_name(type(layer)).startswith("keras_vit_edu>")
