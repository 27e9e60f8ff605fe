"""Attention rollout: how much of each token arrives at each token after all blocks.

Abnar and Zuidema, "Quantifying attention flow in transformers" (2020), arXiv 2005.00928. A block adds the output
of attention to its tokens. Let A be the attention scores of a block, one matrix for all its heads. The block mixes
tokens by

    M = (A + I) / 2        and, over blocks 1 to L,        R = M_L ... M_2 M_1

Row t of R says from where token t of the last block comes. Values, MLPs and the sizes of vectors do not count: rollout
shows a flow of attention, not what the model made of it.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from keras_vit_edu import _checks

Heads = Literal["mean", "max", "min"]


def rollout(scores: Sequence[np.ndarray], heads: Heads = "mean", discard: float = 0.0) -> np.ndarray:
    """Multiply the attention of all blocks.

    Args:
        scores: attention scores of each block, `(B, h, T, T)`, in the order they run; each row sums to 1.
        heads: how the heads of a block become one: their `"mean"` (as in the paper), `"max"` or `"min"`.
        discard: share of the entries of a block's attention, in [0, 1), that are set to 0 before: the lowest of each
            image. The diagonal is kept. 0 keeps all, as in the paper.

    Returns:
        float64 `(B, T, T)`; entry `[b, t, s]` is the share of token s in token t at the end. Each row sums to 1.

    Raises:
        ValueError: if there are no scores, their shapes differ, or an argument is out of range.

    Examples:
        >>> looks_left = np.array([[[[1.0, 0.0], [1.0, 0.0]]]])  # both tokens attend to the first
        >>> rollout([looks_left]).tolist()
        [[[1.0, 0.0], [0.5, 0.5]]]
        >>> rollout([looks_left, looks_left]).tolist()
        [[[1.0, 0.0], [0.75, 0.25]]]
    """
    check_scores(scores)
    if heads not in get_args(Heads):
        raise ValueError(f"`heads` must be one of {', '.join(get_args(Heads))}. Received: heads={heads!r}")
    discard = _checks.dropout_rate("discard", discard)
    flow = np.eye(scores[0].shape[-1])[None]  # (1, T, T)
    for of_block in scores:
        attention = getattr(np, heads)(np.asarray(of_block, "float64"), axis=1)  # (B, T, T)
        mixing = _without_lowest(attention, discard) + np.eye(attention.shape[-1])
        flow = mixing / mixing.sum(axis=-1, keepdims=True) @ flow
    return flow


def _without_lowest(attention: np.ndarray, share: float) -> np.ndarray:
    """Attention `(B, T, T)` with the lowest entries of each image set to 0, but for the diagonal."""
    count = int(share * attention[0].size)
    if not count:
        return attention
    flat = attention.reshape(len(attention), -1).copy()
    lowest = np.argpartition(flat, count - 1, axis=1)[:, :count]
    np.put_along_axis(flat, lowest, 0.0, axis=1)
    kept = flat.reshape(attention.shape)
    diagonal = np.arange(attention.shape[-1])
    kept[:, diagonal, diagonal] = attention[:, diagonal, diagonal]
    return kept


def check_scores(scores: Sequence[np.ndarray]) -> None:
    """Raise a ValueError unless these are attention scores `(B, h, T, T)` of blocks over the same tokens."""
    shapes = [np.shape(of_block) for of_block in scores]
    tokens = {(shape[0], *shape[2:]) for shape in shapes if len(shape) == 4 and shape[2] == shape[3]}
    if not shapes or len(tokens) != 1 or any(len(shape) != 4 or shape[2] != shape[3] for shape in shapes):
        raise ValueError(
            "`scores` must be a list of arrays (B, num_heads, T, T), one for each block. "
            f"Received: {', '.join(map(str, shapes)) or 'none'}"
        )
