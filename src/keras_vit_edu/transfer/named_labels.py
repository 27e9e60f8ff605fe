"""Labels that are names of classes instead of numbers."""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_vit_edu import _checks
from keras_vit_edu._files import printable
from keras_vit_edu.transfer.given_images import entries


def are_names(labels: Any) -> bool:
    """Whether it is a list of texts: a list, a tuple, an array or a Series of pandas, not empty."""
    several = entries(labels)
    return bool(several) and all(isinstance(label, str) for label in several or ())


def indices_of_names(labels: Any, class_names: Sequence[str]) -> np.ndarray:
    """Which of the classes each name is, int64 `(n,)`.

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
