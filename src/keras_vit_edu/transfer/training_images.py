"""The images for fine-tuning, from a folder or an array, at the model's size."""

import dataclasses
import functools
import hashlib
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from keras_vit_edu import _checks
from keras_vit_edu._pixels import STATED, from_16_bits, is_uint16, largest_of_16_bits
from keras_vit_edu.datasets import ImageFolder, read_image
from keras_vit_edu.datasets.image_file import check_header
from keras_vit_edu.datasets.load_images import image_files_digests
from keras_vit_edu.datasets.thumbnail import thumbnail
from keras_vit_edu.training.progress import counting
from keras_vit_edu.transfer.given_images import array_of, arrays_of, entries, is_file, refuse_mixture
from keras_vit_edu.transfer.photographs import WORKERS, image_files, stacked
from keras_vit_edu.transfer.preprocessing import Preprocessing

AT_ONCE = 64  # images to decode ahead
LARGEST_IN_MEMORY = 2**31  # bytes; more go into a temporary file, which the system caches in memory


class TrainingImages:
    """Images with labels.

    Args:
        data: an `ImageFolder`; or a pair of images and labels. Images are uint8 `(n, H, W, 3)`, or a list of uint8
            `(H, W, 3)`, grey ones with one channel; uint16 of 16 bits as `Preprocessing` takes it; images of Pillow;
            or files, as paths or streams. Labels are int `(n,)`, from 0.
        what: name of the images in errors.

    Attributes:
        labels: int32 `(n,)`.
        class_names: class names of a folder; None for arrays.

    Raises:
        ValueError: if `data` is none of these, if there are no images, if the first bytes of a file are not those of an
            image, or if the numbers of images and labels differ.

    Warns:
        UserWarning: for images of 16 bits.
    """

    def __init__(self, data: Any, what: str = "the images") -> None:
        self.class_names: tuple[str, ...] | None = None
        self._folder: ImageFolder | None = None
        self._files: Sequence[Path] | None = None
        self._arrays: Sequence[np.ndarray] = ()
        if isinstance(data, ImageFolder):
            self._folder, self.class_names, labels = data, data.class_names, data.labels
            self._files = data.paths
        elif isinstance(data, (tuple, list)) and len(data) == 2:
            images, labels = data
            self._files = _paths(images)
            if self._files is None:
                self._arrays = _arrays(images, what)
        else:
            raise ValueError(
                f"{what.capitalize()} must be an ImageFolder or a pair of images and labels. "
                f"Received: {type(data).__name__}"
            )
        count = len(self._arrays if self._files is None else self._files)
        if not count:
            raise ValueError(f"{what.capitalize()} must be one at least. Received: none")
        self.labels = _checks.labels(f"Labels of {what}", labels, count=count)
        self._pixels: tuple[Preprocessing, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def digests(self) -> list[bytes]:
        """A fingerprint of each image: 32 bytes, equal for copies."""
        if self._files is not None:
            return list(image_files_digests(self._files))
        return [
            hashlib.sha256(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes()).digest()
            for image in self._arrays
        ]

    @property
    def fingerprint(self) -> str:
        """A fingerprint of the images and their order: 64 hexadecimal digits."""
        return hashlib.sha256(b"".join(self.digests)).hexdigest()

    @property
    def skipped(self) -> list[dict[str, str]]:
        """The skipped files of a folder with the reasons, as JSON."""
        skipped = () if self._folder is None else self._folder.skipped
        return [{"file": file, "reason": reason} for file, reason in skipped]

    def at_size(self, preprocessing: Preprocessing, indices: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        """Images cropped and resized, one by one, not scaled yet: uint8 `(height, width, 3)`.

        Raises:
            ValueError: for a file that cannot be read, or an image of another size where the preprocessing has none.
        """
        resize = dataclasses.replace(preprocessing, scale=None, offset=None, data_format="channels_last")
        files = self._files

        def read(index: int) -> np.ndarray:
            image = self._arrays[index] if files is None else read_image(files[index])
            return resize.convert_unchecked(image).astype("uint8")  # whole numbers, like the input

        with ThreadPoolExecutor(WORKERS) as pool:
            for start in range(0, len(indices), AT_ONCE):
                yield from pool.map(read, indices[start : start + AT_ONCE])

    def batch(self, preprocessing: Preprocessing, indices: np.ndarray) -> np.ndarray:
        """Some of them, uint8 `(b, height, width, 3)`: from memory if `pixels` has read them, else from their files.

        Raises:
            ValueError: as `at_size`, and if images are of several sizes.
        """
        if self._pixels is not None and self._pixels[0] == preprocessing:
            return self._pixels[1][indices]
        return stacked(list(self.at_size(preprocessing, indices)))

    def thumbnails(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Yield small versions of the images for a person to look at, uint8 `(H, W, 1)` or `(H, W, 3)`.

        A file that can no longer be read gives a white square instead of an error that would end the run.
        """
        for index in indices:
            try:
                image = self._arrays[index] if self._files is None else read_image(self._files[index])
            except ValueError:
                image = np.full((8, 8, 3), 255, "uint8")
            yield thumbnail(image)

    def name_of(self, index: int) -> str:
        """The file of an image, or its number."""
        if self._folder is not None:
            return self._folder.files[index]
        return f"no. {index}" if self._files is None else str(self._files[index])

    def pixels(self, preprocessing: Preprocessing, console: Console) -> np.ndarray:
        """All images, uint8 `(n, height, width, 3)`, read once. More than 2 GiB are kept in a temporary file.

        Args:
            preprocessing: where the size is from.
            console: where progress is shown.

        Raises:
            ValueError: as `at_size`, and if images are of several sizes.
        """
        if self._pixels is None or self._pixels[0] != preprocessing:
            with counting(console, "reading images", len(self)) as advance:
                self._pixels = preprocessing, self._read(preprocessing, advance)
        return self._pixels[1]

    def _read(self, preprocessing: Preprocessing, advance: Callable[[], object]) -> np.ndarray:
        pixels = np.empty(0, "uint8")
        for i, image in enumerate(self.at_size(preprocessing, range(len(self)))):
            if i == 0:
                pixels = _room((len(self), *image.shape))
            if image.shape != pixels.shape[1:]:
                raise ValueError(
                    "Without `image_size` in the preprocessing, images must be of one size. "
                    f"Received: {pixels.shape[1:]} and {image.shape}"
                )
            pixels[i] = image
            advance()
        return pixels


def _room(shape: tuple[int, ...]) -> np.ndarray:
    size = math.prod(shape)
    if size <= LARGEST_IN_MEMORY:
        return np.empty(shape, "uint8")
    with tempfile.TemporaryFile() as file:
        try:
            _reserve(file.fileno(), size)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{size:,} bytes of pixels do not fit into {tempfile.gettempdir()} (the environment variable TMPDIR "
                f"names another folder): {error.strerror}",
            ) from None
        return np.memmap(file, "uint8", "r+", shape=shape)


def _reserve(descriptor: int, size: int) -> None:
    """Reserve disk space for a file of this size: without it, a memory map on a full disk would crash the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    zeros = bytes(2**24)
    while size > 0:
        size -= os.write(descriptor, zeros[:size])


def scaled(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """The last steps of a preprocessing: `pixels * scale + offset`, and the order of the axes.

    Args:
        pixels: 0 to 255, `(B, height, width, 3)`.
        preprocessing: whose scale, offset and data format are meant.

    Returns:
        float32 `(B, height, width, 3)`, or `(B, 3, height, width)`.
    """
    scale = dataclasses.replace(preprocessing, image_size=None, resize_size=None, data_format="channels_last")
    values = scale.convert_unchecked(pixels)
    return np.moveaxis(values, -1, 1) if preprocessing.data_format == "channels_first" else values


def _paths(images: Any) -> list[Path] | None:
    """The files that are given as paths, each an image as far as its first bytes tell; None for anything else."""
    files = image_files(images)
    if files is None or not all(isinstance(file, Path) for file in files):
        return None
    for file in files:
        check_header(file)
    return files  # type: ignore[return-value]


def _arrays(images: Any, what: str) -> list[np.ndarray]:
    """Images one by one, uint8 `(H, W, 1 or 3)`."""
    several = [images] if is_file(images) else entries(images)
    if several is None:
        arrays = arrays_of(images)[0]
    else:
        if not all(map(is_file, several)):
            refuse_mixture(several)
        arrays = [read_image(image) if is_file(image) else array_of(image) for image in several]
    largest = largest_of_16_bits(arrays)
    if largest is not None:
        warnings.warn(f"{STATED} Received: uint16 up to {largest}", stacklevel=3)
    return [_checked(array, what, largest is not None) for array in arrays]


def _checked(array: np.ndarray, what: str, have_16_bits: bool) -> np.ndarray:
    is_image = array.ndim == 3 and array.size > 0 and array.shape[-1] in (1, 3)
    if is_image and have_16_bits and is_uint16(array):
        return from_16_bits(array)
    if not is_image or array.dtype != np.uint8:
        raise ValueError(
            f"{what.capitalize()} must be uint8, 0 to 255, of shape (H, W, 3) each. "
            f"Received: {array.dtype} of shape {array.shape}"
        )
    return array
