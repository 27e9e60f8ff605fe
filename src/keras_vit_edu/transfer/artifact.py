"""Save and load the result of transfer learning, called an artifact.

`artifact.json` has these fields in format 2:

    format           "keras_vit_edu.TransferClassifier"
    format_version   2
    class_names      names of the classes, in the order of the logits
    preprocessing    the attributes of `Preprocessing`; `resize_size` and `pillow` only if they are used
    architecture     {"kind": "vit", "arguments": {...}}, arguments of `ViTClassifier` and its backbone together; or
                     {"kind": "keras_hub", "class_name": ..., "config": {...}}
    weights          {"file", "bytes", "sha256", "dtype", "parameters"}
    versions         versions of Python and of the packages that saved it
    provenance       where the model came from
    metrics          accuracy and other metrics

The weights of a ViT are float32 arrays under the names of this library's layers. These names do not change:
`backbone/patch_encoder/...`, `backbone/transformer_block_0/...` and so on, `backbone/encoder_norm/...`,
`head_dense_0/...` if there is one, `logits/kernel`, `logits/bias`. It loads without keras_hub.

Format 1 can still be loaded. It calls a ViT `opened_vit`, separates `backbone` and `head`, and calls `head_dense_0`
`pre_logits`.

Models of other families are loaded with keras_hub. Their arrays are numbered in keras_hub's order. Their configuration
may only name classes that keras_hub registers, and Keras's own initializers, activations and dtypes.
"""

import dataclasses
import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vit_edu import _checks
from keras_vit_edu._building import budget_for, within
from keras_vit_edu._keras_internals import layers_within, stored_kernel
from keras_vit_edu._machine import version_of
from keras_vit_edu._tensor_file import Header, arrays, encoded, verified
from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.models.weight_names import weights_by_name
from keras_vit_edu.transfer import artifact_files
from keras_vit_edu.transfer.architecture import built, check_fields, describe
from keras_vit_edu.transfer.artifact_files import MANIFEST, WEIGHTS_NAMES, ArtifactError
from keras_vit_edu.transfer.freezing import has_lora
from keras_vit_edu.transfer.preprocessing import Preprocessing

FORMAT, FORMAT_VERSION = "keras_vit_edu.TransferClassifier", 2
FIELDS = (
    "format", "format_version", "class_names", "preprocessing", "architecture", "weights", "versions", "provenance",
    "metrics",
)  # fmt: skip
WEIGHTS_FIELDS = ("file", "bytes", "sha256", "dtype", "parameters")
WEIGHTS_DTYPES = ("float32",)
LARGEST_SIDE = 4096  # pixels per side of a model's images; the largest known models use 1024
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
        ArtifactError: a `ValueError`, if the model cannot be loaded without running code, if it is quantized, or if
            `path` holds something other than an artifact.
        OSError: if it cannot be written. An existing artifact stays unchanged.
    """
    architecture = describe(model)
    weights = {name: _as_float32(variable) for name, variable in _weights_to_save(model).items()}
    data = encoded(weights, "float32", {"part_of": artifact_files.PART_OF})
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
            "parameters": sum(array.size for array in weights.values()),
        },
        "versions": _versions(),
        "provenance": dict(provenance),
        "metrics": dict(metrics),
    }
    artifact_files.write(Path(path), manifest, data)


def _versions() -> dict[str, str]:
    found = {package: version for package in PACKAGES if (version := version_of(package))}
    return {"python": platform.python_version(), **found}


def _variables(model: Any) -> dict[str, keras.Variable]:
    """The weights of a model by their names in an artifact, without LoRA's."""
    if isinstance(model, ViTClassifier):
        return weights_by_name(model)
    weights = [weight for weight in model.weights if not weight.name.startswith("lora_")]
    return {f"{position:04}/{weight.name}": weight for position, weight in enumerate(weights)}


def _weights_to_save(model: Any) -> dict[str, Any]:
    """The weights by name. LoRA's updates are added to their kernels."""
    merged = {
        id(kernel): layer.kernel
        for layer in layers_within(model)
        if has_lora(layer) and (kernel := stored_kernel(layer)) is not None
    }
    return {name: merged.get(id(weight), weight) for name, weight in _variables(model).items()}


def _as_float32(weight: Any) -> np.ndarray:
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(weight.dtype)):
        raise ArtifactError(
            "A quantized model cannot be saved in an artifact. Save it first, and quantize after loading. "
            f"Received: {weight.path} of dtype {weight.dtype}"
        )
    value = getattr(weight, "value", weight)  # its dtype differs from the variable's after torch's `model.half()`
    return keras.ops.convert_to_numpy(keras.ops.cast(value, "float32"))


# Loading. -------------------------------------------------------------------------------------------------------------


