"""The Vision Transformer with a head: an image becomes one score per class."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_vit_edu import _checks, initializers
from keras_vit_edu.layers import PortableDropout, SequencePooling
from keras_vit_edu.models.dense_head import dense_head
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.models.vit_backbone import ViTBackbone, freeze, names_of_frozen, unique_name

HEADS = ("flatten", "token", "mean", "sequence")


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class ViTClassifier(Preset, keras.Model):
    """Vision Transformer from image to logits: `(B, H, W, C)` to `(B, num_classes)`.

    A `ViTBackbone`, then a head: the tokens become one vector, dropout, a Dense layer with dropout for each of
    `head_units`, and a Dense layer to the logits. The head says how tokens become one vector:

    - `"flatten"`: all tokens, one after the other (the course's program);
    - `"token"`: the first token, which must be a prefix token (the class token of the published ViT);
    - `"mean"`: the mean of the patches' tokens, prefix tokens left out;
    - `"sequence"`: their mean weighted by attention, `SequencePooling` (the compact transformer's).

    The defaults are those of the course's program for MNIST.

    Args:
        num_classes: number of logits.
        image_shape: `(H, W, C)`, or `(C, H, W)` for `data_format="channels_first"`. This and what follows to
            `locality` is of the `ViTBackbone`.
        patch_size: side of a patch in pixels, an int or `(height, width)`; must divide the image.
        projection_dim: D, the width of a token.
        num_layers: number of transformer blocks.
        num_heads: attention heads in each.
        key_dim: size of one head.
        mlp_dim: width of the hidden layer of each block's MLP.
        num_prefix_tokens: learned tokens before the patches: a class token, registers.
        dropout: of each block's MLP, in training.
        attention_dropout: of each block's attention scores, in training.
        activation: after the first Dense of each MLP.
        output_activation: after the second Dense of each MLP; the published ViT has None.
        use_bias: whether the attention's projections have one.
        layer_norm_epsilon: added to the variance in every normalisation.
        kernel_initializer: of every kernel but the patch projection's, here and in the backbone; with a seed, each
            kernel gets one of its own.
        data_format: None for Keras's global setting.
        stem: `"patches"` (the published ViT), `"shifted"` (patches that see across their borders) or `"conv"` (a hybrid
            of convolutions and attention).
        stem_filters: with the stem `"conv"`, the width of each of its convolutions.
        stem_strides: with the stem `"conv"`, the stride of each; None for 2 each.
        stem_pools: with the stem `"conv"`, the side of the max pooling after each; None for no pooling. The product of
            strides and pools is `patch_size`.
        stem_dropout: with the stem `"conv"`, dropout wherever it makes the image smaller, in training.
        stem_normalization: with the stem `"conv"`, `"layer"` for layer normalization after each convolution.
        stochastic_depth: probability that training skips a branch of the last block for an image; it grows evenly
            over the blocks.
        hidden_dropout: `dropout` after the first Dense of each MLP, if it is another one there; None for `dropout`.
        projection_dropout: of the output of each block's attention, in training.
        embedding_dropout: of the tokens before the first block, in training.
        locality: None for the published attention; a number for one that knows how patches stand to each other, and,
            above 0, looks at the nearest ones at first (see `ViTBackbone`).
        head: `"flatten"`, `"token"`, `"mean"` or `"sequence"`.
        head_units: widths of the Dense layers before the logits; may be empty.
        head_dropout: probability of dropping an element before each Dense layer of the head, in training.
        head_activation: of the Dense layers before the logits.
        frozen_layers: names of layers that do not train, of those in `layers` and in `backbone.layers`. It is how
            `classifier.backbone.trainable = False` survives saving.
        dtype: a dtype policy, such as `"mixed_bfloat16"`; None for Keras's global one.
        name: of the model. Two models inside of one want two names: Keras on torch finds a weight by its path, which
            begins with the name.
        trainable: False to freeze all of it.

    There is no `seed`: `keras.utils.set_random_seed` before the constructor fixes weights and dropout masks, to the
    same bits on every backend.

    Call arguments:
        images: float `(B, H, W, C)`, values in [0, 1].

    Returns:
        Logits `(B, num_classes)`, no softmax; float32 under mixed precision.

    Raises:
        ValueError: as `ViTBackbone`; for an unknown head; for the head `"token"` without a prefix token.

    References:
        Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021); appendix D.3 compares the heads.
        Hassani et al., "Escaping the big data paradigm with compact transformers" (2021), arXiv 2104.05704, on the
        stem `"conv"` and the head `"sequence"`.

    Examples:
        >>> classifier = ViTClassifier(num_classes=10, head="mean", head_units=())
        >>> classifier.output_shape
        (None, 10)
    """

    def __init__(
        self,
        num_classes: int = 10,
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
        activation: Any = "gelu",
        output_activation: Any = "gelu",
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
        head: str = "flatten",
        head_units: Sequence[int] = (2048, 1024),
        head_dropout: float = 0.5,
        head_activation: Any = "gelu",
        frozen_layers: Sequence[str] = (),
        dtype: Any = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        policy = keras.dtype_policies.get(keras.config.dtype_policy() if dtype is None else dtype)
        num_classes = _checks.positive_int("num_classes", num_classes)
        if _checks.sequence(head_units) is None:
            raise ValueError(
                f"`head_units` must be a list of widths, or (). Received: head_units={_checks.shown(head_units)}"
            )
        head_units = _checks.ints("head_units", head_units)
        head_dropout = _checks.dropout_rate("head_dropout", head_dropout)
        kernel_initializer = initializers.get(kernel_initializer)
        if head not in HEADS:
            raise ValueError(f"`head` must be one of {HEADS}. Received: head={head!r}")
        if head == "token" and num_prefix_tokens == 0:
            raise ValueError('`head="token"` reads the first prefix token. Received: num_prefix_tokens=0')

        name = name or unique_name("vit_classifier")
        with keras.name_scope(name):
            backbone = ViTBackbone(
                image_shape,
                patch_size,
                projection_dim,
                num_layers,
                num_heads,
                key_dim,
                mlp_dim,
                num_prefix_tokens=num_prefix_tokens,
                dropout=dropout,
                attention_dropout=attention_dropout,
                activation=activation,
                output_activation=output_activation,
                use_bias=use_bias,
                layer_norm_epsilon=layer_norm_epsilon,
                kernel_initializer=initializers.for_child(kernel_initializer, "backbone"),
                data_format=data_format,
                stem=stem,
                stem_filters=stem_filters,
                stem_strides=stem_strides,
                stem_pools=stem_pools,
                stem_dropout=stem_dropout,
                stem_normalization=stem_normalization,
                stochastic_depth=stochastic_depth,
                hidden_dropout=hidden_dropout,
                projection_dropout=projection_dropout,
                embedding_dropout=embedding_dropout,
                locality=locality,
                dtype=policy,
                name="backbone",
            )
            images = keras.Input(backbone.image_shape, name="images")
            x = backbone(images)  # (B, num_prefix_tokens + N, D)
            if head == "flatten":
                x = keras.layers.Flatten(data_format="channels_last", dtype=policy, name="flatten_tokens")(x)
            elif head == "token":
                x = x[:, 0]  # (B, D)
            elif head == "mean":
                x = ops.mean(x[:, num_prefix_tokens:], axis=1)  # (B, D)
            else:
                pooling = SequencePooling(
                    initializers.for_child(kernel_initializer, "sequence_pooling"),
                    dtype=policy,
                    name="sequence_pooling",
                )
                x = pooling(x[:, num_prefix_tokens:] if num_prefix_tokens else x)  # (B, D)
            x = PortableDropout(head_dropout, dtype=policy, name="head_dropout")(x)
            logits = dense_head(x, num_classes, head_units, head_dropout, head_activation, kernel_initializer, policy)
        super().__init__(inputs=images, outputs=logits, name=name)

        self.dtype_policy = policy
        self.trainable = trainable
        self.backbone = backbone
        self.num_classes = num_classes
        self.head = head
        self.head_units = head_units
        self.head_dropout = head_dropout
        self.head_activation = keras.activations.get(head_activation)
        self.kernel_initializer = kernel_initializer
        freeze([*self.layers, *backbone.layers], frozen_layers)

    @property
    def frozen_layers(self) -> list[str]:
        """The names of the layers whose weights do not train, those in the backbone among them."""
        parts = self.backbone.layers
        some_train = any(layer.trainable for layer in parts if layer.weights)
        # The backbone's own name would freeze all of it in the next model, whatever was thawed since.
        own = [layer for layer in self.layers if not (some_train and layer is self.backbone)]
        return names_of_frozen([*own, *parts])

    def attention_scores(self, images: Any) -> list[Any]:
        """As `ViTBackbone.attention_scores`."""
        return self.backbone.attention_scores(images)

    def intermediates(self, images: Any) -> dict[str, Any]:
        """As `ViTBackbone.intermediates`."""
        return self.backbone.intermediates(images)

    def get_config(self) -> dict[str, Any]:
        return {
            **self.backbone.get_config(),
            "name": self.name,
            "trainable": self.trainable,
            "num_classes": self.num_classes,
            "head": self.head,
            "head_units": self.head_units,
            "head_dropout": self.head_dropout,
            "head_activation": keras.activations.serialize(self.head_activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "frozen_layers": self.frozen_layers,
        }
