"""A classifier's configuration as one flat list of names and values, and back.

A configuration is nested: the classifier's holds the backbone's, which holds the stem's and the position bias's.
Recipes, `--override` and checks of sizes use one flat list, in which every argument has one name: `stem="conv"`,
`stem_filters`, `stem_strides`, `stem_pools`, `stem_dropout`, `stem_normalization`, `locality`. `activation` is that of
the MLPs and of the stem, `logits_activation` that of the logits. Presets of format 1 and 2 and `.keras` files from
before 0.1.0 hold that list.
"""

from collections.abc import Mapping, Sized
from typing import Any

import keras

from keras_vit_edu.layers import ConvStem, RelativePositionBias, ShiftedPatches
from keras_vit_edu.layers.template import template_of

# Where a flat configuration is silent, it means the course's program, whose MLPs apply GELU twice.
COURSE = {"output_activation": "gelu"}
BACKBONE = (
    "image_shape", "patch_size", "projection_dim", "num_layers", "num_heads", "key_dim", "mlp_dim", "num_prefix_tokens",
    "dropout", "attention_dropout", "activation", "output_activation", "use_bias", "layer_norm_epsilon", "data_format",
    "stem", "stochastic_depth", "hidden_dropout", "projection_dropout", "embedding_dropout", "position_bias", "dtype",
)  # fmt: skip
STEM = {  # arguments of the `ConvStem`, by flat name
    "stem_filters": "filters",
    "stem_strides": "strides",
    "stem_pools": "pools",
    "stem_dropout": "dropout",
    "stem_normalization": "normalization",
    "stem_activation": "activation",  # None: as the backbone's, and so is the initializer
    "stem_kernel_initializer": "kernel_initializer",
}
SHARED = ("activation", "kernel_initializer")  # of backbone and stem
# Flat names of arguments that backbone and classifier both have, or that have another name there.
LOGITS_ACTIVATION, BACKBONE_INITIALIZER = "logits_activation", "backbone_kernel_initializer"
INITIALIZERS = (BACKBONE_INITIALIZER, "stem_kernel_initializer")  # of parts; without them `kernel_initializer` is used


def is_flat(config: Mapping[str, Any]) -> bool:
    """Whether a backbone's configuration is flat: it names its stem, or has a `locality`."""
    return isinstance(config.get("stem"), str) or any(name in config for name in (*STEM, "locality"))


def flattened(config: Mapping[str, Any]) -> dict[str, Any]:
    """The flat configuration of a classifier.

    Args:
        config: nested or flat. Nothing in it is built.

    Returns:
        Flat names and their values. A stem or position bias of another class than this library's stays as it is, under
        `stem` and `position_bias`.

    Raises:
        ValueError: if it holds no backbone.

    Examples:
        >>> from keras_vit_edu.models import ViTBackbone, ViTClassifier
        >>> stem = ConvStem((8, 16), pools=(2, 1), strides=(1, 2))
        >>> classifier = ViTClassifier(ViTBackbone((28, 28, 1), 4, 16, 1, 2, 8, 32, stem=stem))
        >>> flat = flattened(classifier.get_config())
        >>> flat["stem"], flat["stem_filters"], flat["num_layers"], flat["locality"]
        ('conv', (8, 16), 1, None)
    """
    if "backbone" not in config:
        return dict(config)
    backbone = config["backbone"]
    inner = backbone.get("config") if isinstance(backbone, Mapping) else None
    if not isinstance(inner, Mapping):
        raise ValueError(
            f"`backbone` must hold the configuration of a ViTBackbone. Received: {type(backbone).__name__}"
        )
    flat = {name: inner[name] for name in BACKBONE if name in inner}
    flat.update(_flat_stem(inner), **_flat_position_bias(inner))
    if "kernel_initializer" in inner:
        flat[BACKBONE_INITIALIZER] = inner["kernel_initializer"]
    for name, value in config.items():
        if name not in ("backbone", "activation"):
            flat[name] = value
    if "activation" in config:
        flat[LOGITS_ACTIVATION] = config["activation"]
    flat["frozen_layers"] = [*_names(inner.get("frozen_layers")), *_names(config.get("frozen_layers"))]
    return flat


