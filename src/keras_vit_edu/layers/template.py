"""Layers as templates: a layer that another one receives as an argument, and copies with a name and a seed of its own.

`ViTBackbone(stem=ConvStem(...), position_bias=RelativePositionBias(...))` uses neither layer itself. So one template
serves several models and all blocks of a model.
"""

import sys
from collections.abc import Mapping
from typing import Any

import keras

from keras_vit_edu import random

Template = dict[str, Any]  # a layer as `keras.saving.serialize_keras_object` describes it


def template_of(argument: str, layer: Any) -> Template | None:
    """The description of a layer; None for None.

    Args:
        argument: the name of the argument, for the error.
        layer: a layer, its description, or None.

    Raises:
        ValueError: for anything else.
    """
    if layer is None:
        return None
    described = keras.saving.serialize_keras_object(layer) if isinstance(layer, keras.layers.Layer) else layer
    if not isinstance(described, Mapping) or not isinstance(described.get("config"), Mapping):
        raise ValueError(f"`{argument}` must be a Keras layer or None. Received: {argument}={layer!r}")
    # The copy has its own name and dtype, and is built for its own shapes.
    as_is = described.get("class_name") == "Functional"  # whose lists and tuples differ in meaning
    config = {
        key: value if as_is else _plain(value)
        for key, value in described["config"].items()
        if key not in ("name", "dtype")
    }
    parts = {name: described.get(name) for name in ("module", "class_name", "registered_name")}
    return {**parts, "config": config}


def with_sizes(template: Template, **sizes: Any) -> Template:
    """The template with the sizes of the model that receives it, of those that it has as arguments.

    Raises:
        ValueError: if it has another size already.
    """
    config = dict(template["config"])
    for size, value in sizes.items():
        given = config.get(size, value)
        if isinstance(given, int) and _plain(value) == (given, given):
            continue  # a layer that takes one int for both sides
        if given is not None and given != _plain(value):
            raise ValueError(
                f"`{size}` of {template['class_name']} must be the model's, {value}. Received: {size}={given}"
            )
        if size in config:
            config[size] = value
    return {**template, "config": config}


def layer_from(template: Template, name: str, dtype: Any, data_format: str | None = None, **sizes: Any) -> Any:
    """A new layer from a template.

    Args:
        template: what `template_of` returned.
        name: of the layer. If its initializer has an int seed, the layer gets a seed derived from it and the name.
        dtype: of the layer.
        data_format: of the layer, if it has one.
        **sizes: as `with_sizes` takes them.
    """
    # A name: Keras describes a layer without `get_config` only if all its arguments are plain.
    dtype = dtype.name if type(dtype) is keras.DTypePolicy else dtype
    config = {**with_sizes(template, **sizes)["config"], "name": name, "dtype": dtype}
    if "data_format" in config:
        config["data_format"] = data_format
    if "kernel_initializer" in config:
        config["kernel_initializer"] = _for_child(config["kernel_initializer"], name)
    handled = sys.exception()  # an error of the caller's, which would be the context of every error raised here
    try:
        return keras.saving.deserialize_keras_object({**template, "config": config})
    except TypeError as error:  # Keras hides in it what the constructor raised
        inner: BaseException = error
        while inner.__context__ is not None and inner.__context__ is not handled:
            inner = inner.__context__
        raise (inner if isinstance(inner, ValueError) else ValueError(f"{template['class_name']}: {inner}")) from None


def completed(template: Template, layer: keras.layers.Layer) -> Template:
    """The template with everything that the layer made from it knows, but for the layer's own seed, name and dtype."""
    config = layer.get_config()
    if "kernel_initializer" in config:
        config["kernel_initializer"] = template["config"].get("kernel_initializer", config["kernel_initializer"])
    return template_of("", {**template, "config": config})  # type: ignore[return-value]


def _plain(value: Any) -> Any:
    """Lists as tuples: JSON knows no tuples, and a copy must have an equal configuration."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def _for_child(initializer: Any, child: str) -> Any:
    """As `initializers.for_child`, of the description of an initializer."""
    config = initializer.get("config") if isinstance(initializer, Mapping) else None
    if not isinstance(config, Mapping) or not isinstance(config.get("seed"), int):
        return initializer
    return {**initializer, "config": {**config, "seed": random.derive_seed(config["seed"], child)}}
