"""The Vision Transformer with a head: an image becomes one score per class."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import keras
from keras import ops

from keras_vit_edu import _checks, initializers
from keras_vit_edu._types import Activation, DType, Initializer, Tensor
from keras_vit_edu.layers import PortableDropout, SequencePooling
from keras_vit_edu.models import flat_config
from keras_vit_edu.models.dense_head import dense_head
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.models.vit_backbone import ViTBackbone, freeze, names_of_frozen, unique_name

Head = Literal["flatten", "token", "mean", "mean_with_prefix", "sequence"]
HEADS = get_args(Head)
IN_SCOPE = "is_in_scope_of_classifier"


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class ViTClassifier(Preset, keras.Model):
    """Vision Transformer from image to logits: `(B, H, W, C)` to `(B, num_classes)`.

    A `ViTBackbone` turns the image into tokens. The head makes one vector of them, and a Dense layer turns the vector
    into logits. `head_units` puts more Dense layers before the last one. Dropout acts before each Dense layer. `head`
    says how the tokens become one vector:

    - `"flatten"`: all tokens, one after the other (the course's program)
    - `"token"`: the first token, which must be a prefix token (the class token of the published ViT)
    - `"mean"`: the mean of the patches' tokens, without prefix tokens
    - `"mean_with_prefix"`: the mean of all tokens (keras_hub's `"gap"`)
    - `"sequence"`: the mean of the patches' tokens, weighted by attention: `SequencePooling` (the compact transformer)

    `transfer.open_vit` makes a `ViTClassifier` from a ViT or DeiT of keras_hub.

    Args:
        backbone: a `ViTBackbone`. The classifier holds this model itself, not a copy.
        num_classes: number of logits.
        head: how tokens become one vector; see above.
        head_units: widths of the Dense layers before the logits. Defaults to those of the course's program; `()` gives
            the published ViT's single Dense layer.
        head_dropout: dropout rate before each Dense layer of the head, in training; or a list of
            `len(head_units) + 1` rates, the last one before the logits.
        head_activation: activation of the Dense layers before the logits.
        activation: activation of the logits. Defaults to none; losses and `classify` expect none.
        kernel_initializer: initializer of the head's kernels. If it has an int seed, each kernel derives its own seed
            from it.
        head_dtype: dtype policy of the head. Defaults to the backbone's, with float32 logits under mixed precision.
        frozen_layers: names of the layers that do not train, of the classifier or its backbone. Saving keeps them
            frozen.
        name: name of the model. Give each submodel of a model a unique name: Keras on torch finds a weight by its
            path, which begins with the name.
        trainable: False to freeze the whole model. True does not unfreeze a frozen backbone.

    There is no `seed`: `keras.utils.set_random_seed` before the constructor fixes weights and dropout masks, to the
    same bits on every backend.

    Call arguments:
        images: float `(B, H, W, C)`, values in [0, 1].

    Returns:
        Logits `(B, num_classes)`, without softmax.

    Raises:
        ValueError: if `backbone` is not a `ViTBackbone`, a size is not a positive int, a rate is outside [0, 1), `head`
            is unknown, `head="token"` meets a backbone without prefix tokens, or a frozen layer does not exist.

    References:
        Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021); appendix D.3 compares the heads.
        Hassani et al., "Escaping the big data paradigm with compact transformers" (2021), arXiv 2104.05704, on the
        head `"sequence"`.

    Examples:
        >>> backbone = ViTBackbone((28, 28, 1), 7, 64, num_layers=4, num_heads=4, key_dim=16, mlp_dim=128)
        >>> classifier = ViTClassifier(backbone, num_classes=10, head="mean", head_units=())
        >>> classifier.output_shape
        (None, 10)
        >>> ViTClassifier.from_preset("vit_mnist_program_p", load_weights=False).count_params()
        4544778
    """

    def __init__(
        self,
        backbone: ViTBackbone,
        num_classes: int = 10,
        head: Head = "flatten",
        head_units: Sequence[int] = (2048, 1024),
        head_dropout: float | Sequence[float] = 0.5,
        head_activation: Activation | None = "gelu",
        activation: Activation | None = None,
        kernel_initializer: Initializer = "glorot_uniform",
        head_dtype: DType | None = None,
        frozen_layers: Sequence[str] = (),
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        if not isinstance(backbone, ViTBackbone):
            raise ValueError(f"`backbone` must be a ViTBackbone. Received: backbone={_checks.shown(backbone)}")
        num_classes = _checks.positive_int("num_classes", num_classes)
        if _checks.sequence(head_units) is None:
            raise ValueError(
                f"`head_units` must be a list of widths, or (). Received: head_units={_checks.shown(head_units)}"
            )
        head_units = _checks.ints("head_units", head_units)
        rates = _rates(head_dropout, len(head_units) + 1)
        kernel_initializer = initializers.get(kernel_initializer)
        num_prefix_tokens = backbone.num_prefix_tokens
        if head not in HEADS:
            raise ValueError(f"`head` must be one of {HEADS}. Received: head={head!r}")
        if head == "token" and num_prefix_tokens == 0:
            raise ValueError('`head="token"` reads the first prefix token. Received: num_prefix_tokens=0')
        policy = keras.dtype_policies.get(backbone.dtype_policy if head_dtype is None else head_dtype)

        name = name or unique_name("vit_classifier")
        with keras.name_scope(name):
            images = keras.Input(backbone.image_shape, name="images")
            x = backbone(images)  # (B, num_prefix_tokens + N, D)
            if head == "flatten":
                x = keras.layers.Flatten(data_format="channels_last", dtype=policy, name="flatten_tokens")(x)
            elif head == "token":
                x = x[:, 0]  # (B, D)
            elif head == "mean":
                x = ops.mean(x[:, num_prefix_tokens:], axis=1)  # (B, D)
            elif head == "mean_with_prefix":
                x = ops.mean(x, axis=1)  # (B, D)
            else:
                pooling = SequencePooling(
                    initializers.for_child(kernel_initializer, "sequence_pooling"),
                    dtype=policy,
                    name="sequence_pooling",
                )
                x = pooling(x[:, num_prefix_tokens:] if num_prefix_tokens else x)  # (B, D)
            x = PortableDropout(rates[0], dtype=policy, name="head_dropout")(x)
            # float16 and bfloat16 are too coarse for a loss.
            logits_dtype = policy.variable_dtype if head_dtype is None else policy
            logits = dense_head(
                x, num_classes, head_units, rates[1:], head_activation, kernel_initializer, policy, logits_dtype,
                activation,
            )  # fmt: skip
        super().__init__(inputs=images, outputs=logits, name=name)

        self.dtype_policy = backbone.dtype_policy  # Keras scales the loss of a model under mixed_float16
        if not trainable:  # (True would undo what is frozen in the backbone)
            self.trainable = False
        self.backbone = backbone
        self.num_classes = num_classes
        self.head = head
        self.head_units = head_units
        self.head_dropout = rates[0] if len(set(rates)) == 1 else rates
        self.head_activation = keras.activations.get(head_activation)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = kernel_initializer
        self.head_dtype = None if head_dtype is None else policy
        freeze([*self.layers, *backbone.layers], frozen_layers)

    @property
    def frozen_layers(self) -> list[str]:
        """The names of the layers whose weights do not train, including those in the backbone."""
        parts = self.backbone.layers
        some_train = any(layer.trainable for layer in parts if layer.weights)
        # The backbone's own name would freeze all of it in the next model, whatever was thawed since.
        own = [layer for layer in self.layers if not (some_train and layer is self.backbone)]
        return names_of_frozen([*own, *parts])

    def attention_scores(self, images: Tensor) -> list[Tensor]:
        """As `ViTBackbone.attention_scores`."""
        return self.backbone.attention_scores(images)

    def intermediates(self, images: Tensor) -> dict[str, Tensor]:
        """As `ViTBackbone.intermediates`."""
        return self.backbone.intermediates(images)

    def get_config(self) -> dict[str, Any]:
        backbone = keras.saving.serialize_keras_object(self.backbone)
        return {
            "name": self.name,
            "trainable": self.trainable,
            "backbone": {
                **{name: backbone[name] for name in ("module", "class_name", "config", "registered_name")},
                # Whether the paths of its weights begin with the classifier's name. A saved optimizer knows them.
                IN_SCOPE: all(f"{self.name}/{self.backbone.name}/" in weight.path for weight in self.backbone.weights),
            },
            "num_classes": self.num_classes,
            "head": self.head,
            "head_units": self.head_units,
            "head_dropout": self.head_dropout,
            "head_activation": keras.activations.serialize(self.head_activation),
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "head_dtype": None if self.head_dtype is None else keras.dtype_policies.serialize(self.head_dtype),
            "frozen_layers": self.frozen_layers,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> "ViTClassifier":
        """The model that `get_config` describes.

        Also takes a flat configuration, without `backbone`, as presets of format 1 and 2 and files from before 0.1.0
        hold: the arguments of both constructors under one name each. Arguments that are left out are those of the
        course's program.

        Examples:
            >>> ViTClassifier.from_config({"num_layers": 1, "stem": "conv", "stem_filters": [8], "stem_strides": [7]})
            ... # doctest: +ELLIPSIS
            <ViTClassifier name=vit_classifier..., built=True>
        """
        name = config.get("name") or unique_name("vit_classifier")
        kernel_initializer = initializers.get(config.get("kernel_initializer", "glorot_uniform"))
        is_nested = "backbone" in config
        # Weights of two presets in one model need different paths.
        is_in_scope = not is_nested or config["backbone"].get(IN_SCOPE)
        with keras.name_scope(name) if is_in_scope else contextlib.nullcontext():
            if is_nested:
                backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects=custom_objects)
            else:
                if flat_config.BACKBONE_INITIALIZER in config:
                    own = {"kernel_initializer": initializers.get(config[flat_config.BACKBONE_INITIALIZER])}
                else:
                    own = {"kernel_initializer": initializers.for_child(kernel_initializer, "backbone")}
                backbone = ViTBackbone(**flat_config.backbone_arguments({**config, **own}), **own, name="backbone")
        head = flat_config.head_arguments(config)
        return cls(backbone, **{**head, "kernel_initializer": kernel_initializer, "name": name})

    @classmethod
    def _from_flat(cls, arguments: Mapping[str, Any]) -> "ViTClassifier":
        return cls.from_config(dict(arguments))


def _rates(dropout: float | Sequence[float], count: int) -> tuple[float, ...]:
    """A dropout rate before each Dense layer of the head."""
    rates = _checks.sequence(dropout)
    if rates is None:
        rates = (dropout,) * count
    if len(rates) != count:
        raise ValueError(
            f"`head_dropout` must be a rate, or a list of {count}: one before each Dense layer. "
            f"Received: head_dropout={dropout}"
        )
    return tuple(_checks.dropout_rate("head_dropout", rate) for rate in rates)
