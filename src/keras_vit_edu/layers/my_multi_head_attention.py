"""Multi-head attention, with nothing hidden: every step one line, its shape beside it."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit_edu import _checks, initializers, random
from keras_vit_edu._weights import copy_of
from keras_vit_edu.layers.portable_dropout import PortableDropout
from keras_vit_edu.layers.token_dense import TokenDense

# exp() of it is 0, and a row that holds nothing else comes out uniform. (-infinity would make that row NaN.)
LARGEST_NEGATIVE = float(np.finfo("float32").min)


def attention_weights(query: Any, key: Any, mask: Any = None, bias: Any = None) -> Any:
    """softmax(Q K^T / sqrt(d) + bias), over the keys.

    Args:
        query: `(B, h, T, d)`.
        key: `(B, h, S, d)`.
        mask: boolean, broadcastable to `(B, h, T, S)`; True where the query may attend.
        bias: added to the scores, broadcastable to `(B, h, T, S)`; None for none. However low, it hides no key as a
            mask does: a row where it is -infinity everywhere is uniform.

    Returns:
        `(B, h, T, S)`, float32 (float64 for float64, if the backend's `keras.ops` compute in it: TensorFlow's do); each
        row sums to 1. A row that hides every key is uniform.
    """
    query = query / _root(query.shape[-1])  # before the product: float16 would overflow after it
    scores = ops.matmul(query, ops.swapaxes(key, -2, -1))  # (B, h, T, S)
    scores = ops.cast(scores, keras.backend.result_type(scores.dtype, "float32"))
    if bias is not None:
        # Never as low as what is masked: float16 makes -infinity of -1e9.
        scores = ops.maximum(scores + ops.cast(bias, scores.dtype), LARGEST_NEGATIVE / 2)
    if mask is not None:
        scores = ops.where(mask, scores, LARGEST_NEGATIVE)
    return ops.softmax(scores, axis=-1)


def fused_attention(query: Any, key: Any, value: Any, mask: Any = None) -> Any:
    """softmax(Q K^T / sqrt(d)) V in one operation of the backend, which need not keep the weights.

    The same numbers as `matmul(attention_weights(query, key, mask), value)`, in another layout: heads are the third
    axis.

    Args:
        query: `(B, T, h, d)`.
        key: `(B, S, h, d)`.
        value: `(B, S, h, d)`.
        mask: boolean, of rank 4 and broadcastable to `(B, h, T, S)`; True where the query may attend.

    Returns:
        `(B, T, h, d)`.
    """
    common = keras.backend.result_type(query.dtype, key.dtype, value.dtype)
    query, key, value = (ops.cast(x, common) for x in (query, key, value))
    if mask is not None:
        # Backends disagree about a row that hides every key. A query of zeros that sees every key is uniform in all.
        sees_a_key = ops.any(mask, axis=-1, keepdims=True)  # (B, h, T, 1), or 1 for any but the last
        query = ops.where(ops.swapaxes(sees_a_key, 1, 2), query, ops.zeros_like(query))
        mask = ops.logical_or(mask, ops.logical_not(sees_a_key))
        # torch on a GPU wants the last axis of a mask whole: "last dimension must be contiguous" (keras issue 20459).
        rows_and_columns = (ops.shape(query)[1], ops.shape(key)[1])
        mask = ops.broadcast_to(mask, tuple(ops.shape(mask)[:2]) + rows_and_columns)
    if keras.backend.backend() == "torch":  # by way of Keras, all three would be copied first
        import torch

        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)
    dtype = keras.backend.standardize_dtype(query.dtype)
    if dtype == "float16" and keras.backend.backend() == "jax" and _jax_device() != "gpu":
        query, key, value = (ops.cast(x, "float32") for x in (query, key, value))  # would not compile: keras-hub 2354
    query = query / math.sqrt(query.shape[-1])  # before the product: float16 would overflow after it
    return ops.cast(ops.dot_product_attention(query, key, value, mask=mask, scale=1.0), dtype)


def _root(size: Any) -> Any:
    """The square root of a size, which is a tensor while `torch.jit.trace` looks on."""
    return math.sqrt(size) if isinstance(size, int) else size**0.5


def _jax_device() -> str:
    """`"cpu"`, `"gpu"` or `"tpu"`."""
    import jax

    return jax.default_backend()


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class MyMultiHeadAttention(keras.layers.Layer):
    """Multi-head attention, written out with `Dense` layers: `keras.layers.MultiHeadAttention` to look inside of.

    For each head, with Q, K, V the projections of query, key and value:

    `head = softmax(Q K^T / sqrt(d)) V`, and `output = concatenate(heads) W_out + b_out`

    Each query asks "who has what I need?"; its product with a key says how well that key answers; the softmax turns
    these scores into shares; the output is the values mixed in those shares. Several heads ask several questions.

    There are two paths to the same numbers. The explicit one is the one to read. The fused one is
    the backend's own operation, taken where there is one (on torch, and on JAX with an accelerator), whenever nobody
    asked for the scores, no dropout is active and no bias is given (and `value_dim` is `key_dim`: JAX's wants that).

    Args:
        num_heads: h, the number of heads.
        key_dim: d, the size of one head's query and key. (Together the heads are `num_heads * key_dim` wide, which
            need not be the width of the tokens: the course's program has 4 heads of 64 on tokens of 64.)
        value_dim: dv, the size of one head's value; None for `key_dim`.
        dropout: probability that a score is dropped in training.
        use_bias: whether the four projections have one.
        output_shape: width of the output, an int; None for the width of the query.
        kernel_initializer: of the four projections; one with a seed gives each a seed of its own, derived from it.
        bias_initializer: likewise.
        kernel_regularizer: of the four projections.
        bias_regularizer: of the four projections.
        activity_regularizer: of the four projections' outputs.
        kernel_constraint: of the four projections.
        bias_constraint: of the four projections.
        seed: of the dropout.
        **kwargs: of `keras.layers.Layer`: `name`, `dtype`.

    Call arguments:
        query: `(B, T, Dq)`.
        value: `(B, S, Dv)`.
        key: `(B, S, Dk)`; `value` if it is not given. Self-attention is `attention(x, x)`.
        query_mask: boolean `(B, T)`; True where a query is real. Keras fills it in from the mask of `query`, as it
            does the next two.
        value_mask: boolean `(B, S)`.
        key_mask: boolean `(B, S)`.
        attention_mask: `(T, S)`, `(B, T, S)` or `(B, h, T, S)`, 1s allowed for B, h, T, S; **True where the query may
            attend**, as everywhere in Keras. (The course's own code adds `mask * -1e9`: there 1 hides.)
        return_attention_scores: return `(output, scores)`.
        training: whether dropout acts.
        use_causal_mask: let query t attend to keys 0 to t only.
        attention_bias: `(B, h, T, S)`, 1s allowed for each; added to `Q K^T / sqrt(d)`, such as what a
            `RelativePositionBias` gives. (Keras's layer has no such argument.)

    Returns:
        Output `(B, T, output_shape or Dq)`; with `return_attention_scores` also the scores `(B, h, T, S)`, after the
        softmax and before dropout, in the compute dtype. All masks hold together; a query that may attend to nothing
        spreads its attention evenly.

    Raises:
        ValueError: for sizes that are no positive ints, a dropout outside [0, 1), inputs that are not of rank 3, keys
            and values of different lengths, or a mask or bias that does not broadcast to `(B, h, T, S)`.

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
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
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
        # `output_shape` itself is a property of Keras layers.
        self._output_width = None if output_shape is None else _checks.positive_int("output_shape", output_shape)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        # Not under its own name: Keras would add the penalty of our output to those of the projections.
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

    def build(self, query_shape: Sequence[Any], value_shape: Sequence[Any], key_shape: Any = None) -> None:
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
        query: Any,
        value: Any,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
        attention_bias: Any = None,
    ) -> Any:
        key = value if key is None else key
        self.compute_output_shape(query.shape, value.shape, key.shape)  # complains about shapes that do not fit
        self._check_masks(query, key, query_mask, value_mask, key_mask, attention_mask, attention_bias)
        mask = self._combined_mask(query, key, query_mask, value_mask, key_mask, attention_mask, use_causal_mask)

        query = self._split_heads(self.q_dense(query))  # (B, T, h, d)
        key = self._split_heads(self.k_dense(key))  # (B, S, h, d)
        value = self._split_heads(self.v_dense(value))  # (B, S, h, dv)

        scores = None
        wants_scores = return_attention_scores or attention_bias is not None or (training and self.dropout > 0)
        if wants_scores or self.value_dim != self.key_dim or not self._fused_is_faster():
            query, key, value = (ops.swapaxes(x, 1, 2) for x in (query, key, value))  # (B, h, T or S, d or dv)
            scores = attention_weights(query, key, mask, attention_bias)  # (B, h, T, S)
            scores = ops.cast(scores, self.compute_dtype)
            heads = ops.matmul(self.score_dropout(scores, training=training), value)  # (B, h, T, dv)
            heads = ops.swapaxes(heads, 1, 2)  # (B, T, h, dv)
        else:
            heads = fused_attention(query, key, value, mask)  # (B, T, h, dv)

        output = self.out_dense(self._join_heads(heads))  # (B, T, D)
        return (output, scores) if return_attention_scores else output

    def _check_masks(
        self,
        query: Any,
        key: Any,
        query_mask: Any,
        value_mask: Any,
        key_mask: Any,
        attention_mask: Any,
        attention_bias: Any,
    ) -> None:
        batch, rows, columns = _checks.known_sizes((query.shape[0], query.shape[1], key.shape[1]))
        _check_mask("query_mask", query_mask, (batch, rows))
        _check_mask("value_mask", value_mask, (batch, columns))
        _check_mask("key_mask", key_mask, (batch, columns))
        _check_mask(
            "attention_mask",
            attention_mask,
            (rows, columns),
            (batch, rows, columns),
            (batch, self.num_heads, rows, columns),
        )
        _check_mask("attention_bias", attention_bias, (batch, self.num_heads, rows, columns))

    def _combined_mask(
        self,
        query: Any,
        key: Any,
        query_mask: Any,
        value_mask: Any,
        key_mask: Any,
        attention_mask: Any,
        use_causal_mask: bool,
    ) -> Any:
        """All masks in one, boolean, broadcastable to `(B, h, T, S)`; None if there is none."""
        masks = []
        if attention_mask is not None:
            new_axes = {2: (0, 1), 3: (1,), 4: ()}[len(attention_mask.shape)]
            masks.append(ops.expand_dims(attention_mask, new_axes))  # (B or 1, h or 1, T, S)
        if query_mask is not None:
            masks.append(query_mask[:, None, :, None])  # (B, 1, T, 1)
        if value_mask is not None:
            masks.append(value_mask[:, None, None, :])  # (B, 1, 1, S)
        if key_mask is not None:
            masks.append(key_mask[:, None, None, :])  # (B, 1, 1, S)
        if use_causal_mask:
            row = ops.arange(ops.shape(query)[1])[:, None]  # (T, 1)
            column = ops.arange(ops.shape(key)[1])[None, :]  # (1, S)
            masks.append((row >= column)[None, None])  # (1, 1, T, S)
        masks = [ops.cast(mask, "bool") for mask in masks]
        return functools.reduce(ops.logical_and, masks) if masks else None

    @staticmethod
    def _fused_is_faster() -> bool:
        """Elsewhere Keras writes the fused path out as we do, with the heads in a slower place."""
        backend = keras.backend.backend()
        return backend == "torch" or (backend == "jax" and _jax_device() != "cpu")

    def _split_heads(self, x: Any) -> Any:
        """`(B, T, h * d)` to `(B, T, h, d)`."""
        batch, length, width = ops.shape(x)
        return ops.reshape(x, (batch, length, self.num_heads, width // self.num_heads))

    def _join_heads(self, x: Any) -> Any:
        """`(B, T, h, d)` to `(B, T, h * d)`."""
        batch, length, heads, width = ops.shape(x)
        return ops.reshape(x, (batch, length, heads * width))

    def compute_output_shape(
        self, query_shape: Sequence[Any], value_shape: Sequence[Any], key_shape: Any = None
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
        query: Any,
        value: Any,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
        attention_bias: Any = None,
    ) -> Any:
        key = value if key is None else key
        output_shape = self.compute_output_shape(query.shape, value.shape, key.shape)
        self._check_masks(query, key, query_mask, value_mask, key_mask, attention_mask, attention_bias)
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

    # To and from Keras's own layer. -----------------------------------------------------------------------------------

    @classmethod
    def from_keras(cls, layer: keras.layers.MultiHeadAttention) -> "MyMultiHeadAttention":
        """This layer with the configuration and the weights of a `keras.layers.MultiHeadAttention`.

        Keras keeps the query kernel as `(D, h, d)` and the output kernel as `(h, dv, D)`; flattened, they are ours.

        Args:
            layer: built, on inputs of rank 3, without `attention_axes`, `use_gate` and `sliding_window`.

        Returns:
            A built layer with the same name and dtype policy; the same outputs for the same inputs. LoRA's update, if
            there is one, is in the kernels.

        Raises:
            ValueError: if `layer` is no such layer, is not built, is quantized, or has what this layer does not.

        Examples:
            >>> theirs = keras.layers.MultiHeadAttention(num_heads=4, key_dim=16)
            >>> theirs.build((None, 10, 64), (None, 10, 64))
            >>> tuple(MyMultiHeadAttention.from_keras(theirs).q_dense.kernel.shape)
            (64, 64)
        """
        if not isinstance(layer, keras.layers.MultiHeadAttention):
            raise ValueError(f"Only a `keras.layers.MultiHeadAttention` can be taken over. Received: {layer}")
        if not layer.built:
            raise ValueError(f"Only a layer with weights can be taken over: build or call it first. Received: {layer}")
        config = layer.get_config()
        theirs_only = {
            "attention_axes": tuple(config.pop("attention_axes")) != (1,),  # (1,): over the one axis of rank 3
            "use_gate": config.pop("use_gate"),
            "sliding_window": config.pop("sliding_window") is not None,
            "output_shape": config["output_shape"] is not None and len(config["output_shape"]) > 1,
        }
        for argument, is_used in theirs_only.items():
            if is_used:
                raise ValueError(
                    f"MyMultiHeadAttention cannot stand for a layer with this `{argument}`: it attends over axis 1 of "
                    "three, without gate and window, and its output has one width. "
                    f"Received: {layer.name} with {argument}={layer.get_config()[argument]}"
                )
        ours = cls.from_config(config)
        denses = _keras_projections(layer)
        query, key, value, _ = (dense.kernel.shape[0] for dense in denses)
        ours.build((None, None, query), (None, None, value), (None, None, key))
        _copy_projections(denses, ours._projections())
        return ours

    def to_keras(self) -> keras.layers.MultiHeadAttention:
        """A `keras.layers.MultiHeadAttention` with this layer's configuration and weights.

        Returns:
            A built layer with the same name and dtype policy; the same outputs for the same inputs. (For a query that
            may attend to nothing Keras gives zeros on one of its paths; ours spreads evenly.) LoRA's update, if there
            is one, is in the kernels.

        Raises:
            ValueError: if this layer is not built, or is quantized.

        Examples:
            >>> ours = MyMultiHeadAttention(num_heads=4, key_dim=16)
            >>> ours.build((None, 10, 64), (None, 10, 64))
            >>> tuple(ours.to_keras().query_dense.kernel.shape)
            (64, 4, 16)
        """
        if not self.built:
            raise ValueError(f"Only a layer with weights can be handed over: build or call it first. Received: {self}")
        theirs = keras.layers.MultiHeadAttention.from_config(self.get_config())
        query, key, value, _ = (dense.kernel.shape[0] for dense in self._projections())
        theirs.build((None, None, query), (None, None, value), (None, None, key))
        _copy_projections(self._projections(), _keras_projections(theirs))
        return theirs

    def _projections(self) -> tuple[Any, Any, Any, Any]:
        return self.q_dense, self.k_dense, self.v_dense, self.out_dense


def _keras_projections(layer: keras.layers.MultiHeadAttention) -> tuple[Any, Any, Any, Any]:
    return layer.query_dense, layer.key_dense, layer.value_dense, layer.output_dense


def _copy_projections(sources: Sequence[Any], targets: Sequence[Any]) -> None:
    """Give each target the kernel and bias of its source; heads are an axis of their own in Keras's, not in ours."""
    for source, target in zip(sources, targets, strict=True):
        if source.quantization_mode is not None:
            raise ValueError(
                "The weights of a quantized layer cannot be handed on: do so first, then quantize. "
                f"Received: {source.path}, quantized to {source.quantization_mode}"
            )
        target.kernel.assign(copy_of(source.kernel).reshape(target.kernel.shape))  # with LoRA's update, if there is one
        if source.bias is not None:
            target.bias.assign(copy_of(source.bias).reshape(target.bias.shape))


def _check_mask(name: str, mask: Any, *allowed: tuple[Any, ...]) -> None:
    """Complain unless there is no mask, or one that broadcasts to a shape among those allowed."""
    if mask is not None and not hasattr(mask, "shape"):
        raise ValueError(f"`{name}` must be an array or a tensor. Received: a {type(mask).__name__}")
    if mask is None or any(_broadcasts(_checks.known_sizes(mask.shape), shape) for shape in allowed):
        return
    raise ValueError(
        f"`{name}` must broadcast to {' or '.join(str(shape) for shape in allowed)}. "
        f"Received: {name} of shape {_checks.known_sizes(mask.shape)}"
    )


def _broadcasts(shape: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Whether `shape` broadcasts to `wanted`, of the same rank; None may be any size."""
    return len(shape) == len(wanted) and all(
        own == 1 or None in (own, size) or own == size for own, size in zip(shape, wanted, strict=True)
    )
