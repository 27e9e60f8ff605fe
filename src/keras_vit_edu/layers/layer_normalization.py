"""Layer normalization that every exporter of torch takes."""

import keras
from keras import ops

from keras_vit_edu._types import Tensor
from keras_vit_edu.layers.hooks import through_hook


# Keras names the weights in a file after the class, so it has the name of Keras's own.
@keras.saving.register_keras_serializable(package="keras_vit_edu")
class LayerNormalization(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization`, over the last axis, whose traces torch can export with any batch size.

    While torch traces (`torch.jit.trace`, `torch.onnx.export(dynamo=False)`), Keras's layer takes the width from the
    inputs, where it is a tensor that the exporter refuses. Here it is the width of the weights. Arguments, weights and
    numbers are those of Keras's layer.

    Reference:
        Ba et al., "Layer normalization" (2016), arXiv 1607.06450.

    Examples:
        >>> import numpy as np
        >>> tuple(LayerNormalization()(np.zeros((2, 5, 4), "float32")).shape)
        (2, 5, 4)
    """

    def call(self, inputs: Tensor) -> Tensor:
        return through_hook(self, "normalised", self._normalised(inputs))

    def _normalised(self, inputs: Tensor) -> Tensor:
        if keras.backend.backend() != "torch":
            return super().call(inputs)
        import torch

        if not torch.jit.is_tracing() or self.gamma is None or self.beta is None or len(self.gamma.shape) != 1:
            return super().call(inputs)
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        gamma, beta = (ops.cast(weight, x.dtype) for weight in (self.gamma, self.beta))
        x = torch.nn.functional.layer_norm(x, tuple(self.gamma.shape), gamma, beta, self.epsilon)
        return ops.cast(x, self.compute_dtype)
