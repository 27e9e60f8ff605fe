"""Which kind of model an artifact holds: as JSON, and as a model of random weights again."""

import math
from collections.abc import Mapping
from typing import Any

import keras

from keras_vit_edu import _checks
from keras_vit_edu._building import TooLarge
from keras_vit_edu._configuration import KERAS_MODULES, check_numbers, check_runs_no_code
from keras_vit_edu.models import ViTBackbone
from keras_vit_edu.transfer import hub
from keras_vit_edu.transfer.artifact_files import ArtifactError
from keras_vit_edu.transfer.opened_vit import OpenedViTClassifier

# Of format 1, whatever arguments later versions add.
BACKBONE_FIELDS = (
    "image_shape", "patch_size", "projection_dim", "num_layers", "num_heads", "key_dim", "mlp_dim", "num_prefix_tokens",
    "dropout", "hidden_dropout", "projection_dropout", "attention_dropout", "embedding_dropout", "stochastic_depth",
    "activation", "output_activation", "use_bias", "layer_norm_epsilon", "data_format", "dtype",
)  # fmt: skip
HEAD_FIELDS = ("num_classes", "pooling", "pre_logits_dim", "head_dropout", "dtype")
DTYPES = ("float32", "bfloat16", "float16", "float64", "mixed_bfloat16", "mixed_float16")
ACTIVATIONS = ("linear", "gelu", "relu", "silu", "tanh")
Shapes = Mapping[str, tuple[int, ...]]  # of the stored arrays, by name


def describe(model: Any) -> dict[str, Any]:
    """The architecture of a model as `artifact.json` holds it.

    Raises:
        ArtifactError: if it is of a kind that cannot be loaded again without running code.
    """
    if type(model) is OpenedViTClassifier:
        return _describe_opened(model)
    name = keras.saving.get_registered_name(type(model))
    if name.startswith("keras_hub>") and hasattr(model, "backbone"):
        hub.classifier_class(name)
        config = {**model.get_config(), "preprocessor": None}  # ours takes its place
        try:
            _check_holds_no_code(config)
        except ValueError as error:
            raise ArtifactError(str(error)) from None
        return {"kind": "keras_hub", "class_name": name, "config": config}
    raise ArtifactError(
        "An artifact holds an opened ViT or DeiT, or an image classifier of keras_hub: other models cannot be made "
        "again without running code. Keep this one with Keras, `model.save(...)`, and fit it without `run`. "
        f"Received: {model.name}, a {type(model).__name__}"
    )


def _describe_opened(model: OpenedViTClassifier) -> dict[str, Any]:
    backbone = model.backbone.get_config()
    if backbone["stem"] != "patches":
        raise ArtifactError(f"An artifact's ViT is one of patches. Received: {model.name}, with a stem of convolutions")
    described = {field: backbone[field] for field in BACKBONE_FIELDS}
    head = {field: getattr(model, field) for field in HEAD_FIELDS if field != "dtype"}
    described["dtype"], head["dtype"] = model.backbone.dtype_policy.name, model.head_dtype.name
    try:
        _check_names(described, head)
    except ValueError as error:
        raise ArtifactError(f"{model.name} cannot be kept in an artifact. {error}") from None
    return {"kind": "opened_vit", "backbone": described, "head": head}


def _check_holds_no_code(config: Any) -> None:
    """Complain about any object in a configuration but keras_hub's registered classes and Keras's numbers."""
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
    """Complain unless `values` is an object with just these fields."""
    _checks.json_object(kind, values, fields)
    missing = [field for field in fields if field not in values]
    if missing:
        raise ValueError(f"{kind} has a field {missing[0]!r}, which is missing.")


def built(architecture: dict[str, Any], shapes: Shapes, num_classes: int) -> keras.Model:
    """A model of that architecture; its weights are any numbers.

    Args:
        architecture: as `describe` gives it.
        shapes: of the stored weights, by name.
        num_classes: how many class names there are.

    Raises:
        ValueError: if it is of no such kind, holds code, or does not fit the stored shapes.
        ImportError: for a model that needs keras_hub, without keras_hub.
    """
    kind = architecture.get("kind")
    if kind == "opened_vit":
        check_fields("`architecture`", architecture, ("kind", "backbone", "head"))
        return _build_opened(architecture["backbone"], architecture["head"], shapes, num_classes)
    if kind == "keras_hub":
        check_fields("`architecture`", architecture, ("kind", "class_name", "config"))
        return _build_of_hub(architecture["class_name"], architecture["config"], num_classes)
    raise ValueError(f"`kind` must be 'opened_vit' or 'keras_hub'. Received: kind={str(kind)[:100]!r}")


