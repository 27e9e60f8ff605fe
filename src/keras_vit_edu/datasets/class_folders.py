"""Photographs and drawings of any kind as a dataset to train on from scratch: a folder with one subfolder per class."""

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

TRAINING = ("train", "training")
TEST = ("test", "testing")
VALIDATION = ("val", "valid", "validation", "eval")  # taken for the test where there is none
Progress = Callable[[int, int], object]


def read_class_folders(
    path: Path, name: str, image_size: tuple[int, int] | None = None, progress: Progress | None = None
) -> ImageDataset:
    """Read a folder of images, with one subfolder per class, or with such folders `train` and `test` in it.

    Where there is no `test`, `val` is the test; without any, a fifth of every class is kept for it, the same on every
    machine. The training images come in an order of their own, also the same everywhere: their last part, which is for
    validation, has all classes then.

    Args:
        path: the folder.
        name: what to call the dataset.
        image_size: `(height, width)` that every image is scaled and cut to; None if all have one size.
        progress: called as `progress(done, total)` after every file, for each part.

    Returns:
        A dataset of grey images if red, green and blue agree in every pixel of every image, else of RGB images.

    Raises:
        ValueError: as `scan_folder`; if images are of several sizes and none is given; if the test has a class that
            training has not; if the images take more than 4 GiB.
        ImportError: without Pillow.
    """
    parts = _parts(path)
    notes: list[str] = []
    folders = {part: scan_folder(folder, progress=progress) for part, folder in parts.items()}
    for folder in folders.values():
        notes += [f"skipped {printable(file)}: {printable(reason)}" for file, reason in folder.skipped[:10]]
        if len(folder.skipped) > 10:
            notes.append(f"{len(folder.skipped) - 10} more files of {printable(str(folder.path))} were skipped")
    training = folders["train"]
    paths, labels = {"train": list(training.paths)}, {"train": training.labels}
    if "test" in folders:
        paths["test"], labels["test"] = list(folders["test"].paths), _numbered(folders["test"], training)
        unused = [entry.name for entry in path.iterdir() if entry.is_dir() and entry.name.lower() in VALIDATION]
        if parts["test"].name.lower() in VALIDATION:
            notes.append(f"there is no folder test, so {printable(parts['test'].name)} is the test")
        elif unused:
            notes.append(f"the folder {printable(unused[0])} is not used: validation is a part of train")
    else:
        first, second = split_off(training.labels)
        notes.append("a fifth of every class was kept for the test")
        paths = {"train": [training.paths[i] for i in first], "test": [training.paths[i] for i in second]}
        labels = {"train": training.labels[first], "test": training.labels[second]}
    order = random.permutation(0, (0,), len(paths["train"]))
    paths["train"], labels["train"] = [paths["train"][i] for i in order], labels["train"][order]

    pixels = _read([*paths["train"], *paths["test"]], image_size)
    count = len(paths["train"])
    arrays = {"x_train": pixels[:count], "x_test": pixels[count:], "y_train": labels["train"], "y_test": labels["test"]}
    return dataset_of(name, os.path.abspath(path), arrays, training.class_names, notes)


def is_class_folder(path: Path) -> bool:
    """Whether there are subfolders, which could be of classes."""
    return any(entry.is_dir() and not entry.name.startswith(".") for entry in path.iterdir())


def _parts(path: Path) -> dict[str, Path]:
    """The folders for training and for the test; the folder itself if it is not split."""
    inside = {entry.name.lower(): entry for entry in sorted(path.iterdir()) if entry.is_dir()}
    training = next((inside[name] for name in TRAINING if name in inside), None)
    test = next((inside[name] for name in (*TEST, *VALIDATION) if name in inside), None)
    others = set(inside) - {*TRAINING, *TEST, *VALIDATION}
    if training is None or any(not name.startswith(".") for name in others):
        return {"train": path}
    return {"train": training} | ({"test": test} if test is not None else {})


def _numbered(test: ImageFolder, training: ImageFolder) -> np.ndarray:
    """The labels of the test, as training numbers the classes."""
    unknown = [name for name in test.class_names if name not in training.class_names]
    if unknown:
        raise ValueError(
            f"The test must have no class that training has not. Received: {printable(unknown[0])!r} in {test.path}"
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
                "Images must be of one size (height x width), or be given one: --image-size 64, say. "
                f"Received: {paths[0]} of {sizes[0]} and {path} of {sizes[1]}"
            )
        pixels[i] = image
        is_grey = is_grey and bool((image[..., :1] == image).all())
    return np.ascontiguousarray(pixels[..., :1]) if is_grey else pixels
