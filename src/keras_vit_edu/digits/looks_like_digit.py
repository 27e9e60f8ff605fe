"""Check that `digit_from_photo` found a digit and not something else.

A classifier of digits always answers with a digit, so it takes a flower for a 9. Three measures distinguish a digit on
paper from a photograph; each has a limit. `tools/digit_or_photograph.py` counts how often they are right:

- **Uneven paper.** Paper without ink is smooth, except for shadows: a quadratic surface fits it. A photograph shows
  objects there.
- **Long outline.** A pen leaves a line with smooth edges; leaves, hair and gravel have ragged ones, and holes.
- **Many marks.** A digit is one mark, or a few that belong together.
"""

from dataclasses import dataclass

import numpy as np

from keras_vit_edu.digits.digit_photo import Found, checked_picture, find_in
from keras_vit_edu.digits.marks import find_marks
from keras_vit_edu.digits.neighbours import grown, smoothed

# Limits. The largest of 180 rendered digits and 250 of MNIST: 0.058, 7.7 and 2.
UNEVEN_PAPER = 0.065  # by how much the paper departs from a smooth surface, as a share of the ink's contrast
LONG_OUTLINE = 8.2  # the length of the outline by the digit's longer side
MANY_MARKS = 3  # how many marks there may be
BESIDE = 0.03  # of the digit's ink: less is a speck, and no mark
BLURRED = 3  # pixels around ink that are no paper


@dataclass(frozen=True)
class DigitMeasures:
    """What tells a digit from a photograph.

    Attributes:
        uneven_paper: the root mean square of what a smooth surface leaves of the paper, by the ink's contrast.
        outline: the length of the outline, counted along the pixels' sides, by the digit's longer side.
        marks: how many marks of ink there are in the picture.
    """

    uneven_paper: float
    outline: float
    marks: int

    def doubts(self) -> list[str]:
        """What does not look like a digit, in words; nothing of a digit."""
        doubts = []
        if self.uneven_paper > UNEVEN_PAPER:
            doubts.append(f"the paper is uneven ({self.uneven_paper:.0%} of the ink's contrast)")
        if self.outline > LONG_OUTLINE:
            doubts.append(f"the outline is ragged ({self.outline:.0f} times as long as the digit)")
        if self.marks > MANY_MARKS:
            doubts.append(f"there are {self.marks} marks")
        return doubts


def check_digit(image: np.ndarray) -> None:
    """Raise ValueError if a picture does not show a digit.

    `digit_from_photo` accepts any picture with ink. Call this function first if users may pass other pictures.

    Args:
        image: as `digit_from_photo` takes it.

    Raises:
        ValueError: if what is found does not look like a digit on paper, and as `digit_from_photo` does.

    Examples:
        >>> page = np.full((300, 400), 230, "uint8")
        >>> page[50:250, 180:220] = 40  # a 1
        >>> check_digit(page)
        >>> page[:, :] = 180 + 25 * np.sin(np.arange(400) / 20)  # a curtain
        >>> page[50:250, 180:220] = 0
        >>> check_digit(page)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: This does not look like a digit on paper. Received: a picture where the paper is uneven (...)
    """
    check_found(find_in(checked_picture(image)))


def check_found(found: Found) -> None:
    """`check_digit` of what was found in a picture."""
    doubts = _measures(found).doubts()
    if doubts:
        raise ValueError(f"This does not look like a digit on paper. Received: a picture where {' and '.join(doubts)}")


def measure_digit(image: np.ndarray) -> DigitMeasures:
    """The measures of what `digit_from_photo` finds.

    Args:
        image: as `digit_from_photo` takes it.

    Returns:
        `DigitMeasures`.

    Raises:
        ValueError: as `digit_from_photo` does.

    Examples:
        >>> page = np.full((300, 400), 230, "uint8")
        >>> page[50:250, 180:220] = 40  # 200 x 40 pixels: an outline of 480
        >>> measure_digit(page)
        DigitMeasures(uneven_paper=0.0, outline=2.4, marks=1)
    """
    return _measures(find_in(checked_picture(image)))


def _measures(found: Found) -> DigitMeasures:
    top, left = found.corner
    height, width = found.digit.shape
    where = np.zeros(found.ink.shape, bool)
    where[top : top + height, left : left + width] = found.digit > 0
    marks = find_marks(found.ink, found.for_sure)
    return DigitMeasures(
        uneven_paper=_uneven_paper(found.pixels, found.ink, where, found.for_sure),
        outline=_outline(found.digit > 0.5) / max(found.digit.shape),
        marks=sum(bool(mark.ink > BESIDE * found.digit.sum()) for mark in marks),
    )


def _uneven_paper(pixels: np.ndarray, ink: np.ndarray, where: np.ndarray, for_sure: np.ndarray) -> float:
    grey = max((pixels[..., channel] for channel in range(pixels.shape[-1])), key=np.std)  # as `find_ink` chooses
    paper = ~grown(where | for_sure, BLURRED)
    step = max(max(grey.shape) // 64, 1)
    some = paper[::step, ::step]
    if some.sum() < 12:  # cut close: twice as many as the surface has numbers
        return 0.0
    smooth = smoothed(grey)  # a camera's noise is no thing on the paper
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in grey.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)[::step, ::step][some]  # (n, 6)
    values = smooth[::step, ::step][some]
    rest = values - terms @ np.linalg.lstsq(terms, values, rcond=None)[0]
    full = where & (ink > 0.7)
    contrast = abs(np.median(grey[full if full.any() else where]) - np.median(smooth[paper]))
    return round(float(np.sqrt(np.mean(rest**2)) / max(contrast, 1e-6)), 6)


def _outline(solid: np.ndarray) -> int:
    """How many sides of pixels lie between the digit and the rest."""
    padded = np.pad(solid, 1).astype("int8")
    return int(np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum())
