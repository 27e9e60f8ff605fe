"""The images of `--dataset`, `--data` and `--image-size`, and the images of a run."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from keras_vit_edu import datasets
from keras_vit_edu.cli.mistakes import UsersMistake
from keras_vit_edu.cli.progress_bar import progress_bar
from keras_vit_edu.datasets.mnist import CLASS_NAMES
from keras_vit_edu.models.preset_files import read_json
from keras_vit_edu.training import run_record
from keras_vit_edu.training.train import fingerprint

SAMPLE = "mnist-sample"  # the default dataset


def images_named(
    dataset: str | None,
    data: Path | None,
    size: tuple[int, int] | None,
    begun: Path | None = None,
    keep_test: bool = True,
) -> datasets.ImageDataset:
    """The images of `--dataset`, `--data` and `--image-size`. An unfinished run keeps the dataset it began with.

    (Older versions of `train` treated everything in `--data` as MNIST.)
    """
    if dataset is not None or data is None:
        images = datasets.load(dataset or SAMPLE, data)
        return images if size is None else datasets.resized(images, size)
    with progress_bar("looking at the files") as progress:
        images = datasets.load_data(data, size, progress, keep_test)
    if size is None and begun is not None and images.name != "mnist" and (begun / "run.json").is_file():
        with contextlib.suppress(ValueError):
            was = dataset_of_run(begun)[0] if read_json(begun / "run.json").get("status") != "finished" else {}
            as_mnist = datasets.load("mnist", data) if was.get("name") == "mnist" else images
            return as_mnist if fingerprint(as_mnist) == was else images
    return images


def image_size_of(text: str | None) -> tuple[int, int] | None:
    """`"64"` to `(64, 64)`, `"48x64"` to `(48, 64)`."""
    if text is None:
        return None
    try:
        sides = [int(side) for side in text.lower().split("x")]
        height, width = sides * 2 if len(sides) == 1 else sides
        if min(height, width) < 1:
            raise ValueError
    except ValueError:
        raise UsersMistake(
            f"`--image-size` must be a number of pixels (64) or height x width (48x64). Received: {text!r}"
        ) from None
    return height, width


def sides(model: Any) -> tuple[int, int]:
    """Height and width of a classifier's images."""
    shape = tuple(model.input_shape[1:])
    return shape[1:] if getattr(model, "data_format", "") == "channels_first" else shape[:2]


def images_of_run(run: Path, size: tuple[int, int]) -> datasets.ImageDataset:
    """The images of a run of `train`, from their old place or their present one."""
    of_run, source = dataset_of_run(run)
    is_there = of_run["name"] != SAMPLE and Path(source).exists()
    if of_run["name"] in CLASS_NAMES:
        images = datasets.resized(datasets.load(of_run["name"], source if is_there else None), size)
    elif is_there:
        images = images_named(None, Path(source), size)
    else:
        raise ValueError(
            f"The images of the run in {run} are no longer at {source}. Choose the test images with --data."
        )
    if fingerprint(images) != of_run:
        raise ValueError(
            f"The run in {run} was trained on different images than those in {images.source}. The file was changed or "
            "is another one. Choose the test images with --data."
        )
    return images


def as_learned_from(run: Path, data: Path, size: tuple[int, int] | None) -> datasets.ImageDataset | None:
    """The images in `data`, with the same test part as in a run that was trained on the others; None if it was not."""
    with contextlib.suppress(ValueError):  # too few images for a test part
        images = images_named(None, data, size)
        of_run = dataset_of_run(run)[0]
        return images if {**fingerprint(images), "name": of_run["name"]} == of_run else None
    return None


def dataset_of_run(run: Path) -> tuple[dict[str, Any], str]:
    """The dataset of a run of `train`: its fingerprint and its place."""
    return run_record.dataset_of(run_record.read_record(run), run)
