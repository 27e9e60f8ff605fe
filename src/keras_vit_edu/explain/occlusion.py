"""Occlusion: what a logit loses without a patch.

Zeiler and Fergus, "Visualizing and understanding convolutional networks" (ECCV 2014), arXiv 1311.2901, section 4.2,
replace pixels. A Transformer can also do without a patch: no query attends to its token, in any block, and the head
leaves it out.
"""

from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import ops

from keras_vit_edu._types import Tensor
from keras_vit_edu.explain._head import head_model
from keras_vit_edu.explain._run import outputs, run
from keras_vit_edu.explain.inside import Grid, Inside, checked_images, is_channels_first, look_inside
from keras_vit_edu.explain.targets import Classes, target_rows
from keras_vit_edu.layers import MyMultiHeadAttention, SequencePooling
from keras_vit_edu.layers.hooks import hooked

AT_ONCE = 50  # images in a batch
Without = Literal["token", "pixels"]


def occlusion(
    model: keras.Model,
    images: np.ndarray,
    target: Classes | None = None,
    against: Classes | None = None,
    without: Without = "token",
    value: float = 0.0,
    inside: Inside | None = None,
) -> np.ndarray:
    """How much a logit falls when one patch is taken away, patch by patch.

    Args:
        model: a `ViTClassifier`; with `without="pixels"` any classifier in which layers of this library are found.
        images: as the model takes them, `(B, H, W, C)`.
        target: index of a class, or one for each image. Defaults to the class with the largest logit.
        against: index of a class to compare with: the fall of the difference of the two logits.
        without: `"token"`: no query attends to the patch in any block, and the head leaves it out (the head
            `"flatten"` reads zeros in its place). `"pixels"`: its pixels become `value`.
        value: of the pixels.
        inside: result of `look_inside` for these images, if it is there already.

    Returns:
        float64 `(B, rows, columns)`: the logit of the whole image minus the one without the patch.

    Raises:
        ValueError: as `look_inside`; if the head is not known, or an argument is out of range.

    Examples:
        >>> from keras_vit_edu.models import ViTClassifier
        >>> model = ViTClassifier.from_preset("vit_mnist_pure")
        >>> occlusion(model, np.zeros((1, 28, 28, 1), "float32"), target=3).shape
        (1, 7, 7)
    """
    images = checked_images(model, images)
    if without not in get_args(Without):
        raise ValueError(f"`without` must be one of {', '.join(get_args(Without))}. Received: without={without!r}")
    inside = look_inside(model, images) if inside is None else inside
    rows, grid = target_rows(inside.output, target, against), inside.grid
    whole = (inside.output * rows).sum(axis=1, dtype="float64")
    found = np.zeros((len(images), grid.num_patches))
    for place, (image, row) in enumerate(zip(images, rows, strict=True)):
        for first in range(0, grid.num_patches, AT_ONCE):
            patches = np.arange(first, min(first + AT_ONCE, grid.num_patches))
            asked = np.resize(patches, min(AT_ONCE, grid.num_patches))  # one constant size, which is compiled once
            if without == "token":
                logits = _without_tokens(model, image, asked, grid)
            else:
                logits = _without_pixels(model, image, asked, grid, value)
            found[place, patches] = whole[place] - (logits[: len(patches)] @ row.astype("float64"))
    return grid.as_map(found)


def _without_pixels(model: Any, image: np.ndarray, patches: np.ndarray, grid: Grid, value: float) -> np.ndarray:
    """Logits of the image with each of `patches` replaced, `(n, num_classes)`."""
    changed = np.repeat(image[None], len(patches), axis=0)
    is_first = is_channels_first(model)
    height, width = image.shape[1:] if is_first else image.shape[:2]
    for i, patch in enumerate(patches):
        row, column = divmod(int(patch), grid.columns)
        down = slice(row * height // grid.rows, (row + 1) * height // grid.rows)
        across = slice(column * width // grid.columns, (column + 1) * width // grid.columns)
        changed[(i, slice(None), down, across) if is_first else (i, down, across)] = value
    return outputs(model, changed).astype("float64")


def _without_tokens(model: Any, image: np.ndarray, patches: np.ndarray, grid: Grid) -> np.ndarray:
    """Logits of the image without each of `patches`, `(n, num_classes)`."""
    head, first = head_model(model, "Occlusion of tokens"), grid.num_prefix_tokens
    keep = np.ones((len(patches), grid.num_tokens), "float32")
    keep[np.arange(len(patches)), first + patches] = 0

    def logits(images: Tensor, keep: Tensor) -> Tensor:
        def hide(layer: Any, name: str, tensor: Tensor) -> Tensor:
            if name != "scores" or not isinstance(layer, (MyMultiHeadAttention, SequencePooling)):
                return tensor
            kept = ops.cast(keep, tensor.dtype)
            shown = tensor * (kept[:, None, None] if isinstance(layer, MyMultiHeadAttention) else kept[:, first:])
            return shown / ops.sum(shown, axis=-1, keepdims=True)

        with hooked(hide):
            tokens = model.backbone(images, training=False)
            return head(_left_out(tokens, ops.cast(keep, tokens.dtype), model.head, first), training=False)

    images = np.repeat(image[None], len(patches), axis=0)
    return run(model, logits, [images, keep], key="occlusion").astype("float64")


def _left_out(tokens: Tensor, keep: Tensor, head: str, first: int) -> Tensor:
    """Tokens `(B, T, D)` of which the head reads only those that are kept."""
    keep = keep[:, :, None]  # (B, T, 1)
    if head == "flatten":
        return tokens * keep
    if head not in ("mean", "mean_with_prefix"):
        return tokens  # the class token is never left out, and `SequencePooling` has weights
    start = first if head == "mean" else 0
    counted, kept = tokens[:, start:], keep[:, start:]
    mean = ops.sum(counted * kept, axis=1, keepdims=True) / ops.sum(kept, axis=1, keepdims=True)
    # A token that is equal to the mean of the others does not change their mean.
    return tokens * keep + mean * (1 - keep)
