"""Of a model that is known: a Dense layer on the pixels, with one patch that counts more than the others."""

import itertools

import keras
import numpy as np
import pytest

from keras_vit_edu.explain import Grid, faithfulness
from tests.explain.small import small_classifier
from tests.support import assert_agree, to_numpy

pytestmark = pytest.mark.any_backend
IMPORTANCE = np.array([[0.0, 3.0, 1.0], [0.5, 2.0, 0.2]])  # of the six patches of 4 x 4 pixels


@pytest.fixture
def model():
    """Logit 1 is the sum of the patches' means, weighted by their importance; logit 0 is 1."""
    inputs = keras.Input((8, 12, 1))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    kernel = np.zeros((96, 2), "float32")
    kernel[:, 1] = IMPORTANCE.repeat(4, axis=0).repeat(4, axis=1).ravel() / 16
    model.set_weights([kernel, np.array([1.0, 0.0], "float32")])
    return model


WHITE = np.ones((1, 8, 12, 1), "float32")
TARGET = np.array([1])


def probability(total):
    return 1 / (1 + np.exp(1 - total))


def test_curves_by_hand(model):
    found = faithfulness.deletion_and_insertion(model, WHITE, IMPORTANCE[None], TARGET)
    falls = np.sort(IMPORTANCE.ravel())[::-1]
    left = IMPORTANCE.sum() - np.r_[0, np.cumsum(falls)]
    assert_agree(found.deletion[0], probability(left), 1e-5)
    assert_agree(found.insertion[0], probability(np.r_[0, np.cumsum(falls)]), 1e-5)
    area = sum((a + b) / 2 for a, b in itertools.pairwise(probability(left))) / 6
    assert_agree(found.deletion_area, [area], 1e-5)


def test_the_right_map_is_better_than_chance_and_its_opposite_worse(model):
    right = faithfulness.deletion_and_insertion(model, WHITE, IMPORTANCE[None], TARGET)
    wrong = faithfulness.deletion_and_insertion(model, WHITE, -IMPORTANCE[None], TARGET)
    deletion, insertion = faithfulness.random_areas(model, WHITE, Grid(2, 3, 0), TARGET, seeds=8)
    assert deletion.shape == insertion.shape == (8, 1)
    assert right.deletion_area < deletion.min() < deletion.max() < wrong.deletion_area
    assert right.insertion_area > insertion.max() > insertion.min() > wrong.insertion_area
    again = faithfulness.random_areas(model, WHITE, Grid(2, 3, 0), TARGET, seeds=8)
    np.testing.assert_array_equal(again[0], deletion)


def test_saco_by_hand(model):
    """Three groups of two patches, in a map whose two best are in the wrong order."""
    maps = np.array([[[0.0, 2.0, 5.0], [0.3, 4.0, 0.1]]])  # ranks: 5, 4 | 2, 0.3 | 0.1, 0
    sums = [9.0, 2.3, 0.1]
    whole = IMPORTANCE.sum()
    effects = [probability(whole) - probability(whole - gone) for gone in (1 + 2, 3 + 0.5, 0.2 + 0)]
    signed = total = 0.0
    for more, less in ((0, 1), (0, 2), (1, 2)):
        difference = sums[more] - sums[less]
        signed += difference if effects[more] >= effects[less] else -difference
        total += difference
    assert effects[0] < effects[1]  # the wrong order
    assert_agree(faithfulness.saco(model, WHITE, maps, TARGET, groups=3), [signed / total], 1e-6)
    assert faithfulness.saco(model, WHITE, IMPORTANCE[None], TARGET, groups=6) == [1.0]
    assert faithfulness.saco(model, WHITE, -IMPORTANCE[None], TARGET, groups=6) == [-1.0]
    assert faithfulness.saco(model, WHITE, np.ones((1, 2, 3)), TARGET, groups=6) == [0.0]


def test_a_randomised_model_has_the_same_numbers_in_other_places():
    model = small_classifier()
    before = [to_numpy(weight) for weight in model.weights]
    other = faithfulness.randomised(model, seed=1)
    for weight, shuffled, was in zip(model.weights, other.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), was)
        np.testing.assert_array_equal(np.sort(to_numpy(shuffled).ravel()), np.sort(was.ravel()))
    changed = [bool((to_numpy(a) != b).any()) for a, b in zip(other.weights, before, strict=True)]
    assert all(changed)
    images = np.random.default_rng(0).random((1, 8, 12, 3), "float32")
    assert np.abs(to_numpy(other(images)) - to_numpy(model(images))).max() > 1e-3


def test_rank_correlation():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    maps, others = rng.random((3, 2, 4)).round(1), rng.random((3, 2, 4)).round(1)  # with ties
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(maps, others, strict=True)]
    np.testing.assert_allclose(faithfulness.map_correlation(maps, others), expected)
    assert faithfulness.map_correlation(np.ones((1, 2, 2)), maps[:1, :, :2]) == [0.0]


def test_pointing():
    masks = np.zeros((2, 4, 6), bool)
    masks[0, 3, 5] = masks[1, :2, :4] = True
    maps = np.array([[[0, 0, 0], [0, 0, 1.0]], [[0, 0, 1.0], [0, 0, 0]]])
    hits, chance = faithfulness.pointing_game(maps, masks)
    assert hits.tolist() == [True, False]
    np.testing.assert_allclose(chance, [1 / 6, 2 / 6])
    with pytest.raises(ValueError, match="do not fit"):
        faithfulness.pointing_game(maps, masks[:, :3])


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (np.zeros((2, 2, 3)), "one map for each of 1 images"),
        (np.full((1, 2, 3), np.nan), "must be finite"),
        (np.zeros((1, 3, 3)), "does not fit images of 8 x 12"),
    ],
)
def test_maps_that_do_not_fit(model, maps, message):
    with pytest.raises(ValueError, match=message):
        faithfulness.deletion_and_insertion(model, WHITE, maps, TARGET)


@pytest.mark.parametrize("groups", [1, 7])
def test_a_number_of_groups_out_of_range(model, groups):
    with pytest.raises(ValueError, match="`groups`"):
        faithfulness.saco(model, WHITE, IMPORTANCE[None], TARGET, groups=groups)
