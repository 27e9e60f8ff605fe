"""The three files of a preset: written, read, and refused if they are not what they should be.

    config.json          the class and the arguments of its constructor
    metadata.json        what it is, what it was trained on, how well it does, the checksum of its weights
    weights.safetensors  float32 or float16 arrays by variable path; absent from a preset that is a configuration only

`metadata.json` says in which format they are. Format 2 says how large the weights are and in which dtype
(`weights_bytes`, `weights_dtype`); format 1, which had float32 alone, is still read.
"""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, BinaryIO, cast

import keras
import numpy as np
import safetensors.numpy

from keras_vit_edu import _files
from keras_vit_edu._tensor_file import Header, verified

FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "weights.safetensors"
WEIGHTS_DTYPES = ("float32", "float16")

# Where the objects in a configuration may come from that nobody registered: initializers, activations, dtypes.
KERAS_MODULES = ("keras", "keras.activations", "keras.dtype_policies", "keras.initializers", "keras.random", "builtins")


# The folder. ----------------------------------------------------------------------------------------------------------


def check_folder(folder: Path) -> None:
    """Complain unless the folder holds a preset, and holds it itself: a link must not lead out of it."""
    missing = [name for name in (CONFIG, METADATA) if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"The folder {folder} holds no preset: {' and '.join(missing)} missing.")
    for name in (CONFIG, METADATA, WEIGHTS):
        check_lies_in(folder, name, "a preset", ValueError)


def check_lies_in(folder: Path, name: str, kind: str, error: type[ValueError]) -> None:
    """Complain if a file of the folder is a link to one elsewhere; `kind` is what the folder holds."""
    file = folder / name
    if file.is_file() and file.resolve().parent != folder.resolve():
        raise error(
            f"The files of {kind} must lie in its folder, and {name} is a link that leads out of it. "
            f"Received: {file}, which is {file.resolve()}"
        )


def replace_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write `files`, of which the last one makes the folder a preset, aside; then move them in."""
    with contextlib.ExitStack() as writers:
        for name in reversed(files):  # the stack closes them in the opposite order
            stream = writers.enter_context(_files.replacing(folder / name))
            stream.write(files[name])
            stream.flush()
            os.fsync(stream.fileno())  # a full disk is noticed here, while the old preset is whole
        (folder / METADATA).unlink(missing_ok=True)


# config.json and metadata.json. ---------------------------------------------------------------------------------------


def read_json(file: Traversable) -> dict[str, Any]:
    """What a JSON file holds, which must be an object.

    Raises:
        ValueError: as `_files.read_json` does, and if it is no object.
    """
    content = _files.read_json(file) if isinstance(file, Path) else _files.parse_json(file.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold a JSON object. Received: {type(content).__name__}")
    return content


def to_json(name: str, content: Mapping[str, Any], limit: int = _files.LARGEST_JSON) -> bytes:
    """The content of a JSON file, of at most `limit` bytes."""
    try:
        data = (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} would not be JSON: {error}") from None
    if len(data) > limit:
        largest = max(content, key=lambda field: len(json.dumps(content[field])))
        raise ValueError(
            f"{name} must have at most {limit:,} bytes, or it could not be loaded again. "
            f"Received: {len(data):,} bytes, most of them of `{largest}`"
        )
    return data


def check_version(preset: Any, metadata: Mapping[str, Any]) -> None:
    """Complain about a preset of a format that this version does not know."""
    version = metadata.get("format_version")
    if isinstance(version, bool) or version not in READABLE_VERSIONS:
        formats = " and ".join(map(str, READABLE_VERSIONS))
        raise ValueError(
            f"This version of keras_vit_edu reads presets of format {formats}. Received: {preset} of format {version}"
        )


def check_runs_no_code(value: Any) -> None:
    """Complain about any object in a configuration but those of Keras that are only numbers, and registered ones.

    (Keras can keep a Python function in a configuration, or a layer with one. By default it refuses to load it, but one
    setting lets it.)
    """
    try:
        _check_runs_no_code(value)
    except RecursionError:
        raise ValueError("The configuration is nested too deeply.") from None


def _check_runs_no_code(value: Any) -> None:
    if isinstance(value, Mapping):
        if "class_name" in value and not _is_harmless(value):
            raise ValueError(
                "The configuration of a preset may name initializers, activations and dtypes of Keras, and what is "
                "registered with `keras.saving.register_keras_serializable`; it holds no code. "
                f"Received: {value['class_name']!r} of module {value.get('module')!r}"
            )
        _check_runs_no_code(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for entry in value:
            _check_runs_no_code(entry)


def _is_harmless(described: Mapping[str, Any]) -> bool:
    """Whether an object that Keras would make of this is one of Keras's own kinds of numbers, or registered."""
    class_name = described["class_name"]
    if class_name == "__lambda__":
        return False
    if described.get("module") in KERAS_MODULES:
        # Keras looks for a registered name first, and takes "layers.Lambda" of "keras" for `keras.layers.Lambda`.
        name = described.get("config") if class_name == "function" else class_name
        return (
            isinstance(name, str) and "." not in name and described.get("registered_name") in (None, class_name, name)
        )
    name = described.get("config" if class_name == "function" else "registered_name")
    registered = keras.saving.get_registered_object(name) if isinstance(name, str) else None
    return registered is not None and class_name in ("function", registered.__name__)


# weights.safetensors. -------------------------------------------------------------------------------------------------


def encode_weights(arrays: Mapping[str, np.ndarray], dtype: str, header: dict[str, str] | None = None) -> bytes:
    """The content of `weights.safetensors`.

    Args:
        arrays: float32, by path.
        dtype: `"float32"` or `"float16"`.
        header: what else the header says; None for nothing.

    Raises:
        ValueError: if a weight is not finite, or would be infinite in that dtype, or it is a file that is not read.
    """
    stored = {}
    for path, array in arrays.items():
        with np.errstate(over="ignore"):
            stored[path] = np.ascontiguousarray(array.astype(dtype))
        too_large = np.isfinite(array) & ~np.isfinite(stored[path])
        if too_large.any():
            raise ValueError(
                f"{dtype} holds numbers up to {np.finfo(dtype).max:.0f}; store these weights in float32. "
                f"Received: {path} with a weight of {array[too_large][0]:g}"
            )
    data = safetensors.numpy.save(stored, metadata=header)
    verified(io.BytesIO(data), len(data), WEIGHTS, "it", hashlib.sha256(data).hexdigest(), dtype, WEIGHTS_DTYPES)
    return data


@contextlib.contextmanager
def opened_weights(folder: Traversable) -> Iterator[BinaryIO]:
    """A stream of the file of the weights."""
    file = folder / WEIGHTS
    if isinstance(file, Path):
        with _files.open_regular(file) as stream:
            yield stream
    else:  # of this package, in a zip
        with file.open("rb") as stream:
            yield cast(BinaryIO, stream)


def verified_weights(folder: Traversable, metadata: Mapping[str, Any]) -> Header:
    """What the weights are; a `ValueError` if they are not those that the metadata tells of, or are not finite."""
    with opened_weights(folder) as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        # Format 1 says no dtype.
        dtype = metadata.get("weights_dtype", "float32")
        return verified(stream, size, folder / WEIGHTS, METADATA, metadata.get("weights_sha256"), dtype, WEIGHTS_DTYPES)
