"""The saved result of transfer learning: what is in it, and how it becomes a model again.

`artifact.json` is an object with these fields, in format 1:

    format           "keras_vit_edu.TransferClassifier"
    format_version   1
    class_names      what the logits stand for, in their order
    preprocessing    the attributes of `Preprocessing`
    architecture     {"kind": "opened_vit", "backbone": {...}, "head": {...}}, arguments of `ViTBackbone` and
                     `OpenedViTClassifier`; or {"kind": "keras_hub", "class_name": ..., "config": {...}}
    weights          {"file", "bytes", "sha256", "dtype", "parameters"}
    versions         of Python and of the packages that it was saved with
    provenance       where the model came from
    metrics          how well it does

The weights of an opened ViT or DeiT are float32 arrays under the names of this library's layers, which do not change:
`backbone/patch_encoder/...`, `backbone/transformer_block_0/...` and so on, `backbone/encoder_norm/...`,
`pre_logits/...` if there is one, `logits/kernel`, `logits/bias`. It loads without keras_hub.

Models of other families are loaded with keras_hub: their arrays are numbered in its order, and their configuration may
name nothing but classes that keras_hub registers and Keras's own initializers, activations and dtypes.
"""

import hashlib
import importlib.metadata
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vit_edu import _checks
from keras_vit_edu.models import ViTBackbone, preset_files
from keras_vit_edu.transfer import artifact_files, hub
from keras_vit_edu.transfer.artifact_files import MANIFEST, WEIGHTS_NAMES, ArtifactError
from keras_vit_edu.transfer.freezing import has_lora
from keras_vit_edu.transfer.opened_vit import OpenedViTClassifier
from keras_vit_edu.transfer.preprocessing import Preprocessing

FORMAT, FORMAT_VERSION = "keras_vit_edu.TransferClassifier", 1
FIELDS = (
    "format", "format_version", "class_names", "preprocessing", "architecture", "weights", "versions", "provenance",
    "metrics",
)  # fmt: skip
WEIGHTS_FIELDS = ("file", "bytes", "sha256", "dtype", "parameters")
# Of format 1, whatever arguments later versions add.
BACKBONE_FIELDS = (
    "image_shape", "patch_size", "projection_dim", "num_layers", "num_heads", "key_dim", "mlp_dim", "num_prefix_tokens",
    "dropout", "hidden_dropout", "projection_dropout", "attention_dropout", "embedding_dropout", "stochastic_depth",
    "activation", "output_activation", "use_bias", "layer_norm_epsilon", "data_format", "dtype",
)  # fmt: skip
HEAD_FIELDS = ("num_classes", "pooling", "pre_logits_dim", "head_dropout", "dtype")
DTYPES = ("float32", "bfloat16", "float16", "float64", "mixed_bfloat16", "mixed_float16")
ACTIVATIONS = ("linear", "gelu", "relu", "silu", "tanh")
PACKAGES = ("keras-vit-edu", "keras", "numpy", "safetensors", "keras-hub")


# Saving. --------------------------------------------------------------------------------------------------------------


def save(
    path: str | Path,
    model: keras.Model,
    preprocessing: Preprocessing,
    class_names: tuple[str, ...],
    provenance: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> None:
    """Write an artifact; see `TransferClassifier.save`.

    Raises:
        ArtifactError: a `ValueError`, if the model is of a kind that cannot be loaded again without running code, if
            it is quantized, or if there is something else at `path`.
        OSError: if it cannot be written; an artifact that was there is as it was.
    """
    architecture = describe(model)
    arrays = {name: _as_float32(variable) for name, variable in _weights_to_save(model).items()}
    data = preset_files.encode_weights(arrays, "float32", {"part_of": artifact_files.PART_OF})
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "class_names": list(class_names),
        "preprocessing": preprocessing.to_json(),
        "architecture": architecture,
        "weights": {
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "dtype": "float32",
            "parameters": sum(array.size for array in arrays.values()),
        },
        "versions": _versions(),
        "provenance": dict(provenance),
        "metrics": dict(metrics),
    }
    artifact_files.write(Path(path), manifest, data)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


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


