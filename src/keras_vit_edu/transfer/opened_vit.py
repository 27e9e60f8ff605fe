"""A ViT or DeiT of keras_hub as our layers make it: what `open_vit` gives."""

from collections.abc import Sequence
from typing import Any, cast

import keras
from keras import ops

from keras_vit_edu import _checks
from keras_vit_edu.layers import PatchEncoder, Patches, PortableDropout, TransformerBlock
from keras_vit_edu.models.vit_backbone import freeze, names_of_frozen, unique_name

POOLINGS = ("token", "gap")


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class OpenedViTBackbone(keras.Model):
    """The published ViT, or DeiT, from image to tokens: `(B, H, W, C)` to `(B, num_prefix_tokens + N, D)`.

    The layers, and their names, are those of `keras_vit_edu.models.ViTBackbone`; dropout stands where keras_hub has it.

    Args:
        image_shape: `(H, W, C)`, or `(C, H, W)` for `data_format="channels_first"`.
        patch_size: side of a patch in pixels, an int or `(height, width)`; must divide the image.
        projection_dim: D, the width of a token.
        num_layers: number of transformer blocks.
        num_heads: attention heads in each.
        key_dim: size of one head.
        mlp_dim: width of the hidden layer of each block's MLP.
        num_prefix_tokens: 1 for a class token, 2 for DeiT's class and distillation token, 0 for none.
        dropout: after the second Dense of each MLP, in training.
        hidden_dropout: after the first Dense of each MLP.
        projection_dropout: of the output of each block's attention.
        attention_dropout: of each block's attention scores.
        embedding_dropout: of the tokens before the first block.
        use_bias: whether the attention's projections have one.
        layer_norm_epsilon: added to the variance in every normalisation.
        data_format: None for Keras's global setting.
        frozen_layers: names of layers that do not train.
        dtype: a dtype policy, such as `"mixed_bfloat16"`; None for Keras's global one.
        name: of the model; two of them in one model want two names.
        trainable: False to freeze all of it.

    Call arguments:
        images: float `(B, H, W, C)`, scaled as the source's preprocessor does it.

    Returns:
        Tokens `(B, num_prefix_tokens + N, D)`, prefix tokens first.

    Raises:
        ValueError: for sizes that are no positive ints, a rate outside [0, 1), a patch that does not divide the image,
            or a frozen layer that there is not.

    References:
        Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021), arXiv 2010.11929.
        Touvron et al., "Training data-efficient image transformers & distillation through attention" (ICML 2021),
        arXiv 2012.12877.

    Examples:
        >>> import numpy as np
        >>> backbone = OpenedViTBackbone((32, 32, 3), 8, 12, num_layers=2, num_heads=3, key_dim=4, mlp_dim=24)
        >>> backbone.output_shape
        (None, 17, 12)
        >>> scores = backbone.attention_scores(np.zeros((1, 32, 32, 3)))
        >>> [tuple(of_a_block.shape) for of_a_block in scores]
        [(1, 3, 17, 17), (1, 3, 17, 17)]
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
        num_prefix_tokens: int = 1,
        dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        projection_dropout: float = 0.0,
        attention_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        use_bias: bool = True,
        layer_norm_epsilon: float = 1e-6,
        data_format: str | None = None,
        frozen_layers: Sequence[str] = (),
        dtype: Any = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        image_shape = _checks.ints("image_shape", image_shape)
        num_layers = _checks.positive_int("num_layers", num_layers)
        embedding_dropout = _checks.dropout_rate("embedding_dropout", embedding_dropout)

        images = keras.Input(image_shape, name="images")
        patches = Patches(patch_size, data_format=data_format, dtype=policy, name="patches")
        rows, columns = cast(tuple[int, int], patches.grid_size(images.shape))  # an image of known size has both
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
                use_bias=use_bias,
                layer_norm_epsilon=layer_norm_epsilon,
                dtype=policy,
                name=f"transformer_block_{i}",
            )
            for i in range(num_layers)
        ]
        name = name or unique_name("opened_vit_backbone")
        with keras.name_scope(name):  # or the weights of two models would have the same paths
            tokens = patch_encoder(patches(images))  # (B, num_prefix_tokens + N, D)
            tokens = PortableDropout(embedding_dropout, dtype=policy, name="embedding_dropout")(tokens)
            for block in blocks:
                tokens = block(tokens)
            tokens = keras.layers.LayerNormalization(epsilon=layer_norm_epsilon, dtype=policy, name="encoder_norm")(
                tokens
            )
        super().__init__(inputs=images, outputs=tokens, name=name)

        self.dtype_policy = policy
        self.trainable = trainable
        self.image_shape = image_shape
        self.patch_size = patches.patch_size
        self.grid_size = (rows, columns)
        self.projection_dim = patch_encoder.projection_dim
        self.num_layers = num_layers
        self.num_heads = blocks[0].num_heads
        self.key_dim = blocks[0].key_dim
        self.mlp_dim = blocks[0].mlp_dim
        self.num_prefix_tokens = patch_encoder.num_prefix_tokens
        self.dropout = blocks[0].dropout
        self.hidden_dropout = blocks[0].hidden_dropout
        self.projection_dropout = blocks[0].projection_dropout
        self.attention_dropout = blocks[0].attention_dropout
        self.embedding_dropout = embedding_dropout
        self.use_bias = blocks[0].use_bias
        self.layer_norm_epsilon = blocks[0].layer_norm_epsilon
        self.data_format = patches.data_format
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
        tokens = self.get_layer("patch_encoder")(self.get_layer("patches")(images))
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
            "hidden_dropout": self.hidden_dropout,
            "projection_dropout": self.projection_dropout,
            "attention_dropout": self.attention_dropout,
            "embedding_dropout": self.embedding_dropout,
            "use_bias": self.use_bias,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "data_format": self.data_format,
            "frozen_layers": self.frozen_layers,
        }


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class OpenedViTClassifier(keras.Model):
    """An `OpenedViTBackbone` and a head: `(B, H, W, C)` to `(B, num_classes)`.

    The tokens become one vector, then, in ViTs trained from scratch, a Dense layer with tanh (`pre_logits`), dropout,
    and a Dense layer to the logits. To put another head on a backbone, give `classifier.backbone` to a new one.

    Args:
        backbone: its first part.
        num_classes: number of logits.
        pooling: `"token"` for the first token, the class token (in DeiT too); `"gap"` for the mean of all tokens, class
            and distillation token among them, as keras_hub takes it.
        pre_logits_dim: width of the Dense layer with tanh; None for none.
        head_dropout: before the logits, in training.
        activation: of the logits; keras_hub has `"softmax"` if told so.
        head_dtype: dtype policy of the head; None for the backbone's.
        name: of the model.
        trainable: False to freeze all of it, the backbone too.

    Call arguments:
        images: float `(B, H, W, C)`, scaled as the source's preprocessor does it.

    Returns:
        Logits `(B, num_classes)`.

    Raises:
        ValueError: for sizes that are no positive ints, a rate outside [0, 1), or an unknown pooling.

    Examples:
        >>> backbone = OpenedViTBackbone((32, 32, 3), 8, 12, num_layers=2, num_heads=3, key_dim=4, mlp_dim=24)
        >>> OpenedViTClassifier(backbone, num_classes=5).output_shape
        (None, 5)
    """

    def __init__(
        self,
        backbone: OpenedViTBackbone,
        num_classes: int,
        pooling: str = "token",
        pre_logits_dim: int | None = None,
        head_dropout: float = 0.0,
        activation: Any = None,
        head_dtype: Any = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"`pooling` must be one of {POOLINGS}. Received: pooling={pooling!r}")
        policy = keras.dtype_policies.get(head_dtype or backbone.dtype_policy)
        num_classes = _checks.positive_int("num_classes", num_classes)
        head_dropout = _checks.dropout_rate("head_dropout", head_dropout)
        name = name or unique_name("opened_vit_classifier")
        with keras.name_scope(name):
            images = keras.Input(backbone.image_shape, name="images")
            x = backbone(images)  # (B, T, D)
            x = x[:, 0] if pooling == "token" else ops.mean(x, axis=1)  # (B, D)
            if pre_logits_dim is not None:
                pre_logits_dim = _checks.positive_int("pre_logits_dim", pre_logits_dim)
                x = keras.layers.Dense(pre_logits_dim, activation="tanh", dtype=policy, name="pre_logits")(x)
            x = PortableDropout(head_dropout, dtype=policy, name="head_dropout")(x)
            logits = keras.layers.Dense(num_classes, activation=activation, dtype=policy, name="logits")(x)
        super().__init__(inputs=images, outputs=logits, name=name)

        self.backbone = backbone
        self.num_classes = num_classes
        self.pooling = pooling
        self.pre_logits_dim = pre_logits_dim
        self.head_dropout = head_dropout
        self.activation = keras.activations.get(activation)
        self.head_dtype = policy
        if not trainable:  # (True would undo what is frozen in the backbone)
            self.trainable = False

    def attention_scores(self, images: Any) -> list[Any]:
        """As `OpenedViTBackbone.attention_scores`."""
        return self.backbone.attention_scores(images)

    def intermediates(self, images: Any) -> dict[str, Any]:
        """As `OpenedViTBackbone.intermediates`."""
        return self.backbone.intermediates(images)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trainable": self.trainable,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "num_classes": self.num_classes,
            "pooling": self.pooling,
            "pre_logits_dim": self.pre_logits_dim,
            "head_dropout": self.head_dropout,
            "activation": keras.activations.serialize(self.activation),
            "head_dtype": keras.dtype_policies.serialize(self.head_dtype),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "OpenedViTClassifier":
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects=custom_objects)
        return cls(**{**config, "backbone": backbone})
