"""Multi-head attention, written out: every step one line, its shape beside it.

Self-attention on B sequences of N tokens, each D wide, with h heads of size d:

    tokens            (B, N, D)
      | project: three Dense layers
    Q, K, V           (B, N, h * d)    one row per token
      | split
    Q, K, V           (B, h, N, d)     one row per token, for each head
      | attend: softmax(Q K^T / sqrt(d)) V
    scores            (B, h, N, N)     how much each query attends to each key; each row sums to 1
    heads             (B, h, N, d)     the values, mixed in those shares
      | join
    heads             (B, N, h * d)
      | project: one Dense layer
    output            (B, N, D)

Attention from one sequence to another has T queries and S keys and values; its scores are `(B, h, T, S)`.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit_edu import _checks, initializers, random
from keras_vit_edu._types import Constraint, Initializer, Regularizer, Shape, Tensor
from keras_vit_edu.layers import attention_conversion
from keras_vit_edu.layers.attention_masks import AttentionMasks, check_broadcasts
from keras_vit_edu.layers.fused_attention import fused_attention, has_fused_attention
from keras_vit_edu.layers.hooks import is_hooked, through_hook
from keras_vit_edu.layers.portable_dropout import PortableDropout
from keras_vit_edu.layers.token_dense import TokenDense

# exp() of it is 0. If all scores of a row have this value, softmax gives a uniform row; with -infinity it gives NaN.
LARGEST_NEGATIVE = float(np.finfo("float32").min)


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(d) + bias), over the keys.

    Args:
        query: `(B, h, T, d)`.
        key: `(B, h, S, d)`.
        mask: boolean, broadcastable to `(B, h, T, S)`; True where the query may attend.
        bias: added to the scores, broadcastable to `(B, h, T, S)`. Defaults to no bias. A bias cannot hide a key as a
            mask does: if it is -infinity for all keys of a query, the row is uniform.

    Returns:
        `(B, h, T, S)`, float32, or float64 for float64 inputs on TensorFlow; each row sums to 1. If the mask hides all
        keys of a query, its row is uniform.

    Examples:
        >>> query = key = np.zeros((1, 1, 2, 4), "float32")
        >>> causal = np.array([[True, False], [True, True]])
        >>> keras.ops.convert_to_numpy(attention_weights(query, key, causal)).tolist()
        [[[[1.0, 0.0], [0.5, 0.5]]]]
    """
    size = query.shape[-1]
    root = math.sqrt(size) if isinstance(size, int) else size**0.5  # a tensor under `torch.jit.trace`
    query = query / root  # before the product: float16 would overflow after it
    scores = ops.matmul(query, ops.swapaxes(key, -2, -1))  # (B, h, T, S)
    scores = ops.cast(scores, keras.backend.result_type(scores.dtype, "float32"))
    if bias is not None:
        # Keep every unmasked score above the masked ones, even for a float16 bias of -1e9, which is -infinity.
        scores = ops.maximum(scores + ops.cast(bias, scores.dtype), LARGEST_NEGATIVE / 2)
    if mask is not None:
        scores = ops.where(mask, scores, LARGEST_NEGATIVE)
    return ops.softmax(scores, axis=-1)


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class MyMultiHeadAttention(keras.layers.Layer):
    """Multi-head attention, written out with `Dense` layers: a `keras.layers.MultiHeadAttention` to read.

    For each head, with Q, K, V the projections of query, key and value:

    `head = softmax(Q K^T / sqrt(d)) V`, and `output = concatenate(heads) W_out + b_out`

    Each query asks "who has what I need?". Its product with a key says how well that key answers. The softmax turns
    these scores into weights, and the output is the weighted sum of the values. Several heads ask several questions.

    The layer has two paths, which give the same numbers. The explicit path is the one to read. The fused path is one
    operation of the backend, where there is one (on torch, and on JAX with an accelerator). The layer takes it when
    nobody asks for the scores, no dropout is active, no bias is given, and `value_dim` equals `key_dim`.

    Args:
        num_heads: h, the number of heads.
        key_dim: d, the size of one head's query and key. (Together the heads are `num_heads * key_dim` wide, which
            need not be the width of the tokens: the course's program has 4 heads of 64 on tokens of 64.)
        value_dim: dv, the size of one head's value. Defaults to `key_dim`.
        dropout: probability, in [0, 1), of dropping a score in training.
        use_bias: whether the four projections have a bias.
        output_shape: width of the output, an int. Defaults to the width of the query.
        kernel_initializer: initializer of the four kernels. Each projection derives its own seed from its seed.
        bias_initializer: initializer of the four biases, likewise.
        kernel_regularizer: regularizer of the four kernels.
        bias_regularizer: regularizer of the four biases.
        activity_regularizer: regularizer of the four projections' outputs.
        kernel_constraint: constraint on the four kernels.
        bias_constraint: constraint on the four biases.
        seed: seed of the dropout, an int.
        **kwargs: arguments of `keras.layers.Layer`: `name`, `dtype`.

    Call arguments:
        query: `(B, T, Dq)`.
        value: `(B, S, Dv)`.
        key: `(B, S, Dk)`. Defaults to `value`. Self-attention is `attention(x, x)`.
        query_mask: boolean `(B, T)`; True where a query is real. Keras fills it in from the mask of `query`, and
            likewise the next two.
        value_mask: boolean `(B, S)`.
        key_mask: boolean `(B, S)`.
        attention_mask: `(T, S)`, `(B, T, S)` or `(B, h, T, S)`; each axis may have size 1. **True where the query
            may attend**, as everywhere in Keras. (The course's own code adds `mask * -1e9`: there 1 means hidden.)
        return_attention_scores: return `(output, scores)`.
        training: whether dropout acts.
        use_causal_mask: let query t attend to keys 0 to t only.
        attention_bias: `(B, h, T, S)`, each axis may have size 1; added to `Q K^T / sqrt(d)`. A `RelativePositionBias`
            gives one. (Keras's layer has no such argument.)

    Returns:
        Output `(B, T, output_shape or Dq)`. With `return_attention_scores` also the scores `(B, h, T, S)`, after the
        softmax and before dropout, in the compute dtype. A query attends to a key only if every mask allows it. A
        query that may attend to nothing spreads its attention evenly.

    Raises:
        ValueError: if a size is not a positive int, `dropout` is outside [0, 1), an input does not have rank 3, keys
            and values differ in length, or a mask or bias does not broadcast to `(B, h, T, S)`.

    Reference:
        Vaswani et al., "Attention is all you need" (NeurIPS 2017), section 3.2.

    Examples:
        >>> attention = MyMultiHeadAttention(num_heads=4, key_dim=16)
        >>> tokens = np.random.default_rng(0).normal(size=(2, 10, 64)).astype("float32")
        >>> output, scores = attention(tokens, tokens, return_attention_scores=True)
        >>> tuple(output.shape), tuple(scores.shape)
        ((2, 10, 64), (2, 4, 10, 10))
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.1,
        use_bias: bool = True,
        output_shape: int | None = None,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer | None = None,
        bias_regularizer: Regularizer | None = None,
        activity_regularizer: Regularizer | None = None,
        kernel_constraint: Constraint | None = None,
        bias_constraint: Constraint | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = _checks.positive_int("num_heads", num_heads)
        self.key_dim = _checks.positive_int("key_dim", key_dim)
        self.value_dim = self.key_dim if value_dim is None else _checks.positive_int("value_dim", value_dim)
        self.dropout = _checks.dropout_rate("dropout", dropout)
        self.use_bias = bool(use_bias)
        widths = _checks.sequence(output_shape)
        if widths is not None and len(widths) == 1:
            output_shape = widths[0]
        # (`output_shape` itself is a property of every Keras layer.)
        self._output_width = None if output_shape is None else _checks.positive_int("output_shape", output_shape)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        # Under another name: as `activity_regularizer` Keras would apply it to this layer's output too.
        self._projection_activity_regularizer = keras.regularizers.get(activity_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.seed = random.check_seed(seed)
        self.supports_masking = True

        self.q_dense = self._dense(self.num_heads * self.key_dim, "q_dense")
        self.k_dense = self._dense(self.num_heads * self.key_dim, "k_dense")
        self.v_dense = self._dense(self.num_heads * self.value_dim, "v_dense")
        self.out_dense: Any = None  # its width is known in `build`
        self.score_dropout = PortableDropout(
            self.dropout, seed=self.seed, dtype=self.dtype_policy, name="score_dropout"
        )

    def _dense(self, units: int, name: str) -> TokenDense:
        return TokenDense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=initializers.for_child(self.kernel_initializer, name),
            bias_initializer=initializers.for_child(self.bias_initializer, name),
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            activity_regularizer=self._projection_activity_regularizer,
            kernel_constraint=self.kernel_constraint,
            bias_constraint=self.bias_constraint,
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, query_shape: Shape, value_shape: Shape, key_shape: Shape | None = None) -> None:
        key_shape = value_shape if key_shape is None else key_shape
        output_shape = self.compute_output_shape(query_shape, value_shape, key_shape)
        query_shape, value_shape, key_shape = map(_checks.known_sizes, (query_shape, value_shape, key_shape))
        self.q_dense.build(query_shape)
        self.k_dense.build(key_shape)
        self.v_dense.build(value_shape)
        self.out_dense = self._dense(output_shape[-1], "out_dense")
        self.out_dense.build((*output_shape[:-1], self.num_heads * self.value_dim))
        self.score_dropout.build((query_shape[0], self.num_heads, query_shape[1], key_shape[1]))

    def call(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
        attention_bias: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        key = value if key is None else key
        masks = AttentionMasks(query_mask, value_mask, key_mask, attention_mask, use_causal_mask)
        self._check(query, value, key, masks, attention_bias)
        mask = masks.combined(query, key)  # broadcastable to (B, h, T, S); or None

        query = self._split_heads(self.q_dense(query))  # (B, T, h, d)
        key = self._split_heads(self.k_dense(key))  # (B, S, h, d)
        value = self._split_heads(self.v_dense(value))  # (B, S, h, dv)

        needs_scores = return_attention_scores or attention_bias is not None or (training and self.dropout > 0)
        if needs_scores or is_hooked() or self.value_dim != self.key_dim or not self._fused_is_faster():
            heads, scores = self._attend(query, key, value, mask, attention_bias, training)
        else:
            heads, scores = fused_attention(query, key, value, mask), None

        output = self.out_dense(self._join_heads(heads))  # (B, T, D)
        return (output, scores) if return_attention_scores else output

    def _split_heads(self, x: Tensor) -> Tensor:
        """`(B, T, h * d)` to `(B, T, h, d)`."""
        batch, length, width = ops.shape(x)
        return ops.reshape(x, (batch, length, self.num_heads, width // self.num_heads))

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, bias: Tensor, training: bool | None
    ) -> tuple[Tensor, Tensor]:
        """The explicit path: heads `(B, T, h, dv)` and scores `(B, h, T, S)`."""
        query, key, value = (ops.swapaxes(x, 1, 2) for x in (query, key, value))  # (B, h, T or S, d or dv)
        scores = attention_weights(query, key, mask, bias)  # (B, h, T, S)
        scores = through_hook(self, "scores", ops.cast(scores, self.compute_dtype))
        heads = ops.matmul(self.score_dropout(scores, training=training), value)  # (B, h, T, dv)
        heads = through_hook(self, "heads", heads)
        return ops.swapaxes(heads, 1, 2), scores

    def _join_heads(self, x: Tensor) -> Tensor:
        """`(B, T, h, d)` to `(B, T, h * d)`."""
        batch, length, heads, width = ops.shape(x)
        return ops.reshape(x, (batch, length, heads * width))

    _fused_is_faster = staticmethod(has_fused_attention)

    def _check(self, query: Tensor, value: Tensor, key: Tensor, masks: AttentionMasks, bias: Tensor) -> None:
        """Raise a ValueError for shapes that do not fit each other."""
        self.compute_output_shape(query.shape, value.shape, key.shape)
        batch, rows, columns = _checks.known_sizes((query.shape[0], query.shape[1], key.shape[1]))
        masks.check(batch, self.num_heads, rows, columns)
        check_broadcasts("attention_bias", bias, (batch, self.num_heads, rows, columns))

    def compute_output_shape(
        self, query_shape: Shape, value_shape: Shape, key_shape: Shape | None = None
    ) -> tuple[Any, ...]:
        key_shape = value_shape if key_shape is None else key_shape
        query_sizes, value_sizes, key_sizes = map(_checks.known_sizes, (query_shape, value_shape, key_shape))
        received = f"Received: query of shape {query_sizes}, value of shape {value_sizes}, key of shape {key_sizes}"
        if not len(query_sizes) == len(value_sizes) == len(key_sizes) == 3:
            raise ValueError(f"query, value and key must have 3 dimensions, (batch, length, width). {received}")
        if len({query_sizes[0], value_sizes[0], key_sizes[0]} - {None}) > 1:
            raise ValueError(f"query, value and key must be of one batch size. {received}")
        if len({value_sizes[1], key_sizes[1]} - {None}) > 1:
            raise ValueError(f"There must be as many keys as values. {received}")
        return query_sizes[0], query_sizes[1], self._output_width or query_sizes[2]

    def compute_output_spec(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
        attention_bias: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        key = value if key is None else key
        masks = AttentionMasks(query_mask, value_mask, key_mask, attention_mask, use_causal_mask)
        self._check(query, value, key, masks, attention_bias)
        output_shape = self.compute_output_shape(query.shape, value.shape, key.shape)
        output = keras.KerasTensor(output_shape, dtype=self.compute_dtype)
        if not return_attention_scores:
            return output
        scores_shape = (query.shape[0], self.num_heads, query.shape[1], key.shape[1])
        return output, keras.KerasTensor(scores_shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "output_shape": self._output_width,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "activity_regularizer": keras.regularizers.serialize(self._projection_activity_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
            "seed": self.seed,
        }

    @classmethod
    def from_keras(cls, layer: keras.layers.MultiHeadAttention) -> "MyMultiHeadAttention":
        """This layer with the configuration and the weights of a `keras.layers.MultiHeadAttention`.

        Args:
            layer: built, on inputs of rank 3, without `attention_axes`, `use_gate` and `sliding_window`.

        Returns:
            A built layer with the same name and dtype policy; the same outputs for the same inputs. A LoRA update is
            merged into the kernels.

        Raises:
            ValueError: if `layer` is another layer, is not built, is quantized, or uses an option that this layer
                does not have.

        Examples:
            >>> theirs = keras.layers.MultiHeadAttention(num_heads=4, key_dim=16)
            >>> theirs.build((None, 10, 64), (None, 10, 64))
            >>> tuple(MyMultiHeadAttention.from_keras(theirs).q_dense.kernel.shape)
            (64, 64)
        """
        return attention_conversion.from_keras(layer, cls.from_config)

    def to_keras(self) -> keras.layers.MultiHeadAttention:
        """A `keras.layers.MultiHeadAttention` with this layer's configuration and weights.

        Returns:
            A built layer with the same name and dtype policy; the same outputs for the same inputs. (For a query that
            may attend to nothing, one of Keras's paths returns zeros; this layer attends evenly.) A LoRA update is
            merged into the kernels.

        Raises:
            ValueError: if this layer is not built, or is quantized.

        Examples:
            >>> ours = MyMultiHeadAttention(num_heads=4, key_dim=16)
            >>> ours.build((None, 10, 64), (None, 10, 64))
            >>> tuple(ours.to_keras().query_dense.kernel.shape)
            (64, 4, 16)
        """
        return attention_conversion.to_keras(self)
