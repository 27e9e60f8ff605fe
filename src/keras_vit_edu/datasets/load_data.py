"""Load images to train on, from a file or folder of any supported kind."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from keras_vit_edu import _checks, random
from keras_vit_edu.datasets import sources
from keras_vit_edu.datasets.class_folders import is_class_folder, read_class_folders
from keras_vit_edu.datasets.image_dataset import ImageDataset, dataset_of, resized
from keras_vit_edu.datasets.mnist import CLASS_NAMES, DIGITS, IMAGE_SIZE, load

WHAT = (
    "Images to train on are an npz file (with uint8 arrays x_train and x_test, (n, H, W) or (n, H, W, 3), and labels "
    "y_train and y_test, from 0), a folder with one subfolder of images per class (or with such folders train and "
    "test), a CSV file of digits, or a folder of IDX files"
)


def load_data(
    path: str | Path,
    image_size: int | Sequence[int] | None = None,
    progress: Callable[[int, int], object] | None = None,
    keep_test: bool = True,
) -> ImageDataset:
    """Load images of any size to train on, grey or in colour, with any number of classes.

    - An **npz file** with the uint8 arrays `x_train` and `x_test`, `(n, H, W)`, `(n, H, W, 1)` or `(n, H, W, 3)`, and
      the labels `y_train` and `y_test`, whole numbers `(n,)` from 0. An optional array of strings, `class_names`, names
      the classes; the default names are "0", "1" and so on. Grey images of 28x28 pixels with ten classes without names
      are `"mnist"`, or `"fashion-mnist"` if the file has that name.
    - A **folder of images** with one subfolder per class, or with folders `train` and `test` (or `val`) that have such
      subfolders; see `find_split`.
    - MNIST, Fashion-MNIST or a set of EMNIST, as for `load`: IDX files, torchvision's folders, CSV files.

    Without a test part, a fifth of every class is kept for the test, the same images on every machine.

    Args:
        path: the file or folder.
        image_size: an int for both sides, or `(height, width)`: every image is scaled until it covers this size, and
            cropped evenly on both sides. None if all images have one size.
        progress: called as `progress(done, total)` while the files of a folder are read.
        keep_test: False keeps no test part: if a folder or CSV file has none, all images are in both parts.

    Returns:
        An `ImageDataset` with the name of the file or folder.

    Raises:
        ValueError: if there is no such dataset; if images have several sizes and `image_size` is None; if a label is
            invalid; for more than 4 GiB of images, or 1 GiB in compressed files.
        ImportError: for a folder of images, or another size, without Pillow.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> images, labels = np.zeros((6, 32, 32, 3), "uint8"), np.array([0, 1, 2, 0, 1, 2])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     parts = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
        ...     np.savez(f"{folder}/shapes.npz", class_names=["circle", "square", "star"], **parts)
        ...     dataset = load_data(f"{folder}/shapes.npz")
        >>> dataset.x_train.shape, dataset.class_names
        ((6, 32, 32, 3), ('circle', 'square', 'star'))
    """
    size = None if image_size is None else _checks.pair_of_ints("image_size", image_size)
    path = Path(path)
    if _is_fashion(path):
        dataset = load("fashion-mnist", path)
    elif os.path.isdir(path):
        dataset = _of_folder(path, size, progress, keep_test)
    elif os.path.isfile(path):
        dataset = _of_arrays(path.stem, sources.of_file(path), keep_test)
    else:
        kind = "are no images to train on in" if os.path.exists(path) else "is nothing at"
        raise ValueError(f"There {kind} {path}{', which is no regular file' if os.path.exists(path) else ''}. {WHAT}.")
    return dataset if size is None else resized(dataset, size)


def _of_folder(
    path: Path, size: tuple[int, int] | None, progress: Callable[[int, int], object] | None, keep_test: bool
) -> ImageDataset:
    sets = sources.emnist_sets(path)
    if sources.find_beside_others("mnist", path) is None:
        if sources.find_beside_others("fashion-mnist", path) is not None:
            return load("fashion-mnist", path)
        if len(sets) > 1:
            raise ValueError(
                f"{path} holds several datasets: {', '.join(sets)}. Load one with `datasets.load(name, path)`."
            )
        if sets:
            return load(sets[0], path)
    source = sources.find("mnist", path)
    if source is not None:
        return _of_arrays(path.name, source, keep_test)
    if not is_class_folder(path):
        raise ValueError(f"There are no images to train on in {path}. {WHAT}.")
    return read_class_folders(path, _own_name(path.resolve().name), size, progress, keep_test)


def _of_arrays(name: str, source: sources.Source, keep_test: bool) -> ImageDataset:
    """Arrays of an unnamed dataset: MNIST if they fit it, else named like the file."""
    found = source.read(sources.Wanted(keep_test=keep_test))
    labels = [found.arrays[array] for array in ("y_train", "y_test")]
    classes = max(int(part.max()) for part in labels) + 1
    grey = found.arrays["x_train"].shape[1:] in (IMAGE_SIZE, (*IMAGE_SIZE, 1))
    if found.class_names is None and grey and classes == len(DIGITS):
        return dataset_of("mnist", str(source.path), found.arrays, DIGITS, found.notes, found.has_test)
    names = found.class_names or tuple(map(str, range(classes)))
    dataset = dataset_of(
        _own_name(name), os.path.abspath(source.path), found.arrays, names, found.notes, found.has_test
    )
    order = random.permutation(0, (0,), len(dataset.x_train))  # the last part is for validation
    return replace(dataset, x_train=dataset.x_train[order], y_train=dataset.y_train[order])


def _is_fashion(path: Path) -> bool:
    """Whether a file or folder is named Fashion-MNIST. Its arrays cannot tell: they look like MNIST's."""
    names = ("fashion-mnist", "fashion_mnist", "fashionmnist")
    path = Path(os.path.abspath(path))
    says = path.stem.lower() in names or (path.name == "raw" and path.parent.name.lower() in names)
    return says and sources.find("fashion-mnist", path) is not None


def _own_name(name: str) -> str:
    """The name of a user's dataset: the name of its file, but never a name that `load` knows."""
    return f"{name}-images" if name in CLASS_NAMES else name or "images"
