"""Read the weights of a ViT or DeiT of transformers, with the same names for all versions of transformers."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vit_edu._files import open_regular, read_json
from keras_vit_edu._tensor_file import read_header

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = ("float64", "float32", "float16", "bfloat16")
HEADS = ("classifier", "cls_classifier")  # the second of a DeiT with a distillation head beside it
# Arrays that a new head replaces, or that only pretraining needs.
UNUSED = re.compile(r"(pooler|decoder|distillation_classifier)\.|embeddings\.mask_token$")
OF_BACKBONE = ("embeddings.", "layers.", "layernorm.")
# From the names of transformers up to version 4, which are those in files, to those of version 5.
RENAMED = (
    (r"^(vit|deit)\.", ""),
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.attention\.(query|key|value)\.", lambda found: f".attention.{found[1][0]}_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(?<=\d)\.output\.dense\.", ".mlp.fc2."),
)


class StoredWeights:
    """The arrays in a folder of transformers. They are read on request.

    Args:
        folder: with `model.safetensors`, or several files that `model.safetensors.index.json` names.

    Attributes:
        shapes: of each array, by its name in transformers 5, without the model's: `layers.0.mlp.fc1.weight`.
        head: name of the head; None if there is none.
        num_layers: number of transformer blocks.

    Raises:
        ValueError: if a file is missing or damaged, or holds something else than floats.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[str, _Place] = {}
        for file in _files(folder):
            for name, place in _places(file).items():
                ours = _renamed(name)
                if UNUSED.match(ours):
                    continue
                if ours in self._places:
                    raise ValueError(f"Each array must be there once. Received: {folder} with {name} twice")
                self._places[ours] = place
        self.shapes = {name: place.shape for name, place in self._places.items()}
        self.head = next((head for head in HEADS if f"{head}.weight" in self.shapes), None)
        self.num_layers = len({name.split(".")[1] for name in self.shapes if name.startswith("layers.")})

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Raise ValueError if the arrays have other shapes."""
        for name, shape in expected.items():
            if self.shapes.get(name) != shape:
                raise ValueError(
                    f"The weights must be those that config.json describes, with {name} of shape {shape}. "
                    f"Received: {self.folder} with {name} {self.shapes.get(name, 'missing')}"
                )

    def check_backbone(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Same as `check`, and raise ValueError if the backbone has further arrays."""
        self.check(expected)
        unknown = [name for name in self.shapes if name.startswith(OF_BACKBONE) and name not in expected]
        if unknown:
            raise ValueError(
                "The weights must be those of a plain ViT or DeiT. "
                f"Received: {self.folder} with {len(unknown)} others, the first of them {unknown[0]}"
            )

    def read(self, name: str) -> np.ndarray:
        """An array, in float32.

        Raises:
            ValueError: if it cannot be read, or holds NaN or infinity.
        """
        place = self._places[name]
        with open_regular(place.file) as stream:
            stream.seek(place.start)
            data = stream.read(place.size)
        if len(data) != place.size:
            raise ValueError(f"The weights must be whole. Received: {place.file}, which ends within {name}")
        stored = np.frombuffer(data, np.dtype(place.dtype).newbyteorder("<"))
        with np.errstate(over="ignore"):
            array = stored.astype("float32").reshape(place.shape)
        if not np.isfinite(array).all():
            raise ValueError(f"Weights must be finite numbers. Received: {place.file}, where {name} holds others")
        return array


@dataclass(frozen=True)
class _Place:
    """The position of an array in a file."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    start: int

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def _renamed(name: str) -> str:
    for pattern, new in RENAMED:
        name = re.sub(pattern, new, name)
    return name


def _files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        other = next((file.name for kind in ("*.bin", "*.h5", "*.msgpack") for file in sorted(folder.glob(kind))), None)
        raise ValueError(
            f"The weights must be in {WEIGHTS}. Load the model with transformers and call its `save_pretrained`, which "
            f"writes that file. Received: {folder} with {other or 'no weights'}"
        )
    index = read_json(folder / INDEX)
    named = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(named, dict) or not named or not all(isinstance(file, str) for file in named.values()):
        raise ValueError(f"{INDEX} must name the file of each array. Received: {folder / INDEX}, which does not")
    files = sorted(set(named.values()))
    for file in files:
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise ValueError(f"The weights must be in safetensors files of the folder. Received: {file!r} in {INDEX}")
        if not (folder / file).exists():
            raise ValueError(f"The folder must hold all files that {INDEX} names. Received: {folder} without {file}")
    return [folder / file for file in files]


def _places(file: Path) -> dict[str, _Place]:
    """The arrays in a file, all of which lie within it."""
    with open_regular(file) as stream:
        try:
            header = read_header(stream, os.fstat(stream.fileno()).st_size)
        except (OSError, ValueError) as error:
            raise ValueError(f"The weights are damaged: {error}. Received: {file}") from None
    start, places = header.begin, {}
    for name, shape in header.shapes.items():
        dtype = header.dtypes[name]
        if dtype not in DTYPES:
            raise ValueError(f"Weights must be of {', '.join(DTYPES)}. Received: {file} with {name} of {dtype}")
        places[name] = _Place(file, shape, dtype, start)
        start += places[name].size
    return places
