"""Class names, and class indices of labels and folders."""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_vit_edu import _checks
from keras_vit_edu._files import printable
from keras_vit_edu.transfer.given_images import entries


def checked_names(names: Any) -> tuple[str, ...]:
    """Class names in Unicode NFC, as in `ImageFolder`. Two of them may be equal, as in ImageNet.

    Raises:
        ValueError: if a name is not a text, or is empty.
    """
    several = names if isinstance(names, str) else list(names)
    checked = _checks.class_names(several, distinct=False)
    return tuple(unicodedata.normalize("NFC", name) for name in checked)


def are_names(labels: Any) -> bool:
    """Whether labels are texts: a non-empty list, tuple, array or Series of pandas."""
    several = entries(labels)
    return bool(several) and all(isinstance(label, str) for label in several or ())


def indices_of_names(labels: Any, class_names: Sequence[str]) -> np.ndarray:
    """Class indices of names, int64 `(n,)`.

    Raises:
        ValueError: for a name that no class has, or two have.

    Examples:
        >>> indices_of_names(["dog", "cat", "dog"], ("cat", "dog")).tolist()
        [1, 0, 1]
    """
    names = [unicodedata.normalize("NFC", name) for name in entries(labels) or ()]
    for name in dict.fromkeys(names):
        if class_names.count(name) != 1:
            first = printable(", ".join(class_names[:5])) + (", ..." if len(class_names) > 5 else "")
            hint = _checks.did_you_mean(name, class_names) or f"There are {len(class_names)}: {first}."
            twice = ", which two classes are called" if name in class_names else ""
            raise ValueError(f"Labels are class numbers or class names. {hint} Received: {name!r}{twice}")
    place = {name: index for index, name in enumerate(class_names)}
    return np.array([place[name] for name in names], "int64")


def indices_of_labels(labels: Any, class_names: Sequence[str]) -> np.ndarray:
    """Class indices of labels, which are indices or names: int64 `(n,)`.

    Raises:
        ValueError: for a label that is not a class.
    """
    if are_names(labels):
        return indices_of_names(labels, class_names)
    return _checks.labels("Labels", labels, len(class_names)).astype("int64")


def indices_of_subfolders(names: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
    """Class indices of the subfolders of an image folder, int64 `(number of subfolders,)`.

    Raises:
        ValueError: for a name that no class has, or two have.
    """
    unknown = [name for name in names if class_names.count(name) != 1]
    if unknown:
        first = printable(", ".join(class_names[:5])) + (", ..." if len(class_names) > 5 else "")
        twice = " (that name has two classes)" if unknown[0] in class_names else ""
        raise ValueError(
            f"The subfolders must have the names of classes; the classifier has {len(class_names)}: {first}. "
            f"Received: {len(names)} subfolders, of which {len(unknown)} have not, the first of them "
            f"{unknown[0]!r}{twice}"
        )
    return np.array([class_names.index(name) for name in names], "int64")
