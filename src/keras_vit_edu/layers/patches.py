"""An image becomes a sequence: it is cut into patches, and each patch is flattened to a vector."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_vit_edu import _checks
from keras_vit_edu._types import DataFormat, Shape, Tensor
from keras_vit_edu.layers.hooks import through_hook


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class Patches(keras.layers.Layer):
    """Cut images into patches: `(B, H, W, C)` to `(B, N, ph * pw * C)`, with `N = (H / ph) * (W / pw)`.

    Patches come in reading order: left to right, then top to bottom. Inside a patch the pixels come in reading order
    too, with the channels of a pixel next to each other (the order of `tf.image.extract_patches`). Values are moved and
    not computed with, so they stay exact, in any real dtype. As in every Keras layer, floats are cast to the compute
    dtype.

    Args:
        patch_size: side of a patch in pixels, an int or `(height, width)`.
        data_format: `"channels_last"` for `(B, H, W, C)`, `"channels_first"` for `(B, C, H, W)`. Defaults to Keras's
            global setting. The patches are the same for both.
        **kwargs: arguments of `keras.layers.Layer`: `name`, `dtype`.

    Call arguments:
        images: tensor of rank 4 in the data format.

    Returns:
        Tensor `(B, N, ph * pw * C)`.

    Raises:
        ValueError: if the rank is not 4, or the patch does not divide the image.

    Reference:
        Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021), section 3.1.

    Examples:
        >>> import numpy as np
        >>> image = np.arange(16).reshape(1, 4, 4, 1)
        >>> keras.ops.convert_to_numpy(Patches(2)(image))[0].tolist()
        [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    """

    def __init__(self, patch_size: int | Sequence[int], data_format: DataFormat | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.patch_size = _checks.pair_of_ints("patch_size", patch_size)
        self.data_format = _checks.data_format(data_format)

    def build(self, input_shape: Shape) -> None:
        self.compute_output_shape(input_shape)  # complains about a shape that cannot be cut

    def call(self, images: Tensor) -> Tensor:
        self.compute_output_shape(images.shape)
        images = through_hook(self, "images", images)
        patch_height, patch_width = self.patch_size
        batch, rows, columns, channels = self._grid(ops.shape(images))
        if self.data_format == "channels_first":
            x = ops.reshape(images, (batch, channels, rows, patch_height, columns, patch_width))
            x = ops.transpose(x, (0, 2, 4, 3, 5, 1))
        else:
            x = ops.reshape(images, (batch, rows, patch_height, columns, patch_width, channels))
            x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        # x: (B, rows, columns, ph, pw, C)
        return ops.reshape(x, (batch, rows * columns, patch_height * patch_width * channels))

    def grid_size(self, image_shape: Shape) -> tuple[int | None, int | None]:
        """How many patches an image has.

        Args:
            image_shape: `(B, H, W, C)`, or `(B, C, H, W)` for `data_format="channels_first"`.

        Returns:
            `(rows, columns)`; None for a size that is not known.

        Raises:
            ValueError: if the rank is not 4, or the patch does not divide the image.
        """
        self.compute_output_shape(image_shape)  # complains about a shape that cannot be cut
        return self._grid(image_shape)[1:3]

    def restore(self, patches: Tensor, image_size: int | Sequence[int]) -> Tensor:
        """Put patches together again: the exact inverse of calling the layer.

        Args:
            patches: `(B, N, ph * pw * C)`.
            image_size: `(H, W)` in pixels, or an int for a square.

        Returns:
            Images `(B, H, W, C)`, or `(B, C, H, W)` if the layer's data format is channels_first.

        Raises:
            ValueError: if the number or length of the patches does not fit the image size.
        """
        patches = ops.convert_to_tensor(patches)
        height, width = _checks.pair_of_ints("image_size", image_size)
        patch_height, patch_width = self.patch_size
        rows, columns = height // patch_height, width // patch_width
        pixels = patch_height * patch_width
        received = f"Received: patches of shape {tuple(patches.shape)}, image_size={(height, width)}"
        if height % patch_height or width % patch_width:
            raise ValueError(f"`image_size` must be a multiple of patch_size={self.patch_size}. {received}")
        if len(patches.shape) != 3 or patches.shape[2] is None or patches.shape[2] % pixels:
            raise ValueError(f"`patches` must be (B, N, {patch_height} * {patch_width} * channels). {received}")
        batch, channels = ops.shape(patches)[0], patches.shape[2] // pixels
        if patches.shape[1] != rows * columns and (patches.shape[1] is not None or batch is None):
            raise ValueError(f"This image has {rows} * {columns} = {rows * columns} patches. {received}")
        if batch is None:  # in a functional model
            batch = -1
        x = ops.reshape(patches, (batch, rows, columns, patch_height, patch_width, channels))
        if self.data_format == "channels_first":
            x = ops.transpose(x, (0, 5, 1, 3, 2, 4))  # (B, C, rows, ph, columns, pw)
            return ops.reshape(x, (batch, channels, height, width))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))  # (B, rows, ph, columns, pw, C)
        return ops.reshape(x, (batch, height, width, channels))

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        shape = _checks.known_sizes(input_shape)
        if len(shape) != 4:
            layout = "(B, C, H, W)" if self.data_format == "channels_first" else "(B, H, W, C)"
            raise ValueError(f"Images must have 4 dimensions, {layout}. Received: images of shape {shape}")
        height, width = shape[2:] if self.data_format == "channels_first" else shape[1:3]
        for side, patch_side in zip((height, width), self.patch_size, strict=True):
            if side is not None and side % patch_side:
                raise ValueError(
                    f"`patch_size` must divide the image: {side} / {patch_side} leaves {side % patch_side} "
                    f"pixels over. Received: images of shape {shape}, patch_size={self.patch_size}"
                )
        batch, rows, columns, channels = self._grid(shape)
        num_patches = None if rows is None or columns is None else rows * columns
        patch_height, patch_width = self.patch_size
        return batch, num_patches, None if channels is None else patch_height * patch_width * channels

    def _grid(self, shape: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
        """Batch, rows of patches, columns of patches, channels; unknown sizes stay None."""
        if self.data_format == "channels_first":
            batch, channels, height, width = shape
        else:
            batch, height, width, channels = shape
        patch_height, patch_width = self.patch_size
        rows = None if height is None else height // patch_height
        columns = None if width is None else width // patch_width
        return batch, rows, columns, channels

    def compute_output_spec(self, images: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(images.shape), dtype=images.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "patch_size": self.patch_size, "data_format": self.data_format}
