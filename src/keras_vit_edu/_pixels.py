"""Convert pixels of 16 bits to 8, by one rule for files and arrays, and check the range 0 to 255."""

from collections.abc import Iterable
from typing import Any

import numpy as np

ROWS = 1 << 18  # values to stretch at a time: float64 takes eight times the memory of bytes
ROUNDING = 1e-3  # tolerance of floats below 0 and above 255
STATED = (
    "Pixels of 16 bits are read as from a file: grey values are stretched to the range that they use, colours keep "
    "their high byte."
)


def is_uint16(image: np.ndarray) -> bool:
    """Whether it is uint16, in either byte order."""
    return image.dtype.kind == "u" and image.dtype.itemsize == 2


def largest_of_16_bits(images: Iterable[np.ndarray]) -> int | None:
    """The largest value of the uint16 images, if it is above 255; else None, as all values fit into 8 bits."""
    largest = max((int(image.max()) for image in images if is_uint16(image) and image.size), default=0)
    return largest if largest > 255 else None


def from_16_bits(image: np.ndarray) -> np.ndarray:
    """Convert an image of 16 bits as `read_image` does for a file.

    Cameras, microscopes and X-rays often use 10, 12 or 14 of the bits, so grey values are stretched. Colours keep their
    brightness: Pillow, which reads the files, returns their high byte.

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
    """Stretch grey values of any depth to uint8: the smallest becomes 0, the largest 255.

    Raises:
        ValueError: for values that are not finite.
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
    """Check that values are from 0 to 255. Floats that rounding has moved beyond are clipped.

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
            "Pixels must be from 0 to 255, or uint16 of 16 bits. Scale or clip them. "
            f"Received: {image.dtype} from {_short(low)} to {_short(high)}"
        )
    return np.clip(image, 0, 255) if low < 0 or high > 255 else image


def _short(value: Any) -> str:
    return str(value) if isinstance(value, np.integer) else f"{float(value):.6g}"
