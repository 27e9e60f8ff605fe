import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_vit_edu import random
from keras_vit_edu.datasets import class_weights, stratified_split

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]


def split_quietly(*arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return stratified_split(*arguments, **options)


# stratified_split -----------------------------------------------------------------------------------------------------


def test_a_split_by_hand(monkeypatch):
    # Five cats at 0, 1, 3, 5, 6 and three dogs at 2, 4, 7. A quarter is 1.25 and 0.75 images: one each. The order is
    # fixed here, last first: cat 6 and dog 7.
    monkeypatch.setattr(random, "permutation", lambda seed, counter, count: np.arange(count)[::-1])
    training, validation = stratified_split([0, 0, 1, 0, 1, 0, 0, 1], share=0.25, seed=0)
    assert training.tolist() == [0, 1, 2, 3, 4, 5]
    assert validation.tolist() == [6, 7]


def test_which_images_are_chosen_is_the_order_of_philox_words():
    # The same with NumPy's own Philox: the two smallest of five words, under the key and the class as counter.
    key = random.derive_seed(7, "stratified_split")
    words = {label: np.random.Philox(key=key, counter=[0, 0, 0, label]).random_raw(5) for label in (0, 1)}
    expected = sorted([*np.argsort(words[0])[:2], *(5 + np.argsort(words[1])[:2])])
    _, validation = stratified_split([0] * 5 + [1] * 5, share=0.4, seed=7)
    assert validation.tolist() == expected


def test_the_choice_never_changes():
    _, validation = stratified_split(np.arange(40) % 4, share=0.25, seed=1)
    assert validation.tolist() == [2, 7, 19, 20, 21, 22, 24, 25, 28, 31, 33, 38]


@pytest.mark.parametrize(
    ("size", "share", "expected"),
    [(10, 0.2, 2), (10, 0.24, 2), (10, 0.26, 3), (10, 0.25, 3), (4, 0.1, 0), (5, 0.1, 1), (3, 0.99, 2), (1, 0.9, 0)],
)
def test_the_nearest_whole_number_goes_to_validation_and_one_image_stays(size, share, expected):
    labels = np.array([0] * size + [1] * 100)
    _, validation = split_quietly(labels, share, seed=0)
    assert np.sum(labels[validation] == 0) == expected


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31 - 1),
    order=st.randoms(use_true_random=False),
)
def test_whatever_the_labels_each_class_has_its_share(sizes, share, seed, order):
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    order.shuffle(labels)
    labels = np.array(labels)
    if all(math.floor(size * share + 0.5) == 0 or size == 1 for size in sizes):
        with pytest.raises(ValueError, match="too small"):
            stratified_split(labels, share, seed)
        return
    training, validation = split_quietly(labels, share, seed)
    assert sorted([*training, *validation]) == list(range(len(labels)))
    assert (np.diff(training) > 0).all()
    assert (np.diff(validation) > 0).all()
    for label, size in enumerate(sizes):
        taken = np.sum(labels[validation] == label)
        assert taken < size
        assert abs(taken - share * size) <= 0.5 + 1e-9 or taken == size - 1


def test_more_images_of_one_class_change_nothing_for_another():
    few, many = np.array([0] * 20 + [1] * 3), np.array([0] * 20 + [1] * 90)
    chosen = [split_quietly(labels, 0.3, seed=5)[1] for labels in (few, many)]
    np.testing.assert_array_equal(*(indices[indices < 20] for indices in chosen))


def test_the_seed_and_the_class_matter():
    labels = np.arange(200) % 2
    first, second = (stratified_split(labels, 0.3, seed=seed)[1] for seed in (0, 1))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first[labels[first] == 0], first[labels[first] == 1] - 1)


def test_a_class_with_one_image_is_told():
    with pytest.warns(UserWarning, match=r"no image of class 1, 3, .*Training has them all"):
        training, _ = stratified_split([0, 0, 0, 0, 1, 2, 2, 2, 3], share=0.4, seed=0)
    assert {4, 8} <= set(training)


def test_nothing_is_told_where_every_class_is_validated():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stratified_split([0, 0, 1, 1], share=0.5, seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 0.5, 0), r"one at least. Received: float64 of shape \(0,\)"),
        (([[0, 1]], 0.5, 0), r"Received: int\d+ of shape \(1, 2\)"),
        (([0.0, 1.0], 0.5, 0), "whole numbers.*Received: float64"),
        ((["cat", "dog"], 0.5, 0), "whole numbers.*Received: <U3"),
        (([0, -1], 0.5, 0), "0 or more. Received: -1"),
        (([0, 0], 0, 0), "Received: share=0"),
        (([0, 0], 1.0, 0), "Received: share=1.0"),
        (([0, 0], float("nan"), 0), "Received: share=nan"),
        (([0, 0], "half", 0), "Received: share='half'"),
        (([0, 0], 0.5, None), "Received: seed=None"),
        (([0, 0], 0.5, 2**31), "Received: seed=2147483648"),
        (([0, 0, 1, 1, 1], 0.1, 0), "too small.*Received: share=0.1 of classes of 2 to 3 images"),
        (([0, 1], 0.9, 0), "too small.*Received: share=0.9 of classes of 1 images"),
    ],
)
def test_what_cannot_be_split(arguments, message):
    with pytest.raises(ValueError, match=message):
        stratified_split(*arguments)


# class_weights --------------------------------------------------------------------------------------------------------


def test_weights_by_hand():
    # n = 6 images of k = 3 classes: 6 / (3 * 3), 6 / (3 * 2), 6 / (3 * 1).
    assert class_weights(np.array([2, 0, 1, 0, 1, 0], "int32"), num_classes=3) == pytest.approx({0: 2 / 3, 1: 1, 2: 2})


def test_balanced_classes_weigh_1():
    assert class_weights([0, 1, 2, 0, 1, 2], num_classes=3) == {0: 1.0, 1: 1.0, 2: 1.0}


def test_the_number_of_classes_is_seen_from_the_labels():
    assert class_weights([0, 0, 1], num_classes=None) == class_weights([0, 0, 1], num_classes=2)


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_every_class_counts_the_same_and_an_image_1_in_the_mean(sizes):
    weights = class_weights(np.repeat(np.arange(len(sizes)), sizes), len(sizes))
    totals = [weights[label] * size for label, size in enumerate(sizes)]
    np.testing.assert_allclose(totals, sum(sizes) / len(sizes))


@pytest.mark.parametrize(
    ("labels", "num_classes", "message"),
    [
        ([0, 2], None, "Every class must have an image. Received: none of class 1"),
        ([0, 1], 4, "Received: none of class 2, 3"),
        ([0, 2], 2, "Labels must be 0 to 1. Received: label 2 with num_classes=2"),
        ([0, 1], 0, "Received: num_classes=0"),
        ([], 2, r"Received: float64 of shape \(0,\)"),
        ([0, -1], 2, "Received: -1"),
        ([0, 2**31 - 1], None, r"Received: none of class 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, \.\.\."),
        ([0.0, 1.0], None, r"Received: float64 of shape \(2,\)"),
    ],
)
def test_what_has_no_weights(labels, num_classes, message):
    with pytest.raises(ValueError, match=f"{message}$"):
        class_weights(labels, num_classes)
