"""Classify files of digits or photographs one by one, and draw a sheet of the first ones."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np

from keras_vit_edu import datasets, training
from keras_vit_edu.classify_report import Classified
from keras_vit_edu.datasets.thumbnail import thumbnail
from keras_vit_edu.digits.digit_photo import checked_picture, find_in, in_mnists_form
from keras_vit_edu.digits.looks_like_digit import check_found
from keras_vit_edu.load_classifier import LoadedClassifier
from keras_vit_edu.transfer import TransferClassifier
from keras_vit_edu.transfer.photographs import as_seen

PICTURED = 20  # files on a sheet, at most


class DigitSheet:
    """The first classified digits, to draw."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, file: Path, image: np.ndarray, digit: np.ndarray, probabilities: np.ndarray) -> None:
        """Keep a digit to draw.

        Args:
            file: its path.
            image: the picture, `(H, W, 3)`.
            digit: what the model saw, `(28, 28, 1)`.
            probabilities: `(num_classes,)`.
        """
        if len(self.rows) < PICTURED:
            self.rows.append((file.name, thumbnail(image), digit, probabilities))

    def draw(self, png: Path) -> None:
        """Draw a row for each."""
        from keras_vit_edu import plots

        names, pictures, digits, shares = zip(*self.rows, strict=True)
        plots.classified(names, pictures, digits, shares, datasets.DIGITS, png)


class PhotographSheet:
    """The first classified photographs, to draw."""

    def __init__(self, classifier: TransferClassifier) -> None:
        self.classifier = classifier
        self.rows: list[tuple[str, np.ndarray, np.ndarray, Sequence[tuple[str, float]]]] = []

    def add(self, found: Classified) -> None:
        """Keep a photograph to draw. It is read again, because predictions keep no pixels."""
        if len(self.rows) < PICTURED:
            image = datasets.read_image(found.file)
            seen = as_seen(image, self.classifier.preprocessing)
            self.rows.append((found.file.name, thumbnail(image), thumbnail(seen), found.best))

    def draw(self, png: Path) -> None:
        """Draw a row for each."""
        from keras_vit_edu import plots

        names, pictures, seen, best = zip(*self.rows, strict=True)
        plots.classified_photographs(names, pictures, seen, best, png)


def check_reads_digits(name: str, loaded: LoadedClassifier) -> None:
    """Raise a `ValueError` unless a classifier takes images of MNIST's form and has the classes 0 to 9.

    Args:
        name: what the error calls it.
        loaded: the classifier. Without names of its classes, ten are taken for the digits.
    """
    image_shape, classes = tuple(loaded.model.input_shape[1:]), loaded.model.output_shape[-1]
    known = loaded.class_names or (datasets.DIGITS if classes == len(datasets.DIGITS) else ())
    if image_shape != (28, 28, 1) or known != datasets.DIGITS:
        raise ValueError(
            "A model for digits takes images of shape (28, 28, 1) and has the classes 0 to 9. "
            f"Received: {name}, images of shape {image_shape}, {classes} classes: {', '.join(known) or 'without names'}"
        )


def classify_digits(
    files: Sequence[Path],
    classifier: keras.Model,
    top: int | None = None,
    check: bool = True,
    sheet: DigitSheet | None = None,
    hint: str = "",
) -> Iterator[Classified]:
    """Classify pictures of digits.

    Args:
        files: pictures of one digit each.
        classifier: maps images `(B, 28, 28, 1)` in [0, 1] to 10 logits.
        top: number of digits to return for each picture. Defaults to 3.
        check: report an error for a picture that does not look like a digit.
        sheet: keeps the first pictures; None to keep none.
        hint: advice to add to the error of a picture that shows no digit.

    Raises:
        ImportError: without Pillow.
    """
    for file in files:
        try:
            image = datasets.read_image(file)
        except ValueError as error:
            yield Classified(file, error=str(error))
            continue
        try:
            found_digit = find_in(checked_picture(image))
            if check:
                check_found(found_digit)
            digit = in_mnists_form(found_digit)
        except ValueError as error:
            yield Classified(file, error=_with_hint(str(error), hint))
            continue
        found = training.probabilities(classifier, digit[None])[0]
        if sheet is not None:
            sheet.add(file, image, digit, found)
        best = np.argsort(-found, kind="stable")[: top or 3]
        yield Classified(file, tuple((datasets.DIGITS[i], float(found[i])) for i in best))


def _with_hint(error: str, hint: str) -> str:
    """An error with advice before its `Received: ...`."""
    expected, received, found = error.partition(". Received: ")
    return f"{expected} ({hint}){received}{found}" if hint else error


def classify_photographs(
    files: Sequence[Path], classifier: TransferClassifier, top: int | None = None, sheet: PhotographSheet | None = None
) -> Iterator[Classified]:
    """Classify photographs.

    Args:
        files: photographs.
        classifier: the model with its preprocessing and class names.
        top: number of classes to return for each photograph. Defaults to 5.
        sheet: keeps the first photographs; None to keep none.

    Raises:
        ValueError: for images of several sizes, if the model does not resize them.
        ImportError: without Pillow.
    """
    for file, best, reason in classifier.predict_each(files, top or 5):
        found = Classified(file, tuple(best), reason)
        if sheet is not None and best:
            sheet.add(found)
        yield found
