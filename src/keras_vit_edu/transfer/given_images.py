"""Convert the images that a user passes: files, arrays, tensors, images of Pillow, one or several."""

import os
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from keras_vit_edu._files import printable
from keras_vit_edu.datasets.image_file import read_image
from keras_vit_edu.datasets.image_source import is_pillow_image, is_stream, path_of

File = Path | BinaryIO
EXPECTED = "An image is an array of numbers, an image of Pillow, or a file."


def entries(images: Any) -> list[Any] | None:
    """The entries of a list, tuple, Series of pandas, or array `(n,)` of texts or objects; None for other values."""
    if isinstance(images, (list, tuple)):
        return list(images)
    if isinstance(images, np.ndarray):
        return images.tolist() if images.ndim == 1 and images.dtype.kind in "OUT" else None
    if getattr(images, "ndim", None) == 1 and hasattr(images, "to_numpy"):
        return list(images.to_numpy())
    return None


def is_file(value: Any) -> bool:
    """Whether `value` is the path of a file, or an opened file."""
    return isinstance(value, (str, os.PathLike)) or is_stream(value)


def file_of(value: Any) -> File:
    """A path as a `Path`; a stream unchanged."""
    return value if is_stream(value) else Path(path_of(value, "An image file"))


def arrays_of(images: Any) -> tuple[list[np.ndarray], bool]:
    """The images as a list of arrays, and whether it was a single image without a batch axis.

    Raises:
        ValueError: for a value that is not an image: None, a dict, a generator, bytes, ragged lists...
    """
    several = entries(images)
    if several is not None:
        return [array_of(image) for image in several], False
    array = array_of(images)
    return (list(array), False) if array.ndim == 4 else ([array], True)


def array_of(image: Any) -> np.ndarray:
    """An array, a tensor of any backend, a nested list of numbers or an image of Pillow, as an array.

    Raises:
        ValueError: if it is none of these. (Shape and dtype are not checked.)
    """
    if isinstance(image, np.ndarray):
        return image
    if is_pillow_image(image):
        return read_image(image)
    try:
        if hasattr(image, "detach") and hasattr(image, "cpu"):  # a tensor of torch
            image = image.detach().cpu()
            image = image.float() if str(image.dtype) == "torch.bfloat16" else image
        array = np.asarray(image)
        array = array.astype("float32") if array.dtype.name == "bfloat16" else array
    except Exception as error:  # any object may arrive here, and NumPy passes on its errors
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise ValueError(f"{EXPECTED} Received: {type(image).__name__}, not an image: {printable(reason)}") from None
    if array.shape == () and array.dtype.kind in "OSV":
        raise ValueError(f"{EXPECTED}{_hint(image)} Received: {type(image).__name__}")
    return array


def _hint(image: Any) -> str:
    """A hint for a value that holds images, but is not an image."""
    if isinstance(image, (bytes, bytearray)):
        return " Put the bytes of a file into io.BytesIO."
    return " Make it a list." if isinstance(image, (Iterator, Set)) else ""


def refuse_mixture(several: Sequence[Any]) -> None:
    """Raise ValueError if a list holds both files and arrays."""
    if any(is_file(image) for image in several):
        raise ValueError("A list must hold files or arrays, not both.")
