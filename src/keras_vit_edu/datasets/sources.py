"""Find the arrays of a dataset by the names of their files, and read them."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vit_edu import _checks
from keras_vit_edu._files import printable
from keras_vit_edu.datasets import emnist
from keras_vit_edu.datasets.class_balance import split_off
from keras_vit_edu.datasets.digit_csv import has_labels, read_csv
from keras_vit_edu.datasets.idx import open_idx
from keras_vit_edu.datasets.image_dataset import ARRAYS, check_headers, read_arrays
from keras_vit_edu.datasets.npz import open_npz

NAMES = ("mnist-sample", "mnist", "fashion-mnist")
IDX_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
# The folders that torchvision creates in its root.
TORCHVISION = {"mnist": Path("MNIST", "raw"), "fashion-mnist": Path("FashionMNIST", "raw")}
LONGEST_NAMES = 1 << 22  # largest array of class names, in bytes


@dataclass(frozen=True)
class Wanted:
    """Requirements for a dataset: the size of its images and the number of its classes; None for any.

    `keep_test`: keep some images for the test if there is no test part; else all images are in both parts.
    """

    image_size: tuple[int, int] | None = None
    num_classes: int | None = None
    keep_test: bool = True


@dataclass(frozen=True)
class Contents:
    """The content of a source: four arrays, class names if it has any, and notes."""

    arrays: dict[str, np.ndarray]
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    has_test: bool = True


@dataclass(frozen=True)
class Source:
    """A place with the four arrays of a dataset.

    Attributes:
        path: the file or folder.
        read: reads the arrays. Raises a `ValueError` that names the file if they do not meet the requirements.
    """

    path: Path
    read: Callable[[Wanted], Contents]


# Finding. -------------------------------------------------------------------------------------------------------------


def find(name: str, path: Path) -> Source | None:
    """Find this dataset at the given `path`; None if it is not there."""
    if os.path.isfile(path):
        return of_file(path)
    own = find_beside_others(name, path) or _idx(path, path / "raw")
    if own is None and name == "mnist":
        own = next((source for like in emnist.AS_MNIST if (source := of_emnist(like, path))), None)
    return own or of_csv_in(path, [f"{own}_train.csv" for own in _own_names(name)] + ["train.csv"])


def find_beside_others(name: str, path: Path) -> Source | None:
    """Find this dataset at a path that may have several. Files without a dataset's name belong to MNIST."""
    if name in emnist.EMNIST:
        return of_emnist(name, path)
    names = _own_names(name)
    if os.path.isfile(path):
        of_another = path.stem.replace("_", "-") in NAMES
        return of_file(path) if path.stem in names or (name == "mnist" and not of_another) else None
    for npz in (path / f"{own}.npz" for own in names):
        if os.path.isfile(npz):
            return of_file(npz)
    found = _idx(*(path / own for own in (*names, TORCHVISION[name])))
    return found or (_idx(path) if name == "mnist" else None)


def emnist_sets(path: Path) -> list[str]:
    """The sets of EMNIST in a folder."""
    return [name for name in emnist.EMNIST if of_emnist(name, path)]


def of_emnist(name: str, path: Path) -> Source | None:
    """A set of EMNIST, in a folder or in its usual subfolders."""
    files = emnist.idx_names(name)
    folder = next((folder for folder in emnist.folders(path) if _has_idx_files(folder, files)), None)
    return None if folder is None else Source(folder, lambda wanted: _read_emnist(name, folder, wanted))


def of_file(path: Path) -> Source:
    """An npz or CSV file."""
    if path.suffix.lower() == ".csv":
        return Source(path, lambda wanted: _read_csv_files(path, wanted))
    return Source(path, lambda wanted: _read_npz(path, wanted))


def of_csv_in(folder: Path, names: Iterable[str]) -> Source | None:
    """The first of these CSV files in the folder that has labels and pixels."""
    file = next((folder / name for name in names if os.path.isfile(folder / name) and has_labels(folder / name)), None)
    return None if file is None else of_file(file)


def _own_names(name: str) -> tuple[str, str]:
    return name, name.replace("-", "_")


def _idx(*folders: Path) -> Source | None:
    """The first of these folders that has one of the four IDX files."""
    folder = next((folder for folder in folders if _has_idx_files(folder, IDX_FILES)), None)
    return None if folder is None else Source(folder, lambda wanted: _read_idx(folder, IDX_FILES, wanted))


