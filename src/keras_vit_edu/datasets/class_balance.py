"""A validation set with each class's share, and weights that make small classes count as much as large ones."""

import math
import numbers
import warnings
from collections.abc import Sequence

import numpy as np

from keras_vit_edu import _checks, random


def stratified_split(
    labels: np.ndarray | Sequence[int], share: float = 0.2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Choose images for validation, from every class its share.

    Of a class of n images `n * share` go to validation, rounded to the nearest whole number (a half upwards); one
    image at least stays for training. Which ones depends on the seed, the class and n alone: they are the same on
    every backend and machine, and more images of one class change nothing for the others.

    Args:
        labels: int `(n,)`, from 0.
        share: of each class that goes to validation, in (0, 1).
        seed: int in [0, 2**31).

    Returns:
        `(training, validation)`: int64 indices into the labels, ascending; together each index once.

    Raises:
        ValueError: for labels that are no whole numbers from 0 up, a share or seed out of range, or if no class is
            large enough to give an image to validation.

    Warns:
        UserWarning: names the classes of which validation has no image, as it cannot have one of a lone image.

    Examples:
        >>> training, validation = stratified_split([0, 0, 0, 0, 1, 1], share=0.5, seed=0)
        >>> len(training), len(validation)
        (3, 3)
    """
    labels = _checks.labels("`labels`", labels)
    if not isinstance(share, numbers.Real) or not 0 < share < 1:
        raise ValueError(f"`share` must be a number between 0 and 1, neither included. Received: share={share!r}")
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
            "Validation would have no image: every class is too small for that share. "
            f"Received: share={share} of classes of {_count_each(labels)} images"
        )
    without = np.setdiff1d(labels, labels[in_validation])
    if len(without):
        names = ", ".join(str(label) for label in without)
        warnings.warn(
            f"Validation has no image of class {names}: too few to share. Training has them all.", stacklevel=2
        )
    return np.flatnonzero(~in_validation), np.flatnonzero(in_validation)


def split_off(labels: np.ndarray, share: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """As `stratified_split`, with seed 0 and without a warning: a part for the test, of data that has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return stratified_split(labels, share)


def class_weights(labels: np.ndarray | Sequence[int], num_classes: int | None = None) -> dict[int, float]:
    r"""Weights under which every class counts the same: \(w_c = n / (k\, n_c)\).

    n images of k classes, \(n_c\) of class c. The mean weight of an image is 1, so that the loss keeps its size. The
    same as scikit-learn's `compute_class_weight("balanced", ...)`.

    Args:
        labels: int `(n,)`, from 0; of the training images, without validation.
        num_classes: k; None for the largest label + 1.

    Returns:
        The weight of each class, as Keras's `fit(class_weight=...)` takes it.

    Raises:
        ValueError: for labels that are no whole numbers from 0 to `num_classes` - 1, or a class without an image: no
            weight makes up for it.

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
    if len(present) < classes:  # there may be billions of classes: not one of them is counted before
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
