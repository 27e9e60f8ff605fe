"""Patches that see beyond their borders."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_vit_edu import _checks
from keras_vit_edu._types import DataFormat, Shape, Tensor
from keras_vit_edu.layers.hooks import through_hook
from keras_vit_edu.layers.patches import Patches


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class ShiftedPatches(keras.layers.Layer):
    """Cut images and four shifted copies of them into patches: `(B, H, W, C)` to `(B, N, ph * pw * 5 C)`.

    Each image is copied four times. The copies are moved by half a patch: up and left, up and right, down and left,
    down and right; zeros fill the gap. All five become the channels of one image, which is cut into patches. So a patch
    holds the halves of its neighbours too, and some patch sees whole what crosses a border. This helps with small data
    sets. The layer has no weights.

    (The paper normalises the vectors before their projection. `PatchEncoder` does not.)

    Args:
        patch_size: side of a patch in pixels, an int or `(height, width)`, 2 or more.
        data_format: `"channels_last"` for `(B, H, W, C)`, `"channels_first"` for `(B, C, H, W)`. Defaults to Keras's
            global setting. The patches are the same for both.
        **kwargs: arguments of `keras.layers.Layer`: `name`, `dtype`.

    Call arguments:
        images: tensor of rank 4 in the data format.

    Returns:
        Tensor `(B, N, ph * pw * 5 C)`. Patches and pixels are ordered as in `Patches`. A pixel has the channels of the
        image, then those of the copies in the order above.

    Raises:
        ValueError: if the rank is not 4, the patch does not divide the image, or a side of the patch is one pixel.

    Reference:
        Lee et al., "Vision transformer for small-size datasets" (2021), arXiv 2112.13492, section 3.1: shifted patch
        tokenization.

    Examples:
        >>> import numpy as np
        >>> tuple(ShiftedPatches(4)(np.zeros((2, 28, 28, 1))).shape)
        (2, 49, 80)
    """

    def __init__(self, patch_size: int | Sequence[int], data_format: DataFormat | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.patches = Patches(patch_size, data_format=data_format, dtype=self.dtype_policy, name="patches")
        self.patch_size = self.patches.patch_size
        self.data_format = self.patches.data_format
        if min(self.patch_size) < 2:
            raise ValueError(f"`patch_size` must be 2 or more, to be halved. Received: patch_size={self.patch_size}")

    def build(self, input_shape: Shape) -> None:
        self.compute_output_shape(input_shape)  # complains about a shape that cannot be cut
        self.patches.build(
            _checks.known_sizes(input_shape)
        )  # has no weights, so that the number of channels does not matter

    def call(self, images: Tensor) -> Tensor:
        self.compute_output_shape(images.shape)
        images = through_hook(self, "images", images)
        is_first = self.data_format == "channels_first"
        up, left = (side // 2 for side in self.patch_size)
        height, width = ops.shape(images)[2:] if is_first else ops.shape(images)[1:3]
        around = ((up, up), (left, left))
        padded = ops.pad(images, ((0, 0), (0, 0), *around) if is_first else ((0, 0), *around, (0, 0)))
        views = [images]
        for top in (2 * up, 0):  # moved up, then down
            for start in (2 * left, 0):
                rows, columns = slice(top, top + height), slice(start, start + width)
                views.append(padded[:, :, rows, columns] if is_first else padded[:, rows, columns])
        return self.patches(ops.concatenate(views, axis=1 if is_first else 3))

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        batch, num_patches, length = self.patches.compute_output_shape(input_shape)
        return batch, num_patches, None if length is None else 5 * length

    def compute_output_spec(self, images: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(images.shape), dtype=images.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "patch_size": self.patch_size, "data_format": self.data_format}
