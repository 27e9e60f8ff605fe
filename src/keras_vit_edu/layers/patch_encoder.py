"""A patch becomes a token: it is projected to the model's width, and its position is added."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit_edu import _checks, initializers
from keras_vit_edu._types import Shape, Tensor
from keras_vit_edu._weights import copy_of
from keras_vit_edu.layers.hooks import through_hook
from keras_vit_edu.layers.token_dense import TokenDense


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class PatchEncoder(keras.layers.Layer):
    """Project patches to tokens and add learned positions: `(B, N, P)` to `(B, num_prefix_tokens + N, D)`.

    `tokens = concatenate(prefix_tokens, patches W + b) + position_embedding`

    Attention does not know the order of its tokens, so each place in the sequence has a learned vector. Prefix tokens
    are learned too and come first. They stand for no patch: a class token, DeiT's distillation token, registers.

    Args:
        num_patches: N, the number of patches.
        projection_dim: D, the width of a token.
        num_prefix_tokens: number of learned tokens before the patches.
        grid_size: `(rows, columns)` of the patches. Only `resized` needs it.
        **kwargs: arguments of `keras.layers.Layer`: `name`, `dtype`.

    Call arguments:
        patches: `(B, N, P)`, any real dtype; cast to the layer's compute dtype.

    Returns:
        Tokens `(B, num_prefix_tokens + N, D)`.

    Variables:
        `projection/kernel` `(P, D)`, `projection/bias` `(D,)`, `position_embedding` `(num_prefix_tokens + N, D)` and,
        if there are prefix tokens, `prefix_tokens` `(num_prefix_tokens, D)`. The last two are uniform in +-0.05 at
        first, as Keras's Embedding is.

    Raises:
        ValueError: if the input does not have `num_patches` patches, or `grid_size` does not multiply to `num_patches`.

    References:
        Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021), equation 1.
        Darcet et al., "Vision transformers need registers" (ICLR 2024).

    Examples:
        >>> encoder = PatchEncoder(num_patches=16, projection_dim=64, num_prefix_tokens=1)
        >>> tuple(encoder(np.zeros((2, 16, 49), "float32")).shape)
        (2, 17, 64)
    """

    def __init__(
        self,
        num_patches: int,
        projection_dim: int,
        num_prefix_tokens: int = 0,
        grid_size: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_patches = _checks.positive_int("num_patches", num_patches)
        self.projection_dim = _checks.positive_int("projection_dim", projection_dim)
        self.num_prefix_tokens = _checks.positive_int("num_prefix_tokens", num_prefix_tokens, minimum=0)
        self.grid_size = None if grid_size is None else _checks.pair_of_ints("grid_size", grid_size)
        if self.grid_size is not None and self.grid_size[0] * self.grid_size[1] != self.num_patches:
            raise ValueError(
                "`grid_size` must be (rows, columns) with rows * columns = num_patches. "
                f"Received: grid_size={grid_size}, num_patches={num_patches}"
            )
        self.projection = TokenDense(
            self.projection_dim,
            kernel_initializer=initializers.get("glorot_uniform"),
            name="projection",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Shape) -> None:
        input_shape = _checks.known_sizes(input_shape)
        self._check_input_shape(input_shape)
        if input_shape[2] is None:
            raise ValueError(
                "The length of a patch, P, must be known: it is the height of the projection's kernel. "
                f"Received: patches of shape {tuple(input_shape)}"
            )
        self.projection.build(input_shape)
        if self.num_prefix_tokens:
            self.prefix_tokens = self.add_weight(
                name="prefix_tokens",
                shape=(self.num_prefix_tokens, self.projection_dim),
                initializer=initializers.RandomUniform(),
            )
        self.position_embedding = self.add_weight(
            name="position_embedding",
            shape=(self.num_prefix_tokens + self.num_patches, self.projection_dim),
            initializer=initializers.RandomUniform(),
        )

    def call(self, patches: Tensor) -> Tensor:
        self._check_input_shape(patches.shape)
        batch = ops.shape(patches)[0]
        if patches.shape[1] is None:  # under `tf.function`: another number fails here, where adding might broadcast it
            patches = ops.reshape(patches, (batch, self.num_patches, ops.shape(patches)[2]))
        tokens = self.projection(ops.cast(patches, self.compute_dtype))  # (B, N, D)
        if self.num_prefix_tokens:
            prefix = ops.broadcast_to(self.prefix_tokens, (batch, self.num_prefix_tokens, self.projection_dim))
            tokens = ops.concatenate([prefix, tokens], axis=1)
        return through_hook(self, "tokens", tokens + self.position_embedding)  # (B, num_prefix_tokens + N, D)

    def resized(self, new_grid: Sequence[int]) -> "PatchEncoder":
        """Make an encoder for images of another size, with the weights of this one.

        The positions of the patches are interpolated bicubically from the old grid to the new one, as an image of D
        channels would be, with antialiasing if the grid shrinks. Prefix tokens keep their positions.

        Args:
            new_grid: `(rows, columns)` of the patches.

        Returns:
            A new, built `PatchEncoder`. This encoder does not change.

        Raises:
            ValueError: if this encoder has no `grid_size`, is not built, or is quantized.
        """
        if self.grid_size is None:
            raise ValueError(
                "Positions can be resized only if `grid_size=(rows, columns)` is known: "
                f"{self.num_patches} patches may stand in several grids. Received: grid_size=None"
            )
        if not self.built:
            raise ValueError("Only an encoder with weights can be resized: build or call it first.")
        if self.projection.quantization_mode is not None:
            raise ValueError(
                "A quantized encoder cannot be resized: resize it first, then quantize. "
                f"Received: quantization_mode={self.projection.quantization_mode!r}"
            )
        rows, columns = _checks.pair_of_ints("new_grid", new_grid)
        config = {**self.get_config(), "num_patches": rows * columns, "grid_size": (rows, columns)}
        encoder = type(self).from_config(config)
        encoder.build((None, rows * columns, self.projection.kernel.shape[0]))
        encoder.projection.kernel.assign(copy_of(self.projection.kernel))  # LoRA's update, if any, is in it
        encoder.projection.bias.assign(copy_of(self.projection.bias))
        positions = ops.convert_to_numpy(self.position_embedding).astype("float64")
        prefix, patches = positions[: self.num_prefix_tokens], positions[self.num_prefix_tokens :]
        if self.num_prefix_tokens:
            encoder.prefix_tokens.assign(copy_of(self.prefix_tokens))
        encoder.position_embedding.assign(
            np.concatenate([prefix, resize_positions(patches, self.grid_size, (rows, columns))])
        )
        return encoder

    def _check_input_shape(self, shape: Shape) -> None:
        known = _checks.known_sizes(shape)
        if len(known) != 3:
            raise ValueError(f"Patches must have 3 dimensions, (B, N, P). Received: patches of shape {known}")
        if known[1] not in (None, self.num_patches):
            raise ValueError(
                f"This encoder has positions for num_patches={self.num_patches} patches, not for {known[1]}; "
                f"`resized` makes one for another grid. Received: patches of shape {known}"
            )

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        self._check_input_shape(input_shape)
        return _checks.known_sizes(input_shape)[0], self.num_prefix_tokens + self.num_patches, self.projection_dim

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_patches": self.num_patches,
            "projection_dim": self.projection_dim,
            "num_prefix_tokens": self.num_prefix_tokens,
            "grid_size": self.grid_size,
        }


def resize_positions(positions: np.ndarray, grid: tuple[int, int], new_grid: tuple[int, int]) -> np.ndarray:
    """Interpolate position vectors bicubically from one grid to another.

    Args:
        positions: `(rows * columns, D)`, in reading order.
        grid: its `(rows, columns)`.
        new_grid: the `(rows, columns)` wanted.

    Returns:
        float64 `(new_rows * new_columns, D)`.
    """
    table = positions.astype("float64").reshape(*grid, -1)  # (rows, columns, D)
    table = np.tensordot(bicubic_matrix(grid[0], new_grid[0]), table, axes=(1, 0))  # (new_rows, columns, D)
    table = np.tensordot(bicubic_matrix(grid[1], new_grid[1]), table, axes=(1, 1))  # (new_columns, new_rows, D)
    return table.swapaxes(0, 1).reshape(new_grid[0] * new_grid[1], -1)


def bicubic_matrix(old: int, new: int) -> np.ndarray:
    """The weights `(new, old)` that resample `old` points to `new` with Keys' cubic kernel, a = -1/2.

    The kernel is widened by `old / new` when there are fewer points than before (antialiasing), and each row is scaled
    to sum to 1, which takes care of the edges: the convention of Pillow, `jax.image` and timm.

    Reference:
        Keys, "Cubic convolution interpolation for digital image processing" (1981).
    """
    if old == new:
        return np.eye(old)
    stretch = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    x = np.abs(centres[:, None] - np.arange(old)[None, :]) / stretch  # (new, old)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)
