"""Resize images in NumPy, with the same pixels as TensorFlow, JAX and (mostly) PyTorch.

A pixel is a square, and its value belongs to the square's centre: among `old` pixels, pixel `i` of `new` lies at
`(i + 1/2) * old / new - 1/2`. A new pixel is a weighted mean of the old pixels around this position. The kernel gives
the weight as a function of distance. Rows and columns are resampled one after the other.
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
    window: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """Resample an image.

    Args:
        image: `(H, W, C)`, any real dtype.
        size: `(height, width)` wanted, 1 or more each.
        interpolation: one of `INTERPOLATIONS`.
        antialias: widen the kernel where the image shrinks, so that every old pixel counts. `"nearest"` ignores it.
        padding: zeros to put on either side first, above as below and left as right. They take up no memory.
        window: the only part of the resized image that is computed, `(top, left, height, width)`; zeros where it
            reaches beyond the image. None for all of it.

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
    top, left, height, width = (0, 0, *size) if window is None else window
    kernel = interpolation, antialias
    rows, row_weights = _contributions_within(image.shape[0], size[0], *kernel, padding[0], top, height)
    columns, column_weights = _contributions_within(image.shape[1], size[1], *kernel, padding[1], left, width)
    resized = np.zeros((height, width, image.shape[2]))
    drawn = np.flatnonzero(row_weights.any(axis=1))  # other rows are only padding
    rows, row_weights = rows[drawn], row_weights[drawn]
    if len(drawn) * image.shape[1] <= max(LARGE, image.shape[0] * width):
        image = _resampled_rows(image, rows, row_weights)  # (drawn, W, C)
        resized[drawn] = _resampled_columns(image, columns, column_weights)
    else:  # few rows and very many columns: the other order would make many rows first
        image = _resampled_columns(image, columns, column_weights)  # (H, width, C)
        resized[drawn] = _resampled_rows(image, rows, row_weights)
    return resized


