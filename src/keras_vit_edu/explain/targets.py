"""Which logit an explanation explains, and against which other."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Classes = int | Sequence[int] | np.ndarray


def target_rows(logits: np.ndarray, target: Classes | None = None, against: Classes | None = None) -> np.ndarray:
    """The number that is explained, as a weight for every logit: `sum(logits * rows)`.

    Args:
        logits: `(B, num_classes)`.
        target: index of a class, or one for each image. Defaults to the class with the largest logit.
        against: index of another class, or one for each image, to explain why `target` and not this one: the difference
            of the two logits. Defaults to none.

    Returns:
        float32 `(B, num_classes)`: 1 at the target, -1 at the class that it is compared with, 0 elsewhere.

    Raises:
        ValueError: if a class is out of range, or both are the same.

    Examples:
        >>> target_rows(np.array([[0.1, 0.7, 0.2]])).tolist()
        [[0.0, 1.0, 0.0]]
        >>> target_rows(np.array([[0.1, 0.7, 0.2]]), target=2, against=1).tolist()
        [[0.0, -1.0, 1.0]]
    """
    if logits.ndim != 2:
        raise ValueError(
            "Only a classifier has classes to explain: its output is (B, num_classes). "
            f"Received: an output of shape {logits.shape}"
        )
    rows = np.zeros(logits.shape, "float32")
    each = np.arange(len(logits))
    chosen = logits.argmax(axis=1) if target is None else _indices("target", target, logits.shape)
    rows[each, chosen] = 1
    if against is not None:
        other = _indices("against", against, logits.shape)
        if (other == chosen).any():
            both = other[other == chosen][0]
            raise ValueError(f"`against` must be another class than `target`. Received: class {both} for both")
        rows[each, other] = -1
    return rows


def _indices(name: str, classes: Any, shape: tuple[int, ...]) -> np.ndarray:
    count, num_classes = shape
    found = np.asarray(classes)
    if found.dtype.kind not in "iu" or found.ndim > 1 or (found.ndim == 1 and len(found) != count):
        raise ValueError(f"`{name}` must be an int, or one for each of {count} images. Received: {name}={classes!r}")
    if (found < 0).any() or (found >= num_classes).any():
        raise ValueError(f"`{name}` must be 0 to {num_classes - 1}. Received: {name}={classes!r}")
    return np.broadcast_to(found, count)
