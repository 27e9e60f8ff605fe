"""A preset's weights for a model with another image size or another number of classes."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keras_vit_edu import _checks
from keras_vit_edu.layers.patch_encoder import resize_positions
from keras_vit_edu.models.weight_names import weights_by_name

POSITIONS, BIAS_TABLE = "backbone/patch_encoder/position_embedding", "position_bias/table"
Shape = tuple[int, ...]


def is_of_head(name: str) -> bool:
    """Whether a weight belongs to the Dense layers of the head, which know the number of classes or of tokens."""
    return name.startswith(("head_dense_", "logits/"))


def misfits(model: Any, stored: Mapping[str, Shape]) -> tuple[set[tuple[str, Shape]], set[tuple[str, Shape]]]:
    """Names and shapes that only the file has, and that only the model has, and that cannot be adapted."""
    wanted = {name: tuple(variable.shape) for name, variable in weights_by_name(model).items()}
    differing = {name for name in stored.keys() | wanted.keys() if stored.get(name) != wanted.get(name)}
    adaptable = {
        name
        for name in differing
        if is_of_head(name) or (name in stored and name in wanted and (name == POSITIONS or name.endswith(BIAS_TABLE)))
    }
    left = differing - adaptable
    return {(name, stored[name]) for name in left & stored.keys()}, {
        (name, wanted[name]) for name in left & wanted.keys()
    }


def fill(model: Any, stored: Iterable[tuple[str, np.ndarray]], shapes: Mapping[str, Shape], grid: Any) -> None:
    """Fill a model from weights, which may have been made for another image size or another number of classes.

    Weights that fit are kept. Position vectors and the tables of a `RelativePositionBias` are interpolated bicubically.
    The head keeps its weights only if all of them fit; otherwise it keeps the initial ones.

    Args:
        model: a classifier.
        stored: names and float32 arrays.
        shapes: of the stored arrays, by name.
        grid: `(rows, columns)` of the patches that the weights were made for; None for a model without patches.
    """
    variables = weights_by_name(model)
    head = [name for name in shapes.keys() | variables.keys() if is_of_head(name)]
    head_fits = all(name in variables and shapes.get(name) == tuple(variables[name].shape) for name in head)
    for name, array in stored:
        if is_of_head(name) and not head_fits:
            continue
        variable = variables[name]
        if array.shape != tuple(variable.shape):
            array = _resized(name, array, grid, model)
        variable.assign(array)


def _resized(name: str, array: np.ndarray, grid: tuple[int, int], model: Any) -> np.ndarray:
    new_grid = model.backbone.grid_size
    if name == POSITIONS:
        prefix = model.backbone.num_prefix_tokens
        return np.concatenate([array[:prefix], resize_positions(array[prefix:], grid, new_grid)])
    offsets, new_offsets = ((2 * rows - 1, 2 * columns - 1) for rows, columns in (grid, new_grid))
    return resize_positions(array.T, offsets, new_offsets).T  # (h, offsets): a vector of h numbers for each offset


def grid_of(flat: Mapping[str, Any]) -> tuple[int, int] | None:
    """`(rows, columns)` of the patches in a flat configuration; None for a model without patches."""
    if "filters" in flat:
        return None
    shape = _checks.image_shape(flat.get("image_shape", (28, 28, 1)))
    is_first = (flat.get("data_format") or keras.config.image_data_format()) == "channels_first"
    height, width = shape[1:] if is_first else shape[:2]
    patch_height, patch_width = _checks.pair_of_ints("patch_size", flat.get("patch_size", 7))
    return height // patch_height, width // patch_width
