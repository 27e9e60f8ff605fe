"""Evaluate a classifier: accuracy, metrics per class, confusion matrix, mistakes."""

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vit_edu import _checks, captions
from keras_vit_edu._files import write_atomically
from keras_vit_edu._image_model import shapes_of
from keras_vit_edu._inference import predict_batch

CONFUSED = 40  # most classes in the picture of the confusion matrix; 1000 would need gigabytes


@dataclass(frozen=True)
class Evaluation:
    """The predictions of a classifier for `n` images with known classes.

    Attributes:
        labels: the true classes, int `(n,)`.
        probabilities: softmax of the logits, float64 `(n, num_classes)`.
        class_names: names of the classes.

    Examples:
        >>> found = Evaluation(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]), ("cat", "dog"))
        >>> found.accuracy, found.confusion.tolist()
        (0.5, [[1, 0], [1, 0]])
    """

    labels: np.ndarray
    probabilities: np.ndarray
    class_names: tuple[str, ...]

    @property
    def predictions(self) -> np.ndarray:
        """The most probable class of each image, int `(n,)`."""
        return self.probabilities.argmax(axis=1)

    @property
    def accuracy(self) -> float:
        """The share of correctly classified images, 0 to 1."""
        return float(np.mean(self.predictions == self.labels))

    @property
    def standard_error(self) -> float:
        """Standard error of the accuracy p, sqrt(p (1 - p) / n): its variation between test sets of this size."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / len(self.labels))

    @property
    def confusion(self) -> np.ndarray:
        """Number of images of class `row` that were classified as `column`, int `(num_classes, num_classes)`."""
        count = len(self.class_names)
        pairs = self.labels.astype("int64") * count + self.predictions
        return np.bincount(pairs, minlength=count * count).reshape(count, count)

    @property
    def loss(self) -> float:
        """The mean cross-entropy, in nats."""
        right = self.probabilities[np.arange(len(self.labels)), self.labels]
        return float(-np.mean(np.log(np.maximum(right, np.finfo("float64").tiny))))

    def per_class(self) -> list[dict[str, Any]]:
        """For each class: name, number of images, precision, recall and F1 (None where the ratio is 0 / 0)."""
        matrix = self.confusion
        rows = []
        for index, name in enumerate(self.class_names):
            right, images, taken = matrix[index, index], matrix[index].sum(), matrix[:, index].sum()
            rows.append(
                {
                    "class": name,
                    "images": int(images),
                    "precision": _ratio(right, taken),
                    "recall": _ratio(right, images),
                    "f1": _ratio(2 * right, images + taken),
                }
            )
        return rows

    def mistakes(self, most: int) -> np.ndarray:
        """Indices of at most `most` wrongly classified images, the most confident mistakes first.

        Args:
            most: how many to return at most.

        Returns:
            int64 indices `(n,)`.
        """
        wrong = np.flatnonzero(self.predictions != self.labels)
        confidence = self.probabilities[wrong].max(axis=1)
        return wrong[np.argsort(-confidence, kind="stable")][:most]

    def of_occurring_classes(self, most: int | None = None) -> "Evaluation":
        """The evaluation without the classes that are neither a label nor a prediction of any image.

        Of 1000 classes often only a few are left. Accuracy, loss and the metrics per class do not change.

        Args:
            most: largest number of classes to keep, those with the most mistakes. Images whose label or prediction is
                another class are then removed too, which changes the metrics. None keeps all.

        Returns:
            An `Evaluation`.
        """
        matrix = self.confusion
        involved = matrix.sum(axis=0) + matrix.sum(axis=1)
        kept = np.flatnonzero(involved)
        if most is not None and len(kept) > most:
            mistaken = involved - 2 * matrix.diagonal()
            kept = np.sort(kept[np.argsort(-mistaken[kept], kind="stable")[:most]])
        place = np.full(len(self.class_names), -1)
        place[kept] = np.arange(len(kept))
        inside = (place[self.labels] >= 0) & (place[self.predictions] >= 0)
        return Evaluation(
            place[self.labels[inside]],
            self.probabilities[inside][:, kept],
            tuple(self.class_names[index] for index in kept),
        )

    def to_json(self) -> dict[str, Any]:
        """All metrics as JSON, without the individual images."""
        return {
            "images": len(self.labels),
            "accuracy": self.accuracy,
            "standard_error": self.standard_error,
            "loss": self.loss,
            "per_class": self.per_class(),
            "confusion": self.confusion.tolist(),
        }


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def evaluate(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], batch_size: int = 256
) -> Evaluation:
    """Evaluate a classifier on images with known classes.

    Args:
        model: maps images in [0, 1] to logits.
        images: uint8 `(n, H, W, C)`, 0 to 255. They are divided by 255 here.
        labels: class indices `(n,)` of an integer dtype, one per image.
        class_names: names of the classes.
        batch_size: images per batch.

    Returns:
        An `Evaluation`.

    Raises:
        ValueError: if `images` is empty or not uint8 (for example already divided by 255); if the model does not take
            such images, or its number of logits differs from the number of classes; if a label is not a class index.

    Examples:
        >>> model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
        >>> found = evaluate(model, np.zeros((3, 2, 2, 1), "uint8"), np.array([0, 1, 1]), ("cat", "dog"))
        >>> found.loss  # the two classes are equally probable  # doctest: +ELLIPSIS
        0.693...
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or not len(images):
        received = (
            f"{images.dtype} of shape {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        )
        raise ValueError(f"`images` must be a uint8 array, 0 to 255, of one image at least. Received: {received}")
    batch_size = _checks.positive_int("batch_size", batch_size)
    wanted, given = shapes_of(model, images.shape[1:])
    fits = len(wanted) == images.ndim - 1 and all(a in (None, b) for a, b in zip(wanted, images.shape[1:], strict=True))
    if not fits or given != (len(class_names),):
        raise ValueError(
            f"{model.name} takes images of shape {wanted} and has {given[-1]} classes. "
            f"Received: images of shape {images.shape[1:]} of {len(class_names)} classes"
        )
    labels = _checks.labels("`labels`", labels, len(class_names), len(images))
    scaled = (images[i : i + batch_size].astype("float32") / np.float32(255) for i in range(0, len(images), batch_size))
    found = np.concatenate([probabilities(model, batch) for batch in scaled])
    return Evaluation(np.asarray(labels, "int64"), found, tuple(class_names))


def probabilities(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """The probability of each class: the softmax of the logits.

    Args:
        model: maps images in [0, 1] to logits.
        images: float32 `(n, H, W, C)`, one batch.

    Returns:
        float64 `(n, num_classes)`; each row sums to 1.

    Raises:
        ValueError: if a logit is NaN or infinite.

    Examples:
        >>> model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(4)])
        >>> probabilities(model, np.zeros((1, 2, 2, 1), "float32")).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """
    logits = predict_batch(model, images).astype("float64")
    if not np.isfinite(logits).all():
        raise ValueError(
            "Logits must be finite. The weights are damaged, or training failed. "
            f"Received: {model.name}, which gives NaN or infinity"
        )
    return softmax(logits)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits `(n, num_classes)`; each row sums to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def write_evaluation(
    found: Evaluation,
    folder: Path,
    content: Mapping[str, Any],
    images: Callable[[np.ndarray], Iterable[np.ndarray]],
    name_of: Callable[[int], str],
    most: int = 24,
) -> list[str]:
    """Write `evaluate.json`, `confusion.png` and the most confident mistakes, `mistakes.png`.

    The confusion matrix shows the classes that occur, but at most the 40 most confused classes.

    Args:
        found: the evaluation.
        folder: folder for the files.
        content: content of `evaluate.json`, JSON.
        images: maps indices `(n,)` to n images, uint8 `(H, W, 1)` or `(H, W, 3)`; thumbnails for photographs.
        name_of: maps an index to the name of the image; for a file, its path from the subfolder on.
        most: largest number of mistakes to show; 0 for no `mistakes.png`.

    Returns:
        The names of the written files.

    Raises:
        ImportError: without matplotlib, before anything is written.

    Examples:
        >>> import tempfile
        >>> images = np.zeros((2, 28, 28, 1), "uint8")
        >>> found = Evaluation(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]), ("cat", "dog"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_evaluation(found, Path(folder), found.to_json(), lambda indices: images[indices], str)
        ['evaluate.json', 'confusion.png', 'mistakes.png']
    """
    from keras_vit_edu import plots

    write_atomically(folder / "evaluate.json", (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    drawn = found.of_occurring_classes(most=CONFUSED)
    plots.confusion_matrix(drawn.confusion, drawn.class_names, folder / "confusion.png")
    if not most:
        return ["evaluate.json", "confusion.png"]
    wrong = found.mistakes(most)
    texts = [
        functools.partial(
            captions.mistake,
            found.class_names[found.labels[i]],
            found.class_names[found.predictions[i]],
            float(found.probabilities[i].max()),
            name_of(int(i)),
        )
        for i in wrong
    ]
    plots.mistakes(list(images(wrong)) if len(wrong) else [], texts, folder / "mistakes.png")
    return ["evaluate.json", "confusion.png", "mistakes.png"]
