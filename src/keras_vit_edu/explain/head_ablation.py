"""What a head does: how a logit changes when its output is removed.

Michel, Levy and Neubig, "Are sixteen heads really better than one?" (NeurIPS 2019), arXiv 1905.10650, section 3.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit_edu._types import Tensor
from keras_vit_edu.explain._run import run
from keras_vit_edu.explain.inside import Inside, checked_images, look_inside
from keras_vit_edu.explain.targets import Classes, target_rows
from keras_vit_edu.layers import MyMultiHeadAttention
from keras_vit_edu.layers.hooks import hooked


def head_ablation(
    model: keras.Model,
    images: np.ndarray,
    target: Classes | None = None,
    against: Classes | None = None,
    inside: Inside | None = None,
) -> np.ndarray:
    """Remove every head in turn: its output becomes zeros before the projection of the joined heads.

    Args:
        model: a classifier in which layers of this library are found; all blocks with the same number of heads.
        images: as the model takes them, `(B, H, W, C)`.
        target: index of a class, or one for each image. Defaults to the class with the largest logit.
        against: index of a class to compare with.
        inside: result of `look_inside` for these images, if it is there already.

    Returns:
        float64 `(B, num_blocks, h)`: the logit with the head minus the one without it; positive where the head speaks
        for the class.

    Raises:
        ValueError: as `look_inside`; if the model is no classifier, or a class is out of range.

    Examples:
        >>> from keras_vit_edu.models import ViTClassifier
        >>> model = ViTClassifier.from_preset("vit_mnist_program_p")
        >>> head_ablation(model, np.zeros((1, 28, 28, 1), "float32")).shape  # 4 blocks of 4 heads
        (1, 4, 4)
    """
    images = checked_images(model, images)
    inside = look_inside(model, images) if inside is None else inside
    rows = target_rows(inside.output, target, against)
    whole = (inside.output * rows).sum(axis=1, dtype="float64")
    heads = {of_block.shape[1] for of_block in inside.scores}
    if len(heads) != 1:
        raise ValueError(f"All blocks must have the same number of heads. Received: {sorted(heads)}")
    num_blocks, num_heads, length = len(inside.scores), heads.pop(), inside.grid.num_tokens

    def logits(images: Tensor, keep: Tensor) -> Tensor:
        place = iter(range(num_blocks))
        is_ours = []  # of the layer that runs, as its scores said

        def remove(layer: Any, name: str, tensor: Tensor) -> Tensor:
            if isinstance(layer, MyMultiHeadAttention) and name == "scores":
                is_ours.append(tuple(tensor.shape[-2:]) == (length, length))
            if isinstance(layer, MyMultiHeadAttention) and name == "heads" and is_ours.pop():
                return tensor * ops.cast(keep[next(place)], tensor.dtype)[None, :, None, None]
            return tensor

        with hooked(remove):
            return model(images, training=False)

    found = np.zeros((len(images), num_blocks, num_heads))
    for block in range(num_blocks):
        for head in range(num_heads):
            keep = np.ones((num_blocks, num_heads), "float32")
            keep[block, head] = 0
            without = run(model, logits, [images, keep], key="head_ablation")
            found[:, block, head] = whole - (without * rows).sum(axis=1, dtype="float64")
    return found