def _variables(model: Any) -> dict[str, keras.Variable]:
    """The weights of a model under the names that an artifact has for them; LoRA's are none of them."""
    if not isinstance(model, OpenedViTClassifier):
        weights = [weight for weight in model.weights if not _is_of_lora(weight)]
        return {f"{position:04}/{weight.name}": weight for position, weight in enumerate(weights)}
    named = {}
    for prefix, owner in (("backbone/", model.backbone), ("", model)):
        for layer in owner.layers:
            if layer is not model.backbone:
                for weight in layer.weights:
                    # The path from the layer on: what stands before are the names of models, which vary.
                    within = weight.path.rpartition(f"{layer.name}/")[2]
                    if not _is_of_lora(weight):
                        named[f"{prefix}{layer.name}/{within}"] = weight
    return named


def _is_of_lora(weight: keras.Variable) -> bool:
    return weight.name.startswith("lora_")


def _weights_to_save(model: Any) -> dict[str, Any]:
    """The weights by name, with LoRA's updates added to the kernels that have one."""
    merged = {
        id(layer._kernel): layer.kernel
        for layer in model._flatten_layers()
        if has_lora(layer) and hasattr(layer, "_kernel")
    }
    return {name: merged.get(id(weight), weight) for name, weight in _variables(model).items()}


def _as_float32(weight: Any) -> np.ndarray:
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(weight.dtype)):
        raise ArtifactError(
            "A quantized model cannot be kept in an artifact; save it first and quantize what was loaded. "
            f"Received: {weight.path} of dtype {weight.dtype}"
        )
    value = getattr(weight, "value", weight)  # of another dtype than the variable, after torch's `model.half()`
    return keras.ops.convert_to_numpy(keras.ops.cast(value, "float32"))


def _check_holds_no_code(config: Any) -> None:
    """Complain about any object in a configuration but keras_hub's registered classes and Keras's numbers."""
    preset_files.check_runs_no_code(config)
    _check_names_keras_hub(config)


def _check_names_keras_hub(config: Any) -> None:
    if isinstance(config, Mapping):
        name = config.get("registered_name")
        if "class_name" in config and config.get("module") not in preset_files.KERAS_MODULES:
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


# Loading. -------------------------------------------------------------------------------------------------------------


