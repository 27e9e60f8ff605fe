"""The Vision Transformer without its head: an image becomes tokens."""

from collections.abc import Sequence
from typing import Any, cast

import keras
from keras import ops

from keras_vit_edu import _checks, initializers
from keras_vit_edu.layers import ConvStem, PatchEncoder, Patches, PortableDropout, ShiftedPatches, TransformerBlock
from keras_vit_edu.layers.layer_normalization import LayerNormalization

# The layer, by name, that makes patches of an image.
STEMS = {"patches": "patches", "shifted": "shifted_patches", "conv": "conv_stem"}


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class ViTBackbone(keras.Model):
    """Vision Transformer from image to tokens: `(B, H, W, C)` to `(B, num_prefix_tokens + N, D)`.

    A stem, patch encoder, `num_layers` transformer blocks, one last layer normalisation. (Presets are those of
    `ViTClassifier`; its `backbone` is one of these.) The stem says what a token is made of:

    - `"patches"`: the pixels of a patch (the published ViT, the course);
    - `"shifted"`: those of a patch and, by `ShiftedPatches`, of the halves of its neighbours;
    - `"conv"`: the features that a `ConvStem` finds there and around it, which a small data set teaches sooner.

    Args:
        image_shape: `(H, W, C)`, or `(C, H, W)` for `data_format="channels_first"`.
        patch_size: side of a patch in pixels, an int or `(height, width)`; must divide the image. With the stem
            `"conv"`, how many pixels lie between one token and the next: the product of the strides and pools.
        projection_dim: D, the width of a token.
        num_layers: number of transformer blocks.
        num_heads: attention heads in each.
        key_dim: size of one head.
        mlp_dim: width of the hidden layer of each block's MLP.
        num_prefix_tokens: learned tokens before the patches: a class token, registers.
        dropout: of each block's MLP, in training.
        attention_dropout: of each block's attention scores, in training.
        activation: after the first Dense of each MLP.
        output_activation: after the second Dense of each MLP; the course's program has `"gelu"` there too.
        use_bias: whether the attention's projections have one.
        layer_norm_epsilon: added to the variance in every normalisation.
        kernel_initializer: of every kernel but the patch projection's; with a seed, each block gets one of its own.
        data_format: None for Keras's global setting.
        stem: `"patches"`, `"shifted"` or `"conv"`.
        stem_filters: of the `ConvStem`: the width of each convolution. Its activation is `activation`.
        stem_strides: of the `ConvStem`: the stride of each; None for 2 each.
        stem_pools: of the `ConvStem`: the side of the max pooling after each; None for no pooling.
        stem_dropout: of the `ConvStem`, wherever it makes the image smaller, in training.
        stem_normalization: of the `ConvStem`: `"layer"`, or None for none.
        stochastic_depth: probability that training skips a branch of the last block for an image; it grows evenly
            over the blocks, block i of L (from 1) has i / L of it.
        hidden_dropout: `dropout` after the first Dense of each MLP, if it is another one there; None for `dropout`.
        projection_dropout: of the output of each block's attention, in training (the published ViT's; the course's
            program has none there).
        embedding_dropout: of the tokens before the first block, in training (the same).
        locality: None for attention that knows places from the position vectors alone (the published ViT). A number
            adds a `RelativePositionBias` to each block: 0 for one that begins with zeros, above 0 (1, say) for one that
            begins as a convolution does, which a small data set teaches sooner. Prefix tokens have no place: a head
            that reads the class token alone sees nothing of it in the last block.
        frozen_layers: names of layers, of those in `layers`, that do not train. It is how `backbone.get_layer(name)
            .trainable = False` survives saving.
        dtype: a dtype policy, such as `"mixed_bfloat16"`; None for Keras's global one.
        name: of the model. Two models inside of one want two names: Keras on torch finds a weight by its path, which
            begins with the name.
        trainable: False to freeze all of it.

    There is no `seed`: `keras.utils.set_random_seed` before the constructor fixes weights and dropout masks, to the
    same bits on every backend.

    Call arguments:
        images: float `(B, H, W, C)`, values in [0, 1].

    Returns:
        Tokens `(B, num_prefix_tokens + N, D)`.

    Raises:
        ValueError: for sizes that are no positive ints, a rate outside [0, 1), a patch that does not divide the image,
            or a frozen layer that there is not; for an unknown stem; for strides that do not multiply to `patch_size`;
            for shifted patches of one pixel's width or height; for a `locality` below 0.

    References:
        Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021), equations 1 to 4.
        Xiao et al., "Early convolutions help transformers see better" (NeurIPS 2021), arXiv 2106.14881.
        Lee et al., "Vision transformer for small-size datasets" (2021), arXiv 2112.13492, on the stem `"shifted"`.
        Huang et al., "Deep networks with stochastic depth" (ECCV 2016), arXiv 1603.09382.
        Liu et al., "Swin transformer" (ICCV 2021), arXiv 2103.14030, and d'Ascoli et al., "ConViT" (ICML 2021), arXiv
        2103.10697, on `locality`.

    Examples:
        >>> backbone = ViTBackbone((28, 28, 1), 7, 64, num_layers=2, num_heads=4, key_dim=16, mlp_dim=128)
        >>> backbone.output_shape
        (None, 16, 64)
        >>> import numpy as np
        >>> scores = backbone.attention_scores(np.zeros((1, 28, 28, 1)))
        >>> [tuple(of_a_block.shape) for of_a_block in scores]
        [(1, 4, 16, 16), (1, 4, 16, 16)]
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
        stem: str = "patches",
        stem_filters: Sequence[int] = (),
        stem_strides: Sequence[int] | None = None,
        stem_pools: Sequence[int] | None = None,
        stem_dropout: float = 0.0,
        stem_normalization: str | None = None,
        stochastic_depth: float = 0.0,
        hidden_dropout: float | None = None,
        projection_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        locality: float | None = None,
        frozen_layers: Sequence[str] = (),
        dtype: Any = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        policy = keras.dtype_policies.get(keras.config.dtype_policy() if dtype is None else dtype)
        image_shape = _checks.image_shape(image_shape)
        num_layers = _checks.positive_int("num_layers", num_layers)
        kernel_initializer = initializers.get(kernel_initializer)

        stochastic_depth = _checks.dropout_rate("stochastic_depth", stochastic_depth)
        embedding_dropout = _checks.dropout_rate("embedding_dropout", embedding_dropout)
        stem_filters = _checks.ints("stem_filters", stem_filters)
        stem_strides = None if stem_strides is None else _checks.ints("stem_strides", stem_strides)
        stem_pools = None if stem_pools is None else _checks.ints("stem_pools", stem_pools)
        if stem not in STEMS:
            raise ValueError(f"`stem` must be one of {tuple(STEMS)}. Received: stem={stem!r}")
        stem_dropout = _checks.dropout_rate("stem_dropout", stem_dropout)
        if stem != "conv" and (stem_filters or stem_strides or stem_pools or stem_dropout or stem_normalization):
            raise ValueError(
                "`stem_filters`, `stem_strides`, `stem_pools`, `stem_dropout` and `stem_normalization` are of the stem "
                '"conv". Received: '
                f"stem={stem!r}, stem_filters={stem_filters}, stem_strides={stem_strides}, stem_pools={stem_pools}, "
                f"stem_dropout={stem_dropout}, stem_normalization={stem_normalization!r}"
            )

        patches = Patches(patch_size, data_format=data_format, dtype=policy, name="patches")
        images = keras.Input(image_shape, name="images")
        rows, columns = cast(tuple[int, int], patches.grid_size(images.shape))  # an image of known size has both
        to_patches: Patches | ShiftedPatches | ConvStem = patches
        if stem == "shifted":
            to_patches = ShiftedPatches(patch_size, patches.data_format, dtype=policy, name="shifted_patches")
        if stem == "conv":
            to_patches = ConvStem(
                stem_filters,
                stem_strides,
                stem_pools,
                stem_dropout,
                stem_normalization,
                activation=activation,
                kernel_initializer=initializers.for_child(kernel_initializer, "conv_stem"),
                data_format=patches.data_format,
                dtype=policy,
                name="conv_stem",
            )
            stem_strides, stem_pools = to_patches.strides, to_patches.pools
            if patches.patch_size != (to_patches.stride, to_patches.stride):
                raise ValueError(
                    "`patch_size` must be the product of the stem's strides and pools, "
                    f"{' * '.join(map(str, (*stem_strides, *stem_pools)))} = {to_patches.stride}. "
                    f"Received: patch_size={patches.patch_size}, stem_filters={stem_filters}"
                )
        patch_encoder = PatchEncoder(
            rows * columns,
            projection_dim,
            num_prefix_tokens=num_prefix_tokens,
            grid_size=(rows, columns),
            dtype=policy,
            name="patch_encoder",
        )
        blocks = [
            TransformerBlock(
                num_heads,
                key_dim,
                mlp_dim,
                dropout=dropout,
                hidden_dropout=hidden_dropout,
                projection_dropout=projection_dropout,
                attention_dropout=attention_dropout,
                activation=activation,
                output_activation=output_activation,
                use_bias=use_bias,
                layer_norm_epsilon=layer_norm_epsilon,
                kernel_initializer=initializers.for_child(kernel_initializer, f"transformer_block_{i}"),
                stochastic_depth=stochastic_depth * (i + 1) / num_layers,
                grid_size=None if locality is None else (rows, columns),
                locality=0.0 if locality is None else locality,
                dtype=policy,
                name=f"transformer_block_{i}",
            )
            for i in range(num_layers)
        ]
        block = blocks[0]  # all alike, but for the stochastic depth
        encoder_norm = LayerNormalization(epsilon=block.layer_norm_epsilon, dtype=policy, name="encoder_norm")

        name = name or unique_name("vit_backbone")
        with keras.name_scope(name):  # or the weights of two models would have the same paths: see `unique_name`
            tokens = patch_encoder(to_patches(images))  # (B, num_prefix_tokens + N, D)
            if embedding_dropout:
                tokens = PortableDropout(embedding_dropout, dtype=policy, name="embedding_dropout")(tokens)
            for block in blocks:
                tokens = block(tokens)
            tokens = encoder_norm(tokens)
        super().__init__(inputs=images, outputs=tokens, name=name)

        self.dtype_policy = policy
        self.trainable = trainable
        self.image_shape = image_shape
        self.patch_size = patches.patch_size
        self.grid_size = (rows, columns)
        self.projection_dim = patch_encoder.projection_dim
        self.num_layers = num_layers
        self.num_heads = block.num_heads
        self.key_dim = block.key_dim
        self.mlp_dim = block.mlp_dim
        self.num_prefix_tokens = patch_encoder.num_prefix_tokens
        self.dropout = block.dropout
        self.attention_dropout = block.attention_dropout
        self.activation = block.activation
        self.output_activation = block.output_activation
        self.use_bias = block.use_bias
        self.layer_norm_epsilon = block.layer_norm_epsilon
        self.kernel_initializer = kernel_initializer
        self.data_format = patches.data_format
        self.stem = stem
        self.stem_filters = stem_filters
        self.stem_strides = stem_strides
        self.stem_pools = stem_pools
        self.stem_dropout = stem_dropout
        self.stem_normalization = stem_normalization
        self.stochastic_depth = stochastic_depth
        self.hidden_dropout = block.hidden_dropout
        self.projection_dropout = block.projection_dropout
        self.embedding_dropout = embedding_dropout
        self.locality = None if block.grid_size is None else block.locality
        freeze(self.layers, frozen_layers)

    @property
    def transformer_blocks(self) -> list[TransformerBlock]:
        """The transformer blocks, the first one first."""
        return [self.get_layer(f"transformer_block_{i}") for i in range(self.num_layers)]

    @property
    def frozen_layers(self) -> list[str]:
        """The names of the layers whose weights do not train."""
        return names_of_frozen(self.layers)

    def attention_scores(self, images: Any) -> list[Any]:
        """Who attends to whom, in every block, the first one first.

        Args:
            images: as in a call.

        Returns:
            A list of `num_layers` tensors `(B, num_heads, T, T)`, with T = num_prefix_tokens + N; entry
            `[b, h, query, key]`, each row sums to 1.
        """
        return self._look_inside(images)[1]

    def intermediates(self, images: Any) -> dict[str, Any]:
        """The tokens after each layer, by the layer's name.

        Args:
            images: as in a call.

        Returns:
            `patch_encoder`, `transformer_block_0` and so on, `encoder_norm`: `(B, T, D)` each.
        """
        return self._look_inside(images)[0]

    def _look_inside(self, images: Any) -> tuple[dict[str, Any], list[Any]]:
        """Tokens by layer, and the attention scores of each block; no dropout acts."""
        images = ops.cast(ops.convert_to_tensor(images), self.compute_dtype)
        to_patches = self.get_layer(STEMS[self.stem])
        tokens = self.get_layer("patch_encoder")(to_patches(images))
        after, scores = {"patch_encoder": tokens}, []
        for block in self.transformer_blocks:
            tokens, of_this_block = block(tokens, return_attention_scores=True, training=False)
            after[block.name] = tokens
            scores.append(of_this_block)
        after["encoder_norm"] = self.get_layer("encoder_norm")(tokens)
        return after, scores

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
            "stem": self.stem,
            "stem_filters": self.stem_filters,
            "stem_strides": self.stem_strides,
            "stem_pools": self.stem_pools,
            "stem_dropout": self.stem_dropout,
            "stem_normalization": self.stem_normalization,
            "stochastic_depth": self.stochastic_depth,
            "hidden_dropout": self.hidden_dropout,
            "projection_dropout": self.projection_dropout,
            "embedding_dropout": self.embedding_dropout,
            "locality": self.locality,
            "frozen_layers": self.frozen_layers,
        }


def unique_name(prefix: str) -> str:
    """`prefix`, or `prefix_1`, `prefix_2`... if it was given before, as Keras names layers.

    A model opens a name scope of its name, so that weights of several models in one have different paths. (On torch
    Keras keeps the parameters of a model by path, and those that lose their place to a namesake do not have their
    gradients set back to zero: they would train, wrongly.)
    """
    count = keras.backend.get_uid(prefix)
    return prefix if count == 1 else f"{prefix}_{count - 1}"


def freeze(layers: Sequence[keras.layers.Layer], names: Sequence[str]) -> None:
    """Make those of `layers` that `names` names untrainable."""
    by_name = {layer.name: layer for layer in layers}
    for name in names:
        if name not in by_name:
            raise ValueError(f"There is no layer {name!r} to freeze. There are {', '.join(by_name)}.")
        by_name[name].trainable = False


def names_of_frozen(layers: Sequence[keras.layers.Layer]) -> list[str]:
    """The names of those of `layers` that have weights which do not train."""
    return [layer.name for layer in layers if layer.weights and not layer.trainable]
