"""What both classifiers end with."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_vit_edu import initializers
from keras_vit_edu.layers import PortableDropout


def dense_head(
    features: Any,
    num_classes: int,
    units: Sequence[int],
    dropout: float,
    activation: Any,
    kernel_initializer: Any,
    policy: keras.dtype_policies.DTypePolicy,
) -> Any:
    """Features `(B, D)` to logits `(B, num_classes)`: a Dense layer with dropout for each of `units`, and one more."""
    x = features
    for i, width in enumerate(units):
        x = keras.layers.Dense(
            width,
            activation=activation,
            kernel_initializer=initializers.for_child(kernel_initializer, f"head_dense_{i}"),
            dtype=policy,
            name=f"head_dense_{i}",
        )(x)
        x = PortableDropout(dropout, dtype=policy, name=f"head_dropout_{i}")(x)
    return keras.layers.Dense(
        num_classes,
        kernel_initializer=initializers.for_child(kernel_initializer, "logits"),
        dtype=policy.variable_dtype,  # float16 and bfloat16 are too coarse for a loss
        name="logits",
    )(x)
