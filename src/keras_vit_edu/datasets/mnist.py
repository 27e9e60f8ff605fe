"""MNIST and Fashion-MNIST, from wherever they are.

A real sample of MNIST is bundled, so that everything runs with no network. The whole sets come from a path that is
given, else from the path in the environment variable `KERAS_VIT_EDU_DATA`, else from Keras's own download. Files may be
Keras's npz or the four IDX files of the originals, gzipped or not.
"""

import gzip
import os
import zipfile
import zlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import keras
import numpy as np

from keras_vit_edu import _backend, _checks

DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DATASETS = {"mnist-sample": DIGITS, "mnist": DIGITS, "fashion-mnist": CLOTHES}
ENVIRONMENT_VARIABLE = "KERAS_VIT_EDU_DATA"
IMAGE_SIZE = (28, 28)
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
IDX_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
# What NumPy, zipfile and zlib raise over files that are damaged, encrypted, or say that they hold terabytes.
UNREADABLE = (
    OSError, EOFError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
RECIPE = (
    "Give the path of an npz file (with the arrays x_train, y_train, x_test, y_test) or of a folder with the four IDX "
    f"files, with --data PATH or in {ENVIRONMENT_VARIABLE}; or take the bundled `mnist-sample`."
)


@dataclass(frozen=True)
class ImageDataset:
    """Images with labels, for training and for the test at the end.

    Attributes:
        name: `"mnist-sample"`, `"mnist"` or `"fashion-mnist"`.
        source: where it was read from.
        x_train, x_test: uint8 images `(n, 28, 28, 1)`, 0 black to 255 white.
        y_train, y_test: int32 labels `(n,)`, from 0.
        class_names: what the labels stand for.
    """

    name: str
    source: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self.x_train)} + {len(self.x_test)} images from {self.source}>"


def load(name: str = "mnist-sample", path: str | Path | None = None) -> ImageDataset:
    """Load a dataset.

    Args:
        name: `"mnist-sample"` (bundled: 10,000 + 2,000 images of MNIST, each class with its share), `"mnist"` or
            `"fashion-mnist"` (60,000 + 10,000 each).
        path: of an npz file, or of a folder that holds one of that name or the four IDX files (gzipped or not). None
            to look into the path in `KERAS_VIT_EDU_DATA` (which may hold several datasets, so that Fashion-MNIST must
            be in a file or folder of its name), then to let Keras download. Not for the bundled sample.

    Returns:
        An `ImageDataset`.

    Raises:
        ValueError: for an unknown name; for data that cannot be found; for a file that is damaged or does not hold
            28x28 uint8 images with as many labels from 0 to 9.

    Examples:
        >>> load("mnist-sample")
        <mnist-sample: 10000 + 2000 images from the package>
    """
    if name not in DATASETS:
        hint = _checks.did_you_mean(name, DATASETS) or f"There are {', '.join(DATASETS)}."
        raise ValueError(f"There is no dataset {name!r}. {hint}")
    if name == "mnist-sample":
        if path is not None:
            raise ValueError(f"mnist-sample is bundled and has no path; {path} may be mnist or fashion-mnist.")
        with resources.as_file(resources.files("keras_vit_edu.datasets") / "mnist_sample.npz") as sample:
            return _checked(name, "the package", _read_npz(sample))
    if path is not None:
        found = _find(name, Path(path))
        if found is None:
            raise ValueError(f"There is no {name} at {path}. {RECIPE}")
        return _read(name, found)
    from_environment = os.environ.get(ENVIRONMENT_VARIABLE)
    if from_environment:
        found = _find_beside_others(name, Path(from_environment))
        if found is not None:
            return _read(name, found)
    return _download(name, from_environment)


def locate(name: str) -> str | None:
    """Where `load(name)` would read from, without reading or downloading: a path, `"the package"`, or None."""
    if name == "mnist-sample":
        return "the package"
    from_environment = os.environ.get(ENVIRONMENT_VARIABLE)
    found = _find_beside_others(name, Path(from_environment)) if from_environment else None
    cached = _backend.keras_home() / "datasets"
    for place in (found, cached / "mnist.npz" if name == "mnist" else cached / name):
        if place is not None and place.exists():
            return str(place)
    return None


def split(dataset: ImageDataset, validation_split: float = 0.1) -> tuple[tuple, tuple]:
    """Keep the last part of the training images for validation, as Keras's `fit(validation_split=...)` does.

    Args:
        dataset: what to split.
        validation_split: share of the training images to keep, in (0, 1).

    Returns:
        `((x_train, y_train), (x_validation, y_validation))`.

    Raises:
        ValueError: if either part would be empty.
    """
    count = len(dataset.x_train)
    at = int(count * (1 - validation_split))
    if not 0 < at < count:
        raise ValueError(
            "`validation_split` must leave images on both sides. "
            f"Received: validation_split={validation_split} of {count} images"
        )
    return (dataset.x_train[:at], dataset.y_train[:at]), (dataset.x_train[at:], dataset.y_train[at:])


def _find(name: str, path: Path) -> Path | None:
    """The npz file, or the folder of IDX files, that is meant by the `path` given for this dataset; None if none is."""
    if path.is_file():
        return path
    return _find_beside_others(name, path) or (path if _has_idx_files(path) else None)


