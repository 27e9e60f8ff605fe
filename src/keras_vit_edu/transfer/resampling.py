"""An image at another size, with the pixels that TensorFlow, JAX and (mostly) PyTorch give it, in NumPy alone.

A pixel is a square, and its value stands at the square's centre: among `old` pixels, pixel `i` of `new` lies at
`(i + 1/2) * old / new - 1/2`. A new pixel is a weighted mean of the old ones around that place; the kernel says how the
weight falls with distance. Rows and columns are done one after the other.
"""

import math
from collections.abc import Callable

import numpy as np


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - x, 0)


def _keys_cubic(x: np.ndarray) -> np.ndarray:
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _lanczos(radius: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.where(x < radius, np.sinc(x) * np.sinc(x / radius), 0.0)


KERNELS = {  # how many pixels it reaches to either side, and the weight at a distance of x pixels, x >= 0
    "bilinear": (1, _triangle),
    "bicubic": (2, _keys_cubic),
    "lanczos3": (3, _lanczos(3)),
    "lanczos5": (5, _lanczos(5)),
}
INTERPOLATIONS = ("nearest", *KERNELS)
LARGE = 1 << 23  # pixels, of 8 bytes a channel


def resize(
    image: np.ndarray,
    size: tuple[int, int],
    interpolation: str = "bilinear",
    antialias: bool = False,
    padding: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Resample an image.

    Args:
        image: `(H, W, C)`, any real dtype.
        size: `(height, width)` wanted, 1 or more each.
        interpolation: one of `INTERPOLATIONS`.
        antialias: widen the kernel where the image shrinks, so that every old pixel counts. `"nearest"` ignores it.
        padding: zeros to put on either side first, above as below and left as right. They take up no memory.

    Returns:
        float64 `(height, width, C)`, neither rounded nor clipped: cubic and Lanczos kernels overshoot at edges.

    References:
        Keys, "Cubic convolution interpolation for digital image processing" (1981); here a = -1/2, as in TensorFlow,
            JAX and Pillow. PyTorch takes -3/4 where it does not antialias.
        Heckbert, "Fundamentals of texture mapping and image warping" (1989), on widening the kernel.

    Examples:
        >>> image = np.array([0, 100, 200, 0], "uint8").reshape(1, 4, 1)
        >>> resize(image, (1, 2)).ravel().tolist()
        [50.0, 100.0]
        >>> resize(image, (1, 2), antialias=True).round(1).ravel().tolist()  # (0*3 + 100*3 + 200) / 7 on the left
        [71.4, 100.0]
    """
    rows, row_weights = _padded_contributions(image.shape[0], size[0], interpolation, antialias, padding[0])
    columns, column_weights = _padded_contributions(image.shape[1], size[1], interpolation, antialias, padding[1])
    resized = np.zeros((*size, image.shape[2]))
    drawn = np.flatnonzero(row_weights.any(axis=1))  # in other rows there is nothing but padding
    rows, row_weights = rows[drawn], row_weights[drawn]
    if len(drawn) * image.shape[1] <= max(LARGE, image.shape[0] * size[1]):
        image = _resampled_rows(image, rows, row_weights)  # (drawn, W, C)
        resized[drawn] = _resampled_columns(image, columns, column_weights)
    else:  # a few rows of very many columns, of which the other order would make many rows first
        image = _resampled_columns(image, columns, column_weights)  # (H, width, C)
        resized[drawn] = _resampled_rows(image, rows, row_weights)
    return resized


def _resampled_rows(image: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return sum(image[rows[:, k]] * weights[:, k, None, None] for k in range(rows.shape[1]))


def _resampled_columns(image: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return sum(image[:, columns[:, k]] * weights[:, k, None] for k in range(columns.shape[1]))


def _padded_contributions(
    old: int, new: int, interpolation: str, antialias: bool, padding: int
) -> tuple[np.ndarray, np.ndarray]:
    """As `contributions`, of `old` pixels between twice `padding` zeros, whose weights are 0."""
    indices, weights = contributions(old + 2 * padding, new, interpolation, antialias)
    indices = indices - padding
    return np.clip(indices, 0, old - 1), np.where((indices >= 0) & (indices < old), weights, 0.0)


def contributions(old: int, new: int, interpolation: str, antialias: bool) -> tuple[np.ndarray, np.ndarray]:
    """Which old pixels make up each new one along a side, and with which weights.

    The weights of what would lie beyond the edge are shared among the pixels that there are.

    Args:
        old: pixels along the side.
        new: pixels wanted.
        interpolation: one of `INTERPOLATIONS`.
        antialias: widen the kernel if `new` is less than `old`.

    Returns:
        Indices `(new, K)` and float64 weights `(new, K)`; each row of weights sums to 1.

    Examples:
        >>> indices, weights = contributions(2, 4, "bilinear", False)
        >>> (weights * (indices == 1)).sum(axis=1).tolist()  # how much of the second pixel is in each of the four
        [0.0, 0.25, 0.75, 1.0]
    """
    place = np.arange(new)[:, None]  # (new, 1)
    if interpolation == "nearest":
        return (2 * place + 1) * old // (2 * new), np.ones((new, 1))
    radius, kernel = KERNELS[interpolation]
    stretch = max(old / new, 1.0) if antialias else 1.0
    centres = (place + 0.5) * old / new - 0.5
    first = np.floor(centres - radius * stretch).astype(int) + 1
    indices = first + np.arange(math.ceil(2 * radius * stretch))  # (new, K)
    weights = np.where((indices >= 0) & (indices < old), kernel(np.abs(indices - centres) / stretch), 0.0)
    return np.clip(indices, 0, old - 1), weights / weights.sum(axis=1, keepdims=True)
