"""Choose the images for training and validation: parts of a split data set, or a share of every class."""

import dataclasses
import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from keras_vit_edu._files import printable
from keras_vit_edu.datasets import ImageFolder, find_split, stratified_split
from keras_vit_edu.datasets.image_csv import scan_images
from keras_vit_edu.datasets.image_source import name_of
from keras_vit_edu.transfer.class_names import are_names, indices_of_names, indices_of_subfolders
from keras_vit_edu.transfer.training_images import TrainingImages


def parts_of_split(train: Any, validation: Any, console: Console | None) -> tuple[Any, Any]:
    """If `train` is the path of a split data set, return its parts; else return both arguments unchanged.

    If `validation` is given, it replaces the part for validation. The part for the test is not used. The console shows
    what is used.

    Raises:
        ValueError: if the data set has no part for training.
    """
    split = find_split(train) if isinstance(train, (str, os.PathLike)) else None
    if split is None:
        return train, validation
    if split.train is None:
        parts = " and ".join(name_of(part) for part in split.parts)
        raise ValueError(f"A data set that is split must have a part `train`. Received: {parts}")
    said = [f"learning from {split.train.name}{os.sep}"]
    if validation is None and split.validation is not None:
        validation = split.validation
        said.append(f"validating on {validation.name}{os.sep}")
    if split.test is not None:
        said.append(f"{split.test.name}{os.sep} is left alone, to test the result on")
    said += [f"{folder.name}{os.sep} has no subfolders, and is left alone" for folder in split.without_classes]
    console = console or Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{name_of(split.path)} is split: {', '.join(said)}")
    return split.train, validation


def under_class_numbers(data: Any, class_names: Sequence[str]) -> Any:
    """Convert the labels of images to indices into `class_names`.

    Args:
        data: an `ImageFolder`, or the path of a folder or CSV, whose classes are some of `class_names`; a pair of
            images and labels, which may be names; anything else is returned unchanged.
        class_names: of the classifier.

    Raises:
        ValueError: if a class is not in `class_names`.

    Warns:
        UserWarning: if files were skipped in a folder that is given as a path.
    """
    if isinstance(data, (str, os.PathLike)):
        data = scan_images(data)
        _warn_of_skipped(data)
    if isinstance(data, (tuple, list)) and len(data) == 2 and are_names(data[1]):
        return data[0], indices_of_names(data[1], class_names)
    if not isinstance(data, ImageFolder):
        return data
    labels = indices_of_subfolders(data.class_names, class_names)[data.labels].astype("int32")
    return dataclasses.replace(data, class_names=tuple(class_names), labels=labels)


def _warn_of_skipped(found: ImageFolder) -> None:
    """Warn the caller of `fit` or `evaluate` about skipped files."""
    if found.skipped:
        file, reason = (printable(text) for text in found.skipped[0])
        warnings.warn(
            f"{len(found.skipped)} files were skipped in {printable(str(found.path))}: {file}: {reason}", stacklevel=4
        )


@dataclass(frozen=True)
class Part:
    """Some of the images, for training or validation."""

    images: TrainingImages
    indices: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Int32 `(len(indices),)`."""
        return self.images.labels[self.indices]

    @property
    def fingerprint(self) -> str:
        """A fingerprint of the images, their order and their labels: 64 hexadecimal digits."""
        digest = hashlib.sha256(self.images.fingerprint.encode())
        digest.update(self.labels.astype("<i4").tobytes() + self.indices.astype("<i8").tobytes())
        return digest.hexdigest()


def split_images(
    train: Any, validation: Any, share: float, seed: int, model: Any, count: int, console: Console
) -> tuple[Part, Part | None]:
    """Split images into training and validation, and check them against the model.

    Args:
        train: as `TrainingImages` takes them.
        validation: like `train`; None for a share of every class of `train`. Exact copies of an image are not split
            between training and validation.
        share: share of `train` for validation, in [0, 1); 0 for none.
        seed: seed of the split.
        model: the model, for errors.
        count: number of logits of the model.
        console: prints a note about copies.

    Returns:
        The parts for training and for validation (None for no validation).

    Raises:
        ValueError: if a class has no logit, for fewer images than classes, for images of one class only, or if training
            and validation have other classes.

    Warns:
        UserWarning: if images of the validation that was given are in training too.
    """
    images = TrainingImages(train, "the training images")
    _check_classes(images, model, count, "the training images")
    found = len(np.unique(images.labels))
    if len(images) < count:
        raise ValueError(
            f"There must be an image of every class at least. Received: {len(images)} images for {count} classes"
        )
    if found < 2:
        raise ValueError(
            f"There must be images of two classes or more. Received: {len(images)} images of class {images.labels[0]}"
        )
    if validation is not None:
        held = TrainingImages(validation, "the validation images")
        _check_classes(held, model, count, "the validation images")
        if None not in (held.class_names, images.class_names) and held.class_names != images.class_names:
            raise ValueError(
                "Training and validation must have the same classes. "
                f"Received: {', '.join(images.class_names or ())} and {', '.join(held.class_names or ())}"
            )
        known = len(set(images.digests).intersection(held.digests))
        if known:
            warnings.warn(
                f"{known} of the validation's images are in training too: accuracy will look better than it is.",
                stacklevel=3,
            )
        return Part(images, np.arange(len(images))), Part(held, np.arange(len(held)))
    if not share:
        return Part(images, np.arange(len(images))), None
    _, first, group = np.unique([digest.hex() for digest in images.digests], return_index=True, return_inverse=True)
    if len(first) < len(images):
        console.print(
            f"{len(images) - len(first)} of {len(images)} images are copies of others; "
            "copies stay together, in training or in validation"
        )
    originals = np.sort(first)  # the first of its copies each
    _, chosen = stratified_split(images.labels[originals], share, seed)
    in_validation = np.isin(group, group[originals[chosen]])
    return Part(images, np.flatnonzero(~in_validation)), Part(images, np.flatnonzero(in_validation))


def _check_classes(images: TrainingImages, model: Any, count: int, what: str) -> None:
    if images.class_names is not None and len(images.class_names) != count:
        raise ValueError(
            f"The model must have a logit for each class of {what}. "
            f"Received: {model.name} with {count} logits, and {len(images.class_names)} classes: "
            f"{', '.join(images.class_names[:10])}{', ...' if len(images.class_names) > 10 else ''}"
        )
    if images.labels.max() >= count:
        raise ValueError(
            f"Labels of {what} must be 0 to {count - 1}, as {model.name} has {count} logits. "
            f"Received: label {images.labels.max()}"
        )
