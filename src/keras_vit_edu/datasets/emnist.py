"""EMNIST: letters and digits in MNIST's format, with two pitfalls.

Every image is stored with rows and columns swapped (Matlab wrote the files); they are swapped back here. The labels of
the letters begin with 1.

Reference:
    Cohen, Afshar, Tapson, van Schaik, "EMNIST: an extension of MNIST to handwritten letters" (IJCNN 2017), arXiv
    1702.05373.
"""

import string
from pathlib import Path

import numpy as np

CHARACTERS = tuple(string.digits + string.ascii_uppercase + string.ascii_lowercase)
# Only these small letters differ from their capitals. The others are merged with them.
MERGED = CHARACTERS[:36] + tuple("abdefghnqrt")
# In the order of the labels, as in the official `emnist-*-mapping.txt`.
EMNIST = {
    "emnist-balanced": MERGED,
    "emnist-byclass": CHARACTERS,
    "emnist-bymerge": MERGED,
    "emnist-digits": tuple(string.digits),
    "emnist-letters": tuple(f"{letter}/{letter.lower()}" for letter in string.ascii_uppercase),
    "emnist-mnist": tuple(string.digits),
}
AS_MNIST = ("emnist-mnist", "emnist-digits")  # sets that can replace MNIST, the one of the same size first
FIRST_LABEL = {"emnist-letters": 1}


def idx_names(name: str) -> dict[str, str]:
    """The files of a set, by array."""
    return {
        "x_train": f"{name}-train-images-idx3-ubyte",
        "y_train": f"{name}-train-labels-idx1-ubyte",
        "x_test": f"{name}-test-images-idx3-ubyte",
        "y_test": f"{name}-test-labels-idx1-ubyte",
    }


def folders(path: Path) -> list[Path]:
    """Folders below a path where the files may be: as in NIST's zip, or in torchvision's folders."""
    return [path, path / "gzip", path / "raw", path / "EMNIST" / "raw", path / "EMNIST"]


def upright(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a set, with upright images and labels from 0."""
    first = FIRST_LABEL.get(name, 0)
    return {
        array: values.swapaxes(1, 2) if array.startswith("x") else values.astype("int32") - first
        for array, values in arrays.items()
    }
