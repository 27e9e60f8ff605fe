"""Pixels of 8 bits from pixels of 16, by one rule for files and arrays; and what is beyond 0 to 255."""

from collections.abc import Iterable
from typing import Any

import numpy as np

ROWS = 1 << 18  # values that are stretched at a time: float64 takes eight times the memory of bytes
ROUNDING = 1e-3  # a float may miss 0 or 255 by so much
STATED = (
    "Pixels of 16 bits are taken as those of a file: grey ones are stretched to the range that they use, of colours "
    "the high byte counts."
)


def is_uint16(image: np.ndarray) -> bool:
    """Whether it is uint16, in either order of bytes."""
    return image.dtype.kind == "u" and image.dtype.itemsize == 2


def largest_of_16_bits(images: Iterable[np.ndarray]) -> int | None:
    """The largest value of those that are uint16, if it is above 255. Without one, all have values of 8 bits: None."""
    largest = max((int(image.max()) for image in images if is_uint16(image) and image.size), default=0)
    return largest if largest > 255 else None


def from_16_bits(image: np.ndarray) -> np.ndarray:
    """An image of 16 bits as `read_image` reads it from a file.

    Grey values often use 10, 12 or 14 of the bits, as cameras, microscopes and X-rays do, so they are stretched.
    Colours keep their brightness: Pillow, which reads the files, gives their high byte.

    Args:
        image: uint16 `(H, W, 1)` or `(H, W, 3)`.

    Returns:
        uint8 of the same shape.

    Examples:
        >>> from_16_bits(np.array([100, 2147, 4195], "uint16").reshape(1, 3, 1)).ravel().tolist()
        [0, 127, 255]
        >>> from_16_bits(np.array([0, 257, 65535], "uint16").reshape(1, 1, 3)).ravel().tolist()
        [0, 1, 255]
    """
    return stretched(image) if image.shape[-1] == 1 else (image >> 8).astype("uint8")


def stretched(grey: np.ndarray) -> np.ndarray:
    """Grey values of any depth as uint8: the least becomes 0, the largest 255.

    Raises:
        ValueError: if they are not all finite.
    """
    low, high = np.float64(grey.min()), np.float64(grey.max())
    if not np.isfinite(high - low):
        raise ValueError("it holds values that are no finite numbers")
    values = grey.reshape(-1)
    pixels = np.empty(values.shape, "uint8")
    for start in range(0, len(values), ROWS):
        some = values[start : start + ROWS].astype("float64")
        pixels[start : start + ROWS] = np.uint8(255 * (some - low) / max(high - low, 1e-12))
    return pixels.reshape(grey.shape)


def in_range(image: np.ndarray) -> np.ndarray:
    """An image whose values are from 0 to 255; floats that rounding has moved beyond are put back.

    Args:
        image: integers or floats, not empty.

    Raises:
        ValueError: for values outside, NaN and infinity.

    Examples:
        >>> in_range(np.array([-1e-4, 3.5, 255.0001])).tolist()
        [0.0, 3.5, 255.0]
    """
    if image.dtype == np.uint8:
        return image
    low, high = image.min(), image.max()
    if image.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
        kind = "NaN" if np.isnan(low) else "infinity"
        raise ValueError(f"Pixels must be numbers from 0 to 255. Received: an image with {kind}")
    beyond = ROUNDING if image.dtype.kind == "f" else 0
    if low < -beyond or high > 255 + beyond:
        raise ValueError(
            "Pixels must be from 0 to 255, or uint16 of 16 bits. Scale them, or clip what is beyond. "
            f"Received: {image.dtype} from {_short(low)} to {_short(high)}"
        )
    return np.clip(image, 0, 255) if low < 0 or high > 255 else image


def _short(value: Any) -> str:
    return str(value) if isinstance(value, np.integer) else f"{float(value):.6g}"