def _build_opened(backbone: Any, head: Any, shapes: Shapes, num_classes: int) -> OpenedViTClassifier:
    check_fields("`backbone`", backbone, BACKBONE_FIELDS)
    check_fields("`head`", head, HEAD_FIELDS)
    _check_names(backbone, head)
    _check_head(head["num_classes"], shapes, num_classes)
    _check_sizes(backbone, head, shapes)
    try:
        body = ViTBackbone(**backbone)
        head = {name: value for name, value in head.items() if name != "dtype"} | {"head_dtype": head["dtype"]}
        return OpenedViTClassifier(body, **head)
    except ValueError:
        raise
    except Exception as error:  # what layers and backends raise for arguments that nobody has thought of
        reason = str(error).split("\n")[0]
        raise ValueError(f"The arguments of its model are refused: {reason}") from None


def _check_names(backbone: dict[str, Any], head: dict[str, Any]) -> None:
    """Complain about dtypes and activations that are not named by what anyone has."""
    for dtype in (backbone["dtype"], head["dtype"]):
        if dtype not in DTYPES:
            raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}. Received: dtype={dtype!r}")
    for name in ("activation", "output_activation"):
        if backbone[name] not in ACTIVATIONS:
            raise ValueError(f"`{name}` must be one of {', '.join(ACTIVATIONS)}. Received: {name}={backbone[name]!r}")


def _check_head(declared: Any, shapes: Shapes, num_classes: int) -> None:
    bias = shapes.get("logits/bias")
    if bias != (num_classes,) or declared != num_classes:
        logits = "none" if bias is None else str(bias[-1] if bias else "a single one")
        raise ValueError(
            f"Its head must have as many classes as there are names. Received: {num_classes} class names, "
            f"num_classes={declared!r}, {logits} in the weights of the head."
        )


def _check_sizes(backbone: dict[str, Any], head: dict[str, Any], shapes: Shapes) -> None:
    """Complain if the sizes are not those of the stored arrays, before a model of those sizes takes up memory."""
    image_shape = _checks.ints("image_shape", backbone["image_shape"])
    patch = math.prod(_checks.pair_of_ints("patch_size", backbone["patch_size"]))
    width, heads, key_dim, mlp, layers = (
        _checks.positive_int(name, backbone[name])
        for name in ("projection_dim", "num_heads", "key_dim", "mlp_dim", "num_layers")
    )
    prefix = _checks.positive_int("num_prefix_tokens", backbone["num_prefix_tokens"], minimum=0)
    if len(image_shape) != 3 or backbone["data_format"] not in ("channels_first", "channels_last"):
        raise ValueError(
            "`image_shape` must be three numbers, and `data_format` tell their order. "
            f"Received: image_shape={image_shape}, data_format={backbone['data_format']!r}"
        )
    channels = image_shape[0 if backbone["data_format"] == "channels_first" else 2]
    patches = math.prod(image_shape) // channels // patch
    expected = {
        "backbone/patch_encoder/projection/kernel": (patch * channels, width),
        "backbone/patch_encoder/position_embedding": (prefix + patches, width),
    }
    blocks = {name.split("/")[1] for name in shapes if name.startswith("backbone/transformer_block_")}
    if len(blocks) != layers:
        raise ValueError(f"The weights have {len(blocks)} transformer blocks. Received: num_layers={layers}")
    last = f"backbone/transformer_block_{layers - 1}"
    expected[f"{last}/attention/q_dense/kernel"] = (width, heads * key_dim)
    expected[f"{last}/mlp_hidden/kernel"] = (width, mlp)
    if head["pre_logits_dim"] is not None:
        expected["pre_logits/kernel"] = (width, _checks.positive_int("pre_logits_dim", head["pre_logits_dim"]))
    for name, shape in expected.items():
        if shapes.get(name) != shape:
            raise ValueError(
                f"The weights are not those of its architecture, which has {name} of shape {shape}. "
                f"Received: {shapes.get(name, 'none')}"
            )


def _build_of_hub(class_name: Any, config: Any, num_classes: int) -> keras.Model:
    if not isinstance(class_name, str) or not class_name.startswith("keras_hub>") or not isinstance(config, dict):
        raise ValueError(f"A model of another family is a class of keras_hub. Received: {class_name!r}")
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
        raise ValueError(f"The installed keras_hub does not make this model again: {reason}") from None
