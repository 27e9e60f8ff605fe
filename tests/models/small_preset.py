"""A small preset, and how to change its files."""

import hashlib
import json
from pathlib import Path

import numpy as np
import safetensors.numpy

SMALL = {
    "num_classes": 3,
    "image_shape": (8, 12, 1),
    "patch_size": 4,
    "projection_dim": 8,
    "num_layers": 1,
    "num_heads": 2,
    "key_dim": 3,
    "mlp_dim": 10,
    "head_units": (6,),
}


def edit(file: Path, **changes):
    """Change some entries of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def write_weights(folder: Path, weights: dict[str, np.ndarray]):
    """Replace the weights of a preset, checksum and all."""
    safetensors.numpy.save_file(weights, folder / "weights.safetensors")
    edit(folder / "metadata.json", weights_sha256=sha256(folder / "weights.safetensors"))


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
