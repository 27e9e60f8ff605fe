"""Describe the architecture of a model as JSON, and build a model with random weights from it."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_vit_edu import _checks
from keras_vit_edu._building import TooLarge
from keras_vit_edu._configuration import KERAS_MODULES, check_numbers, check_runs_no_code
from keras_vit_edu.models import ViTClassifier, size_limits
from keras_vit_edu.models.flat_config import STEM, flattened
from keras_vit_edu.transfer import hub
from keras_vit_edu.transfer.artifact_files import ArtifactError
from keras_vit_edu.transfer.open_box import HEADS, head_arguments

# The flat arguments of a `ViTClassifier` (see `models.flat_config`) in an artifact. Later versions add some.
ARGUMENTS = (
    "image_shape", "patch_size", "projection_dim", "num_layers", "num_heads", "key_dim", "mlp_dim", "num_prefix_tokens",
    "dropout", "hidden_dropout", "projection_dropout", "attention_dropout", "embedding_dropout", "stochastic_depth",
    "activation", "output_activation", "use_bias", "layer_norm_epsilon", "data_format", "dtype", "locality", "stem",
    *(name for name in STEM if not name.endswith("initializer")),
    "num_classes", "head", "head_units", "head_dropout", "head_activation", "head_dtype",
)  # fmt: skip
# Format 1 holds the backbone's arguments up to `dtype`, and different arguments for the head.
BACKBONE_FIELDS = ARGUMENTS[: ARGUMENTS.index("locality")]
HEAD_FIELDS = ("num_classes", "pooling", "pre_logits_dim", "head_dropout", "dtype")
DTYPES = ("float32", "bfloat16", "float16", "float64", "mixed_bfloat16", "mixed_float16")
ACTIVATIONS = ("linear", "gelu", "relu", "silu", "tanh")
Shapes = Mapping[str, tuple[int, ...]]  # shapes of the stored arrays, by name


def describe(model: Any) -> dict[str, Any]:
    """The architecture of a model, for `artifact.json`.

    Raises:
        ArtifactError: if such a model cannot be loaded without running code.
    """
    if type(model) is ViTClassifier:
        return _describe_vit(model)
    name = keras.saving.get_registered_name(type(model))
    if name.startswith("keras_hub>") and hasattr(model, "backbone"):
        hub.classifier_class(name)
        config = {**model.get_config(), "preprocessor": None}  # replaced by our own preprocessing
        try:
            _check_holds_no_code(config)
        except ValueError as error:
            raise ArtifactError(str(error)) from None
        return {"kind": "keras_hub", "class_name": name, "config": config}
    raise ArtifactError(
        "An artifact holds a ViTClassifier, or an image classifier of keras_hub: other models cannot be rebuilt "
        "without running code. Save this model with Keras, `model.save(...)`, and fit it without `run`. "
        f"Received: {model.name}, a {type(model).__name__}"
    )


def _describe_vit(model: ViTClassifier) -> dict[str, Any]:
    flat = flattened(model.get_config())
    policies = {"dtype": model.backbone.dtype_policy, "head_dtype": model.head_dtype}
    flat.update({name: None if policy is None else policy.name for name, policy in policies.items()})
    described = {name: flat.get(name) for name in ARGUMENTS}
    try:
        if not isinstance(flat["stem"], str) or flat["position_bias"] is not None:
            raise ValueError("Its stem or position bias is not a layer of this library.")
        _check_names(described)
        size_limits.check(described)
    except ValueError as error:
        raise ArtifactError(f"{model.name} cannot be saved in an artifact. {error}") from None
    return {"kind": "vit", "arguments": described}


def _check_holds_no_code(config: Any) -> None:
    """Raise ValueError if a configuration names anything but keras_hub's registered classes and Keras's own objects."""
    check_runs_no_code(config)
    _check_names_keras_hub(config)


def _check_names_keras_hub(config: Any) -> None:
    if isinstance(config, Mapping):
        name = config.get("registered_name")
        if "class_name" in config and config.get("module") not in KERAS_MODULES:
            cls: Any = keras.saving.get_registered_object(name) if isinstance(name, str) else None
            if cls is None or not str(name).startswith("keras_hub>") or not cls.__module__.startswith("keras_hub."):
                raise ValueError(
                    "The configuration of an artifact may name classes that keras_hub registers, and initializers, "
                    f"activations and dtypes of Keras. Received: {config['class_name']!r} of {config.get('module')!r}"
                )
        config = list(config.values())
    if isinstance(config, (list, tuple)):
        for entry in config:
            _check_names_keras_hub(entry)


def check_fields(kind: str, values: Any, fields: tuple[str, ...]) -> None:
    """Raise ValueError if `values` is not an object with exactly these fields."""
    _checks.json_object(kind, values, fields)
    missing = [field for field in fields if field not in values]
    if missing:
        raise ValueError(f"{kind} must have a field {missing[0]!r}, which is missing.")


def built(architecture: dict[str, Any], shapes: Shapes, num_classes: int) -> keras.Model:
    """Build a model from its architecture; its weights are arbitrary.

    Args:
        architecture: result of `describe`.
        shapes: shapes of the stored weights, by name.
        num_classes: number of class names.

    Raises:
        ValueError: if the kind is unknown, if it holds code, or if it does not fit the stored shapes.
        ImportError: if the model needs keras_hub, and keras_hub is not installed.
    """
    kind = architecture.get("kind")
    if kind == "vit":
        check_fields("`architecture`", architecture, ("kind", "arguments"))
        check_fields("`arguments`", architecture["arguments"], ARGUMENTS)
        return _build_vit(architecture["arguments"], shapes, num_classes)
    if kind == "opened_vit":  # in format 1
        check_fields("`architecture`", architecture, ("kind", "backbone", "head"))
        check_fields("`backbone`", architecture["backbone"], BACKBONE_FIELDS)
        check_fields("`head`", architecture["head"], HEAD_FIELDS)
        return _build_vit(_of_format_1(architecture["backbone"], architecture["head"]), shapes, num_classes)
    if kind == "keras_hub":
        check_fields("`architecture`", architecture, ("kind", "class_name", "config"))
        return _build_of_hub(architecture["class_name"], architecture["config"], num_classes)
    raise ValueError(f"`kind` must be 'vit' or 'keras_hub'. Received: kind={str(kind)[:100]!r}")


def _of_format_1(backbone: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
    """Convert the arguments of an "opened ViT" of format 1 to those of a `ViTClassifier`."""
    if not isinstance(head["pooling"], str) or head["pooling"] not in HEADS:
        raise ValueError(f"`pooling` must be one of {', '.join(HEADS)}. Received: pooling={head['pooling']!r}")
    return {
        **backbone,
        **head_arguments(head["pooling"], head["pre_logits_dim"], head["head_dropout"]),
        "num_classes": head["num_classes"],
        "head_dtype": head["dtype"],
    }


def _build_vit(arguments: dict[str, Any], shapes: Shapes, num_classes: int) -> ViTClassifier:
    _check_names(arguments)
    _check_head(arguments["num_classes"], shapes, num_classes)
    check_numbers(arguments)
    size_limits.check(arguments)
    try:
        return ViTClassifier.from_config(arguments)
    except ValueError:
        raise
    except Exception as error:  # layers and backends raise any error for absurd arguments
        reason = str(error).split("\n")[0]
        raise ValueError(f"The arguments of its model are refused: {reason}") from None


def _check_names(arguments: dict[str, Any]) -> None:
    """Raise ValueError if a dtype or an activation has an unknown name."""
    for name in ("dtype", "head_dtype"):
        if arguments[name] not in DTYPES and not (name == "head_dtype" and arguments[name] is None):
            raise ValueError(f"`{name}` must be one of {', '.join(DTYPES)}. Received: {name}={arguments[name]!r}")
    for name in ("activation", "output_activation", "head_activation", "stem_activation"):
        if arguments.get(name, "gelu") not in (*ACTIVATIONS, *((None,) if name == "stem_activation" else ())):
            raise ValueError(f"`{name}` must be one of {', '.join(ACTIVATIONS)}. Received: {name}={arguments[name]!r}")
    for name in ("stem", "head"):
        if not isinstance(arguments.get(name, ""), str):
            raise ValueError(f"`{name}` must be a name. Received: {name}={arguments[name]!r:.100}")


def _check_head(declared: Any, shapes: Shapes, num_classes: int) -> None:
    bias = shapes.get("logits/bias")
    if bias != (num_classes,) or declared != num_classes:
        logits = "none" if bias is None else str(bias[-1] if bias else "a single one")
        raise ValueError(
            f"Its head must have as many classes as there are names. Received: {num_classes} class names, "
            f"num_classes={declared!r}, {logits} in the weights of the head."
        )


def _build_of_hub(class_name: Any, config: Any, num_classes: int) -> keras.Model:
    if not isinstance(class_name, str) or not class_name.startswith("keras_hub>") or not isinstance(config, dict):
        raise ValueError(f"A model of another family must be a class of keras_hub. Received: {class_name!r}")
    try:
        cls = hub.classifier_class(class_name)
    except ImportError as error:
        raise ImportError(f"This artifact holds a {class_name.partition('>')[2]}. {error}") from None
    _check_holds_no_code(config)
    check_numbers(config)
    if config.get("num_classes") != num_classes:
        raise ValueError(
            f"Its head must have as many classes as there are names. Received: {num_classes} class names, "
            f"num_classes={config.get('num_classes')!r}"
        )
    try:
        return cls.from_config(config)
    except TooLarge:
        raise
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"The installed keras_hub cannot rebuild this model: {reason}") from None
