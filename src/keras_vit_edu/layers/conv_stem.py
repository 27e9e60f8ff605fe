"""A few small convolutions with strides, instead of cutting the image into patches."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from keras_vit_edu import _checks, initializers
from keras_vit_edu._types import Activation, DataFormat, Initializer, Shape, Tensor
from keras_vit_edu.layers.hooks import through_hook
from keras_vit_edu.layers.layer_normalization import LayerNormalization
from keras_vit_edu.layers.portable_dropout import PortableDropout


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class ConvStem(keras.layers.Layer):
    """Turn images into local features by 3x3 convolutions: `(B, H, W, C)` to `(B, N, filters[-1])`.

    `x = dropout(max_pooling(activation(normalization(convolution(x)))))`, once for each entry of `filters`

    A patch that is projected on its own says nothing about shapes that cross its border. Convolutions overlap, so they
    see these shapes, and a model learns from less data. Two convolutions of stride 2 turn 28x28 pixels into 14x14, then
    into 7x7 places. Each place becomes a token in the `PatchEncoder`, whose projection is the 1x1 convolution at the
    end of the stem of Xiao et al.

    There is no batch normalization: but for dropout, a model computes the same in training and afterwards, whatever
    else is in the batch. Layer normalization over the channels of each place keeps this property.

    In a `ViTBackbone`, `patch_size` must be the product of all strides and pools: 4 for the default strides and two
    filters.

    Args:
        filters: number of output channels of each convolution.
        strides: stride of each convolution. Defaults to 2 each. A stride of 1 keeps the size.
        pools: side of the max pooling's window after each convolution, in places, as in the compact transformer; 1 for
            no pooling. Defaults to no pooling.
        dropout: dropout rate, in training, after each step (convolution and pooling) that makes the image smaller.
        normalization: `"layer"` for layer normalization between each convolution and its activation. Defaults to none.
        activation: activation after each convolution. `"gelu"` is the exact GELU.
        kernel_initializer: initializer of every kernel. If it has an int seed, each kernel derives its own seed from
            it.
        data_format: `"channels_last"` for `(B, H, W, C)`, `"channels_first"` for `(B, C, H, W)`. Defaults to Keras's
            global setting.
        **kwargs: arguments of `keras.layers.Layer`: `name`, `dtype`.

    Each convolution pads the image with one row or column of zeros on every side. So stride s turns a side into
    ceil(side / s) on every backend. (`padding="same"` on TensorFlow would pad only at the end.) Pooling by p turns it
    into ceil(side / p); windows at the edge ignore what lies outside.

    Call arguments:
        images: float tensor of rank 4 in the data format.
        training: whether dropout acts.

    Returns:
        Features `(B, N, filters[-1])`, in reading order, with N = rows * columns places.

    Raises:
        ValueError: if there are no filters, a size is not a positive int, there are not as many strides or pools as
            filters, `dropout` is outside [0, 1), `normalization` is unknown, or the images do not have rank 4.

    References:
        Xiao et al., "Early convolutions help transformers see better" (NeurIPS 2021), arXiv 2106.14881.
        Ba et al., "Layer normalization" (2016), arXiv 1607.06450.
        Hassani et al., "Escaping the big data paradigm with compact transformers" (2021), arXiv 2104.05704.

    Examples:
        >>> import numpy as np
        >>> stem = ConvStem(filters=(32, 64))
        >>> tuple(stem(np.zeros((2, 28, 28, 1), "float32")).shape)
        (2, 49, 64)
    """

    def __init__(
        self,
        filters: Sequence[int],
        strides: Sequence[int] | None = None,
        pools: Sequence[int] | None = None,
        dropout: float = 0.0,
        normalization: Literal["layer"] | None = None,
        activation: Activation | None = "gelu",
        kernel_initializer: Initializer = "glorot_uniform",
        data_format: DataFormat | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = _checks.ints("filters", filters)
        self.strides = (2,) * len(self.filters) if strides is None else _checks.ints("strides", strides)
        self.pools = (1,) * len(self.filters) if pools is None else _checks.ints("pools", pools)
        if not self.filters or not len(self.filters) == len(self.strides) == len(self.pools):
            raise ValueError(
                "`filters`, `strides` and `pools` must have one entry per convolution, and there must be one at least. "
                f"Received: filters={filters!r}, strides={strides!r}, pools={pools!r}"
            )
        self.dropout = _checks.dropout_rate("dropout", dropout)
        if normalization not in (None, "layer"):
            raise ValueError(f"`normalization` must be 'layer' or None. Received: normalization={normalization!r}")
        self.normalization = normalization
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.data_format = _checks.data_format(data_format)
        self.convolutions = [
            keras.layers.Conv2D(
                width,
                kernel_size=3,
                strides=stride,
                padding="valid",
                kernel_initializer=initializers.for_child(self.kernel_initializer, f"convolution_{i}"),
                data_format="channels_last",
                dtype=self.dtype_policy,
                name=f"convolution_{i}",
            )
            for i, (width, stride) in enumerate(zip(self.filters, self.strides, strict=True))
        ]
        self.normalizations = [
            LayerNormalization(epsilon=1e-6, dtype=self.dtype_policy, name=f"normalization_{i}")
            if self.normalization
            else keras.layers.Identity(dtype=self.dtype_policy, name=f"normalization_{i}")
            for i in range(len(self.filters))
        ]
        self.dropouts = [
            PortableDropout(self.dropout if stride * pool > 1 else 0.0, dtype=self.dtype_policy, name=f"dropout_{i}")
            for i, (stride, pool) in enumerate(zip(self.strides, self.pools, strict=True))
        ]

    @property
    def stride(self) -> int:
        """The distance between neighbouring places, in pixels: the product of strides and pools."""
        return math.prod((*self.strides, *self.pools))

    def build(self, input_shape: Shape) -> None:
        shape = self._channels_last(input_shape)
        for convolution, normalization, pool in zip(self.convolutions, self.normalizations, self.pools, strict=True):
            convolution.build((shape[0], None, None, shape[3]))  # of any size, padding included
            shape = self._after(shape, convolution, pool)
            normalization.build((shape[0], None, None, shape[3]))

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        self._channels_last(images.shape)  # complains about a wrong rank
        x = ops.cast(through_hook(self, "images", images), self.compute_dtype)
        x = ops.transpose(x, (0, 2, 3, 1)) if self.data_format == "channels_first" else x  # (B, H, W, C)
        for convolution, normalization, pool, dropout in zip(
            self.convolutions, self.normalizations, self.pools, self.dropouts, strict=True
        ):
            x = convolution(ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))  # (B, ceil(H / s), ceil(W / s), filters)
            x = self.activation(normalization(x))
            if pool > 1:
                x = ops.max_pool(x, pool, pool, padding="same", data_format="channels_last")
            x = dropout(x, training=training)
        batch, rows, columns, width = ops.shape(x)
        return ops.reshape(x, (batch, rows * columns, width))

    def grid_size(self, image_shape: Shape) -> tuple[int | None, int | None]:
        """How many places the features have.

        Args:
            image_shape: `(B, H, W, C)`, or `(B, C, H, W)` for `data_format="channels_first"`.

        Returns:
            `(rows, columns)`; None for a size that is not known.
        """
        shape = self._channels_last(image_shape)
        for convolution, pool in zip(self.convolutions, self.pools, strict=True):
            shape = self._after(shape, convolution, pool)
        return shape[1], shape[2]

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        rows, columns = self.grid_size(input_shape)
        num_places = None if rows is None or columns is None else rows * columns
        return _checks.known_sizes(input_shape)[0], num_places, self.filters[-1]

    def compute_output_spec(self, images: Tensor, training: bool = False) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(images.shape), dtype=self.compute_dtype)

    def _channels_last(self, shape: Shape) -> tuple[int | None, ...]:
        shape = _checks.known_sizes(shape)
        if len(shape) != 4:
            layout = "(B, C, H, W)" if self.data_format == "channels_first" else "(B, H, W, C)"
            raise ValueError(f"Images must have 4 dimensions, {layout}. Received: images of shape {shape}")
        return (shape[0], *shape[2:], shape[1]) if self.data_format == "channels_first" else shape

    @staticmethod
    def _after(shape: tuple[int | None, ...], convolution: Any, pool: int) -> tuple[int | None, ...]:
        """The shape that a convolution and the pooling after it make of `(B, H, W, C)`."""
        sides = [None if side is None else -(-side // convolution.strides[0]) for side in shape[1:3]]
        return (shape[0], *(None if side is None else -(-side // pool) for side in sides), convolution.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "strides": self.strides,
            "pools": self.pools,
            "dropout": self.dropout,
            "normalization": self.normalization,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "data_format": self.data_format,
        }