def backbone_arguments(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `ViTBackbone` in a flat configuration, but for its name and initializer.

    Args:
        flat: with the backbone's own `kernel_initializer`, for the stem.

    Raises:
        ValueError: for an unknown stem, or options of a `ConvStem` with another stem.
    """
    arguments = {**COURSE, **{name: flat[name] for name in BACKBONE if name in flat}}
    arguments["stem"] = _nested_stem({**arguments, **flat})
    if flat.get("locality") is not None:
        if arguments.get("position_bias") is not None:
            raise ValueError("`locality` and `position_bias` exclude each other.")
        arguments["position_bias"] = template_of("position_bias", RelativePositionBias(locality=flat["locality"]))
    return arguments


def head_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `ViTClassifier` beside the backbone in a flat or nested configuration."""
    if "backbone" in config:
        return {name: value for name, value in config.items() if name != "backbone"}
    of_backbone = {*BACKBONE, *STEM, "locality", LOGITS_ACTIVATION, BACKBONE_INITIALIZER}
    arguments = {name: value for name, value in config.items() if name not in of_backbone}
    if LOGITS_ACTIVATION in config:
        arguments["activation"] = config[LOGITS_ACTIVATION]
    return arguments


def _nested_stem(flat: Mapping[str, Any]) -> Any:
    """The stem of a flat configuration: a layer, its description, or None for patches."""
    stem = flat.get("stem")
    options = [name for name in STEM if _is_given(flat.get(name))]
    if stem != "conv" and options:
        raise ValueError(f'{", ".join(f"`{name}`" for name in options)} need `stem="conv"`. Received: stem={stem!r}')
    if stem is None or stem == "patches":
        return None
    if stem == "shifted":
        return _described(ShiftedPatches, {"patch_size": None, "data_format": None})
    if stem == "conv":
        config = {argument: flat[name] for name, argument in STEM.items() if flat.get(name) is not None}
        config = {"activation": flat.get("activation", "gelu"), **config}
        config = {"kernel_initializer": flat.get("kernel_initializer", "glorot_uniform"), **config}
        config["activation"] = keras.activations.serialize(keras.activations.get(config["activation"]))
        if isinstance(config["kernel_initializer"], keras.initializers.Initializer):
            config["kernel_initializer"] = keras.initializers.serialize(config["kernel_initializer"])
        return _described(ConvStem, {"filters": (), **config, "data_format": None})
    if isinstance(stem, str):
        raise ValueError(f"`stem` must be 'patches', 'shifted' or 'conv'. Received: stem={stem!r}")
    return stem


def _is_given(value: Any) -> bool:
    return value is not None and (len(value) > 0 if isinstance(value, Sized) else bool(value))


def _described(cls: type, config: dict[str, Any]) -> dict[str, Any]:
    """A layer as Keras describes it; made by hand, since a layer that is built here would draw seeds."""
    name = f"keras_vit_edu>{cls.__name__}"
    return {"module": cls.__module__, "class_name": cls.__name__, "registered_name": name, "config": config}


def _flat_stem(backbone: Mapping[str, Any]) -> dict[str, Any]:
    stem = backbone.get("stem")
    if not isinstance(stem, Mapping):
        return {"stem": "patches" if stem is None else stem}
    config = stem.get("config")
    if stem.get("registered_name") == "keras_vit_edu>Patches":
        return {"stem": "patches"}
    if stem.get("registered_name") == "keras_vit_edu>ShiftedPatches":
        return {"stem": "shifted"}
    if stem.get("registered_name") != "keras_vit_edu>ConvStem" or not isinstance(config, Mapping):
        return {"stem": stem}
    flat = {name: config.get(argument) for name, argument in STEM.items()}
    as_backbone = {f"stem_{name}": None for name in SHARED if config.get(name) == backbone.get(name)}
    return {"stem": "conv", **flat, **as_backbone}


def _flat_position_bias(backbone: Mapping[str, Any]) -> dict[str, Any]:
    bias = backbone.get("position_bias")
    if bias is None:
        return {"locality": None, "position_bias": None}
    config = bias.get("config") if isinstance(bias, Mapping) else None
    if isinstance(config, Mapping) and bias.get("registered_name") == "keras_vit_edu>RelativePositionBias":
        return {"locality": config.get("locality"), "position_bias": None}
    return {"locality": None, "position_bias": bias}


def _names(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []
