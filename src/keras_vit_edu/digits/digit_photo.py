"""Find a digit in any picture, and convert it to MNIST's form.

MNIST's digits were written on paper, scanned, and then (LeCun, Bottou, Bengio, Haffner 1998, and MNIST's web page)
"size normalized to fit in a 20x20 pixel box while preserving their aspect ratio", with grey levels from anti-aliasing,
and "centered in a 28x28 image by computing the center of mass of the pixels". A model that was trained on MNIST needs
such images, so a photograph is processed in the same way:

1. The picture is averaged down to a size that is quick to work on.
2. The ink is separated from the paper (`ink.py`), and the digit from other marks (`marks.py`).
3. The digit is scaled to the box of 20 and shifted to its centre of mass.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from keras_vit_edu._pixels import STATED, from_16_bits, largest_of_16_bits
from keras_vit_edu.digits.ink import find_ink
from keras_vit_edu.digits.marks import find_digit, trimmed
from keras_vit_edu.digits.neighbours import grown

SIDE, BOX = 28, 20
SMALLEST = 8  # pixels of the longer side of a picture
WORKING_SIDE = 400  # the same, averaged down; up to twice as many
# Widths of strokes by the longer side of the digit. Of MNIST's test images 99 % lie between 0.092 and 0.25.
HAIRLINE, BLOB = 0.09, 0.35
CLOSE = 100  # a digit smaller than that, averaged down, is looked at from closer
SHEET, FADED = 0.75, 0.05  # share of its box that a sheet of paper fills at least (bold print 0.7), with any ink


def digit_from_photo(image: np.ndarray) -> np.ndarray:
    """Find the digit in a picture and bring it into MNIST's form.

    The digit may be dark on light or light on dark, of any size and anywhere in the picture, which should show one
    upright digit and the paper around it. Uneven lighting, specks and a frame around it do no harm. Lines that are
    thinner than any in MNIST are thickened.

    Args:
        image: `(H, W)`, `(H, W, 1)` or `(H, W, 3)`; uint8, or floats in [0, 1]; or uint16, which with a value above 255
            has 16 bits and is taken as `read_image` takes such a file.

    Returns:
        float32 `(28, 28, 1)`, paper 0, ink up to 1. The longer side of the digit is 20 pixels; its centre of mass is
        within half a pixel of pixel (14, 14), or as near as leaves it whole.

    Raises:
        ValueError: if the array is no such image, or no digit, or more than one, can be told in it.
        ImportError: without SciPy, which the extra `cli` brings.

    Warns:
        UserWarning: for an image of 16 bits.

    References:
        LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition" (1998), III.A.

    Examples:
        >>> photo = np.full((300, 400), 230, "uint8")
        >>> photo[50:250, 180:220] = 40  # a 1
        >>> digit = digit_from_photo(photo)
        >>> inked = np.argwhere(digit[..., 0] > 0.5)
        >>> digit.shape, inked.min(axis=0).tolist(), inked.max(axis=0).tolist()  # 20 x 4 pixels
        ((28, 28, 1), [4, 12], [23, 15])
    """
    return in_mnists_form(find_in(checked_picture(image)))


def checked_picture(image: np.ndarray) -> np.ndarray:
    """The picture as `(H, W, channels)`."""
    given = np.asarray(image)
    pixels = given[..., None] if given.ndim == 2 else given
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2 and pixels.ndim == 3:
        largest = largest_of_16_bits([pixels])
        if largest is not None:
            warnings.warn(f"{STATED} Received: uint16 up to {largest}", stacklevel=3)
            pixels = from_16_bits(pixels)
        pixels = pixels.astype("uint8")
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3) or not (pixels.dtype == "uint8" or pixels.dtype.kind == "f"):
        raise ValueError(
            "A picture is (H, W), (H, W, 1) or (H, W, 3), of uint8, uint16 or floats in [0, 1]. "
            f"Received: {given.dtype} of shape {given.shape}"
        )
    height, width = pixels.shape[:2]
    if max(height, width) < SMALLEST or min(height, width) <= max(height, width) // WORKING_SIDE:
        raise ValueError(
            f"A picture must be at least {SMALLEST} pixels high or wide, and no strip. Received: {height} x {width}"
        )
    if pixels.dtype != "uint8" and not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN is refused, too
        raise ValueError(f"Floats must be in [0, 1]. Received: from {pixels.min()} to {pixels.max()}")
    return pixels


@dataclass(frozen=True)
class Found:
    """A digit and where it was found, averaged down.

    Attributes:
        digit: its ink, cut out, `(height, width)`, 0 to 1.
        corner: row and column of its upper left corner.
        pixels: the part of the picture that was looked at, `(H, W, channels)`, floats in [0, 1].
        ink: how much there is on each pixel, `(H, W)`, 0 to 1.
        for_sure: where there is some for sure, bool `(H, W)`.
    """

    digit: np.ndarray
    corner: tuple[int, int]
    pixels: np.ndarray
    ink: np.ndarray
    for_sure: np.ndarray


def find_in(picture: np.ndarray) -> Found:
    """The digit in a picture that `checked_picture` gave.

    If what stands out is a sheet of paper, the digit is looked for on the sheet; if it is small in a large picture, it
    is looked at again from close by.
    """
    pixels, n = _averaged_down(picture)
    ink, for_sure = find_ink(pixels)
    digit, (top, left) = find_digit(ink, for_sure)
    found = Found(digit, (top, left), pixels, ink, for_sure)
    height, width = digit.shape
    if height > 2 * BOX and width > height / 2 and (digit > FADED).mean() > SHEET:
        margin = -(1 + max(height, width) // 20)
    elif n > 1 and max(height, width) < CLOSE:
        margin = max(height, width) // 2
    else:
        return found
    rows = slice(max(top - margin, 0) * n, (top + height + margin) * n)
    columns = slice(max(left - margin, 0) * n, (left + width + margin) * n)
    closer = picture[rows, columns]
    return find_in(closer) if min(closer.shape[:2]) >= SMALLEST else found


def in_mnists_form(found: Found) -> np.ndarray:
    """A digit that was found, as `digit_from_photo` gives it."""
    return _centred(_fitted(_thickened(found.digit)))[..., None]


def _averaged_down(picture: np.ndarray) -> tuple[np.ndarray, int]:
    """The picture as floats in [0, 1], each block of n by n pixels made one; and n."""
    n = max(max(picture.shape[:2]) // WORKING_SIDE, 1)
    height, width = (side // n for side in picture.shape[:2])
    blocks = picture[: height * n, : width * n].reshape(height, n, width, n, -1)
    return blocks.mean(axis=(1, 3), dtype="float64") / (255 if picture.dtype == "uint8" else 1), n


def _thickened(digit: np.ndarray) -> np.ndarray:
    """The digit with lines at least as thick as MNIST's thinnest."""
    side = max(digit.shape)
    digit = np.pad(digit, 1 + side // 10)  # room to grow
    width = 2 * digit.sum() / np.hypot(*np.gradient(digit)).sum()  # of a line: its area by half of its outline
    if width > BLOB * side:
        raise ValueError(f"A digit is made of lines. Received: a blob, {width / side:.0%} as thick as it is long")
    return trimmed(grown(digit, max(int((HAIRLINE * side - width) / 2), 0)))


def _fitted(digit: np.ndarray) -> np.ndarray:
    """The digit, scaled so that its longer side is 20 pixels."""
    height, width = (max(round(side * BOX / max(digit.shape)), 1) for side in digit.shape)
    return _averaging(height, digit.shape[0]) @ digit @ _averaging(width, digit.shape[1]).T


def _averaging(target: int, source: int) -> np.ndarray:
    """A matrix `(target, source)` that averages `source` pixels to `target`; parts of a pixel count as parts."""
    edges = np.linspace(0, source, target + 1)
    pixel = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.maximum(overlap, 0) * target / source


def _centred(digit: np.ndarray) -> np.ndarray:
    """The digit in an image of 28 by 28, shifted by whole pixels, as MNIST's are.

    (SciPy's `center_of_mass` rounds otherwise: a symmetric digit, whose centre lies between two pixels, would move.)
    """
    corner = []
    for axis, side in enumerate(digit.shape):
        mass = digit.sum(axis=1 - axis)
        centre = mass @ np.arange(side) / mass.sum()
        corner.append(min(max(round(SIDE / 2 - centre), 0), SIDE - side))
    top, left = corner
    image = np.zeros((SIDE, SIDE), "float32")
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return image
