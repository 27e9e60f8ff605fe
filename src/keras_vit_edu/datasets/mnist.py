"""Load MNIST and its relatives.

The package contains a sample of MNIST, so that everything runs without a network. The whole sets come from a given
path, else from the path in the environment variable `KERAS_VIT_EDU_DATA`, else from Keras's own download. Files may be
Keras's npz, the four original IDX files (gzipped or not, also in torchvision's folders or with EMNIST's names), or CSV
files.
"""

import os
from importlib import resources
from pathlib import Path

import keras

from keras_vit_edu import _backend, _checks
from keras_vit_edu.datasets import sources
from keras_vit_edu.datasets.emnist import EMNIST
from keras_vit_edu.datasets.image_dataset import ImageDataset, check_headers, dataset_of

DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DATASETS = {"mnist-sample": DIGITS, "mnist": DIGITS, "fashion-mnist": CLOTHES}
CLASS_NAMES = {**DATASETS, **EMNIST}
ENVIRONMENT_VARIABLE = "KERAS_VIT_EDU_DATA"
IMAGE_SIZE = (28, 28)
RECIPE = (
    f"Pass `path=...` or set {ENVIRONMENT_VARIABLE}, to an npz file (with the arrays x_train, y_train, x_test, "
    "y_test), a CSV file, or a folder with the four IDX files. Or use the bundled `mnist-sample`."
)


def load(name: str = "mnist-sample", path: str | Path | None = None) -> ImageDataset:
    """Load a dataset.

    Args:
        name: `"mnist-sample"` (bundled: 10,000 + 2,000 images of MNIST, a stratified sample), `"mnist"` or
            `"fashion-mnist"` (60,000 + 10,000 each); or a set of EMNIST: `"emnist-letters"`, `"emnist-balanced"`,
            `"emnist-byclass"`, `"emnist-bymerge"`, `"emnist-digits"` or `"emnist-mnist"`, with upright images and
            labels from 0.
        path: path of an npz file; of a CSV file (Kaggle's `train.csv`; `mnist_train.csv` with `mnist_test.csv` beside
            it); or of a folder with one of these under the dataset's name, or with the IDX files (gzipped or not),
            directly or in torchvision's folder (`MNIST/raw`). None searches the path in `KERAS_VIT_EDU_DATA` (it may
            have several datasets, so Fashion-MNIST must be in a file or folder of its name), then lets Keras download.
            Not for the bundled sample.

    Returns:
        An `ImageDataset`.

    Raises:
        ValueError: for an unknown name; for data that cannot be found; for a file that is damaged or does not have
            28x28 uint8 images with one label of that dataset for each; for more than 4 GiB of images, or 1 GiB in
            compressed files. Sizes are checked before anything is unpacked.

    Examples:
        >>> load("mnist-sample")
        <mnist-sample: 10000 + 2000 images from the package>
    """
    if name not in CLASS_NAMES:
        hint = _checks.did_you_mean(name, CLASS_NAMES) or f"There are {', '.join(CLASS_NAMES)}."
        raise ValueError(f"There is no dataset {name!r}. {hint}")
    if name == "mnist-sample":
        if path is not None:
            raise ValueError(f"mnist-sample is bundled and has no path; {path} may be mnist or fashion-mnist.")
        with resources.as_file(resources.files("keras_vit_edu.datasets") / "mnist_sample.npz") as sample:
            return dataset_of(name, "the package", sources.of_file(sample).read(_wanted(name)).arrays, DIGITS)
    if path is not None:
        found = sources.find(name, Path(path))
        if found is None:
            raise ValueError(f"There is no {name} at {path}{_what_is(Path(path))}. {RECIPE}")
        return _read(name, found)
    from_environment = os.environ.get(ENVIRONMENT_VARIABLE)
    if from_environment:
        found = sources.find_beside_others(name, Path(from_environment))
        if found is not None:
            return _read(name, found)
    return _download(name, from_environment)


def locate(name: str) -> str | None:
    """The place from which `load(name)` would read: a path, `"the package"`, or None. Reads and downloads nothing."""
    if name == "mnist-sample":
        return "the package"
    from_environment = os.environ.get(ENVIRONMENT_VARIABLE)
    found = sources.find_beside_others(name, Path(from_environment)) if from_environment else None
    cached = _backend.keras_home() / "datasets"
    for place in (found.path if found else None, cached / "mnist.npz" if name == "mnist" else cached / name):
        if place is not None and place.exists():
            return str(place)
    return None


def _read(name: str, source: sources.Source) -> ImageDataset:
    found = source.read(_wanted(name))
    return dataset_of(name, str(source.path), found.arrays, CLASS_NAMES[name], found.notes, found.has_test)


def _wanted(name: str) -> sources.Wanted:
    return sources.Wanted(IMAGE_SIZE, len(CLASS_NAMES[name]))


def _what_is(path: Path) -> str:
    """A hint about a path without that dataset."""
    sets = sources.emnist_sets(path)
    if sets:
        return f" (it holds {', '.join(sets)}, which are datasets)"
    if os.path.isdir(path):
        return " (to load other images, call `datasets.load_data(path)`)"
    return " (it is no regular file)" if os.path.exists(path) else ""


def _download(name: str, searched: str | None) -> ImageDataset:
    if name in EMNIST:
        nor = f", and {ENVIRONMENT_VARIABLE}={searched} does not hold it" if searched else ""
        raise ValueError(f"{name} is not downloaded by Keras{nor}. {RECIPE}")
    module = {"mnist": keras.datasets.mnist, "fashion-mnist": keras.datasets.fashion_mnist}[name]
    try:
        (x_train, y_train), (x_test, y_test) = module.load_data()
    except Exception as error:  # urllib, ssl, a bad checksum, a read-only home: all mean the same here
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        nor = f"{ENVIRONMENT_VARIABLE}={searched} does not hold it, and " if searched else ""
        raise ValueError(f"{name} was not found: {nor}Keras could not download it ({reason}). {RECIPE}") from None
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    check_headers("Keras's download", arrays, IMAGE_SIZE)
    return dataset_of(name, "Keras's download", arrays, CLASS_NAMES[name])
