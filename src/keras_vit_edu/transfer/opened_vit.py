"""A ViT or DeiT of keras_hub as our layers make it: what `open_vit` gives for a classifier."""

from typing import Any

import keras
from keras import ops

from keras_vit_edu import _checks
from keras_vit_edu.layers import PortableDropout
from keras_vit_edu.models import ViTBackbone
from keras_vit_edu.models.vit_backbone import unique_name

POOLINGS = ("token", "gap")


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class OpenedViTClassifier(keras.Model):
    """A `ViTBackbone` and the head that keras_hub gives it: `(B, H, W, C)` to `(B, num_classes)`.

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
        >>> sizes = {"num_layers": 2, "num_heads": 3, "key_dim": 4, "mlp_dim": 24, "num_prefix_tokens": 1}
        >>> backbone = ViTBackbone((32, 32, 3), 8, 12, **sizes)
        >>> OpenedViTClassifier(backbone, num_classes=5).output_shape
        (None, 5)
    """

    def __init__(
        self,
        backbone: ViTBackbone,
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
        policy = keras.dtype_policies.get(backbone.dtype_policy if head_dtype is None else head_dtype)
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

        self.dtype_policy = backbone.dtype_policy  # Keras scales the loss of a model under mixed_float16
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
        """As `ViTBackbone.attention_scores`."""
        return self.backbone.attention_scores(images)

    def intermediates(self, images: Any) -> dict[str, Any]:
        """As `ViTBackbone.intermediates`."""
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