def _find_beside_others(name: str, path: Path) -> Path | None:
    """The same where the path may hold several datasets: files of no name of their own are MNIST's."""
    names = (name, name.replace("-", "_"))
    if path.is_file():
        of_another = path.stem.replace("_", "-") in DATASETS
        return path if path.stem in names or (name == "mnist" and not of_another) else None
    for npz in (path / f"{own}.npz" for own in names):
        if npz.is_file():
            return npz
    for folder in (path / own for own in names):
        if _has_idx_files(folder):
            return folder
    return path if name == "mnist" and _has_idx_files(path) else None


def _has_idx_files(folder: Path) -> bool:
    return any(_idx_file(folder, array) for array in ARRAYS)


def _read(name: str, path: Path) -> ImageDataset:
    arrays = _read_idx_folder(path) if path.is_dir() else _read_npz(path)
    return _checked(name, str(path), arrays)


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:  # a pickle could run code
            missing = [array for array in ARRAYS if array not in arrays]
            if missing:
                raise ValueError(f"it holds {', '.join(arrays) or 'nothing'}, but no {', '.join(missing)}")
            return {array: arrays[array] for array in ARRAYS}
    except UNREADABLE as error:
        raise ValueError(f"{file} cannot be read as an npz file: {_npz_complaint(error)}. {RECIPE}") from None


def _npz_complaint(error: Exception) -> str:
    text = str(error).rstrip(".") or type(error).__name__
    if "pickle" in text:
        return "it is pickled (or no npz at all), and a pickle could run code, so it is not opened"
    if isinstance(error, (TypeError, AttributeError)):  # np.load gave a lone array
        return "it holds one array without a name"
    return text


def _idx_file(folder: Path, array: str) -> Path | None:
    for suffix in ("", ".gz"):
        # Some unpackers write train-images.idx3-ubyte.
        for stem in (IDX_FILES[array], IDX_FILES[array].replace("-idx", ".idx")):
            if (folder / (stem + suffix)).is_file():
                return folder / (stem + suffix)
    return None


def _read_idx_folder(folder: Path) -> dict[str, np.ndarray]:
    files = {array: _idx_file(folder, array) for array in ARRAYS}
    missing = [IDX_FILES[array] for array, file in files.items() if file is None]
    if missing:
        raise ValueError(f"Of the four IDX files, {folder} lacks {', '.join(missing)} (or the same with .gz).")
    return {array: _read_idx(file) for array, file in files.items() if file is not None}


def _read_idx(file: Path) -> np.ndarray:
    """An array from an IDX file: 0, 0, type, rank; one big-endian uint32 per dimension; the data."""
    try:
        data = file.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError(f"{file} is no IDX file of unsigned bytes: it begins with {data[:4].hex(' ') or 'nothing'}.")
    rank = data[3]
    start = 4 + 4 * rank
    if len(data) < start:
        raise ValueError(f"{file} is truncated: its header ends after {len(data)} of {start} bytes.")
    shape = tuple(int(side) for side in np.frombuffer(data, ">u4", count=rank, offset=4))
    wanted = int(np.prod(shape, dtype=object))  # Python's integers cannot overflow
    if len(data) - start != wanted:
        raise ValueError(
            f"{file} is {'truncated' if len(data) - start < wanted else 'too long'}: its header says {shape}, "
            f"{wanted} bytes, and {len(data) - start} follow."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _download(name: str, searched: str | None) -> ImageDataset:
    module = {"mnist": keras.datasets.mnist, "fashion-mnist": keras.datasets.fashion_mnist}[name]
    try:
        (x_train, y_train), (x_test, y_test) = module.load_data()
    except Exception as error:  # urllib, ssl, a bad checksum, a read-only home: all mean the same here
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        nor = f"{ENVIRONMENT_VARIABLE}={searched} does not hold it, and " if searched else ""
        raise ValueError(f"{name} was not found: {nor}Keras could not download it ({reason}). {RECIPE}") from None
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    return _checked(name, "Keras's download", arrays)


def _checked(name: str, source: str, arrays: dict[str, np.ndarray]) -> ImageDataset:
    """An `ImageDataset` of the arrays, or a `ValueError` that says what is wrong with them."""
    classes = DATASETS[name]
    checked = {}
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        received = f"Received: x_{part} {images.dtype} {images.shape}, y_{part} {labels.dtype} {labels.shape}"
        if images.ndim == 4 and images.shape[-1] == 1:
            images = images[..., 0]
        if images.ndim != 3 or images.shape[1:] != IMAGE_SIZE or images.dtype != np.uint8 or not len(images):
            raise ValueError(f"{source}: images must be uint8 of shape (n, 28, 28). {received}")
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"{source}: labels must be integers of shape (n,). {received}")
        if len(images) != len(labels):
            raise ValueError(f"{source}: there are {len(images)} images and {len(labels)} labels. {received}")
        if labels.min() < 0 or labels.max() >= len(classes):
            raise ValueError(
                f"{source}: labels must be 0 to {len(classes) - 1}. "
                f"Received: y_{part} from {labels.min()} to {labels.max()}"
            )
        checked[f"x_{part}"], checked[f"y_{part}"] = images[..., None], labels.astype("int32")
    return ImageDataset(name=name, source=source, class_names=classes, **checked)