def _resampled_rows(image: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return sum(image[rows[:, k]] * weights[:, k, None, None] for k in range(rows.shape[1]))


def _resampled_columns(image: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return sum(image[:, columns[:, k]] * weights[:, k, None] for k in range(columns.shape[1]))


def resize_as_pillow(
    image: np.ndarray,
    size: tuple[int, int],
    interpolation: str = "bilinear",
    window: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """Resample an image of whole numbers as Pillow does.

    Columns are resampled first, or rows if the image shrinks much more in height. Pillow rounds and clips the result of
    this step to the dtype before it resamples the other side. With a kernel that overshoots, pixels differ from a
    single step by tens of 255.

    Args:
        image: `(H, W, C)`, uint8 as a rule.
        size: `(height, width)` wanted, 1 or more each.
        interpolation: `"nearest"`, `"bilinear"`, `"bicubic"` or `"lanczos3"`; widened where the image shrinks.
        window: as `resize` takes it.

    Returns:
        float64 `(height, width, C)`, whole numbers.

    References:
        Pillow 13's `Resample.c`. Before version 13 columns were always the first.

    Examples:
        >>> image = np.array([0, 255, 0, 0], "uint8").reshape(1, 4, 1)
        >>> resize_as_pillow(image, (1, 2), "bicubic").ravel().tolist()
        [117.0, 31.0]
    """
    top, left, height, width = (0, 0, *size) if window is None else window
    rows_lost, columns_lost = image.shape[0] - size[0], image.shape[1] - size[1]
    if rows_lost > max(2 * columns_lost, 0):
        turned = _resized_columns_first(image.swapaxes(0, 1), size[::-1], interpolation, (left, top, width, height))
        return turned.swapaxes(0, 1)
    return _resized_columns_first(image, size, interpolation, (top, left, height, width))


def _resized_columns_first(
    image: np.ndarray, size: tuple[int, int], interpolation: str, window: tuple[int, int, int, int]
) -> np.ndarray:
    """As `resize_as_pillow`, always the columns first."""
    top, left, height, width = window
    columns, column_weights = _contributions_within(image.shape[1], size[1], interpolation, True, 0, left, width)
    rows, row_weights = _contributions_within(image.shape[0], size[0], interpolation, True, 0, top, height)
    # Pillow computes in whole numbers, with weights of 22 bits after the point.
    column_weights, row_weights = (np.rint(some * 2**22) / 2**22 for some in (column_weights, row_weights))
    if interpolation == "nearest":
        columns = _nearest_of_pillow(columns, image.shape[1], size[1], left)
        rows = _nearest_of_pillow(rows, image.shape[0], size[0], top)
    resized = np.zeros((height, width, image.shape[2]))
    at_once = max(LARGE // width, 1)  # rows, so that a strip of millions of them takes little memory
    for start in range(int(rows.min()), int(rows.max()) + 1, at_once):
        part = image[start : start + at_once]
        part = _whole(_resampled_columns(part, columns, column_weights), image.dtype)
        within = np.where((rows >= start) & (rows < start + len(part)), row_weights, 0.0)
        resized += _resampled_rows(part, np.clip(rows - start, 0, len(part) - 1), within)
    return _whole(resized, image.dtype)


def _nearest_of_pillow(indices: np.ndarray, old: int, new: int, first: int) -> np.ndarray:
    """The nearest old pixels `(n, 1)` of new pixels from `first` on. If two are equally near, take Pillow's choice.

    Pillow adds up steps of `old / new`, so rounding decides.
    """
    if new > LARGE:
        return indices
    place = np.clip(np.arange(first, first + len(indices)), 0, new - 1)
    steps = np.full(int(place.max()) + 1, old / new)
    steps[0] /= 2
    return np.minimum(np.cumsum(steps)[place].astype(int), old - 1)[:, None]


def _whole(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round halves up, as Pillow does, and clip to the limits of an integer dtype."""
    limits = np.iinfo(dtype)
    return np.clip(np.floor(values + 0.5), limits.min, limits.max)


def _contributions_within(
    old: int, new: int, interpolation: str, antialias: bool, padding: int, first: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """As `contributions`, for `count` new pixels from `first` on, of `old` pixels between twice `padding` zeros.

    The weights of these zeros are 0, and so are all weights of new pixels beyond the edges.
    """
    place = np.arange(first, first + count)
    is_there = (place >= 0) & (place < new)
    indices, weights = contributions(
        old + 2 * padding, new, interpolation, antialias, np.clip(place, 0, new - 1)[:, None]
    )
    indices = indices - padding
    weights = np.where((indices >= 0) & (indices < old) & is_there[:, None], weights, 0.0)
    return np.clip(indices, 0, old - 1), weights


def contributions(
    old: int, new: int, interpolation: str, antialias: bool, place: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The old pixels and weights that make up each new pixel along one side.

    Weights beyond the edge are distributed over the existing pixels.

    Args:
        old: pixels along the side.
        new: pixels wanted.
        interpolation: one of `INTERPOLATIONS`.
        antialias: widen the kernel if `new` is less than `old`.
        place: of which new pixels, `(n, 1)`; None for all of them.

    Returns:
        Indices `(new, K)` and float64 weights `(new, K)`; each row of weights sums to 1.

    Examples:
        >>> indices, weights = contributions(2, 4, "bilinear", False)
        >>> (weights * (indices == 1)).sum(axis=1).tolist()  # how much of the second pixel is in each of the four
        [0.0, 0.25, 0.75, 1.0]
    """
    place = np.arange(new)[:, None] if place is None else place  # (new, 1)
    if interpolation == "nearest":
        return (2 * place + 1) * old // (2 * new), np.ones((len(place), 1))
    radius, kernel = KERNELS[interpolation]
    stretch = max(old / new, 1.0) if antialias else 1.0
    centres = (place + 0.5) * old / new - 0.5
    first = np.floor(centres - radius * stretch).astype(int) + 1
    indices = first + np.arange(math.ceil(2 * radius * stretch))  # (new, K)
    weights = np.where((indices >= 0) & (indices < old), kernel(np.abs(indices - centres) / stretch), 0.0)
    return np.clip(indices, 0, old - 1), weights / weights.sum(axis=1, keepdims=True)
