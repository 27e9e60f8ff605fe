"""Read the pixels of image files, and fingerprint their contents."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from keras_vit_edu import _interruption
from keras_vit_edu.datasets.image_file import read_image
from keras_vit_edu.datasets.image_folder import ImageFolder
from keras_vit_edu.datasets.image_source import name_of, path_of

Images = ImageFolder | Sequence[str | Path]


def load_images(images: Images, indices: Sequence[int] | np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Read images lazily, one by one.

    Args:
        images: an `ImageFolder`, or the paths of image files.
        indices: indices of the images to read, in this order; None for all.

    Yields:
        uint8 `(H, W, 3)`, RGB, in its own size.

    Raises:
        ValueError: at once, if an index is out of range or `images` is something else; during the iteration, if
            `read_image` cannot read a file.
        ImportError: without Pillow.

    Examples:
        >>> import tempfile, PIL.Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = [f"{folder}/{width}.png" for width in (10, 20, 30)]
        ...     for file, width in zip(files, (10, 20, 30)):
        ...         PIL.Image.new("RGB", (width, 8)).save(file)
        ...     [image.shape for image in load_images(files, indices=[2, 0])]
        [(8, 30, 3), (8, 10, 3)]
    """
    return map(read_image, _chosen(images, indices))


def image_files_fingerprint(images: Images, indices: Sequence[int] | np.ndarray | None = None) -> str:
    """A fingerprint of the contents of image files and their order, as a key for results computed from them.

    The SHA-256 of the SHA-256 of each file's bytes, one after the other. It reads all files every time. Names, labels
    and dates do not matter.

    Args:
        images: an `ImageFolder`, or the paths of files.
        indices: indices of the files, in this order; None for all.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: if an index is out of range, or a file cannot be read.

    Examples:
        >>> image_files_fingerprint([])[:16]
        'e3b0c44298fc1c14'
    """
    return hashlib.sha256(b"".join(image_files_digests(images, indices))).hexdigest()


def image_files_digests(images: Images, indices: Sequence[int] | np.ndarray | None = None) -> Iterator[bytes]:
    """The SHA-256 of each file's bytes, 32 bytes each. Copies of a file have equal digests."""
    for given in _chosen(images, indices):
        _interruption.check()
        path = path_of(given)
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe may never end
            raise ValueError(f"This is no ordinary file. Received: {name_of(path)}")
        try:
            with open(path, "rb") as file:
                yield hashlib.file_digest(file, "sha256").digest()
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
            reason = getattr(error, "strerror", None) or error
            raise ValueError(f"The file cannot be read: {reason}. Received: {name_of(path)}") from None


def _chosen(images: Images, indices: Sequence[int] | np.ndarray | None) -> list[str | Path]:
    if isinstance(images, (str, bytes)) or not isinstance(images, (ImageFolder, Sequence, np.ndarray)):
        raise ValueError(f"`images` must be an ImageFolder or a list of paths. Received: {type(images).__name__}")
    paths: Sequence[str | Path] = images.paths if isinstance(images, ImageFolder) else images
    if indices is None:
        return list(paths)
    chosen = np.asarray(indices)
    if chosen.size == 0:
        return []
    if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
        raise ValueError(
            f"`indices` must be whole numbers of shape (n,). Received: {chosen.dtype} of shape {chosen.shape}"
        )
    if chosen.min() < 0 or chosen.max() >= len(paths):
        raise ValueError(
            f"`indices` must be at least 0 and below the number of images, {len(paths)}. "
            f"Received: indices from {chosen.min()} to {chosen.max()}"
        )
    return [paths[index] for index in chosen]
