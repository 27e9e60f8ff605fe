"""Images by name or path, and the images of a run of `train`: those that it learned from and those to test it on."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from keras_vit_edu import datasets
from keras_vit_edu.datasets.mnist import CLASS_NAMES
from keras_vit_edu.training import run_record
from keras_vit_edu.training.train import fingerprint

SAMPLE = "mnist-sample"  # the default dataset
Progress = Callable[[int, int], object] | None
Size = tuple[int, int] | None


def named_images(
    dataset: str | None = None,
    data: str | Path | None = None,
    image_size: Size = None,
    progress: Progress = None,
    keep_test: bool = True,
) -> datasets.ImageDataset:
    """Load a dataset by its name, or images of any size from a path.

    Args:
        dataset: a name, as `datasets.load` takes it. Defaults to the bundled sample if there is no path.
        data: the path of that dataset; without a name, the path of any images, as `datasets.load_data` takes it.
        image_size: `(height, width)` to resize the images to.
        progress: called as `progress(done, total)` while the files of a folder are read.
        keep_test: as in `datasets.load_data`.

    Raises:
        ValueError: as `datasets.load` and `datasets.load_data`.
    """
    if dataset is None and data is not None:
        return datasets.load_data(data, image_size, progress, keep_test)
    images = datasets.load(dataset or SAMPLE, data)
    return images if image_size is None else datasets.resized(images, image_size)


def images_to_train_on(
    run: Path,
    dataset: str | None = None,
    data: str | Path | None = None,
    image_size: Size = None,
    progress: Progress = None,
) -> datasets.ImageDataset:
    """Load images by name or path. An unfinished run keeps the dataset that it began with.

    (Older versions of `train` treated everything at a path as MNIST.)

    Args:
        run: the folder of the run, which may not exist yet.
        dataset: a name, as `datasets.load` takes it. Defaults to the bundled sample if there is no path.
        data: the path of that dataset; without a name, the path of any images, as `datasets.load_data` takes it.
        image_size: `(height, width)` to resize the images to.
        progress: called as `progress(done, total)` while the files of a folder are read.

    Returns:
        An `ImageDataset`.

    Raises:
        ValueError: as `datasets.load` and `datasets.load_data`.

    Examples:
        >>> images_to_train_on(Path("runs/new")).x_train.shape
        (10000, 28, 28, 1)
    """
    images = named_images(dataset, data, image_size, progress)
    is_path = dataset is None and data is not None and image_size is None
    if is_path and images.name != "mnist" and (run / "run.json").is_file():
        with contextlib.suppress(ValueError):
            record = run_record.read_record(run)
            was = run_record.dataset_of(record, run)[0] if record.get("status") != "finished" else {}
            as_mnist = datasets.load("mnist", data) if was.get("name") == "mnist" else images
            return as_mnist if fingerprint(as_mnist) == was else images
    return images


def images_of_run(run: str | Path, image_size: Size = None, progress: Progress = None) -> datasets.ImageDataset:
    """Load the images that a run of `train` learned from, from their old place or their present one.

    Args:
        run: the folder of the run.
        image_size: `(height, width)` of the run's images, if they were resized.
        progress: called as `progress(done, total)` while the files of a folder are read.

    Returns:
        An `ImageDataset`.

    Raises:
        ValueError: if the images are no longer there, or are not those that the run learned from.

    Examples:
        >>> images_of_run("runs/digits").name  # doctest: +SKIP
        'mnist-sample'
    """
    of_run, source = dataset_of_run(run)
    is_there = of_run["name"] != SAMPLE and Path(source).exists()
    if of_run["name"] in CLASS_NAMES:
        images = named_images(of_run["name"], source if is_there else None, image_size)
    elif is_there:
        images = named_images(None, source, image_size, progress)
    else:
        raise ValueError(
            f"The images of the run in {run} are no longer at {source}. Choose the test images with `data`."
        )
    if fingerprint(images) != of_run:
        raise ValueError(
            f"The run in {run} was trained on different images than those in {images.source}. The file was changed or "
            "is another one. Choose the test images with `data`."
        )
    return images


class ImagesToTest(NamedTuple):
    """The images to test a classifier on.

    Attributes:
        images: the images; what counts is their test part.
        are_of_run: whether the run learned from their training part.
        are_all: whether the test part is all images that there are.
    """

    images: datasets.ImageDataset
    are_of_run: bool
    are_all: bool


def images_to_test(
    run: str | Path | None = None,
    dataset: str | None = None,
    data: str | Path | None = None,
    image_size: Size = None,
    progress: Progress = None,
) -> ImagesToTest:
    """Load the images to test a classifier on.

    Without a name and a path, those of its run, or else of the bundled sample. At a path, the test part, or else all
    images; but of images that the run learned from, only the part that it kept for the test.

    Args:
        run: the folder of the run of `train` that made the classifier; None if there is none.
        dataset: a name, as `datasets.load` takes it.
        data: the path of that dataset; without a name, the path of any images, as `datasets.load_data` takes it.
        image_size: `(height, width)` of the images that the classifier takes.
        progress: called as `progress(done, total)` while the files of a folder are read.

    Returns:
        `(images, are_of_run, are_all)`: an `ImageDataset`, of which the test part counts; whether the run learned from
        its training part; whether the test part is all images that there are.

    Raises:
        ValueError: as `images_of_run`, `datasets.load` and `datasets.load_data`.

    Examples:
        >>> images_to_test(dataset="mnist-sample").images.x_test.shape
        (2000, 28, 28, 1)
    """
    of_run = None if run is None else dataset_of_run(run)[0]
    if of_run is not None and run is not None and dataset is None and data is None:
        return ImagesToTest(images_of_run(run, image_size, progress), True, False)
    name = None if of_run is None else of_run["name"]
    if data is not None and dataset is None and (name not in CLASS_NAMES or name == SAMPLE):
        size = image_size if os.path.isdir(data) else None
        images = named_images(None, data, size, progress, keep_test=False)
        kept = None if images.has_test or run is None else _as_run_split_it(run, data, size, progress)
        chosen, are_all = kept or images, not images.has_test and kept is None
    else:
        chosen, are_all = datasets.load(dataset or name or SAMPLE, data), False
    return ImagesToTest(chosen, of_run is not None and fingerprint(chosen) == of_run, are_all)


def _as_run_split_it(
    run: str | Path, data: str | Path, image_size: Size, progress: Progress
) -> datasets.ImageDataset | None:
    """The images at a path, with the test part that a run kept which learned from the others; None if none did."""
    with contextlib.suppress(ValueError):  # too few images for a test part
        images = named_images(None, data, image_size, progress)
        of_run = dataset_of_run(run)[0]
        return images if {**fingerprint(images), "name": of_run["name"]} == of_run else None
    return None


def dataset_of_run(run: str | Path) -> tuple[dict[str, Any], str]:
    """The dataset of a run of `train`: its fingerprint and its place."""
    return run_record.dataset_of(run_record.read_record(Path(run)), Path(run))
