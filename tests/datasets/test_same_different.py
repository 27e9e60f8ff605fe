import hashlib

import numpy as np
import pytest
from scipy import ndimage

from keras_vit_edu.datasets import same_different, same_different_dataset
from keras_vit_edu.datasets.same_different import CELLS, GAP

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]  # drawn in NumPy


@pytest.fixture(scope="module")
def pairs():
    return same_different(4000, seed=3)


def shape_in(image, box):
    top, left, bottom, right = box
    return image[top:bottom, left:right, 0] > 0


def test_every_image_holds_two_connected_shapes_apart_from_each_other(pairs):
    for image, boxes in zip(pairs.images[:500], pairs.boxes, strict=False):
        labelled, count = ndimage.label(image[..., 0] > 0)
        assert count == 2
        assert sorted(np.bincount(labelled.ravel())[1:]) == [CELLS * 4] * 2  # a cell is 2 x 2 pixels
        assert sum(shape_in(image, box).sum() for box in boxes) == (image > 0).sum()
        (top, left, bottom, right), (other_top, other_left, other_bottom, other_right) = boxes
        apart = max(top - other_bottom, other_top - bottom, left - other_right, other_left - right)
        assert apart >= GAP


def test_the_label_says_whether_they_are_the_same(pairs):
    for image, label, boxes in zip(pairs.images[:500], pairs.labels, pairs.boxes, strict=False):
        first, second = (shape_in(image, box) for box in boxes)
        assert label == (first.shape == second.shape and bool((first == second).all()))


def test_shapes_fill_their_boxes_and_lie_in_the_image(pairs):
    assert (pairs.boxes[..., :2] >= 0).all()
    assert (pairs.boxes[..., 2:] <= 32).all()
    for image, boxes in zip(pairs.images[:200], pairs.boxes, strict=False):
        for box in boxes:
            shape = shape_in(image, box)
            assert all(edge.any() for edge in (shape[0], shape[-1], shape[:, 0], shape[:, -1]))
    np.testing.assert_array_equal(pairs.masks, pairs.images[..., 0] == 255)


def test_classes_are_balanced_and_of_one_brightness(pairs):
    assert pairs.labels.sum() == 2000
    assert same_different(5).labels.sum() == 2
    assert len(set(pairs.images.sum(axis=(1, 2, 3)).tolist())) == 1  # so a model of it is at chance


def test_a_linear_model_is_at_chance(pairs):
    """Least squares on the pixels: on new images it is right in half, within 4 standard errors."""
    pixels = pairs.images.reshape(len(pairs.images), -1) / 255.0
    pixels = np.hstack([pixels, np.ones((len(pixels), 1))])
    signs = 2.0 * pairs.labels - 1
    ridge = 10 * np.eye(pixels.shape[1])
    weights = np.linalg.solve(pixels[:3000].T @ pixels[:3000] + ridge, pixels[:3000].T @ signs[:3000])
    right = ((pixels[3000:] @ weights > 0) == (pairs.labels[3000:] == 1)).mean()
    assert abs(right - 0.5) < 4 * 0.5 / 1000**0.5
    fitted = ((pixels[:3000] @ weights > 0) == (pairs.labels[:3000] == 1)).mean()
    assert fitted > 0.6  # it did learn something, by heart


def test_the_same_seed_draws_the_same_images_and_another_others():
    found = same_different(50, seed=1)
    digest = hashlib.sha256(found.images.tobytes() + found.labels.astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "eef17049dc77734f"
    assert (same_different(50, seed=2).images != found.images).any()


def test_a_dataset_of_it():
    dataset = same_different_dataset(train=40, test=20, side=48)
    assert dataset.x_train.shape == (40, 48, 48, 1)
    assert dataset.class_names == ("different", "same")
    in_both = {image.tobytes() for image in dataset.x_train} & {image.tobytes() for image in dataset.x_test}
    assert not in_both


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"count": 0}, "`count`"), ({"count": 2, "side": 20}, "`side`"), ({"count": 2, "seed": -1}, "`seed`")],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        same_different(**arguments)
