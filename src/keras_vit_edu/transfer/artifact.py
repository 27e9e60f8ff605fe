"""The saved result of transfer learning: what is in it, and how it becomes a model again.

`artifact.json` is an object with these fields, in format 2:

    format           "keras_vit_edu.TransferClassifier"
    format_version   2
    class_names      what the logits stand for, in their order
    preprocessing    the attributes of `Preprocessing`; `resize_size` and `pillow` only where they are used
    architecture     {"kind": "vit", "arguments": {...}}, those of `ViTClassifier` and its backbone in one list; or
                     {"kind": "keras_hub", "class_name": ..., "config": {...}}
    weights          {"file", "bytes", "sha256", "dtype", "parameters"}
    versions         of Python and of the packages that it was saved with
    provenance       where the model came from
    metrics          how well it does

The weights of a ViT are float32 arrays under the names of this library's layers, which do not change:
`backbone/patch_encoder/...`, `backbone/transformer_block_0/...` and so on, `backbone/encoder_norm/...`,
`head_dense_0/...` if there is one, `logits/kernel`, `logits/bias`. It loads without keras_hub.

Format 1 is still read. It calls a ViT `opened_vit`, with `backbone` and `head` apart, and `head_dense_0` `pre_logits`.

Models of other families are loaded with keras_hub: their arrays are numbered in its order, and their configuration may
name nothing but classes that keras_hub registers and Keras's own initializers, activations and dtypes.
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
LARGEST_SIDE = 4096  # pixels of an image that a model takes: the largest have 1024
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
    """The weights of a model under the names that an artifact has for them; LoRA's have none."""
    if isinstance(model, ViTClassifier):
        return weights_by_name(model)
    weights = [weight for weight in model.weights if not weight.name.startswith("lora_")]
    return {f"{position:04}/{weight.name}": weight for position, weight in enumerate(weights)}


def _weights_to_save(model: Any) -> dict[str, Any]:
    """The weights by name, with LoRA's updates added to the kernels that have one."""
    merged = {
        id(kernel): layer.kernel
        for layer in layers_within(model)
        if has_lora(layer) and (kernel := stored_kernel(layer)) is not None
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


# Loading. -------------------------------------------------------------------------------------------------------------


def load(path: str | Path) -> dict[str, Any]:
    """What an artifact holds, as the arguments of `TransferClassifier`.

    Raises:
        ArtifactError: a `ValueError`, if there is no artifact at `path`, or anything about it is not as it should be.
        ImportError: for a model that needs keras_hub, without keras_hub.
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


def _name(name: str) -> str:
    """The name of an array of format 1, as it is now."""
    return name.replace("pre_logits/", "head_dense_0/") if name.startswith("pre_logits/") else name


def _manifest(stored: Any, path: Path) -> dict[str, Any]:
    """The checked manifest."""
    manifest = artifact_files.parse_manifest(stored.read(MANIFEST, artifact_files.LARGEST_MANIFEST), path)
    _check_version(manifest, path)
    check_fields("An artifact", manifest, FIELDS)
    for name in ("versions", "provenance", "metrics", "architecture", "weights"):
        if not isinstance(manifest[name], dict):
            raise ValueError(f"`{name}` is a JSON object. Received: {str(manifest[name])[:100]}")
    check_fields("`weights`", manifest["weights"], WEIGHTS_FIELDS)
    return manifest


def _verified_weights(stored: Any, weights: dict[str, Any], path: Path) -> Header:
    """What the weights are, if they are those that the manifest tells of."""
    name, size = weights["file"], _checks.positive_int("bytes", weights["bytes"])
    if name not in WEIGHTS_NAMES:
        raise ValueError(f"`file` must be one of {', '.join(WEIGHTS_NAMES)}. Received: file={str(name)[:100]!r}")
    if stored.size(name) != size:
        raise ArtifactError(
            f"{name} is damaged, or of another artifact: {MANIFEST} says {size:,} bytes. "
            f"Received: {path}, where it has {stored.size(name):,}"
        )
    with stored.stream(name) as stream:
        return verified(stream, size, path / name, MANIFEST, weights["sha256"], weights["dtype"], WEIGHTS_DTYPES)


def _preprocessing(values: Any) -> Preprocessing:
    preprocessing = Preprocessing.from_json(values)
    if preprocessing.image_size is not None and max(preprocessing.image_size) > LARGEST_SIDE:
        raise ValueError(
            f"Images of an artifact have sides of at most {LARGEST_SIDE:,} pixels. "
            f"Received: image_size={preprocessing.image_size}"
        )
    return preprocessing


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


def _build(architecture: dict[str, Any], header: Header, num_classes: int) -> keras.Model:
    """A model of the shapes that are stored; its weights are any numbers."""
    with within(budget_for(header.elements, len(header.shapes), is_filled_later=True)):
        model: Any = built(architecture, header.shapes, num_classes)
    expected = {(name, tuple(weight.shape)) for name, weight in _variables(model).items()}
    differing = sorted(expected ^ set(header.shapes.items()))
    if differing:
        raise ValueError(
            f"The weights are not those of its architecture: {len(differing)} arrays are on one side only, the first "
            f"of them {differing[0][0]} of shape {differing[0][1]}."
        )
    return model