def _has_idx_files(folder: Path, names: dict[str, str]) -> bool:
    return any(_idx_file(folder, name) for name in names.values())


def _idx_file(folder: Path, name: str) -> Path | None:
    for suffix in ("", ".gz"):
        for stem in (name, name.replace("-idx", ".idx")):  # some unpackers write train-images.idx3-ubyte
            if os.path.isfile(folder / (stem + suffix)):
                return folder / (stem + suffix)
    return None


# Reading. -------------------------------------------------------------------------------------------------------------


def _read_npz(file: Path, wanted: Wanted) -> Contents:
    files = open_npz(file)
    missing = [array for array in ARRAYS if array not in files]
    if missing:
        held = printable(", ".join(files.names()[:20])) or "nothing"
        raise ValueError(
            f"{file} cannot be read as an npz file: it holds {held}, but no {', '.join(missing)}. Images to train on "
            "need the arrays x_train, y_train, x_test, y_test."
        )
    names = _class_names(files["class_names"], file) if "class_names" in files else None
    return Contents(read_arrays(str(file), files, wanted.image_size, wanted.num_classes), names)


def _class_names(array, file: Path) -> tuple[str, ...]:  # type: ignore[no-untyped-def]
    if array.dtype.kind not in "US" or len(array.shape) != 1 or array.nbytes > LONGEST_NAMES:
        raise ValueError(
            f"{file}: `class_names` must be texts of shape (k,). Received: {array.dtype} of shape {array.shape}"
        )
    try:
        texts = np.char.decode(array.read(), "utf-8") if array.dtype.kind == "S" else array.read()
        return _checks.class_names([str(text) for text in texts])
    except ValueError as error:  # from NumPy, for numbers that are not characters
        raise ValueError(f"{file}: {error}") from None


def _read_idx(folder: Path, names: dict[str, str], wanted: Wanted) -> Contents:
    files = {array: _idx_file(folder, name) for array, name in names.items()}
    missing = [names[array] for array, file in files.items() if file is None]
    if missing:
        raise ValueError(f"{folder} lacks {', '.join(missing)} of the four IDX files (or the same names with .gz).")
    opened = {array: open_idx(file) for array, file in files.items() if file is not None}
    return Contents(read_arrays(str(folder), opened, wanted.image_size, wanted.num_classes))


def _read_emnist(name: str, folder: Path, wanted: Wanted) -> Contents:
    found = _read_idx(folder, emnist.idx_names(name), Wanted(wanted.image_size))
    return Contents(emnist.upright(name, found.arrays), emnist.EMNIST[name])


def _read_csv_files(file: Path, wanted: Wanted) -> Contents:
    """Read `..._train.csv` with `..._test.csv` beside it. Without the second file, a part is kept for the test."""
    training, test = file, None
    if "test" in file.stem.lower():
        partner = _partner(file, "test", "train")
        training, test = (partner, file) if partner is not None else (file, None)
    elif "train" in file.stem.lower():
        test = _partner(file, "train", "test")
    images, labels = read_csv(training)
    if test is not None and has_labels(test):
        x_test, y_test = read_csv(test)
        arrays = {"x_train": images, "y_train": labels, "x_test": x_test, "y_test": y_test}
        check_headers(str(file), arrays, wanted.image_size)
        return Contents(arrays)
    first, second = split_off(labels) if wanted.keep_test else (slice(None), slice(None))
    why = f"{test.name} has no labels" if test is not None else f"there is no test file beside {file.name}"
    arrays = {"x_train": images[first], "y_train": labels[first], "x_test": images[second], "y_test": labels[second]}
    check_headers(str(file), arrays, wanted.image_size)
    done = "a fifth of every class was kept for the test" if wanted.keep_test else "the test has all images"
    return Contents(arrays, notes=(f"{printable(why)}, so {done}",), has_test=False)


def _partner(file: Path, word: str, other: str) -> Path | None:
    """The file of the other part: mnist_train.csv for mnist_test.csv."""
    place = file.stem.lower().rfind(word)
    cased = other.upper() if file.stem[place:].isupper() else other
    partner = file.with_name(file.stem[:place] + cased + file.stem[place + len(word) :] + file.suffix)
    return partner if os.path.isfile(partner) else None