def load(path: str | Path) -> dict[str, Any]:
    """What an artifact holds, as the arguments of `TransferClassifier`.

    Raises:
        ArtifactError: a `ValueError`, if there is no artifact at `path`, or anything about it is not as it should be.
        ImportError: for a model that needs keras_hub, without keras_hub.
    """
    path = artifact_files.located(path)
    try:
        manifest, arrays = _read(path)
        preprocessing = Preprocessing.from_json(manifest["preprocessing"])
        class_names = _checked_names(manifest["class_names"])
        model = _build(manifest["architecture"], arrays, len(class_names))
    except ArtifactError:
        raise
    except MemoryError:
        raise ArtifactError(f"The artifact is larger than what fits into the memory. Received: {path}") from None
    except ValueError as error:
        raise ArtifactError(f"The artifact {path} cannot be loaded. {error}") from None
    return {
        "model": model,
        "preprocessing": preprocessing,
        "class_names": class_names,
        "provenance": manifest["provenance"],
        "metrics": manifest["metrics"],
    }


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The checked manifest, and the weights that it tells of."""
    with artifact_files.opened(path) as stored:
        manifest = artifact_files.parse_manifest(stored.read(MANIFEST, artifact_files.LARGEST_MANIFEST), path)
        _check_version(manifest, path)
        _check_fields("An artifact", manifest, FIELDS)
        for name in ("versions", "provenance", "metrics", "architecture", "weights"):
            if not isinstance(manifest[name], dict):
                raise ValueError(f"`{name}` is a JSON object. Received: {manifest[name]!r}")
        weights = manifest["weights"]
        _check_fields("`weights`", weights, WEIGHTS_FIELDS)
        name, size = weights["file"], _checks.positive_int("bytes", weights["bytes"])
        if name not in WEIGHTS_NAMES:
            raise ValueError(f"`file` must be one of {', '.join(WEIGHTS_NAMES)}. Received: file={name!r}")
        if stored.size(name) != size:
            raise ArtifactError(
                f"{name} is damaged, or of another artifact: {MANIFEST} says {size:,} bytes. "
                f"Received: {path}, where it has {stored.size(name):,}"
            )
        data = stored.read(name, size)
    return manifest, preset_files.decode_weights(data, path / name, MANIFEST, weights["sha256"], weights["dtype"])


def _check_version(manifest: Mapping[str, Any], path: Path) -> None:
    if manifest.get("format") != FORMAT:
        raise ArtifactError(f"The format must be {FORMAT!r}. Received: {path} of format {manifest.get('format')!r}")
    version = manifest.get("format_version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ArtifactError(
            f"The version of the format must be a whole number. Received: {path} of version {version!r}"
        )
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"The artifact is of a newer version of keras_vit_edu, which has to be updated to load it: this one reads "
            f"format {FORMAT_VERSION}. Received: {path} of format {version}"
        )


def _check_fields(kind: str, values: Any, fields: tuple[str, ...]) -> None:
    """Complain unless `values` is an object with just these fields."""
    _checks.json_object(kind, values, fields)
    missing = [field for field in fields if field not in values]
    if missing:
        raise ValueError(f"{kind} has a field {missing[0]!r}, which is missing.")


def _checked_names(names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError("`class_names` must be a list of strings, none of them empty.")
    return tuple(names)


def _build(architecture: dict[str, Any], arrays: dict[str, np.ndarray], num_classes: int) -> keras.Model:
    kind = architecture.get("kind")
    if kind == "opened_vit":
        _check_fields("`architecture`", architecture, ("kind", "backbone", "head"))
        model: Any = _build_opened(architecture["backbone"], architecture["head"], arrays, num_classes)
    elif kind == "keras_hub":
        _check_fields("`architecture`", architecture, ("kind", "class_name", "config"))
        model = _build_of_hub(architecture["class_name"], architecture["config"], num_classes)
    else:
        raise ValueError(f"`kind` must be 'opened_vit' or 'keras_hub'. Received: kind={kind!r}")
    variables = _variables(model)
    expected = {(name, tuple(weight.shape)) for name, weight in variables.items()}
    differing = sorted(expected ^ {(name, array.shape) for name, array in arrays.items()})
    if differing:
        raise ValueError(
            f"The weights are not those of its architecture: {len(differing)} arrays are on one side only, the first "
            f"of them {differing[0][0]} of shape {differing[0][1]}."
        )
    for name, weight in variables.items():
        weight.assign(arrays[name])
    return model


def _build_opened(backbone: Any, head: Any, arrays: dict[str, np.ndarray], num_classes: int) -> OpenedViTClassifier:
    _check_fields("`backbone`", backbone, BACKBONE_FIELDS)
    _check_fields("`head`", head, HEAD_FIELDS)
    _check_names(backbone, head)
    _check_head(head["num_classes"], arrays, num_classes)
    _check_sizes(backbone, head, {name: array.shape for name, array in arrays.items()})
    try:
        body = ViTBackbone(**backbone)
        head = {name: value for name, value in head.items() if name != "dtype"} | {"head_dtype": head["dtype"]}
        return OpenedViTClassifier(body, **head)
    except (TypeError, OverflowError, LookupError) as error:
        raise ValueError(f"The arguments of its model are refused: {error}") from None


def _check_names(backbone: dict[str, Any], head: dict[str, Any]) -> None:
    """Complain about dtypes and activations that are not named by what anyone has."""
    for dtype in (backbone["dtype"], head["dtype"]):
        if dtype not in DTYPES:
            raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}. Received: dtype={dtype!r}")
    for name in ("activation", "output_activation"):
        if backbone[name] not in ACTIVATIONS:
            raise ValueError(f"`{name}` must be one of {', '.join(ACTIVATIONS)}. Received: {name}={backbone[name]!r}")


def _check_head(declared: Any, arrays: Mapping[str, np.ndarray], num_classes: int) -> None:
    bias = arrays.get("logits/bias")
    if bias is None or bias.shape != (num_classes,) or declared != num_classes:
        logits = "none" if bias is None else str(bias.shape[-1] if bias.ndim else "a single one")
        raise ValueError(
            f"Its head must have as many classes as there are names. Received: {num_classes} class names, "
            f"num_classes={declared!r}, {logits} in the weights of the head."
        )


def _check_sizes(backbone: dict[str, Any], head: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
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
    if config.get("num_classes") != num_classes:
        raise ValueError(
            f"Its head must have as many classes as there are names. Received: {num_classes} class names, "
            f"num_classes={config.get('num_classes')!r}"
        )
    try:
        return cls.from_config(config)
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"The installed keras_hub does not make this model again: {reason}") from None
