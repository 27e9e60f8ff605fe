"""The Vision Transformer without its head: an image becomes tokens."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_vit_edu import _checks, initializers
from keras_vit_edu.layers import PatchEncoder, Patches, TransformerBlock


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class ViTBackbone(keras.Model):
    """Vision Transformer from image to tokens: `(B, H, W, C)` to `(B, num_prefix_tokens + N, D)`.

    Patches, patch encoder, `num_layers` transformer blocks, one last layer normalisation.

    Args:
        image_shape: `(H, W, C)`, or `(C, H, W)` for `data_format="channels_first"`.
        patch_size: side of a patch in pixels, an int or `(height, width)`; must divide the image.
        projection_dim: D, the width of a token.
        num_layers: number of transformer blocks.
        num_heads: attention heads in each.
        key_dim: size of one head.
        mlp_dim: width of the hidden layer of each block's MLP.
        num_prefix_tokens: learned tokens before the patches: a class token, registers.
        dropout, attention_dropout, activation, output_activation, use_bias, layer_norm_epsilon, kernel_initializer:
            of every `TransformerBlock`. An initializer with a seed gives each block a seed of its own.
        data_format: None for Keras's global setting.
        **kwargs: of `keras.Model`: `name`, `dtype`.

    Call arguments:
        images: float `(B, H, W, C)`, values in [0, 1].

    Returns:
        Tokens `(B, num_prefix_tokens + N, D)`.

    Raises:
        ValueError: for sizes that are no positive ints, a rate outside [0, 1), or a patch that does not divide the
            image.

    Reference:
        Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021), equations 1 to 4.

    >>> backbone = ViTBackbone((28, 28, 1), 7, projection_dim=64, num_layers=2, num_heads=4, key_dim=16, mlp_dim=128)
    >>> backbone.output_shape
    (None, 16, 64)
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        patch_size: int | Sequence[int],
        projection_dim: int,
        num_layers: int,
        num_heads: int,
        key_dim: int,
        mlp_dim: int,
        num_prefix_tokens: int = 0,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        activation: Any = "gelu",
        output_activation: Any = None,
        use_bias: bool = True,
        layer_norm_epsilon: float = 1e-6,
        kernel_initializer: Any = "glorot_uniform",
        data_format: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        image_shape = tuple(_checks.positive_int("image_shape", side) for side in image_shape)
        num_layers = _checks.positive_int("num_layers", num_layers)
        kernel_initializer = initializers.get(kernel_initializer)

        patches = Patches(patch_size, data_format=data_format, dtype=policy, name="patches")
        images = keras.Input(image_shape, name="images")
        tokens = patches(images)
        rows, columns = patches.grid_size(images.shape)
        tokens = PatchEncoder(
            rows * columns,
            projection_dim,
            num_prefix_tokens=num_prefix_tokens,
            grid_size=(rows, columns),
            dtype=policy,
            name="patch_encoder",
        )(tokens)
        for i in range(num_layers):
            tokens = TransformerBlock(
                num_heads,
                key_dim,
                mlp_dim,
                dropout=dropout,
                attention_dropout=attention_dropout,
                activation=activation,
                output_activation=output_activation,
                use_bias=use_bias,
                layer_norm_epsilon=layer_norm_epsilon,
                kernel_initializer=initializers.for_child(kernel_initializer, f"transformer_block_{i}"),
                dtype=policy,
                name=f"transformer_block_{i}",
            )(tokens)
        tokens = keras.layers.LayerNormalization(epsilon=layer_norm_epsilon, dtype=policy, name="encoder_norm")(tokens)
        super().__init__(inputs=images, outputs=tokens, **kwargs)

        self.dtype_policy = policy
        self.image_shape = image_shape
        self.patch_size = patches.patch_size
        self.grid_size = (rows, columns)
        self.projection_dim = projection_dim
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.mlp_dim = mlp_dim
        self.num_prefix_tokens = num_prefix_tokens
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.activation = keras.activations.get(activation)
        self.output_activation = keras.activations.get(output_activation)
        self.use_bias = use_bias
        self.layer_norm_epsilon = layer_norm_epsilon
        self.kernel_initializer = kernel_initializer
        self.data_format = patches.data_format

    @property
    def transformer_blocks(self) -> list[TransformerBlock]:
        """The transformer blocks, the first one first."""
        return [self.get_layer(f"transformer_block_{i}") for i in range(self.num_layers)]

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "image_shape": self.image_shape,
            "patch_size": self.patch_size,
            "projection_dim": self.projection_dim,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "mlp_dim": self.mlp_dim,
            "num_prefix_tokens": self.num_prefix_tokens,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "activation": keras.activations.serialize(self.activation),
            "output_activation": keras.activations.serialize(self.output_activation),
            "use_bias": self.use_bias,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "data_format": self.data_format,
        }
