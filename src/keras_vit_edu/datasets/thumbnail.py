"""A small version of a photograph, for a sheet."""

import numpy as np

SIDE = 320  # pixels of the longer side, about the size of a cell on a sheet


def thumbnail(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Shrink an image to a longer side of at most twice `side` pixels, by averaging blocks of n by n pixels.

    Args:
        image: uint8 `(H, W, C)`, not empty.
        side: approximate length of the longer side.

    Returns:
        uint8 `(H // n, W // n, C)`, each side at least 1; a copy, so the large image can be freed.

    Examples:
        >>> thumbnail(np.zeros((3000, 2000, 3), "uint8")).shape
        (333, 222, 3)
        >>> thumbnail(np.zeros((28, 28, 1), "uint8")).shape
        (28, 28, 1)
    """
    n = max(max(image.shape[:2]) // side, 1)
    rows, columns = (min(n, length) for length in image.shape[:2])  # a strip may be thinner than n
    height, width = image.shape[0] // rows, image.shape[1] // columns
    total = np.zeros((height, width, image.shape[2]), "uint32")
    for row in range(rows):
        for column in range(columns):  # one pixel of every block at a time: little memory beside the image's own
            total += image[row : height * rows : rows, column : width * columns : columns]
    return (total // (rows * columns)).astype("uint8")
