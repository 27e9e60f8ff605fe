"""Separate the digit from other ink.

A mark is a connected region of ink. Marks at the edge of the picture (the table beside the paper, a shadow) and marks
around others (a frame) are ignored. The digit is the remaining mark with most ink, together with nearby marks that are
larger than specks: a separate stroke, or the dot in a typewriter's zero.
"""

from dataclasses import dataclass

import numpy as np

from keras_vit_edu.digits.neighbours import connected, grown

MOST = 30  # marks that are looked at
EDGE = 2  # pixels beyond a mark where its ink fades out
# Shares of the shorter side of the picture, of the height of a frame, of the digit's height, side and ink.
TALL_IN_PICTURE, TALL_IN_FRAME, TALL_AS_DIGIT, NEAR, SPECK, RIVAL = 0.2, 0.33, 0.6, 0.2, 0.03, 0.25


@dataclass(frozen=True)
class Mark:
    """A connected region of ink: its pixels, its amount, and its bounding box (`bottom` and `right` exclusive)."""

    where: np.ndarray  # bool (H, W)
    ink: float
    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    @property
    def side(self) -> int:
        """The longer side, in pixels."""
        return max(self.height, self.right - self.left)

    def surrounds(self, other: "Mark") -> bool:
        """Whether the other's box lies inside of this one's."""
        inside_rows = self.top < other.top and other.bottom < self.bottom
        return inside_rows and self.left < other.left and other.right < self.right

    def is_beside(self, other: "Mark") -> bool:
        """Whether they share no column."""
        return self.right <= other.left or other.right <= self.left

    def gap(self, other: "Mark") -> int:
        """Pixels between the boxes; 0 or less if they overlap."""
        return max(self.top - other.bottom, other.top - self.bottom, self.left - other.right, other.left - self.right)


def find_digit(ink: np.ndarray, for_sure: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Cut the digit out.

    Args:
        ink: how much there is on each pixel, `(H, W)`, 0 to 1.
        for_sure: where there is some for sure, bool `(H, W)`, not nowhere.

    Returns:
        The digit's ink alone, `(height, width)`, without margins; and the row and column of its corner.

    Raises:
        ValueError: if there seem to be several digits.
    """
    height, width = ink.shape
    marks = find_marks(ink, for_sure)
    inner = [mark for mark in marks if mark.top and mark.left and mark.bottom < height and mark.right < width]
    if any(mark.side >= TALL_IN_PICTURE * min(height, width) for mark in inner):
        marks = inner
    marks = [
        mark
        for mark in marks
        if not any(mark.surrounds(other) and other.side > TALL_IN_FRAME * mark.side for other in marks)
    ]
    digit = marks[0]
    where = digit.where
    for mark in marks[1:]:
        is_near = mark.gap(digit) <= NEAR * digit.side
        is_alike = mark.ink > RIVAL * digit.ink and mark.height > TALL_AS_DIGIT * digit.height
        if is_alike and (mark.is_beside(digit) or not is_near):
            raise ValueError(
                "There must be one digit. Received: a picture with several marks that are as tall as each other"
            )
        if is_near and mark.ink > SPECK * digit.ink:
            where = where | mark.where
    digits_ink = np.where(grown(where, EDGE), ink, 0)
    corner = int(np.argmax(digits_ink.any(axis=1))), int(np.argmax(digits_ink.any(axis=0)))
    return trimmed(digits_ink), corner


def find_marks(ink: np.ndarray, for_sure: np.ndarray) -> list[Mark]:
    """The marks with most ink, that with most first."""
    numbers = connected(for_sure)  # 0 is the paper
    amounts = np.bincount(numbers.ravel(), np.where(for_sure, ink, 0).ravel())
    marks = []
    for number in np.argsort(-amounts)[:MOST]:
        where = (numbers == number) & for_sure
        if amounts[number] > 0:
            rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
            marks.append(Mark(where, amounts[number], rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    return marks


def trimmed(array: np.ndarray) -> np.ndarray:
    """Without the rows and columns of zeros around it."""
    rows, columns = np.flatnonzero(array.any(axis=1)), np.flatnonzero(array.any(axis=0))
    return array[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
