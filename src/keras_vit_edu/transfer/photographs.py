"""Read photographs of any kind, and convert them for a model."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit_edu import _interruption
from keras_vit_edu.datasets import ImageFolder, read_image
from keras_vit_edu.datasets.image_source import is_pillow_image, leads_above, name_of, names_in
from keras_vit_edu.transfer.given_images import File, array_of, arrays_of, entries, file_of, is_file, refuse_mixture
from keras_vit_edu.transfer.preprocessing import Preprocessing, checked_images

WORKERS = min(4, os.cpu_count() or 1)  # Pillow decodes outside of Python's lock


def image_files(images: Any) -> list[File] | None:
    """The files of `images`; None if it is not a file, folder, `ImageFolder` or list of files.

    A folder gives all files below it in a fixed order, except names that begin with a dot. Links are followed. A folder
    that cannot be opened, and a link that leads in a circle, are listed as if they were files. A binary stream counts
    as a file.

    Raises:
        ValueError: if a folder has no files, or if a path is empty.
    """
    if isinstance(images, ImageFolder):
        return list(images.paths)
    if is_file(images):
        file = file_of(images)
        if not (isinstance(file, Path) and os.path.isdir(file)):
            return [file]
        files = sorted(_files_below(file, ()), key=lambda file: file.parts)
        if not files:
            raise ValueError(f"The folder holds no file. Received: {name_of(file)}")
        return list[File](files)
    several = entries(images)
    return [file_of(file) for file in several] if several and all(map(is_file, several)) else None


def _files_below(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    """The files in a folder and in those within; `above` are the folders that it lies in, links resolved."""
    try:
        names = None if leads_above(folder, *above) else names_in(folder)
    except ValueError:
        names = None
    if names is None:  # reading it as a file will fail and give the reason
        yield folder
        return
    for name in names:
        if name.startswith("."):
            continue
        path = folder / name
        if os.path.isdir(path):
            yield from _files_below(path, (*above, os.path.realpath(folder)))
        else:
            yield path


def images_given(images: Any, stacklevel: int = 3) -> Sequence[Any]:
    """What images there are, one by one: files; or images of Pillow and arrays `(H, W, 1 or 3)` from 0 to 255.

    Args:
        images: as a `TransferClassifier` takes them.
        stacklevel: of warnings, as `warnings.warn` has it.

    Raises:
        ValueError: if a value is not an image, if pixels are outside 0 to 255, if a list is mixed, or if there are
            none.

    Warns:
        UserWarning: for arrays from 0 to 1, and of 16 bits.
    """
    files = image_files(images)
    if files is not None:
        return files
    several = entries(images)
    several = arrays_of(images)[0] if several is None else several
    refuse_mixture(several)
    as_arrays = {i: array_of(image) for i, image in enumerate(several) if not is_pillow_image(image)}
    if as_arrays or not several:
        checked = checked_images(list(as_arrays.values()), "channels_last", stacklevel + 1)
        as_arrays = dict(zip(as_arrays, checked, strict=True))
    return [as_arrays.get(i, image) for i, image in enumerate(several)]


def stacked(images: Sequence[np.ndarray]) -> np.ndarray:
    """Stack converted images into a batch.

    Raises:
        ValueError: if their sizes differ, which is possible without `image_size` in the preprocessing.
    """
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise ValueError(f"This model takes images as they are, so they must be of one size. Received: {shapes}")
    return np.stack(images)


def converted(images: Sequence[Any], preprocessing: Preprocessing) -> np.ndarray:
    """What `images_given` gives, as a model takes it: one batch.

    Raises:
        ValueError: for a file that cannot be read, and as `stacked`.
    """
    ((_, arrays, failed),) = in_batches(images, preprocessing, len(images))
    if failed:
        raise ValueError(failed[0][1])
    return stacked(arrays)


def as_seen(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Crop and resize an image as for the model, but do not scale its pixels, so that a person can look at it.

    Args:
        image: uint8 `(H, W, 3)`.
        preprocessing: of the model.

    Returns:
        uint8 `(height, width, 3)`.
    """
    resize = dataclasses.replace(preprocessing, scale=None, offset=None, data_format="channels_last")
    return np.clip(np.round(resize.convert_unchecked(image)), 0, 255).astype("uint8")


def in_batches(
    images: Sequence[Any], preprocessing: Preprocessing, batch_size: int
) -> Iterator[tuple[list[int], list[np.ndarray], list[tuple[int, str]]]]:
    """Read and convert images on several threads, one batch ahead of the caller.

    Args:
        images: as `images_given` gives them.
        preprocessing: how to convert each.
        batch_size: how many at a time.

    Yields:
        The places of a batch's images in `images`; the images as the model takes them, float32 `(height, width, 3)`, or
        `(3, height, width)` if the preprocessing says so; and place and reason of every file that could not be read.

    Raises:
        ValueError: for an image of Pillow that cannot be decoded.
    """

    def prepared(image: Any) -> np.ndarray:
        converted = preprocessing.convert_unchecked(image if isinstance(image, np.ndarray) else read_image(image))
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
                        if not is_file(images[place]):
                            raise
                        failed.append((place, str(error)))
                yield places, converted, failed
        finally:
            for future in ahead:
                future.cancel()
