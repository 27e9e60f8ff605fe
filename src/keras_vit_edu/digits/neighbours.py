"""Operations on each pixel and its eight neighbours, with SciPy where its results have the same bits."""

from typing import Any

import numpy as np

from keras_vit_edu._install import install_command


def connected(mask: np.ndarray) -> np.ndarray:
    """A number for each region of touching pixels, int `(H, W)`; 0 outside all regions."""
    return _ndimage().label(mask, np.ones((3, 3)))[0]


def grown(array: np.ndarray, pixels: int) -> np.ndarray:
    """Replace every pixel by the largest pixel within `pixels` pixels of it."""
    return _ndimage().maximum_filter(array, 2 * pixels + 1, mode="nearest")


def smoothed(array: np.ndarray) -> np.ndarray:
    """Replace every pixel by the mean of itself and its eight neighbours.

    (SciPy's `uniform_filter` rounds differently: pixels at the threshold would change sides.)
    """
    padded = np.pad(array, 1, "edge")
    columns = padded[:-2] + padded[1:-1] + padded[2:]
    return (columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:]) / 9


def _ndimage() -> Any:
    try:
        from scipy import ndimage
    except ImportError:
        raise ImportError(f"Finding digits in pictures needs SciPy: {install_command('cli')}") from None
    return ndimage
