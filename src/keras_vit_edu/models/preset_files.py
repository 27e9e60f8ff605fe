"""The three files of a preset: names, formats, and checks on reading. `Preset.save_to_preset` writes them.

    config.json          the class and the arguments of its constructor
    metadata.json        what it is, what it was trained on, how well it does, the checksum of its weights
    weights.safetensors  float32 or float16 arrays by variable path; absent from a preset that is a configuration only

`metadata.json` says in which format they are. Format 3 has nested arguments: the backbone's within the classifier's.
Formats 1 and 2 have one flat list of arguments, and are still read. Since format 2 `metadata.json` says how large the
weights are and in which dtype (`weights_bytes`, `weights_dtype`); format 1 has float32 alone.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, BinaryIO, cast

from keras_vit_edu import _files
from keras_vit_edu._tensor_file import WEIGHTS, Header, verified

FORMAT_VERSION = 3
READABLE_VERSIONS = (1, 2, 3)
CONFIG, METADATA = "config.json", "metadata.json"
WEIGHTS_DTYPES = ("float32", "float16")


# The folder. ----------------------------------------------------------------------------------------------------------


def check_folder(folder: Path) -> None:
    """Raise ValueError unless the folder holds a preset, and holds it itself: a link must not lead out of it."""
    missing = [name for name in (CONFIG, METADATA) if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"The folder {folder} holds no preset: {' and '.join(missing)} missing.")
    for name in (CONFIG, METADATA, WEIGHTS):
        _files.check_lies_in(folder, name, "a preset", ValueError)


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


def check_version(preset: Any, metadata: Mapping[str, Any]) -> None:
    """Raise ValueError for a preset of a format that this version does not know."""
    version = metadata.get("format_version")
    if isinstance(version, bool) or version not in READABLE_VERSIONS:
        formats = f"{', '.join(map(str, READABLE_VERSIONS[:-1]))} and {READABLE_VERSIONS[-1]}"
        raise ValueError(
            f"This version of keras_vit_edu reads presets of format {formats}. Received: {preset} of format {version}"
        )


# weights.safetensors. -------------------------------------------------------------------------------------------------


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
