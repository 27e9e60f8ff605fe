"""A Dense layer for tokens: the same numbers as Keras's, but faster."""

from typing import Any

import keras
from keras import ops

from keras_vit_edu import _checks
from keras_vit_edu._types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class TokenDense(keras.layers.Dense):
    """`keras.layers.Dense`, computed as the product of two matrices: `(B, N, D)` to `(B, N, units)`.

    All tokens of all images are the rows of one matrix. Keras multiplies a stack of matrices, whose gradient is slower
    on JAX on a CPU. On torch, Keras adds the bias in a second pass over the output; `torch.nn.functional.linear` adds
    it in the first.

    Arguments, weights and numbers are those of `keras.layers.Dense`.

    Examples:
        >>> import numpy as np
        >>> tuple(TokenDense(3)(np.zeros((2, 5, 4), "float32")).shape)
        (2, 5, 3)
    """

    def build(self, input_shape: Shape) -> None:
        super().build(_checks.known_sizes(input_shape))

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        return (*_checks.known_sizes(input_shape)[:-1], self.units)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        kernel, bias = self.kernel, self.bias
        if keras.backend.backend() == "torch":
            import torch

            kernel, bias = ops.convert_to_tensor(kernel), None if bias is None else ops.convert_to_tensor(bias)
            if not inputs.dtype == kernel.dtype == (kernel if bias is None else bias).dtype:
                return super().call(inputs, training=training)  # whole numbers, weights after `half()`: Keras promotes
            x = torch.nn.functional.linear(inputs, kernel.T, bias)
        else:
            *leading, width = ops.shape(inputs)
            x = ops.matmul(ops.reshape(inputs, (-1, width)), kernel)
            x = ops.reshape(x if bias is None else ops.add(x, bias), (*leading, self.units))
        return x if self.activation is None else self.activation(x)

    def quantize(self, mode: Any = None, type_check: bool = True, config: Any = None) -> None:
        """As Keras's, which refuses every other class unless `type_check` is off."""
        super().quantize(mode, type_check=False, config=config)
