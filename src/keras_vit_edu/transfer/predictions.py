"""Compute class probabilities and class names of photographs, batch by batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_vit_edu import _checks, evaluation
from keras_vit_edu.transfer import photographs
from keras_vit_edu.transfer.given_images import File
from keras_vit_edu.transfer.preprocessing import Preprocessing

Progress = Callable[[int, int], object]


class Predictions(list[list[tuple[str, float]]]):
    """What `TransferClassifier.predict` gives: for each image the most probable classes, the first one first.

    Args:
        classes: for each image, pairs of a class name and its probability; the entries of the list.
        files: where the images came from, paths or streams; None if they were arrays.
        skipped: pairs of a file that could not be read and the reason; its entry in the list is empty.
    """

    def __init__(
        self,
        classes: Sequence[list[tuple[str, float]]],
        files: Sequence[File] | None = None,
        skipped: Sequence[tuple[File, str]] = (),
    ) -> None:
        super().__init__(classes)
        self.files = None if files is None else tuple(files)
        self.skipped = tuple(skipped)


def best(row: np.ndarray, class_names: Sequence[str], top: int) -> list[tuple[str, float]]:
    """The `top` most probable classes: pairs of a name and a probability, the most probable first."""
    return [(class_names[i], float(row[i])) for i in np.argsort(-row, kind="stable")[:top]]


def probabilities_of_all(
    model: keras.Model,
    preprocessing: Preprocessing,
    images: Sequence[Any],
    batch_size: int,
    progress: Progress | None = None,
) -> np.ndarray:
    """As `probabilities_of_each`: float32 `(n, num_classes)`.

    Raises:
        ValueError: for a file that cannot be read.
    """
    rows: list[Any] = [None] * len(images)
    for place, row, reason in probabilities_of_each(model, preprocessing, images, batch_size, progress):
        if row is None:
            raise ValueError(reason)
        rows[place] = row
    return np.stack(rows)


def probabilities_of_each(
    model: keras.Model,
    preprocessing: Preprocessing,
    images: Sequence[Any],
    batch_size: int,
    progress: Progress | None = None,
) -> Iterator[tuple[int, np.ndarray | None, str]]:
    """Place and probabilities of each image, in their order; for a file that cannot be read None and the reason.

    Args:
        model: preprocessed images to logits.
        preprocessing: from raw images to what the model takes.
        images: as `photographs.images_given` gives them.
        batch_size: how many images at a time.
        progress: called as `progress(done, total)` after every batch.
    """
    batch_size = min(_checks.positive_int("batch_size", batch_size), len(images))
    done = 0
    for places, converted, failed in photographs.in_batches(images, preprocessing, batch_size):
        rows: Any = _of_batch(model, converted, batch_size) if places else []
        found: list[tuple[int, np.ndarray | None, str]] = [
            *((place, row, "") for place, row in zip(places, rows, strict=True)),
            *((place, None, reason) for place, reason in failed),
        ]
        yield from sorted(found, key=lambda entry: entry[0])
        done += len(found)
        if progress is not None:
            progress(done, len(images))


def _of_batch(model: keras.Model, converted: list[np.ndarray], batch_size: int) -> np.ndarray:
    """Probabilities `(b, num_classes)`. The batch is padded to `batch_size`, so that the model compiles only once."""
    filled = converted + [converted[-1]] * (batch_size - len(converted))
    return evaluation.probabilities(model, photographs.stacked(filled))[: len(converted)].astype("float32")
