"""A bias of the attention scores that depends on the offset between two patches."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit_edu import _checks
from keras_vit_edu._types import DType, Shape, Tensor

# exp() of it is 1 in 3,000: little enough to be no neighbour at first, enough to learn to be one.
LOWEST = -8.0


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class RelativePositionBias(keras.layers.Layer):
    """A learned number for every head and every offset between two patches: tokens `(B, T, D)` to `(1, h, T, T)`.

    The bias is added to the attention scores before the softmax: `softmax(Q K^T / sqrt(d) + bias)`. So a head can
    prefer "the patch on my left" at every place, which position vectors have to learn place by place. The bias of
    prefix tokens is 0.

    With `locality` above 0, attention begins as a convolution does: head i looks at its i-th neighbour, and less at
    patches that are farther from there,

    `bias[i, offset] = max(-locality * |offset - neighbour_i|^2, -8)`.

    Neighbours are sorted by distance, then in reading order: 4 heads look up, left, right and down, 8 heads at the
    corners too. (None looks at the patch itself: the skip connection carries it.) Training may change all of this.
    Swin learns the same table from zeros. ConViT begins in the same way, with a formula of three numbers per head
    instead of a table.

    In a `ViTBackbone`, write `RelativePositionBias()` or `RelativePositionBias(locality=1.0)`: the model fills in the
    sizes.

    Args:
        num_heads: h. Defaults to that of the `TransformerBlock` or `ViTBackbone` that receives this layer.
        grid_size: `(rows, columns)` of the patches. Defaults to that of the `ViTBackbone`.
        locality: how narrow each head's view is at first, 0 or more. With 0 every bias begins at 0.
        **kwargs: arguments of `keras.layers.Layer`: `name`, `dtype`.

    Call arguments:
        tokens: `(B, T, D)`. The last rows * columns tokens are the patches, in reading order. Only their
            number T is used.

    Returns:
        `(1, h, T, T)`; entry `[0, i, query, key]`.

    Variables:
        `table` `(h, (2 rows - 1) (2 columns - 1))`: a number for each offset, (key's row - query's row, key's column -
        query's column), in reading order from (1 - rows, 1 - columns) on.

    Raises:
        ValueError: if a size is not a positive int, or is not known when the layer is built; if `locality` is not a
            finite number of at least 0; if the tokens do not have rank 3, or there are fewer tokens than patches.

    References:
        Liu et al., "Swin transformer" (ICCV 2021), arXiv 2103.14030, equation 4.
        d'Ascoli et al., "ConViT: improving vision transformers with soft convolutional inductive biases" (ICML 2021),
        arXiv 2103.10697, on attention that begins as a convolution.

    Examples:
        >>> bias = RelativePositionBias(num_heads=4, grid_size=(1, 3))
        >>> tuple(bias(np.zeros((2, 3, 16))).shape), tuple(bias.table.shape)
        ((1, 4, 3, 3), (4, 5))
    """

    def __init__(
        self,
        num_heads: int | None = None,
        grid_size: Sequence[int] | None = None,
        locality: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = None if num_heads is None else _checks.positive_int("num_heads", num_heads)
        self.grid_size = None if grid_size is None else _checks.pair_of_ints("grid_size", grid_size)
        self.locality = _checks.non_negative("locality", locality)
        self.supports_masking = True

    def build(self, tokens_shape: Shape) -> None:
        self.compute_output_shape(tokens_shape)  # complains about a shape that does not fit
        rows, columns = self._sizes()[1]
        self.table = self.add_weight(
            name="table",
            shape=(self.num_heads, (2 * rows - 1) * (2 * columns - 1)),  # (h, offsets)
            initializer=self._first_table,
        )

    def _sizes(self) -> tuple[int, tuple[int, int]]:
        """`num_heads` and `grid_size`, which must be known by now."""
        if self.num_heads is None or self.grid_size is None:
            raise ValueError(
                "Give `num_heads` and `grid_size`, or give this layer to a `ViTBackbone`, which fills them in. "
                f"Received: num_heads={self.num_heads}, grid_size={self.grid_size}"
            )
        return self.num_heads, self.grid_size

    def _first_table(self, shape: Sequence[int], dtype: DType | None) -> Tensor:
        return ops.convert_to_tensor(local_bias(*self._sizes(), self.locality), dtype=dtype)

    def call(self, tokens: Tensor) -> Tensor:
        self.compute_output_shape(tokens.shape)
        grid_size = self._sizes()[1]
        prefix = ops.shape(tokens)[1] - grid_size[0] * grid_size[1]
        bias = ops.take(ops.transpose(self.table), offset_index(grid_size), axis=0)  # (N, N, h)
        bias = ops.transpose(bias, (2, 0, 1))  # (h, N, N); exporters of torch cannot take along axis 1
        return ops.pad(bias, ((0, 0), (prefix, 0), (prefix, 0)))[None]  # (1, h, T, T)

    def compute_mask(self, tokens: Tensor, previous_mask: Tensor) -> None:
        """The mask of the tokens does not apply to offsets."""

    def compute_output_shape(self, tokens_shape: Shape) -> tuple[int | None, ...]:
        num_heads, (rows, columns) = self._sizes()
        known = _checks.known_sizes(tokens_shape)
        if len(known) != 3 or (known[1] is not None and known[1] < rows * columns):
            raise ValueError(
                f"Tokens must be (B, T, D) with at least {rows} * {columns} tokens, the patches of the grid. "
                f"Received: tokens of shape {known}"
            )
        return 1, num_heads, known[1], known[1]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "grid_size": self.grid_size,
            "locality": self.locality,
        }


@functools.lru_cache(maxsize=4)  # the blocks of a model share it
def offset_index(grid_size: tuple[int, int]) -> np.ndarray:
    """The offset between each two patches, as its place in a row of the table: int32 `(N, N)`."""
    rows, columns = grid_size
    row, column = np.divmod(np.arange(rows * columns, dtype="int32"), np.int32(columns))
    row_offset, column_offset = (key[None, :] - key[:, None] for key in (row, column))  # (N, N)
    return (row_offset + rows - 1) * (2 * columns - 1) + column_offset + columns - 1


def local_bias(num_heads: int, grid_size: tuple[int, int], locality: float) -> np.ndarray:
    """What `RelativePositionBias` begins with: float32 `(h, (2 rows - 1) (2 columns - 1))`."""
    rows, columns = grid_size
    offsets = np.indices((2 * rows - 1, 2 * columns - 1)).reshape(2, -1) - [[rows - 1], [columns - 1]]  # (2, offsets)
    reach = math.isqrt(num_heads) + 1  # a circle of this radius holds more than num_heads places
    side = 2 * reach + 1
    around = np.indices((side, side)).reshape(2, -1) - reach  # (2, side^2), in reading order
    order = np.argsort((around**2).sum(axis=0), kind="stable")  # the nearest first; the first is the patch itself
    nearest = around[:, order[1 : num_heads + 1]]  # (2, h)
    squares = sum((offset - near[:, None]) ** 2 for offset, near in zip(offsets, nearest, strict=True))  # (h, offsets)
    return np.maximum(-locality * squares, LOWEST).astype("float32")
