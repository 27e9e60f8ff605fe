"""Names for the types of public arguments."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras

Tensor = Any  # a tensor of the backend, a `keras.KerasTensor`, or what Keras converts: a NumPy array, nested lists
Shape = Sequence[int | None]  # None: a size that is not known yet
DataFormat = Literal["channels_last", "channels_first"]
DType = str | keras.DTypePolicy  # such as "float32" or "mixed_bfloat16"

# What Keras takes in these places: a name, a configuration, an object or a function.
Activation = str | Mapping[str, Any] | Callable[[Tensor], Tensor]
Initializer = str | Mapping[str, Any] | keras.initializers.Initializer | Callable[..., Tensor]
Regularizer = str | Mapping[str, Any] | keras.regularizers.Regularizer | Callable[[Tensor], Tensor]
Constraint = str | Mapping[str, Any] | keras.constraints.Constraint | Callable[[Tensor], Tensor]
Seed = int | keras.random.SeedGenerator

# Raw images or files: an array or tensor, an image of Pillow, a path, a binary stream, or a list of these.
Images = Any
