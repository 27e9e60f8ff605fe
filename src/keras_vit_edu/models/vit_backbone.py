"""The Vision Transformer without its head: an image becomes tokens."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import keras
from keras import ops

from keras_vit_edu import _checks, initializers
from keras_vit_edu._types import Activation, DataFormat, DType, Initializer, Tensor
from keras_vit_edu.layers import ConvStem, PatchEncoder, Patches, PortableDropout, ShiftedPatches, TransformerBlock
from keras_vit_edu.layers.layer_normalization import LayerNormalization
from keras_vit_edu.layers.template import Template, completed, layer_from, template_of, with_sizes
from keras_vit_edu.models import flat_config

# Names of stems in the model, which the paths of their weights begin with.
STEM_NAMES = {Patches: "patches", ShiftedPatches: "shifted_patches", ConvStem: "conv_stem"}


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class ViTBackbone(keras.Model):
    """Vision Transformer from image to tokens: `(B, H, W, C)` to `(B, num_prefix_tokens + N, D)`.

    A stem turns the image into N vectors, one per patch. A `PatchEncoder` projects them to tokens and adds positions.
    Then come `num_layers` transformer blocks and a last layer normalisation. The stem is one of

    - `Patches`, the default: the pixels of a patch (the published ViT, the course)
    - `ShiftedPatches`: the pixels of a patch and of the halves of its neighbours
    - `ConvStem`: features that convolutions find in and around a patch; it needs less training data
    - your own layer

    `stem` and `position_bias` are templates. The model makes copies of them, with its own dtype and data format, so one
    layer can be given to several models. If its initializer has an int seed, each copy derives its own seed from it.

    The default sizes are those of the course's program for MNIST. `ViTClassifier.from_preset(name).backbone` is the
    backbone of a preset.

    Args:
        image_shape: `(H, W, C)`, or `(C, H, W)` for `data_format="channels_first"`.
        patch_size: side of a patch in pixels, an int or `(height, width)`; must divide the image. With a `ConvStem` it
            must be the product of the stem's strides and pools.
        projection_dim: D, the width of a token.
        num_layers: number of transformer blocks.
        num_heads: number of attention heads in each block.
        key_dim: size of one head.
        mlp_dim: width of the hidden layer of each block's MLP.
        num_prefix_tokens: number of learned tokens before the patches: a class token, registers.
        dropout: dropout rate of each block's MLP, in training.
        attention_dropout: dropout rate of each block's attention scores, in training.
        activation: activation after the first Dense layer of each MLP.
        output_activation: activation after the second Dense layer of each MLP. Defaults to none, as in the published
            ViT; the course's program has `"gelu"`.
        use_bias: whether the attention's projections have a bias.
        layer_norm_epsilon: number added to the variance in every normalisation.
        kernel_initializer: initializer of every kernel in the blocks. If it has an int seed, each block derives its own
            seed from it.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to Keras's global setting.
        stem: a layer from images to `(B, N, P)`, with one vector per patch in reading order: `Patches(patch_size)`,
            `ShiftedPatches(patch_size)`, `ConvStem(filters)` or your own. The model uses a copy, so a class of your own
            must be registered (`keras.saving.register_keras_serializable`). Defaults to `Patches(patch_size)`.
        position_bias: a layer that maps tokens to a bias of the attention scores; each block has its own copy. Defaults
            to none, as in the published ViT. `RelativePositionBias()` learns from zeros;
            `RelativePositionBias(locality=1.0)` makes attention begin as a convolution does, which needs less data. It
            gives prefix tokens no bias, so in the last block it does not change how a class token attends.
        stochastic_depth: probability that training skips a branch of a block for an image; it increases linearly to
            this value in the last block.
        hidden_dropout: dropout rate after the first Dense layer of each MLP. Defaults to `dropout`.
        projection_dropout: dropout rate of the attention's output in each block, in training. The published ViT has
            this dropout and `embedding_dropout`; the course's program has neither.
        embedding_dropout: dropout rate of the tokens before the first block, in training.
        frozen_layers: names of the layers that do not train, as in `backbone.get_layer(name)`. Saving keeps them
            frozen.
        dtype: a dtype policy, such as `"mixed_bfloat16"`. Defaults to Keras's global policy.
        name: name of the model. Give each submodel of a model a unique name: Keras on torch finds a weight by its
            path, which begins with the name.
        trainable: False to freeze the whole model. In `fit` dropout still acts; `backbone(images, training=False)`
            prevents it.

    There is no `seed`: `keras.utils.set_random_seed` before the constructor fixes weights and dropout masks, to the
    same bits on every backend.

    Call arguments:
        images: float `(B, H, W, C)`, values in [0, 1]; `(B, C, H, W)` for `data_format="channels_first"`. The model
            does not scale pixels: divide images of bytes by 255.

    Returns:
        Tokens `(B, num_prefix_tokens + N, D)`.

    Raises:
        ValueError: if a size is not a positive int, a rate is outside [0, 1), the patch does not divide the image,
            the stem does not give one vector per patch, `stem` or `position_bias` is not a layer, or a frozen layer
            does not exist.

    References:
        Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021), equations 1 to 4.
        Huang et al., "Deep networks with stochastic depth" (ECCV 2016), arXiv 1603.09382.
        The stems and the position bias name their own sources.

    Examples:
        >>> backbone = ViTBackbone((28, 28, 1), 7, 64, num_layers=2, num_heads=4, key_dim=16, mlp_dim=128)
        >>> backbone.output_shape
        (None, 16, 64)
        >>> import numpy as np
        >>> scores = backbone.attention_scores(np.zeros((1, 28, 28, 1)))
        >>> [tuple(of_a_block.shape) for of_a_block in scores]
        [(1, 4, 16, 16), (1, 4, 16, 16)]

        Tokens as features for a model of your own:

        >>> model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(3)])
        >>> model.output_shape
        (None, 3)

        A hybrid of convolutions and attention, for a small data set:

        >>> hybrid = ViTBackbone((28, 28, 1), 4, 64, 2, 4, 16, 128, stem=ConvStem(filters=(16, 32)))
        >>> hybrid.output_shape
        (None, 49, 64)
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (28, 28, 1),
        patch_size: int | Sequence[int] = 7,
        projection_dim: int = 64,
        num_layers: int = 4,
        num_heads: int = 4,
        key_dim: int = 64,
        mlp_dim: int = 128,
        num_prefix_tokens: int = 0,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        activation: Activation | None = "gelu",
        output_activation: Activation | None = None,
        use_bias: bool = True,
        layer_norm_epsilon: float = 1e-6,
        kernel_initializer: Initializer = "glorot_uniform",
        data_format: DataFormat | None = None,
        stem: keras.layers.Layer | None = None,
        position_bias: keras.layers.Layer | None = None,
        stochastic_depth: float = 0.0,
        hidden_dropout: float | None = None,
        projection_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        frozen_layers: Sequence[str] = (),
        dtype: DType | None = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        policy = keras.dtype_policies.get(keras.config.dtype_policy() if dtype is None else dtype)
        image_shape = _checks.image_shape(image_shape)
        num_layers = _checks.positive_int("num_layers", num_layers)
        kernel_initializer = initializers.get(kernel_initializer)
        stochastic_depth = _checks.dropout_rate("stochastic_depth", stochastic_depth)
        embedding_dropout = _checks.dropout_rate("embedding_dropout", embedding_dropout)
        stem_template = template_of("stem", stem)
        position_bias_template = template_of("position_bias", position_bias)

        patches = Patches(patch_size, data_format=data_format, dtype=policy, name="patches")
        images = keras.Input(image_shape, name="images")
        to_patches = patches
        if stem_template is not None:
            to_patches = _stem_from(stem_template, patches, policy)
            stem_template = completed(stem_template, to_patches)
        grid_size = cast(tuple[int, int], patches.grid_size(images.shape))  # not None: the size is known
        bias = None if position_bias_template is None else with_sizes(position_bias_template, grid_size=grid_size)
        patch_encoder = PatchEncoder(
            grid_size[0] * grid_size[1],
            projection_dim,
            num_prefix_tokens=num_prefix_tokens,
            grid_size=grid_size,
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
                position_bias=bias,
                dtype=policy,
                name=f"transformer_block_{i}",
            )
            for i in range(num_layers)
        ]
        block = blocks[0]  # all alike, but for the stochastic depth
        encoder_norm = LayerNormalization(epsilon=block.layer_norm_epsilon, dtype=policy, name="encoder_norm")

        name = name or unique_name("vit_backbone")
        with keras.name_scope(name):  # or the weights of two models would have the same paths: see `unique_name`
            vectors = to_patches(images)  # (B, N, P)
            _check_vectors(vectors, to_patches, patches, images)
            tokens = patch_encoder(vectors)  # (B, num_prefix_tokens + N, D)
            if embedding_dropout:
                tokens = PortableDropout(embedding_dropout, dtype=policy, name="embedding_dropout")(tokens)
            for block in blocks:
                tokens = block(tokens)
            tokens = encoder_norm(tokens)
        super().__init__(inputs=images, outputs=tokens, name=name)

        self.dtype_policy = policy
        if not trainable:  # (True would undo `trainable=False` of a stem)
            self.trainable = False
        self.image_shape = image_shape
        self.patch_size = patches.patch_size
        self.grid_size = grid_size
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
        self.stochastic_depth = stochastic_depth
        self.hidden_dropout = block.hidden_dropout
        self.projection_dropout = block.projection_dropout
        self.embedding_dropout = embedding_dropout
        self._stem_name = to_patches.name
        self._stem_template, self._position_bias_template = stem_template, position_bias_template
        freeze(self.layers, frozen_layers)

    @property
    def stem(self) -> keras.layers.Layer:
        """The layer that turns images into a vector per patch."""
        return self.get_layer(self._stem_name)

    @property
    def transformer_blocks(self) -> list[TransformerBlock]:
        """The transformer blocks, the first one first."""
        return [self.get_layer(f"transformer_block_{i}") for i in range(self.num_layers)]

    @property
    def frozen_layers(self) -> list[str]:
        """The names of the layers whose weights do not train."""
        return names_of_frozen(self.layers)

    def attention_scores(self, images: Tensor) -> list[Tensor]:
        """Who attends to whom, in every block, the first one first.

        Args:
            images: as in a call.

        Returns:
            A list of `num_layers` tensors `(B, num_heads, T, T)`, with T = num_prefix_tokens + N; entry
            `[b, h, query, key]`, each row sums to 1.
        """
        return self._look_inside(images)[1]

    def intermediates(self, images: Tensor) -> dict[str, Tensor]:
        """The tokens after each layer, by the layer's name.

        Args:
            images: as in a call.

        Returns:
            `patch_encoder`, `transformer_block_0` and so on, `encoder_norm`: `(B, T, D)` each.
        """
        return self._look_inside(images)[0]

    def _look_inside(self, images: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Tokens by layer, and the attention scores of each block; no dropout acts."""
        images = ops.cast(ops.convert_to_tensor(images), self.compute_dtype)
        tokens = self.get_layer("patch_encoder")(self.stem(images))
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
            # A layer that was unfrozen after `trainable=False` trains. `frozen_layers` lists those that do not.
            "trainable": self.trainable or any(layer.trainable_weights for layer in self.layers),
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
            "stem": self._stem_template,
            "position_bias": self._position_bias_template,
            "stochastic_depth": self.stochastic_depth,
            "hidden_dropout": self.hidden_dropout,
            "projection_dropout": self.projection_dropout,
            "embedding_dropout": self.embedding_dropout,
            "frozen_layers": self.frozen_layers,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> "ViTBackbone":
        """The model that `get_config` describes; also from a flat configuration, as files from before 0.1.0 have."""
        if flat_config.is_flat(config):
            own = ("kernel_initializer", "frozen_layers", "name", "trainable")
            shared = {name: config[name] for name in own if name in config}
            config = {**flat_config.backbone_arguments(config), **shared}
        with keras.saving.CustomObjectScope(dict(custom_objects or {})):
            return cls(**config)


def _stem_from(template: Template, patches: Patches, policy: keras.DTypePolicy) -> keras.layers.Layer:
    """A copy of the stem for this model."""
    known = {f"keras_vit_edu>{cls.__name__}": name for cls, name in STEM_NAMES.items()}
    name = known.get(template["registered_name"], "stem")
    stem = layer_from(template, name, policy, patches.data_format, patch_size=patches.patch_size)
    if isinstance(stem, ConvStem) and patches.patch_size != (stem.stride, stem.stride):
        raise ValueError(
            "`patch_size` must be the product of the stem's strides and pools, "
            f"{' * '.join(map(str, (*stem.strides, *stem.pools)))} = {stem.stride}. "
            f"Received: patch_size={patches.patch_size}, filters={stem.filters}"
        )
    return stem


def _check_vectors(vectors: Tensor, stem: keras.layers.Layer, patches: Patches, images: Tensor) -> None:
    """Raise a ValueError unless the stem gives a vector for each patch."""
    count = patches.compute_output_shape(images.shape)[1]
    if len(vectors.shape) != 3 or vectors.shape[1] not in (None, count):
        raise ValueError(
            f"`stem` must turn images into (B, {count}, P): one vector for each patch of {patches.patch_size}. "
            f"Received: {stem.name}, which gives {tuple(vectors.shape)}"
        )


def unique_name(prefix: str) -> str:
    """`prefix`, or `prefix_1`, `prefix_2`... if it was given before, as Keras names layers.

    A model opens a name scope of its name, so that weights of several models in one have different paths. (On torch,
    Keras stores the parameters of a model by path. Of two with the same path it finds only one. The gradient of the
    other is never reset to zero, so that it would train wrongly.)
    """
    count = keras.backend.get_uid(prefix)
    return prefix if count == 1 else f"{prefix}_{count - 1}"


def freeze(layers: Sequence[keras.layers.Layer], names: Sequence[str]) -> None:
    """Freeze the layers in `names`."""
    by_name = {layer.name: layer for layer in layers}
    for name in names:
        if name not in by_name:
            raise ValueError(f"There is no layer {name!r} to freeze. There are {', '.join(by_name)}.")
        by_name[name].trainable = False


def names_of_frozen(layers: Sequence[keras.layers.Layer]) -> list[str]:
    """The names of the frozen layers that have weights."""
    return [layer.name for layer in layers if layer.weights and not layer.trainable]