def load(path: str | Path) -> dict[str, Any]:
    """Load an artifact as the arguments of `TransferClassifier`.

    Raises:
        ArtifactError: a `ValueError`, if there is no artifact at `path`, or if it is damaged or invalid.
        ImportError: if the model needs keras_hub, and keras_hub is not installed.
    """
    path = artifact_files.located(path)
    try:
        with artifact_files.opened(path) as stored:
            manifest = _manifest(stored, path)
            header = _verified_weights(stored, manifest["weights"], path)
            if manifest["format_version"] == 1:
                header = dataclasses.replace(header, shapes={_name(name): s for name, s in header.shapes.items()})
            preprocessing = _preprocessing(manifest["preprocessing"])
            class_names = _checks.class_names(manifest["class_names"], distinct=False)
            model: Any = _build(manifest["architecture"], header, len(class_names))
            variables = _variables(model)
            with stored.stream(manifest["weights"]["file"]) as stream:
                for name, array in arrays(stream, header):
                    variables[name].assign(array)
    except ArtifactError:
        raise
    except MemoryError:
        raise ArtifactError(f"The artifact does not fit into memory. Received: {path}") from None
    except ValueError as error:
        raise ArtifactError(f"The artifact {path} cannot be loaded. {error}") from None
    return {
        "model": model,
        "preprocessing": preprocessing,
        "class_names": class_names,
        "provenance": manifest["provenance"],
        "metrics": manifest["metrics"],
    }


def _name(name: str) -> str:
    """Today's name of an array in format 1."""
    return name.replace("pre_logits/", "head_dense_0/") if name.startswith("pre_logits/") else name


def _manifest(stored: Any, path: Path) -> dict[str, Any]:
    """The checked manifest."""
    manifest = artifact_files.parse_manifest(stored.read(MANIFEST, artifact_files.LARGEST_MANIFEST), path)
    _check_version(manifest, path)
    check_fields("An artifact", manifest, FIELDS)
    for name in ("versions", "provenance", "metrics", "architecture", "weights"):
        if not isinstance(manifest[name], dict):
            raise ValueError(f"`{name}` must be a JSON object. Received: {str(manifest[name])[:100]}")
    check_fields("`weights`", manifest["weights"], WEIGHTS_FIELDS)
    return manifest


def _verified_weights(stored: Any, weights: dict[str, Any], path: Path) -> Header:
    """The header of the weights file, after checking that the manifest describes this file."""
    name, size = weights["file"], _checks.positive_int("bytes", weights["bytes"])
    if name not in WEIGHTS_NAMES:
        raise ValueError(f"`file` must be one of {', '.join(WEIGHTS_NAMES)}. Received: file={str(name)[:100]!r}")
    if stored.size(name) != size:
        raise ArtifactError(
            f"{name} is damaged, or from another artifact: {MANIFEST} says {size:,} bytes. "
            f"Received: {path}, where it has {stored.size(name):,}"
        )
    with stored.stream(name) as stream:
        return verified(stream, size, path / name, MANIFEST, weights["sha256"], weights["dtype"], WEIGHTS_DTYPES)


def _preprocessing(values: Any) -> Preprocessing:
    preprocessing = Preprocessing.from_json(values)
    if preprocessing.image_size is not None and max(preprocessing.image_size) > LARGEST_SIDE:
        raise ValueError(
            f"Images must have at most {LARGEST_SIDE:,} pixels per side. "
            f"Received: image_size={preprocessing.image_size}"
        )
    return preprocessing


def _check_version(manifest: Mapping[str, Any], path: Path) -> None:
    if manifest.get("format") != FORMAT:
        raise ArtifactError(f"The format must be {FORMAT!r}. Received: {path} of format {manifest.get('format')!r}")
    version = manifest.get("format_version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ArtifactError(
            f"`format_version` must be a whole number. Received: {path} with format_version={version!r}"
        )
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"A newer version of keras_vit_edu wrote the artifact. Update keras_vit_edu to load it: this version reads "
            f"format {FORMAT_VERSION}. Received: {path} of format {version}"
        )


def _build(architecture: dict[str, Any], header: Header, num_classes: int) -> keras.Model:
    """Build a model that fits the stored shapes; its weights are arbitrary."""
    with within(budget_for(header.elements, len(header.shapes), is_filled_later=True)):
        model: Any = built(architecture, header.shapes, num_classes)
    expected = {(name, tuple(weight.shape)) for name, weight in _variables(model).items()}
    differing = sorted(expected ^ set(header.shapes.items()))
    if differing:
        raise ValueError(
            f"The weights do not fit the architecture: {len(differing)} arrays exist on one side only, first "
            f"{differing[0][0]} of shape {differing[0][1]}."
        )
    return model
