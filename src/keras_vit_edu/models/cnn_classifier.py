"""A plain convolutional network, for comparison with the transformers."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_vit_edu import _checks, initializers
from keras_vit_edu._types import Activation, DataFormat, DType, Initializer
from keras_vit_edu.layers import PortableDropout
from keras_vit_edu.models.dense_head import dense_head
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.models.vit_backbone import freeze, names_of_frozen, unique_name


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class CNNClassifier(Preset, keras.Model):
    """Convolutional network from image to logits: `(B, H, W, C)` to `(B, num_classes)`.

    Each stage has 3x3 convolutions, 2x2 max pooling (it leaves out a last odd row or column) and dropout. Then the
    features are flattened, each of `head_units` adds a Dense layer with dropout, and a Dense layer gives the logits.
    There is no normalization and no skip connection, as at the end of a course on convolutions.

    Args:
        num_classes: number of logits.
        image_shape: `(H, W, C)`, or `(C, H, W)` for `data_format="channels_first"`.
        filters: width of each stage; each halves the image.
        convolutions: number of convolutions in each stage.
        dropout: probability of dropping an element after each stage, in training.
        activation: applied after each convolution, and after each Dense layer except the last. `"gelu"` is exact. With
            `"relu"`, whose slope jumps, runs on different backends drift apart much sooner.
        head_units: widths of the Dense layers before the logits; may be empty.
        head_dropout: probability of dropping an element after each of these layers, in training.
        kernel_initializer: initializer of every kernel; an int seed is mixed with the layer's name.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to Keras's global setting.
        frozen_layers: names of layers that do not train. It keeps `classifier.get_layer(name).trainable = False` when
            the model is saved.
        dtype: a dtype policy, such as `"mixed_bfloat16"`. Defaults to Keras's global policy.
        name: name of the model. Give each submodel a unique name: Keras on torch finds a weight by its path, which
            begins with the name.
        trainable: False freezes the whole model.

    There is no `seed`: `keras.utils.set_random_seed` before the constructor fixes weights and dropout masks, to the
    same bits on every backend.

    Call arguments:
        images: float `(B, H, W, C)`, values in [0, 1].

    Returns:
        Logits `(B, num_classes)`, no softmax; float32 under mixed precision.

    Raises:
        ValueError: if a size is not a positive int, a rate is outside [0, 1), there are more stages than the image can
            be halved, or a frozen layer does not exist.

    Reference:
        LeCun et al., "Gradient-based learning applied to document recognition" (1998). Stages of two 3x3 convolutions
        are from Simonyan and Zisserman, "Very deep convolutional networks" (ICLR 2015).

    Examples:
        >>> classifier = CNNClassifier(num_classes=10, filters=(8, 16))
        >>> classifier.output_shape
        (None, 10)
    """

    def __init__(
        self,
        num_classes: int = 10,
        image_shape: Sequence[int] = (28, 28, 1),
        filters: Sequence[int] = (32, 64, 128),
        convolutions: int = 2,
        dropout: float = 0.25,
        activation: Activation | None = "gelu",
        head_units: Sequence[int] = (128,),
        head_dropout: float = 0.5,
        kernel_initializer: Initializer = "glorot_uniform",
        data_format: DataFormat | None = None,
        frozen_layers: Sequence[str] = (),
        dtype: DType | None = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        policy = keras.dtype_policies.get(keras.config.dtype_policy() if dtype is None else dtype)
        num_classes = _checks.positive_int("num_classes", num_classes)
        image_shape = _checks.image_shape(image_shape)
        filters = _checks.ints("filters", filters)
        convolutions = _checks.positive_int("convolutions", convolutions)
        dropout = _checks.dropout_rate("dropout", dropout)
        head_units = _checks.ints("head_units", head_units)
        head_dropout = _checks.dropout_rate("head_dropout", head_dropout)
        kernel_initializer = initializers.get(kernel_initializer)
        data_format = _checks.data_format(data_format)
        sides = image_shape[1:] if data_format == "channels_first" else image_shape[:2]
        if min(sides) < 2 ** len(filters):
            raise ValueError(
                f"{len(filters)} stages halve an image to less than a pixel. "
                f"Received: filters={filters}, image_shape={image_shape}"
            )

        name = name or unique_name("cnn_classifier")
        with keras.name_scope(name):
            images = keras.Input(image_shape, name="images")
            x = ops.transpose(images, (0, 2, 3, 1)) if data_format == "channels_first" else images  # (B, H, W, C)
            for stage, width in enumerate(filters):
                for i in range(convolutions):
                    own_name = f"stage_{stage}_convolution_{i}"
                    x = keras.layers.Conv2D(
                        width,
                        kernel_size=3,
                        padding="same",  # with stride 1 this is one zero on each side, on every backend
                        activation=activation,
                        kernel_initializer=initializers.for_child(kernel_initializer, own_name),
                        data_format="channels_last",
                        dtype=policy,
                        name=own_name,
                    )(x)
                x = keras.layers.MaxPooling2D(
                    2, data_format="channels_last", dtype=policy, name=f"stage_{stage}_pooling"
                )(x)  # (B, H // 2, W // 2, width)
                x = PortableDropout(dropout, dtype=policy, name=f"stage_{stage}_dropout")(x)
            x = keras.layers.Flatten(data_format="channels_last", dtype=policy, name="flatten_features")(x)
            dropouts = (head_dropout,) * len(head_units)
            # float16 and bfloat16 are too coarse for a loss.
            logits_dtype = policy.variable_dtype
            logits = dense_head(
                x, num_classes, head_units, dropouts, activation, kernel_initializer, policy, logits_dtype
            )
        super().__init__(inputs=images, outputs=logits, name=name)

        self.dtype_policy = policy
        self.trainable = trainable
        self.num_classes = num_classes
        self.image_shape = image_shape
        self.filters = filters
        self.convolutions = convolutions
        self.dropout = dropout
        self.activation = keras.activations.get(activation)
        self.head_units = head_units
        self.head_dropout = head_dropout
        self.kernel_initializer = kernel_initializer
        self.data_format = data_format
        freeze(self.layers, frozen_layers)

    @property
    def frozen_layers(self) -> list[str]:
        """Names of the layers whose weights do not train."""
        return names_of_frozen(self.layers)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "num_classes": self.num_classes,
            "image_shape": self.image_shape,
            "filters": self.filters,
            "convolutions": self.convolutions,
            "dropout": self.dropout,
            "activation": keras.activations.serialize(self.activation),
            "head_units": self.head_units,
            "head_dropout": self.head_dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "data_format": self.data_format,
            "frozen_layers": self.frozen_layers,
        }
