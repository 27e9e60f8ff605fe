"""Many tokens become one vector: their mean, weighted by attention."""

from typing import Any

import keras
from keras import ops

from keras_vit_edu import _checks, initializers
from keras_vit_edu._types import Initializer, Shape, Tensor
from keras_vit_edu.layers.hooks import through_hook


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class SequencePooling(keras.layers.Layer):
    """Attention pooling: `(B, N, D)` to `(B, D)`.

    `pooled = softmax(x w)^T x`, the softmax over the N tokens

    A learned vector w gives each token a score. The output is the mean of the tokens, weighted by the softmax of the
    scores. So tokens of empty background may count for nothing, unlike in a plain mean, and no block has to carry a
    class token. (A bias would add the same number to every score, which does not change the softmax.)

    Args:
        kernel_initializer: initializer of w.
        **kwargs: arguments of `keras.layers.Layer`: `name`, `dtype`.

    Call arguments:
        tokens: `(B, N, D)`.
        return_attention_scores: return `(pooled, scores)`.

    Returns:
        Pooled tokens `(B, D)`. With `return_attention_scores` also the weights `(B, N)`, float32; each row sums to 1.

    Raises:
        ValueError: if the tokens do not have rank 3.

    Reference:
        Hassani et al., "Escaping the big data paradigm with compact transformers" (2021), arXiv 2104.05704, section
        3.2, equations 5 to 7.

    Examples:
        >>> import numpy as np
        >>> pooled, scores = SequencePooling()(np.ones((2, 49, 64), "float32"), return_attention_scores=True)
        >>> tuple(pooled.shape), tuple(scores.shape)
        ((2, 64), (2, 49))
    """

    def __init__(self, kernel_initializer: Initializer = "glorot_uniform", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.score_dense = keras.layers.Dense(
            1,
            use_bias=False,
            kernel_initializer=initializers.for_child(self.kernel_initializer, "score_dense"),
            dtype=self.dtype_policy,
            name="score_dense",
        )

    def build(self, tokens_shape: Shape) -> None:
        self._check_rank(tokens_shape)
        self.score_dense.build(_checks.known_sizes(tokens_shape))

    def call(self, tokens: Tensor, return_attention_scores: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        self._check_rank(tokens.shape)
        tokens = ops.cast(tokens, self.compute_dtype)
        scores = self.score_dense(tokens)  # (B, N, 1)
        scores = ops.softmax(ops.cast(scores, keras.backend.result_type(scores.dtype, "float32")), axis=1)
        scores = through_hook(self, "scores", ops.squeeze(scores, axis=2))  # (B, N)
        pooled = ops.sum(ops.cast(scores, tokens.dtype)[..., None] * tokens, axis=1)  # (B, D)
        return (pooled, scores) if return_attention_scores else pooled

    def compute_output_shape(self, tokens_shape: Shape) -> tuple[int | None, ...]:
        self._check_rank(tokens_shape)
        batch, _, width = _checks.known_sizes(tokens_shape)
        return batch, width

    def compute_output_spec(
        self, tokens: Tensor, return_attention_scores: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        self._check_rank(tokens.shape)
        batch, length, width = tokens.shape
        pooled = keras.KerasTensor((batch, width), dtype=self.compute_dtype)
        scores = keras.KerasTensor((batch, length), dtype="float32")
        return (pooled, scores) if return_attention_scores else pooled

    @staticmethod
    def _check_rank(shape: Shape) -> None:
        if len(shape) != 3:
            raise ValueError(
                f"Tokens must have 3 dimensions, (B, N, D). Received: tokens of shape {_checks.known_sizes(shape)}"
            )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
