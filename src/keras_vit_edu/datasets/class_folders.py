"""Read a folder of images with one subfolder per class, to train on from scratch."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_vit_edu import random
from keras_vit_edu._files import printable
from keras_vit_edu.datasets.array_file import check_bytes
from keras_vit_edu.datasets.class_balance import split_off
from keras_vit_edu.datasets.image_dataset import ImageDataset, dataset_of, fitted
from keras_vit_edu.datasets.image_file import read_image
from keras_vit_edu.datasets.image_folder import ImageFolder, scan_folder
from keras_vit_edu.datasets.split_folder import find_split

Progress = Callable[[int, int], object]


def read_class_folders(
    path: Path,
    name: str,
    image_size: tuple[int, int] | None = None,
    progress: Progress | None = None,
    keep_test: bool = True,
) -> ImageDataset:
    """Read a folder of images with one subfolder per class, or a split folder (see `find_split`).

    Without `test`, `val` is the test. Without both, a fifth of every class is kept for the test, the same on every
    machine. The training images are put into a fixed random order, so that the last part, the validation part, has all
    classes.

    Args:
        path: the folder.
        name: name of the dataset.
        image_size: `(height, width)` to which every image is scaled and cropped; None if all have one size.
        progress: called as `progress(done, total)` after every file, for each part.
        keep_test: False keeps no test part: if the folder has none, all images are in both parts.

    Returns:
        A dataset of grey images if red, green and blue are equal in every pixel of every image, else of RGB images.

    Raises:
        ValueError: as `scan_folder`; if images have several sizes and `image_size` is None; if the test has a class
            that training lacks; if the images take more than 4 GiB.
        ImportError: without Pillow.
    """
    parts, notes = _parts(path)
    folders = {part: scan_folder(folder, progress=progress) for part, folder in parts.items()}
    for folder in folders.values():
        notes += [f"skipped {printable(file)}: {printable(reason)}" for file, reason in folder.skipped[:10]]
        if len(folder.skipped) > 10:
            notes.append(f"{len(folder.skipped) - 10} more files of {printable(str(folder.path))} were skipped")
    training = folders["train"]
    paths, labels = {"train": list(training.paths)}, {"train": training.labels}
    if "test" in folders:
        paths["test"], labels["test"] = list(folders["test"].paths), _numbered(folders["test"], training)
    elif not keep_test:
        notes.append("there is no part for the test, so it has all images")
        paths["test"], labels["test"] = [], labels["train"]
    else:
        first, second = split_off(training.labels)
        notes.append("a fifth of every class was kept for the test")
        paths = {"train": [training.paths[i] for i in first], "test": [training.paths[i] for i in second]}
        labels = {"train": training.labels[first], "test": training.labels[second]}
    if paths["test"]:
        order = random.permutation(0, (0,), len(paths["train"]))
        paths["train"], labels["train"] = [paths["train"][i] for i in order], labels["train"][order]

    pixels = _read([*paths["train"], *paths["test"]], image_size)
    count = len(paths["train"])
    x_test = pixels[count:] if paths["test"] else pixels
    arrays = {"x_train": pixels[:count], "x_test": x_test, "y_train": labels["train"], "y_test": labels["test"]}
    return dataset_of(name, os.path.abspath(path), arrays, training.class_names, notes, "test" in folders)


def is_class_folder(path: Path) -> bool:
    """Whether there are subfolders, which may be classes."""
    return any(entry.is_dir() and not entry.name.startswith(".") for entry in path.iterdir())


def _parts(path: Path) -> tuple[dict[str, Path], list[str]]:
    """The folders for training and for the test, and notes on others; the folder itself if it is not split."""
    split = find_split(path)
    if split is None or split.train is None:  # without a training part, `scan_folder` raises an error
        return {"train": path}, []
    flat = [printable(folder.name) for folder in split.without_classes]
    notes = [f"the folder {name} is not used: it has no subfolders, one per class" for name in flat]
    if split.test is None and split.validation is not None:
        name = printable(split.validation.name)
        return {"train": split.train, "test": split.validation}, [
            *notes,
            f"there is no part for the test, so {name} is the test",
        ]
    if split.validation is not None:
        name = printable(split.validation.name)
        notes.append(f"the folder {name} is not used: validation is a part of train")
    return {"train": split.train} | ({} if split.test is None else {"test": split.test}), notes


def _numbered(test: ImageFolder, training: ImageFolder) -> np.ndarray:
    """The labels of the test, numbered like those of training."""
    unknown = [name for name in test.class_names if name not in training.class_names]
    if unknown:
        raise ValueError(
            f"Every class of the test must be in training too. Received: {printable(unknown[0])!r} in {test.path}"
        )
    places = np.array([training.class_names.index(name) for name in test.class_names], "int32")
    return places[test.labels]


def _read(paths: list[Path], image_size: tuple[int, int] | None) -> np.ndarray:
    """All images, uint8 `(n, H, W, 1)` or `(n, H, W, 3)`."""
    if image_size is not None:
        check_bytes(str(paths[0].parent.parent), len(paths) * image_size[0] * image_size[1] * 3)
    pixels = np.empty(0, "uint8")
    is_grey = True
    for i, path in enumerate(paths):
        image = read_image(path)
        image = image if image_size is None else fitted(image, *image_size)
        if i == 0:
            check_bytes(str(path.parent.parent), len(paths) * image.size)
            pixels = np.empty((len(paths), *image.shape), "uint8")
        if image.shape != pixels.shape[1:]:
            sizes = [f"{height} x {width} pixels" for height, width in (pixels.shape[1:3], image.shape[:2])]
            raise ValueError(
                "Images must be of one size (height x width). To resize them, pass `image_size=64`, for example. "
                f"Received: {paths[0]} of {sizes[0]} and {path} of {sizes[1]}"
            )
        pixels[i] = image
        is_grey = is_grey and bool((image[..., :1] == image).all())
    return np.ascontiguousarray(pixels[..., :1]) if is_grey else pixels
