"""Which positions, and which patches, resemble each other: cosine similarities of their vectors."""

from collections.abc import Sequence

import keras
import numpy as np

from keras_vit_edu._keras_internals import layers_within
from keras_vit_edu.explain.inside import Grid
from keras_vit_edu.layers import PatchEncoder


def cosine_similarity(vectors: np.ndarray) -> np.ndarray:
    """cos(a, b) = a . b / (|a| |b|) of all pairs of vectors.

    Args:
        vectors: `(..., n, D)`.

    Returns:
        float64 `(..., n, n)`, from -1 to 1; 0 for a vector of zeros.

    Examples:
        >>> cosine_similarity(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]))[0].tolist()
        [1.0, 1.0, 0.0, -1.0]
    """
    vectors = np.asarray(vectors, "float64")
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return unit @ np.swapaxes(unit, -1, -2)


def position_similarity(model: keras.Model) -> np.ndarray:
    """The similarity of the learned position vectors of the patches.

    Dosovitskiy et al. (2021), figure 7, centre: trained, neighbours resemble each other, and so do patches of one row
    or column.

    Args:
        model: with one `PatchEncoder`.

    Returns:
        float64 `(N, N)`, patches in reading order, without prefix tokens.

    Raises:
        ValueError: if the model has no `PatchEncoder`, or several.

    Examples:
        >>> from keras_vit_edu.models import ViTClassifier
        >>> position_similarity(ViTClassifier.from_preset("vit_mnist_pure")).shape
        (49, 49)
    """
    encoders = [layer for layer in layers_within(model) if isinstance(layer, PatchEncoder)]
    if len(encoders) != 1:
        raise ValueError(f"There must be one `PatchEncoder`. Received: {model.name} with {len(encoders)}")
    positions = keras.ops.convert_to_numpy(keras.ops.cast(encoders[0].position_embedding, "float32"))
    return cosine_similarity(positions[encoders[0].num_prefix_tokens :])


def token_similarity(tokens: Sequence[np.ndarray], grid: Grid) -> np.ndarray:
    """How alike the patches of an image have become, block by block: the mean similarity of two different patches.

    Near 1, all patches have become one: the tokens are oversmoothed.

    Args:
        tokens: `(B, T, D)` before the first block and after each, as in `look_inside(...).tokens`.
        grid: where the tokens lie.

    Returns:
        float64 `(B, len(tokens))`.

    Raises:
        ValueError: if there is only one patch.

    Examples:
        >>> alike, different = np.ones((1, 2, 3)), np.eye(3)[None, :2]
        >>> token_similarity([different, alike], Grid(1, 2, 0)).round(9).tolist()
        [[0.0, 1.0]]
    """
    count = grid.num_patches
    if count < 2:
        raise ValueError("There must be two patches at least, to compare them.")
    means = []
    for after_block in tokens:
        similarity = cosine_similarity(after_block[:, grid.num_prefix_tokens :])
        means.append((similarity.sum(axis=(1, 2)) - np.trace(similarity, axis1=1, axis2=2)) / (count * (count - 1)))
    return np.stack(means, axis=1)
