"""How far attention looks: the mean distance, in pixels, between a patch and the patches that it attends to.

Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021), figure 7 and appendix D.7. With p_t the centre of patch
t in pixels and A the scores between patches, scaled so that a row sums to 1 without the prefix tokens:

    distance = mean over queries t of   sum over keys s of   A[t, s] |p_t - p_s|

A convolution of 3x3 patches has about one patch; uniform attention has about half of the image's side.
"""

from collections.abc import Sequence

import numpy as np

from keras_vit_edu import _checks
from keras_vit_edu.explain.inside import Grid
from keras_vit_edu.explain.rollout import check_scores


def attention_distance(scores: Sequence[np.ndarray], grid: Grid, patch_size: int | Sequence[int]) -> np.ndarray:
    """The mean attention distance of every head.

    Args:
        scores: attention scores of each block, `(B, h, T, T)`.
        grid: where the tokens lie, as in `look_inside(...).grid`.
        patch_size: side of a patch in pixels, an int or `(height, width)`.

    Returns:
        float64 `(num_blocks, h)`, in pixels, the mean over images and queries. Queries and keys are patches; prefix
        tokens have no place. NaN for a head in which no patch attends to any patch.

    Raises:
        ValueError: if the scores do not fit the grid, or blocks differ in their number of heads.

    Examples:
        >>> one_row = Grid(1, 3, 0)
        >>> attention_distance([np.full((1, 1, 3, 3), 1 / 3)], one_row, 4).round(3).tolist()
        [[3.556]]
    """
    check_scores(scores)
    height, width = _checks.pair_of_ints("patch_size", patch_size)
    first, length = grid.num_prefix_tokens, scores[0].shape[-1]
    if length != grid.num_tokens:
        raise ValueError(f"The scores are of {length} tokens, and the grid has {grid.num_tokens}.")
    if len({of_block.shape[1] for of_block in scores}) > 1:
        raise ValueError("All blocks must have the same number of heads.")
    rows, columns = np.divmod(np.arange(grid.num_patches), grid.columns)
    places = np.stack([rows * height, columns * width], axis=1)  # (N, 2)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)  # (N, N)
    found = []
    for of_block in scores:
        between = np.asarray(of_block[:, :, first:, first:], "float64")
        total = between.sum(axis=-1)  # (B, h, N)
        far = (between * distances).sum(axis=-1)
        distance = np.divide(far, total, out=np.zeros_like(far), where=total > 0)
        count = (total > 0).sum(axis=(0, 2))  # (h,): queries that attend to a patch
        found.append(np.where(count > 0, distance.sum(axis=(0, 2)) / np.maximum(count, 1), np.nan))
    return np.stack(found)
