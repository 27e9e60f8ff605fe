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
    dropouts: Sequence[float],
    activation: Any,
    kernel_initializer: Any,
    policy: keras.dtype_policies.DTypePolicy,
    logits_dtype: Any,
    logits_activation: Any = None,
) -> Any:
    """Features `(B, D)` to logits `(B, num_classes)`.

    For each of `units` a Dense layer, and dropout at its entry of `dropouts`; then a Dense layer to the logits.
    """
    x = features
    for i, (width, dropout) in enumerate(zip(units, dropouts, strict=True)):
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
        activation=logits_activation,
        kernel_initializer=initializers.for_child(kernel_initializer, "logits"),
        dtype=logits_dtype,
        name="logits",
    )(x)
