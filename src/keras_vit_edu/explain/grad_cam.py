"""Grad-CAM over tokens: the patches whose vectors point to where the logit grows.

Selvaraju et al., "Grad-CAM" (ICCV 2017), arXiv 1610.02391, equations 1 and 2, with tokens x_t in place of the places of
a feature map. With y the logit that is explained:

    w_d = mean over patches t of dy/dx_td        map_t = max(0, sum over d of w_d x_td)
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit_edu._types import Tensor
from keras_vit_edu.explain._run import gradients
from keras_vit_edu.explain.inside import Inside, checked_images, look_inside
from keras_vit_edu.explain.targets import Classes, target_rows
from keras_vit_edu.layers import PatchEncoder, TransformerBlock
from keras_vit_edu.layers.hooks import hooked


def grad_cam(
    model: keras.Model,
    images: np.ndarray,
    target: Classes | None = None,
    against: Classes | None = None,
    block: int | None = None,
    inside: Inside | None = None,
) -> np.ndarray:
    """A map of what speaks for a class among the tokens of one layer.

    Args:
        model: a classifier made of `PatchEncoder` and `TransformerBlock`.
        images: as the model takes them, `(B, H, W, C)`.
        target: index of a class, or one for each image. Defaults to the class with the largest logit.
        against: index of a class to compare with.
        block: the tokens that enter this block, 0 for the first. Defaults to the last block: after it, a head that
            reads the class token reads no patch.
        inside: result of `look_inside` for these images, if it is there already.

    Returns:
        float64 `(B, rows, columns)`, 0 or more.

    Raises:
        ValueError: as `look_inside`; if the model is no classifier or has no such block, or a class is out of range.

    Examples:
        >>> from keras_vit_edu.models import ViTClassifier
        >>> model = ViTClassifier.from_preset("vit_mnist_pure")
        >>> grad_cam(model, np.zeros((1, 28, 28, 1), "float32"), target=3).shape
        (1, 7, 7)
    """
    images = checked_images(model, images)
    inside = look_inside(model, images) if inside is None else inside
    count = len(inside.tokens) - 1
    if count < 1:
        raise ValueError(f"Grad-CAM needs `PatchEncoder` and `TransformerBlock`, which {model.name} does not have.")
    block = count - 1 if block is None else block
    if not isinstance(block, int) or isinstance(block, bool) or not 0 <= block < count:
        raise ValueError(f"`block` must be 0 to {count - 1}. Received: block={block!r}")
    length = inside.grid.num_tokens

    def number(images: Tensor, rows: Tensor, added: Tensor) -> Tensor:
        seen = iter(range(count + 1))

        def add(layer: Any, name: str, tensor: Tensor) -> Tensor:
            is_layer = isinstance(layer, (PatchEncoder, TransformerBlock)) and tensor.shape[1] == length
            return tensor + ops.cast(added, tensor.dtype) if is_layer and next(seen) == block else tensor

        with hooked(add):
            logits = model(images, training=False)
        return ops.sum(ops.cast(logits, "float32") * rows)

    rows = target_rows(inside.output, target, against)
    tokens, first = inside.tokens[block].astype("float64"), inside.grid.num_prefix_tokens
    zeros = np.zeros_like(inside.tokens[block])
    of_tokens = gradients(model, number, [images, rows, zeros], key=("grad_cam", block))[2]
    weights = of_tokens.astype("float64")[:, first:].mean(axis=1)  # (B, D)
    return inside.grid.as_map(np.maximum(np.einsum("btd,bd->bt", tokens[:, first:], weights), 0))
