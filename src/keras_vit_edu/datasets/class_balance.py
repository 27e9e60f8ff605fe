"""Split off a share of every class for validation, and weigh classes of different size equally."""

import math
import numbers
import warnings
from collections.abc import Sequence

import numpy as np

from keras_vit_edu import _checks, random


def stratified_split(
    labels: np.ndarray | Sequence[int], share: float = 0.2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the same share of every class for validation.

    A class of n images gives `n * share` to validation, rounded to the nearest whole number (a half upwards), and keeps
    at least one for training. The choice depends only on the seed, the class and n. So it is the same on every backend
    and machine, and more images of one class do not change the choice for the others.

    Args:
        labels: int `(n,)`, from 0.
        share: share of each class for validation, in (0, 1).
        seed: int in [0, 2**31).

    Returns:
        `(training, validation)`: ascending int64 indices into the labels; each index is in one of the two.

    Raises:
        ValueError: if labels are not whole numbers from 0, a share or seed is out of range, or no class is large enough
            to give an image to validation.

    Warns:
        UserWarning: names the classes without an image in validation, for example a class with a single image.

    Examples:
        >>> training, validation = stratified_split([0, 0, 0, 0, 1, 1], share=0.5, seed=0)
        >>> len(training), len(validation)
        (3, 3)
    """
    labels = _checks.labels("`labels`", labels)
    if not isinstance(share, numbers.Real) or not 0 < share < 1:
        raise ValueError(f"`share` must be above 0 and below 1. Received: share={share!r}")
    seed_of_split = random.derive_seed(seed, "stratified_split")
    if seed_of_split is None:
        raise ValueError("`seed` must be an int. Received: seed=None")
    in_validation = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        count = min(math.floor(len(of_class) * share + 0.5), len(of_class) - 1)
        order = random.permutation(seed_of_split, (int(label),), len(of_class))
        in_validation[of_class[order[:count]]] = True
    if not in_validation.any():
        raise ValueError(
            "Validation would have no image, because every class is too small for this share. "
            f"Received: share={share} of classes of {_count_each(labels)} images"
        )
    without = np.setdiff1d(labels, labels[in_validation])
    if len(without):
        names = ", ".join(str(label) for label in without)
        warnings.warn(
            f"Validation has no image of class {names}, because there are too few. Training has them all.", stacklevel=2
        )
    return np.flatnonzero(~in_validation), np.flatnonzero(in_validation)


def split_off(labels: np.ndarray, share: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Split off a test part, by `stratified_split` with seed 0 and without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return stratified_split(labels, share)


def class_weights(labels: np.ndarray | Sequence[int], num_classes: int | None = None) -> dict[int, float]:
    r"""Weights that balance classes of different size: \(w_c = n / (k\, n_c)\).

    There are n images of k classes, \(n_c\) of class c. The mean weight of an image is 1, so the loss keeps its size.
    The weights equal scikit-learn's `compute_class_weight("balanced", ...)`.

    Args:
        labels: int `(n,)`, from 0: labels of the training images, without validation.
        num_classes: k. Defaults to the largest label + 1.

    Returns:
        The weight of each class, for Keras's `fit(class_weight=...)`.

    Raises:
        ValueError: if labels are not whole numbers from 0 to `num_classes` - 1, or a class has no image.

    References:
        King, Zeng, "Logistic regression in rare events data" (Political Analysis 9, 2001).

    Examples:
        >>> class_weights([0, 0, 0, 1])
        {0: 0.6666666666666666, 1: 2.0}
    """
    labels = _checks.labels("`labels`", labels)
    largest = int(labels.max())
    classes = largest + 1 if num_classes is None else _checks.positive_int("num_classes", num_classes)
    if largest >= classes:
        raise ValueError(f"Labels must be 0 to {classes - 1}. Received: label {largest} with num_classes={classes}")
    present, counts = np.unique(labels, return_counts=True)
    if len(present) < classes:  # there may be billions of classes, so they are not listed before
        missing = np.setdiff1d(np.arange(min(classes, len(present) + 11)), present)
        raise ValueError(
            f"Every class must have an image. Received: none of class {', '.join(map(str, missing[:10]))}"
            + (", ..." if len(missing) > 10 else "")
        )
    return {label: len(labels) / (classes * int(count)) for label, count in enumerate(counts)}


def _count_each(labels: np.ndarray) -> str:
    sizes = np.unique(labels, return_counts=True)[1]
    smallest, largest = sizes.min(), sizes.max()
    return str(largest) if smallest == largest else f"{smallest} to {largest}"
