"""Photographs of any kind, one after the other, as a model takes them."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit_edu import _interruption
from keras_vit_edu.datasets import ImageFolder, read_image
from keras_vit_edu.datasets.image_source import names_in
from keras_vit_edu.transfer.preprocessing import Preprocessing, listed

WORKERS = min(4, os.cpu_count() or 1)  # Pillow decodes outside of Python's lock


def image_files(images: Any) -> list[Path] | None:
    """The files that `images` names; None if it is no file, folder, `ImageFolder` or list of files.

    A folder gives every file below it whose name does not begin with a dot, in an order that is the same everywhere; a
    folder that may not be opened stands for its files. Links are followed.

    Raises:
        ValueError: if a folder holds no file, or a link leads in a circle.
    """
    if isinstance(images, ImageFolder):
        return list(images.paths)
    if isinstance(images, (str, os.PathLike)):
        path = Path(images)
        if not os.path.isdir(path):
            return [path]
        files = list(_files_below(path, ()))
        if not files:
            raise ValueError(f"The folder holds no file. Received: {path}")
        return sorted(files, key=lambda file: file.parts)
    if isinstance(images, (list, tuple)) and images and all(isinstance(file, (str, os.PathLike)) for file in images):
        return [Path(file) for file in images]
    return None


def _files_below(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    """The files in a folder and in those within; `above` are the folders that it lies in, links resolved."""
    real = os.path.realpath(folder)
    if real in above:
        raise ValueError(f"A link leads in a circle, to a folder that it lies in. Received: {folder}")
    try:
        names = names_in(folder)
    except ValueError:  # to be read as a file, which fails and says why
        yield folder
        return
    for name in names:
        if name.startswith("."):
            continue
        path = folder / name
        if os.path.isdir(path):
            yield from _files_below(path, (*above, real))
        else:
            yield path


def image_arrays(images: Any) -> list[np.ndarray]:
    """The images in an array `(H, W, 3)` or `(B, H, W, 3)`, or in a list of arrays `(H, W, 3)` of any sizes.

    Raises:
        ValueError: if there is none, or a list is mixed.
    """
    if isinstance(images, (list, tuple)) and any(isinstance(image, (str, os.PathLike)) for image in images):
        raise ValueError("A list holds files or arrays, not both.")
    several, _ = listed(images)
    if not several:
        raise ValueError("There must be an image. Received: none")
    return several


def stacked(images: Sequence[np.ndarray]) -> np.ndarray:
    """Converted images of one size as a batch.

    Raises:
        ValueError: if they are of several sizes, as a preprocessing without `image_size` leaves them.
    """
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise ValueError(f"This model takes images as they are, so they must be of one size. Received: {shapes}")
    return np.stack(images)


def in_batches(
    images: Sequence[Any], preprocessing: Preprocessing, batch_size: int
) -> Iterator[tuple[list[int], list[np.ndarray], list[tuple[int, str]]]]:
    """Read and convert images on several threads, a batch ahead of whoever takes them.

    Args:
        images: arrays `(H, W, 3)`, or paths.
        preprocessing: how to convert each.
        batch_size: how many at a time.

    Yields:
        The places of a batch's images in `images`; the images as the model takes them, float32 `(height, width, 3)`, or
        `(3, height, width)` if the preprocessing says so; and place and reason of every file that could not be read.

    Raises:
        ValueError: for an array that is no image.
    """
    convert = dataclasses.replace(preprocessing, data_format="channels_last").convert

    def prepared(image: Any) -> np.ndarray:
        converted = convert(image if isinstance(image, np.ndarray) else read_image(image))
        return np.moveaxis(converted, -1, 0) if preprocessing.data_format == "channels_first" else converted

    with ThreadPoolExecutor(WORKERS) as pool:
        ahead: list[Future[np.ndarray]] = []
        try:
            for start in range(-batch_size, len(images), batch_size):
                following = images[start + batch_size :][:batch_size]
                now, ahead = ahead, [pool.submit(prepared, image) for image in following]
                if start < 0:
                    continue
                _interruption.check()
                places, converted, failed = [], [], []
                for place, future in enumerate(now, start):
                    try:
                        converted.append(future.result())
                        places.append(place)
                    except ValueError as error:
                        if isinstance(images[place], np.ndarray):
                            raise
                        failed.append((place, str(error)))
                yield places, converted, failed
        finally:
            for future in ahead:
                future.cancel()
