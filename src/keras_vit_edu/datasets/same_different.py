"""Pictures of two shapes: are they the same? Where the shapes lie is known, so an explanation can be graded.

The task is problem 1 of Fleuret et al., "Comparing machines and humans on a visual categorization test" (PNAS 2011).
Each shape is a random polyomino: connected cells of a square grid. All shapes have the same number of cells, and both
classes draw shapes and places alike, so neither brightness nor any single pixel says which class it is: one has to
compare.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np

from keras_vit_edu import _checks, random
from keras_vit_edu.datasets.image_dataset import ImageDataset

CLASS_NAMES = ("different", "same")
CELLS = 12  # of a shape
BOX = 7  # side of the square in which a shape grows, in cells
GAP = 2  # pixels at least between the boxes around two shapes
TRIES = 64  # places for a pair of shapes
SMALLEST = 24  # side of an image
# Streams of random numbers.
SHAPES, PLACES, ORDER = 11, 12, 13


@dataclass(frozen=True, eq=False)
class SameDifferent:
    """Images of two shapes, and where the shapes lie.

    Attributes:
        images: uint8 `(n, side, side, 1)`, shapes white on black.
        labels: int64 `(n,)`; 1 if both shapes are the same, 0 if they differ. Half of them are 1.
        boxes: int64 `(n, 2, 4)`: top, left, bottom and right of each shape, in pixels; bottom and right are outside.
    """

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray

    @property
    def masks(self) -> np.ndarray:
        """Bool `(n, side, side)`; True where a shape is."""
        return self.images[..., 0] > 0


def same_different(count: int, seed: int = 0, side: int = 32) -> SameDifferent:
    """Draw images of two shapes that are the same, or not. Equal bits on every backend and machine.

    Args:
        count: number of images.
        seed: 0 to 2**31 - 1. Another seed draws other images.
        side: height and width of an image in pixels, 24 at least. A cell of a shape is one pixel for every 16 pixels of
            it, and one at least.

    Returns:
        A `SameDifferent`.

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> pairs = same_different(4, seed=1)
        >>> pairs.images.shape, sorted(pairs.labels.tolist())
        ((4, 32, 32, 1), [0, 0, 1, 1])
    """
    count = _checks.positive_int("count", count)
    side = _checks.positive_int("side", side, minimum=SMALLEST)
    seed = random.check_seed(seed) or 0
    cell = max(side // 16, 1)
    labels = np.arange(count) % 2
    labels = labels[np.argsort(random.uniform(seed, (ORDER,), (count,)), kind="stable")]
    first, second = (_shapes(count, seed, number) for number in (0, 1))  # (n, BOX, BOX) each
    for attempt in range(1, TRIES):
        equal = (first == second).all(axis=(1, 2))
        if not equal.any():
            break
        second[equal] = _shapes(count, seed, 2 * attempt + 1)[equal]
    second = np.where(labels[:, None, None] == 1, first, second)
    sizes = np.stack([_sizes(first), _sizes(second)], axis=1) * cell  # (n, 2, 2)
    corners = _places(sizes, seed, side)  # (n, 2, 2)
    images = np.zeros((count, side, side, 1), "uint8")
    for shapes, number in ((first, 0), (second, 1)):
        large = np.kron(shapes, np.ones((1, cell, cell), "uint8")).astype(bool)
        image, row, column = np.nonzero(large)
        images[image, row + corners[image, number, 0], column + corners[image, number, 1], 0] = 255
    return SameDifferent(images, labels.astype("int64"), np.concatenate([corners, corners + sizes], axis=2))


def same_different_dataset(train: int = 20_000, test: int = 2_000, seed: int = 0, side: int = 32) -> ImageDataset:
    """Images of two shapes, to train on and to test: `same_different` with two seeds derived from one.

    Args:
        train: number of images to train on.
        test: number of images for the test.
        seed: 0 to 2**31 - 1.
        side: height and width of an image in pixels.

    Returns:
        An `ImageDataset` with the classes `"different"` and `"same"`.

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> same_different_dataset(train=100, test=20)
        <same-different: 100 + 20 images from the generator (seed 0)>
    """
    learned, tested = (
        same_different(count, cast(int, random.derive_seed(seed, name)), side)
        for count, name in ((train, "train"), (test, "test"))
    )
    source = f"the generator (seed {seed})"
    return ImageDataset(
        "same-different", source, learned.images, learned.labels, tested.images, tested.labels, CLASS_NAMES
    )


def _shapes(count: int, seed: int, number: int) -> np.ndarray:
    """Polyominoes `(count, BOX, BOX)`, uint8, moved to the top left. From its middle cell each grows cell by cell."""
    grown = np.zeros((count, BOX, BOX), bool)
    grown[:, BOX // 2, BOX // 2] = True
    draws = random.uniform(seed, (SHAPES, number), (CELLS - 1, count, BOX * BOX))
    for draw in draws:
        padded = np.pad(grown, ((0, 0), (1, 1), (1, 1)))
        near = padded[:, 2:, 1:-1] | padded[:, :-2, 1:-1] | padded[:, 1:-1, 2:] | padded[:, 1:-1, :-2]
        candidates = (near & ~grown).reshape(count, -1)
        chosen = np.where(candidates, draw, -1.0).argmax(axis=1)
        grown.reshape(count, -1)[np.arange(count), chosen] = True
    up, left = grown.any(axis=2).argmax(axis=1), grown.any(axis=1).argmax(axis=1)
    rows = (np.arange(BOX)[None] + up[:, None]) % BOX
    columns = (np.arange(BOX)[None] + left[:, None]) % BOX
    moved = np.take_along_axis(grown, rows[:, :, None], axis=1)
    return np.take_along_axis(moved, columns[:, None, :], axis=2).astype("uint8")


def _sizes(shapes: np.ndarray) -> np.ndarray:
    """Height and width of each shape, in cells, `(n, 2)`."""
    return np.stack([shapes.any(axis=2).sum(axis=1), shapes.any(axis=1).sum(axis=1)], axis=1)


def _places(sizes: np.ndarray, seed: int, side: int) -> np.ndarray:
    """The top left corners `(n, 2, 2)` of two boxes that lie in the image, apart from each other.

    The first of many pairs of uniform places that are apart; in the corners of the image if none is.
    """
    room = side - sizes + 1  # (n, 2, 2)
    last = np.stack([np.zeros_like(room[:, 0]), room[:, 1] - 1], axis=1)
    found, is_found = last, np.zeros(len(sizes), bool)
    for attempt in range(TRIES):
        u = random.uniform(seed, (PLACES, attempt), room.shape)
        corners = np.floor(u * room).astype("int64")
        ends = corners + sizes + GAP
        apart = ((ends[:, 0] <= corners[:, 1]) | (ends[:, 1] <= corners[:, 0])).any(axis=1)
        found = np.where((apart & ~is_found)[:, None, None], corners, found)
        is_found |= apart
        if is_found.all():
            break
    return found
