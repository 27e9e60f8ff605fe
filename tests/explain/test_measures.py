"""Attention distance, similarities and norms: by hand."""

import keras
import numpy as np
import pytest

from keras_vit_edu.explain import (
    Grid,
    attention_distance,
    cosine_similarity,
    position_similarity,
    token_norms,
    token_similarity,
)
from keras_vit_edu.layers import PatchEncoder
from tests.explain.small import small_classifier

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]


def test_distances_by_hand():
    """Two rows and two columns of patches of 3 x 4 pixels, after a class token."""
    grid = Grid(2, 2, 1)
    itself = np.eye(5)
    across = np.zeros((5, 5))
    across[1:, 1:] = np.eye(4)[[1, 0, 3, 2]]  # each to its neighbour in the row: 4 pixels
    corner = np.zeros((5, 5))
    corner[1:, 1:] = np.eye(4)[[3, 2, 1, 0]]  # each to the opposite corner: 5 pixels
    half = 0.5 * across
    half[:, 0] += 0.5  # half of it to the class token, which has no place
    only_class = np.zeros((5, 5))
    only_class[:, 0] = 1
    found = attention_distance([np.array([[itself, across]]), np.array([[corner, half]])], grid, (3, 4))
    np.testing.assert_allclose(found, [[0, 4], [5, 4]])
    assert np.isnan(attention_distance([np.array([[only_class]])], grid, 3)).all()


def test_distances_of_what_does_not_fit():
    with pytest.raises(ValueError, match="The scores are of 5 tokens, and the grid has 4"):
        attention_distance([np.zeros((1, 1, 5, 5))], Grid(2, 2, 0), 3)
    with pytest.raises(ValueError, match="the same number of heads"):
        attention_distance([np.zeros((1, 1, 4, 4)), np.zeros((1, 2, 4, 4))], Grid(2, 2, 0), 3)


def test_cosines():
    vectors = np.array([[3.0, 4.0], [6.0, 8.0], [4.0, -3.0], [0.0, 0.0]])
    np.testing.assert_allclose(cosine_similarity(vectors)[0], [1, 1, 0, 0], atol=1e-15)


def test_similarity_of_positions_is_of_patches_alone(rng):
    model = small_classifier(num_prefix_tokens=1)
    encoder = model.backbone.get_layer("patch_encoder")
    positions = np.zeros((7, 8), "float32")
    positions[1:, :] = np.repeat(np.eye(8, dtype="float32")[:3], 2, axis=0)  # patches in pairs
    encoder.position_embedding.assign(positions)
    np.testing.assert_allclose(position_similarity(model), np.kron(np.eye(3), np.ones((2, 2))))
    with pytest.raises(ValueError, match=r"one `PatchEncoder`. Received: .* with 0"):
        position_similarity(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]))
    both = keras.Sequential([keras.Input((6, 5)), PatchEncoder(6, 4), PatchEncoder(6, 4)])
    with pytest.raises(ValueError, match="with 2"):
        position_similarity(both)


def test_similarity_of_tokens():
    tokens = np.array([[[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])  # a class token and three patches
    half = 2**-0.5
    np.testing.assert_allclose(token_similarity([tokens], Grid(1, 3, 1)), [[(0 + half + half) / 3]])
    with pytest.raises(ValueError, match="two patches"):
        token_similarity([tokens[:, :2]], Grid(1, 1, 1))


def test_norms():
    tokens = np.array([[[3.0, 4.0], [0.0, 2.0], [1.0, 0.0], [0.0, 0.0], [5.0, 12.0]]])
    prefix, patches = token_norms([tokens, 2 * tokens], Grid(2, 2, 1))
    np.testing.assert_allclose(prefix, [[[5.0]], [[10.0]]])
    np.testing.assert_allclose(patches[:, 0], [[[2, 1], [0, 13]], [[4, 2], [0, 26]]])
