"""The masks of attention, checked and combined into one, which `attention_weights` applies."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras import ops

from keras_vit_edu import _checks


@dataclass(frozen=True)
class AttentionMasks:
    """The masks that a call of attention received; True where a query may attend. None where there is none.

    Args:
        query: boolean `(B, T)`; True where a query is real.
        value: boolean `(B, S)`.
        key: boolean `(B, S)`.
        attention: `(T, S)`, `(B, T, S)` or `(B, h, T, S)`.
        is_causal: whether query t attends to keys 0 to t only.
    """

    query: Any = None
    value: Any = None
    key: Any = None
    attention: Any = None
    is_causal: bool = False

    def check(self, batch: Any, num_heads: int, rows: Any, columns: Any) -> None:
        """Raise a ValueError for a mask that does not broadcast to `(B, h, T, S)`; sizes may be None."""
        check_broadcasts("query_mask", self.query, (batch, rows))
        check_broadcasts("value_mask", self.value, (batch, columns))
        check_broadcasts("key_mask", self.key, (batch, columns))
        check_broadcasts(
            "attention_mask",
            self.attention,
            (rows, columns),
            (batch, rows, columns),
            (batch, num_heads, rows, columns),
        )

    def combined(self, query: Any, key: Any) -> Any:
        """All masks in one, boolean, broadcastable to `(B, h, T, S)`; None if there is none.

        Args:
            query: `(B, T, Dq)`.
            key: `(B, S, Dk)`.
        """
        masks = []
        if self.attention is not None:
            new_axes = {2: (0, 1), 3: (1,), 4: ()}[len(self.attention.shape)]
            masks.append(ops.expand_dims(self.attention, new_axes))  # (B or 1, h or 1, T, S)
        if self.query is not None:
            masks.append(self.query[:, None, :, None])  # (B, 1, T, 1)
        if self.value is not None:
            masks.append(self.value[:, None, None, :])  # (B, 1, 1, S)
        if self.key is not None:
            masks.append(self.key[:, None, None, :])  # (B, 1, 1, S)
        if self.is_causal:
            row = ops.arange(ops.shape(query)[1])[:, None]  # (T, 1)
            column = ops.arange(ops.shape(key)[1])[None, :]  # (1, S)
            masks.append((row >= column)[None, None])  # (1, 1, T, S)
        masks = [ops.cast(mask, "bool") for mask in masks]
        return functools.reduce(ops.logical_and, masks) if masks else None


def check_broadcasts(name: str, mask: Any, *allowed: tuple[Any, ...]) -> None:
    """Raise a ValueError unless `mask` is None or broadcasts to one of the allowed shapes."""
    if mask is not None and not hasattr(mask, "shape"):
        raise ValueError(f"`{name}` must be an array or a tensor. Received: a {type(mask).__name__}")
    if mask is None or any(_broadcasts(_checks.known_sizes(mask.shape), shape) for shape in allowed):
        return
    raise ValueError(
        f"`{name}` must broadcast to {' or '.join(str(shape) for shape in allowed)}. "
        f"Received: {name} of shape {_checks.known_sizes(mask.shape)}"
    )


def _broadcasts(shape: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Whether `shape` broadcasts to `wanted`, of the same rank; None may be any size."""
    return len(shape) == len(wanted) and all(
        own == 1 or None in (own, size) or own == size for own, size in zip(shape, wanted, strict=True)
    )
