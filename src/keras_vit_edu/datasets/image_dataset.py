"""Images with labels, in two parts: for training, and for the test at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_vit_edu import _checks
from keras_vit_edu._checks import MOST_CLASSES
from keras_vit_edu._files import printable
from keras_vit_edu._install import install_command
from keras_vit_edu.datasets.array_file import ArrayFile, check_bytes, check_data, check_sizes

IMAGES, LABELS = ("x_train", "x_test"), ("y_train", "y_test")
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class ImageDataset:
    """Images with labels, for training and for the test at the end.

    Attributes:
        name: name of the dataset, such as `"mnist"`, or of its file or folder.
        source: the place from which it was read.
        x_train: uint8 images `(n, H, W, C)`, 0 black to 255 white, to train on.
        y_train: their labels: whole numbers `(n,)` of an integer dtype, from 0 to the number of classes - 1.
        x_test: uint8 images of the same size, for the test.
        y_test: their labels.
        class_names: a name for each label.
        notes: remarks of the reader, one sentence each.
        has_test: whether the source has a test part. Without one, some images are kept for the test, or all images are
            in both parts, as the reader was asked.

    Raises:
        ValueError: if images are not uint8 of rank 4 and one size, or labels are not one class number per image.

    Examples:
        >>> images, labels = np.zeros((4, 28, 28, 1), "uint8"), np.array([0, 1, 0, 1])
        >>> dataset = ImageDataset("mine", "memory", images, labels, images[:2], labels[:2], ("cat", "dog"))
        >>> dataset.x_test.shape
        (2, 28, 28, 1)
    """

    name: str
    source: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    has_test: bool = True

    def __post_init__(self) -> None:
        shapes = []
        for part in ("train", "test"):
            images, labels = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or not images.size:
                received = f"{getattr(images, 'dtype', type(images).__name__)} {getattr(images, 'shape', '')}"
                raise ValueError(f"Images must be uint8 of shape (n, H, W, C). Received: x_{part} {received}")
            _checks.labels(f"`y_{part}`", labels, len(self.class_names), len(images))
            shapes.append(images.shape[1:])
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"Images for training and for the test must be of one size. Received: {shapes[0]} and {shapes[1]}"
            )

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self.x_train)} + {len(self.x_test)} images from {self.source}>"


def split(dataset: ImageDataset, validation_split: float = 0.1) -> tuple[tuple, tuple]:
    """Split off the last part of the training images for validation, as Keras's `fit(validation_split=...)` does.

    Args:
        dataset: the dataset to split.
        validation_split: share of the training images for validation, in (0, 1).

    Returns:
        `((x_train, y_train), (x_validation, y_validation))`.

    Raises:
        ValueError: if either part would be empty.

    Examples:
        >>> from keras_vit_edu import datasets
        >>> (x_train, y_train), (x_validation, y_validation) = split(datasets.load("mnist-sample"))
        >>> len(x_train), len(x_validation)
        (9000, 1000)
    """
    count = len(dataset.x_train)
    at = int(count * (1 - validation_split))
    if not 0 < at < count:
        raise ValueError(
            "`validation_split` must leave images on both sides. "
            f"Received: validation_split={validation_split} of {count} images"
        )
    return (dataset.x_train[:at], dataset.y_train[:at]), (dataset.x_train[at:], dataset.y_train[at:])


def classes_without_validation(dataset: ImageDataset, validation_split: float = 0.1) -> tuple[str, ...]:
    """The names of the classes that have images for training, and none for validation.

    Args:
        dataset: the dataset to split.
        validation_split: share of the training images for validation, in (0, 1).

    Returns:
        Names of classes.

    Raises:
        ValueError: as `split`.

    Examples:
        >>> images, labels = np.zeros((4, 8, 8, 1), "uint8"), np.array([0, 0, 1, 1])
        >>> sorted_by_class = ImageDataset("two", "memory", images, labels, images, labels, ("cat", "dog"))
        >>> classes_without_validation(sorted_by_class, 0.5)
        ('cat',)
    """
    _, (_, kept) = split(dataset, validation_split)
    return tuple(dataset.class_names[label] for label in np.setdiff1d(dataset.y_train, kept))


def resized(dataset: ImageDataset, image_size: int | Sequence[int]) -> ImageDataset:
    """Resize the images of a dataset: scale them until they cover the size, and crop evenly on both sides.

    Args:
        dataset: a dataset with one or three channels.
        image_size: an int for both sides, or `(height, width)`.

    Returns:
        A dataset; `dataset` itself if its images have that size.

    Raises:
        ValueError: if a size is not a whole number, the number of channels is another one, or the images would take
            more than 4 GiB.
        ImportError: without Pillow.

    Examples:
        >>> from keras_vit_edu import datasets
        >>> images = np.zeros((2, 28, 28, 1), "uint8")
        >>> labels = np.array([0, 1])
        >>> digits = datasets.ImageDataset("two", "memory", images, labels, images, labels, ("0", "1"))
        >>> datasets.resized(digits, 32).x_train.shape
        (2, 32, 32, 1)
    """
    height, width = _checks.pair_of_ints("image_size", image_size)
    channels = dataset.x_train.shape[-1]
    if dataset.x_train.shape[1:3] == (height, width):
        return dataset
    if channels not in (1, 3):
        raise ValueError(f"Only images of 1 or 3 channels can be resized. Received: {channels}")
    check_bytes(dataset.source, (len(dataset.x_train) + len(dataset.x_test)) * height * width * channels)
    return replace(
        dataset,
        **{part: _resized(getattr(dataset, part), height, width) for part in IMAGES},  # type: ignore[arg-type]
    )


def _resized(images: np.ndarray, height: int, width: int) -> np.ndarray:
    found = np.empty((len(images), height, width, images.shape[-1]), "uint8")
    for i, image in enumerate(images):
        found[i] = fitted(image, height, width)
    return found


def fitted(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image, scaled until it covers `height` and `width`, and cropped evenly; uint8 `(H, W, C)`."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ImportError(f"Resizing images needs Pillow: {install_command('cli')}") from None
    if image.shape[:2] == (height, width):
        return image
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    pixels = np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC))
    return pixels.reshape(height, width, -1)


# Arrays from files. ---------------------------------------------------------------------------------------------------


def read_arrays(
    source: str, files: Mapping[str, ArrayFile], image_size: tuple[int, int] | None, num_classes: int | None
) -> dict[str, Any]:
    """Read four arrays from their files, if their headers fit together; see `check_headers`."""
    files = {name: files[name] for name in ARRAYS}
    check_sizes(files)
    check_headers(source, files, image_size)
    labels = {name: _column(files[name].read()) for name in LABELS}  # some bytes of each image
    for name, array in labels.items():
        check_range(source, name, array, num_classes or MOST_CLASSES)
    images = {name: files[name] for name in IMAGES}
    check_data(images)
    return {**labels, **{name: _with_channels(file.read()) for name, file in images.items()}}


def check_headers(source: str, arrays: Mapping[str, Any], image_size: tuple[int, int] | None = None) -> None:
    """Raise an error unless the dtypes and shapes of four arrays, or of their files, form a dataset.

    Args:
        source: the place from which they come.
        arrays: objects with a dtype and a shape, by name.
        image_size: required size of grey images; None allows grey or RGB images of any one size.
    """
    size = "H, W" if image_size is None else f"{image_size[0]}, {image_size[1]}"
    sizes = set()
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        received = f"Received: x_{part} {images.dtype} {images.shape}, y_{part} {labels.dtype} {labels.shape}"
        shape = images.shape if len(images.shape) == 4 else (*images.shape, 1)
        is_image = images.dtype == np.uint8 and len(shape) == 4 and min(shape) > 0
        if not is_image or (image_size is not None and shape[1:] != (*image_size, 1)):
            raise ValueError(f"{source}: images must be uint8 of shape (n, {size}). {received}")
        if shape[-1] not in (1, 3):
            hint = "; if the channels come first, use `np.moveaxis(x, 1, -1)`" if shape[1] in (1, 3) else ""
            raise ValueError(f"{source}: images must be of shape (n, H, W) or (n, H, W, 3){hint}. {received}")
        is_column = len(labels.shape) == 2 and labels.shape[1] == 1  # like the labels of CIFAR in Keras
        if not (len(labels.shape) == 1 or is_column) or labels.dtype.kind not in "iu":
            raise ValueError(f"{source}: labels must be integers of shape (n,). {received}")
        if len(labels.shape) and images.shape[0] != labels.shape[0]:
            raise ValueError(f"{source}: there are {images.shape[0]} images and {labels.shape[0]} labels. {received}")
        sizes.add(shape[1:])
    if len(sizes) > 1:
        raise ValueError(
            f"{source}: images for training and for the test must be of one size. "
            f"Received: {' and '.join(map(str, sorted(sizes)))}"
        )


def dataset_of(
    name: str,
    source: str,
    arrays: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    notes: Sequence[str] = (),
    has_test: bool = True,
) -> ImageDataset:
    """Make an `ImageDataset` of checked arrays. Raises a `ValueError` for labels out of range."""
    checked: dict[str, np.ndarray] = {}
    for part in ("train", "test"):
        checked[f"y_{part}"] = check_range(source, f"y_{part}", arrays[f"y_{part}"], len(class_names))
        checked[f"x_{part}"] = _with_channels(arrays[f"x_{part}"])
    return ImageDataset(
        name=name,
        source=source,
        class_names=tuple(class_names),
        notes=(*notes, *_without_images(class_names, checked)),
        has_test=has_test,
        **checked,
    )


def check_range(source: str, name: str, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels as int32 `(n,)`, also from one column `(n, 1)`. Raises a `ValueError` for a label out of range."""
    return _checks.labels(f"{source}: labels", _column(labels), num_classes, received=name)


def _without_images(class_names: Sequence[str], arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Notes about classes without images."""
    notes = []
    for part in ("train", "test"):
        counts = np.bincount(arrays[f"y_{part}"], minlength=len(class_names))
        missing = [printable(class_names[i]) for i in np.flatnonzero(counts == 0).tolist()]
        if missing:
            whose = "training" if part == "train" else "test"
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            notes.append(f"there is no {whose} image of class {', '.join(missing[:5])}{more}")
    return notes


def _column(labels: np.ndarray) -> np.ndarray:
    return labels.reshape(len(labels)) if labels.ndim == 2 else labels


def _with_channels(images: np.ndarray) -> np.ndarray:
    return images[..., None] if images.ndim == 3 else images
