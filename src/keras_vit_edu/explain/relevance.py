"""Relevance of patches for a class: gradient times attention, passed through all blocks.

Chefer, Gur and Wolf, "Generic attention-model explainability for interpreting bi-modal and encoder-decoder
transformers" (ICCV 2021), arXiv 2103.15679, equations 5 and 6. With A the attention scores of a block, y the logit that
is explained, and the mean over heads of what speaks for y:

    A' = mean over heads of max(0, dy/dA * A)        R = I, then for each block   R = R + A' R

The map of a head that reads the class token is its row of R. Another head reads several tokens: rows are then weighted
by the positive part of dy/dx_t . x_t, with x_t the token as the head reads it, scaled to a sum of 1. (Before the last
normalisation that product is 0: the length of a token makes no difference there.) Where no token is positive, they are
weighted as the head reads them.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit_edu._types import Tensor
from keras_vit_edu.explain._head import read_by_head
from keras_vit_edu.explain._run import gradients
from keras_vit_edu.explain.inside import Inside, checked_images, look_inside
from keras_vit_edu.explain.targets import Classes, target_rows
from keras_vit_edu.layers import MyMultiHeadAttention, TransformerBlock
from keras_vit_edu.layers.hooks import hooked


def relevance(
    model: keras.Model,
    images: np.ndarray,
    target: Classes | None = None,
    against: Classes | None = None,
    inside: Inside | None = None,
) -> np.ndarray:
    """How much each patch speaks for a class.

    Args:
        model: a classifier in which layers of this library are found.
        images: as the model takes them, `(B, H, W, C)`.
        target: index of a class, or one for each image. Defaults to the class with the largest logit.
        against: index of a class to compare with: what speaks for `target` and not for this one.
        inside: result of `look_inside` for these images, if it is there already.

    Returns:
        float64 `(B, rows, columns)`, 0 or more.

    Raises:
        ValueError: as `look_inside`; if the model is no classifier or a class is out of range.

    Examples:
        >>> from keras_vit_edu.models import ViTClassifier
        >>> relevance(ViTClassifier.from_preset("vit_mnist_pure"), np.zeros((1, 28, 28, 1), "float32")).shape
        (1, 7, 7)
    """
    images = checked_images(model, images)
    inside = look_inside(model, images) if inside is None else inside
    rows = target_rows(inside.output, target, against)
    of_scores, of_final = score_gradients(model, images, rows, inside)
    flow = np.eye(inside.grid.num_tokens)[None]
    for scores, gradient in zip(inside.scores, of_scores, strict=True):
        speaks_for = np.maximum(scores.astype("float64") * gradient, 0).mean(axis=1)  # (B, T, T)
        flow = flow + speaks_for @ flow
    start = read_by_head(model, inside)  # (B, T)
    if inside.final is not None and of_final is not None and (start == 1).sum() < len(start):  # it reads several
        positive = np.maximum((inside.final.astype("float64") * of_final).sum(axis=2), 0)
        total = positive.sum(axis=1, keepdims=True)
        start = np.where(total > 0, positive / np.maximum(total, np.finfo("float64").tiny), start)
    of_patches = np.einsum("bt,bts->bs", start, flow)[:, inside.grid.num_prefix_tokens :]
    return inside.grid.as_map(of_patches)


def score_gradients(
    model: keras.Model, images: np.ndarray, rows: np.ndarray, inside: Inside
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Differentiate `sum(logits * rows)`.

    Returns:
        The gradient for the attention scores of each block, `(B, h, T, T)`, and for the tokens as the head reads them,
        `(B, T, D)`; None if `inside.final` is None.
    """
    length, num_blocks = inside.grid.num_tokens, len(inside.tokens) - 1

    # The gradient for zeros that are added to a tensor is the one for the tensor.
    def number(images: Tensor, rows: Tensor, *added: Tensor) -> Tensor:
        scores, blocks = iter(added), []

        def add(layer: Any, name: str, tensor: Tensor) -> Tensor:
            if isinstance(layer, MyMultiHeadAttention) and name == "scores" and _is_square(tensor, length):
                return tensor + ops.cast(next(scores), tensor.dtype)
            if isinstance(layer, TransformerBlock) and tensor.shape[1] == length:
                blocks.append(layer)
            if name == "normalised" and len(blocks) == num_blocks and len(added) > len(inside.scores):
                blocks.append(layer)  # only the first after the last block
                return tensor + ops.cast(added[-1], tensor.dtype)
            return tensor

        with hooked(add):
            logits = model(images, training=False)
        return ops.sum(ops.cast(logits, "float32") * rows)

    zeros = [np.zeros_like(of_block) for of_block in inside.scores]
    if inside.final is not None:
        zeros.append(np.zeros_like(inside.final))
    of_inputs = gradients(model, number, [images, rows, *zeros], key="score_gradients")
    found = [gradient.astype("float64") for gradient in of_inputs[2:]]
    return (found, None) if inside.final is None else (found[:-1], found[-1])


def _is_square(tensor: Tensor, length: int) -> bool:
    return tuple(tensor.shape[-2:]) == (length, length)
