"""Attention as one operation of the backend."""

import math

import keras
from keras import ops

from keras_vit_edu._types import Tensor


def fused_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V in one operation of the backend, which need not keep the weights.

    The same numbers as `matmul(attention_weights(query, key, mask), value)`, in another layout: heads are the third
    axis.

    Args:
        query: `(B, T, h, d)`.
        key: `(B, S, h, d)`.
        value: `(B, S, h, d)`.
        mask: boolean, of rank 4 and broadcastable to `(B, h, T, S)`; True where the query may attend.

    Returns:
        `(B, T, h, d)`. A query that may attend to nothing gets the mean of all values.

    Examples:
        >>> import numpy as np
        >>> query, key = np.zeros((1, 1, 1, 2), "float32"), np.zeros((1, 2, 1, 2), "float32")
        >>> value = np.array([[[[0.0, 2.0]], [[4.0, 6.0]]]], "float32")  # two values: (0, 2) and (4, 6)
        >>> keras.ops.convert_to_numpy(fused_attention(*map(ops.convert_to_tensor, (query, key, value)))).tolist()
        [[[[2.0, 4.0]]]]
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
    if keras.backend.backend() == "torch":  # Keras would copy all three first
        import torch

        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)
    dtype = keras.backend.standardize_dtype(query.dtype)
    if dtype == "float16" and keras.backend.backend() == "jax" and _jax_device() != "gpu":
        query, key, value = (ops.cast(x, "float32") for x in (query, key, value))  # would not compile: keras-hub 2354
    query = query / math.sqrt(query.shape[-1])  # before the product: float16 would overflow after it
    return ops.cast(ops.dot_product_attention(query, key, value, mask=mask, scale=1.0), dtype)


def has_fused_attention() -> bool:
    """Whether the backend has such an operation. (Elsewhere Keras writes it out, with the heads in a slower place.)"""
    backend = keras.backend.backend()
    return backend == "torch" or (backend == "jax" and _jax_device() != "cpu")


def _jax_device() -> str:
    """`"cpu"`, `"gpu"` or `"tpu"`."""
    import jax

    return jax.default_backend()
