"""Classify photographs with a model, the preprocessing of its images, and its class names."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_vit_edu import _checks
from keras_vit_edu._files import printable
from keras_vit_edu._inference import turn
from keras_vit_edu._types import Images
from keras_vit_edu.datasets import ImageFolder
from keras_vit_edu.evaluation import Evaluation
from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.transfer import photographs
from keras_vit_edu.transfer.class_names import checked_names, indices_of_labels
from keras_vit_edu.transfer.model_checks import check_classifier
from keras_vit_edu.transfer.predictions import (
    Predictions,
    Progress,
    best,
    probabilities_of_all,
    probabilities_of_each,
)
from keras_vit_edu.transfer.preprocessing import Preprocessing
from keras_vit_edu.transfer.split_images import under_class_numbers

BATCH_SIZE = 32


class Predictor:
    """The methods of a `TransferClassifier` that do not train. See there for the arguments."""

    def __init__(
        self,
        model: keras.Model,
        preprocessing: Preprocessing,
        class_names: Sequence[str],
        provenance: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        names = checked_names(class_names)
        check_classifier(model, preprocessing, len(names))
        self.model: Any = model
        self.preprocessing = preprocessing
        self.class_names = names
        self.provenance = dict(provenance or {})
        self.metrics = dict(metrics or {})

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def is_opened(self) -> bool:
        """Whether the model is a ViT or DeiT made of this library's layers, which show their attention."""
        return isinstance(self.model, ViTClassifier)

    def predict(
        self, images: Images, top: int = 5, batch_size: int = BATCH_SIZE, progress: Progress | None = None
    ) -> Predictions:
        """The most probable classes of each image.

        Args:
            images: raw images, or files.
            top: how many classes to name.
            batch_size: how many images at a time.
            progress: called as `progress(done, total)` after every batch.

        Returns:
            A list with an entry for each image: `top` pairs of a class name and its probability, the most probable
            first; probabilities of all classes sum to 1. Among several files, the entry of one that cannot be read is
            empty, and `skipped` says why.

        Raises:
            ValueError: for arrays that are no images; if not one file can be read.
            ImportError: for files, without Pillow.

        Warns:
            UserWarning: if no value of the arrays is above 1, which looks like images from 0 to 1; if they have 16
                bits; if files were skipped.
        """
        top = min(_checks.positive_int("top", top), self.num_classes)
        files = photographs.image_files(images)
        if files is None:
            rows = self._rows(photographs.images_given(images), batch_size, progress)
            return Predictions([best(row, self.class_names, top) for row in rows])
        predictions = Predictions([[] for _ in files], files)
        skipped = []
        for place, row, reason in probabilities_of_each(self.model, self.preprocessing, files, batch_size, progress):
            if row is None:
                skipped.append((files[place], reason))
            else:
                predictions[place] = best(row, self.class_names, top)
        predictions.skipped = tuple(skipped)
        if len(skipped) == len(files):
            raise ValueError(skipped[0][1] + (f" ({len(files)} files, none can be read)" if len(files) > 1 else ""))
        if skipped:
            warnings.warn(
                f"{len(skipped)} of {len(files)} files were skipped: {printable(skipped[0][1])}", stacklevel=2
            )
        return predictions

    def predict_each(
        self, files: Images, top: int = 5, batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[Any, list[tuple[str, float]], str]]:
        """Predict file by file, and yield each result at once: for thousands of files.

        Args:
            files: a file, a folder, or a list of files.
            top: how many classes of each image to give, the most probable first.
            batch_size: images per step.

        Yields:
            The file (a path, or the stream), its most probable classes with their probabilities, and an empty string.
            For a file that cannot be read: the file, an empty list, and the reason.

        Raises:
            ValueError: at once, if `files` names no file, or a number is not a positive int.
        """
        top = min(_checks.positive_int("top", top), self.num_classes)
        paths = photographs.image_files(files)
        if paths is None:
            raise ValueError(f"There must be files. Received: {type(files).__name__}")
        _checks.positive_int("batch_size", batch_size)
        return (
            (paths[place], [] if row is None else best(row, self.class_names, top), reason)
            for place, row, reason in probabilities_of_each(self.model, self.preprocessing, paths, batch_size)
        )

    def probabilities(
        self, images: Images, batch_size: int = BATCH_SIZE, progress: Progress | None = None
    ) -> np.ndarray:
        """How probable each class is: the softmax of the logits. Arguments and warnings are those of `predict`.

        Returns:
            float32 `(B, num_classes)`; each row sums to 1.

        Raises:
            ValueError: for what is no image, and for a file that cannot be read.
            ImportError: for files, without Pillow.
        """
        return self._rows(photographs.images_given(images), batch_size, progress)

    def _rows(self, images: Sequence[Any], batch_size: int, progress: Progress | None) -> np.ndarray:
        return probabilities_of_all(self.model, self.preprocessing, images, batch_size, progress)

    def attention_scores(self, images: Images) -> list[np.ndarray]:
        """Attention scores of every block, in order.

        Args:
            images: raw images, or files.

        Returns:
            For each block float32 `(B, num_heads, T, T)`, entry `[b, h, query, key]`, each row sums to 1; the first of
            the T tokens are the class token and, in DeiT, the distillation token.

        Raises:
            ValueError: if the model is no opened ViT or DeiT, and as `probabilities`.
        """
        if not self.is_opened:
            raise ValueError(
                "Attention scores are only available for ViT and DeiT, which are opened. "
                f"Received: {self.model.name}, a {type(self.model).__name__}"
            )
        preprocessed = photographs.converted(photographs.images_given(images), self.preprocessing)
        with turn(self.model):
            scores = self.model.attention_scores(preprocessed)
        return [keras.ops.convert_to_numpy(keras.ops.cast(of_a_block, "float32")) for of_a_block in scores]

    def preprocess(self, images: Images) -> np.ndarray:
        """Preprocess images as the model takes them.

        Args:
            images: raw images, or files.

        Returns:
            float32 `(B, height, width, 3)`; `(B, 3, height, width)` if `preprocessing.data_format` is
            `"channels_first"`.

        Raises:
            ValueError: for what is no image, for a file that cannot be read, and for images of several sizes if the
                preprocessing leaves them as they are.
        """
        return photographs.converted(photographs.images_given(images), self.preprocessing)

    def evaluate(
        self,
        data: Images,
        labels: Sequence[int] | Sequence[str] | np.ndarray | None = None,
        batch_size: int = BATCH_SIZE,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Classify images whose classes are known.

        Args:
            data: an `ImageFolder`, or the path of a folder with one subfolder per class, or of a CSV as `scan_csv`
                reads it, whose names are class names of the classifier (some may be missing); or raw images or files,
                with `labels`.
            labels: int `(n,)`, indices into the classifier's `class_names`; or these names.
            batch_size: how many images at a time.
            progress: called as `progress(done, total)` after every batch.

        Returns:
            A `training.Evaluation` under the classifier's class names.

        Raises:
            ValueError: if a subfolder has the name of no class, or of two; for labels that are no such indices, or of
                another number than there are images; as `scan_folder` and `probabilities`.

        Warns:
            UserWarning: if files were skipped in a folder that is given as a path.
        """
        if labels is not None:
            indices = indices_of_labels(labels, self.class_names)
        elif isinstance(data, (str, os.PathLike, ImageFolder)):
            data = under_class_numbers(data, self.class_names)
            indices = data.labels.astype("int64")
        else:
            raise ValueError(f"Without `labels` there must be a folder of images. Received: {type(data).__name__}")
        images = photographs.images_given(data)
        if len(images) != len(indices):
            raise ValueError(f"There must be a label for each image. Received: {len(indices)} for {len(images)} images")
        found = self._rows(images, batch_size, progress)
        return Evaluation(indices, found.astype("float64"), self.class_names)
