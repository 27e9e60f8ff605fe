"""Portable random numbers: the same seed gives the same bits on every backend.

Keras draws its *seeds* from Python's `random` (so `set_seed` fixes them), but each backend draws its own *numbers*
from a seed. Two generators here replace those draws:

- Numbers drawn once, on the host (initial weights, the order of batches): NumPy's Philox, a counter-based generator
  (Salmon et al. 2011). Only its raw 64-bit words are used, which NumPy keeps stable between versions.
- Numbers drawn inside a training step (dropout masks): a keyed integer hash of the element's position, written twice:
  in NumPy, and in `keras.ops` on int32 (JAX has no 64-bit integers by default, torch no full uint32). Both give the
  same bits eagerly, under `tf.function`, XLA, `jax.jit` and `torch.compile`.

`(seed, counter)` names a stream: the seed belongs to a layer, the counter to a step.

References:
    Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
    The mixing constants are `triple32` of C. Wellons' hash-prospector (public domain).
"""

import math
import operator
import random as python_random
import sys
import zlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit_edu import _checks, _keras_internals
from keras_vit_edu._inverse_normal import inverse_normal_cdf
from keras_vit_edu._types import Tensor

__all__ = [
    "bits",
    "bits_in_graph",
    "derive_seed",
    "dropout_mask",
    "dropout_mask_in_graph",
    "normal",
    "permutation",
    "set_seed",
    "uniform",
    "words",
]

SEED_LIMIT = 2**31  # the limit of torch

# (shift, multiplier) of the three rounds, and the last shift.
ROUNDS = ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB))
LAST_SHIFT = 14
# They make the two words of a key differ. They are digits of sqrt(2) and sqrt(5), chosen by nobody. One is odd and one
# is even, so that mixing the words is one-to-one: every (seed, counter) has a different key.
KEY_SALT = (0x6A09E667, 0x3C6EF372)


def check_seed(seed: Any, name: str = "seed") -> int | None:
    """Return `seed` as an int in [0, 2**31), or None.

    Raises:
        ValueError: for anything else. torch cannot hold 2**31 or more, so no backend may.
    """
    if seed is None:
        return None
    try:
        if isinstance(seed, bool):
            raise TypeError
        value = operator.index(seed)
    except TypeError:
        raise ValueError(f"`{name}` must be an int or None. Received: {name}={seed!r}") from None
    if not 0 <= value < SEED_LIMIT:
        raise ValueError(f"`{name}` must be at least 0 and below 2**31 = {SEED_LIMIT}. Received: {name}={seed!r}")
    return value


def _required_seed(seed: Any) -> int:
    value = check_seed(seed)
    if value is None:
        raise ValueError("`seed` must be an int here. Received: seed=None")
    return value


def set_seed(seed: int) -> None:
    """Seed Python, NumPy, Keras and its backend.

    Gives the same bits as `keras.utils.set_random_seed`, but imports nothing. Keras's function imports TensorFlow where
    it is installed, on every backend, which takes seconds. `set_seed` seeds TensorFlow if the process has imported it.

    Args:
        seed: int in [0, 2**31).

    Raises:
        ValueError: for any other seed.

    Examples:
        >>> set_seed(7)
        >>> first = keras.layers.Dense(3)
        >>> set_seed(7)
        >>> again = keras.layers.Dense(3)
        >>> x = np.ones((1, 2))
        >>> bool(ops.all(first(x) == again(x)))
        True
    """
    seed = _required_seed(seed)
    python_random.seed(seed)
    np.random.seed(seed)
    _keras_internals.note_seed(seed)
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None:
        tensorflow.random.set_seed(seed)
    if keras.backend.backend() == "torch":
        sys.modules["torch"].manual_seed(seed)


def derive_seed(seed: int | None, child: str) -> int | None:
    """Derive a seed for the child named `child`; None stays None.

    Args:
        seed: seed of the parent, an int in [0, 2**31) or None.
        child: a name that is unique among the children of this parent.

    Returns:
        An int in [0, 2**31), or None.

    Raises:
        ValueError: for a seed outside [0, 2**31).

    Examples:
        >>> derive_seed(0, "query") == derive_seed(0, "query")
        True
        >>> derive_seed(0, "query") == derive_seed(0, "key")
        False
    """
    if seed is None:
        return None
    return int(bits(seed, zlib.crc32(child.encode()), (1,))[0] >> 1)


# The keyed hash, in NumPy. --------------------------------------------------------------------------------------------


def bits(seed: int, counter: int, shape: Sequence[int]) -> np.ndarray:
    """32 random bits per element: a hash of its position under the key `(seed, counter)`.

    Args:
        seed: the stream, 0 to 2**31 - 1.
        counter: the step of that stream, modulo 2**32.
        shape: shape of the result. The position is the element's flat index, so a reshape changes no bit.

    Returns:
        uint32 array of `shape`.

    Raises:
        ValueError: for a seed outside [0, 2**31).

    Examples:
        >>> bits(seed=0, counter=0, shape=(3,)).tolist()
        [3840970600, 32400371, 3215604308]
    """
    key = stream_key(seed, counter)
    position = np.arange(math.prod(shape), dtype=np.uint32)
    return _hash(position, key[0], key[1]).reshape(shape)


def stream_key(seed: int, counter: int) -> np.ndarray:
    """The two 32-bit words of the key of `bits`. Both depend on the whole seed and the whole counter."""
    words = np.array([_required_seed(seed), counter % 2**32], dtype=np.uint32)
    salt = np.array(KEY_SALT, dtype=np.uint32)
    none = np.uint32(0)
    words = _hash(words + salt, none, none)
    words = words + words[::-1] * salt  # each word now depends on both
    return _hash(words, none, none)


def _hash(x: np.ndarray, key_0: np.uint32, key_1: np.uint32) -> np.ndarray:
    """Three rounds of xor-shift and multiply. One key word is added before the first round, one before the second."""
    (shift_0, multiplier_0), (shift_1, multiplier_1), (shift_2, multiplier_2) = ROUNDS
    x = x + key_0
    x = (x ^ (x >> np.uint32(shift_0))) * np.uint32(multiplier_0)
    x = (x ^ (x >> np.uint32(shift_1))) + key_1
    x = x * np.uint32(multiplier_1)
    x = (x ^ (x >> np.uint32(shift_2))) * np.uint32(multiplier_2)
    return x ^ (x >> np.uint32(LAST_SHIFT))


# The same in keras.ops, on int32. -------------------------------------------------------------------------------------


def bits_in_graph(state: Tensor, shape: Sequence[int | Tensor]) -> Tensor:
    """The twin of `bits` in `keras.ops`, for use inside a training step.

    Args:
        state: integer tensor `(2,)`: seed and counter, as from a `keras.random.SeedGenerator`.
        shape: shape of the result; entries may be scalar tensors (an unknown batch size under `tf.function`).

    Returns:
        int32 tensor of `shape` with the same bits as the uint32 array of `bits`.

    Examples:
        >>> found = ops.convert_to_numpy(bits_in_graph(np.array([0, 0]), shape=(3,)))
        >>> found.view("uint32").tolist()  # as in the example of `bits`
        [3840970600, 32400371, 3215604308]
    """
    key = _stream_key_in_graph(ops.cast(state, "int32"))
    position = ops.arange(math.prod(shape), dtype="int32")
    return ops.reshape(_hash_in_graph(position, key[0], key[1]), shape)


def _stream_key_in_graph(words: Tensor) -> Tensor:
    salt = ops.convert_to_tensor([_as_int32(word) for word in KEY_SALT], dtype="int32")
    words = _hash_in_graph(words + salt, 0, 0)
    words += ops.flip(words) * salt
    return _hash_in_graph(words, 0, 0)


def _hash_in_graph(x: Tensor, key_0: Tensor, key_1: Tensor) -> Tensor:
    """The twin of `_hash`. It may overwrite `x`.

    On torch `x *= y` works in place: a new buffer for every step would cost more than the step. On TensorFlow and JAX
    tensors do not change, and it means `x = x * y`.
    """
    (shift_0, multiplier_0), (shift_1, multiplier_1), (shift_2, multiplier_2) = ROUNDS
    x += key_0
    x = _xor_shift(x, shift_0)
    x *= _as_int32(multiplier_0)
    x = _xor_shift(x, shift_1)
    x += key_1
    x *= _as_int32(multiplier_1)
    x = _xor_shift(x, shift_2)
    x *= _as_int32(multiplier_2)
    return _xor_shift(x, LAST_SHIFT)


def _xor_shift(x: Tensor, shift: int) -> Tensor:
    shifted = ops.right_shift(x, shift)
    shifted &= (1 << (32 - shift)) - 1  # int32 shifts in copies of the sign bit: mask them off
    x ^= shifted
    return x


def _as_int32(word: int) -> int:
    """The int32 with the bits of the uint32 `word`."""
    return word - 2**32 if word >= 2**31 else word


# Dropout masks. -------------------------------------------------------------------------------------------------------


def dropout_mask(seed: int, counter: int, shape: Sequence[int], rate: float) -> np.ndarray:
    """The elements that dropout keeps, in NumPy.

    Args:
        seed: the layer's seed.
        counter: number of earlier draws of the layer.
        shape: shape of the mask.
        rate: probability of False, in [0, 1), rounded to a multiple of 2**-32.

    Returns:
        bool array of `shape`, True where the element is kept.

    Raises:
        ValueError: for a rate outside [0, 1) or a seed outside [0, 2**31).

    Examples:
        >>> dropout_mask(seed=3, counter=0, shape=(6,), rate=0.25).tolist()
        [True, True, True, True, False, True]
    """
    return bits(seed, counter, shape).view(np.int32) >= _keep_threshold(rate)


def dropout_mask_in_graph(state: Tensor, shape: Sequence[int | Tensor], rate: float) -> Tensor:
    """The twin of `dropout_mask` in `keras.ops`, for use inside a training step.

    Args:
        state: integer tensor `(2,)`: seed and counter, as from a `keras.random.SeedGenerator`.
        shape: shape of the mask; entries may be scalar tensors.
        rate: probability of False, in [0, 1), rounded to a multiple of 2**-32.

    Returns:
        bool tensor of `shape`, True where the element is kept.

    Raises:
        ValueError: for a rate outside [0, 1).

    Examples:
        >>> ops.convert_to_numpy(dropout_mask_in_graph(np.array([3, 0]), shape=(6,), rate=0.25)).tolist()
        [True, True, True, True, False, True]
    """
    return ops.greater_equal(bits_in_graph(state, shape), _keep_threshold(rate))


def _keep_threshold(rate: float) -> int:
    """The threshold below which a share `rate` of all int32 lies."""
    return min(round(_checks.dropout_rate("rate", rate) * 2**32), 2**32 - 1) - 2**31


# Draws on the host. ---------------------------------------------------------------------------------------------------


def words(seed: int, counter: Sequence[int], count: int) -> np.ndarray:
    """`count` random 64-bit words from Philox.

    Args:
        seed: the key, 0 to 2**31 - 1.
        counter: the stream of that key: up to three ints in [0, 2**64), padded with zeros in front. Streams never
            overlap.
        count: number of words.

    Returns:
        uint64 array `(count,)`.

    Raises:
        ValueError: for a seed outside [0, 2**31) or a counter of more than three ints.

    Examples:
        >>> words(seed=0, counter=(7,), count=2).tolist() == words(seed=0, counter=(7,), count=3)[:2].tolist()
        True
    """
    if len(counter) > 3:
        raise ValueError(f"`counter` must have at most three ints. Received: counter={tuple(counter)}")
    # Philox counts in the lowest word. It starts at 0, so the streams lie 2**64 draws apart.
    padded = np.array([0] * (4 - len(counter)) + list(counter), dtype=np.uint64)
    return np.random.Philox(key=_required_seed(seed), counter=padded).random_raw(count)


def uniform(seed: int, counter: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Uniform numbers in [0, 1), in steps of 2**-53.

    Args:
        seed: the key, 0 to 2**31 - 1.
        counter: the stream of that key, as in `words`.
        shape: shape of the result.

    Returns:
        float64 array of `shape`.

    Raises:
        ValueError: as `words`.

    Examples:
        >>> uniform(seed=0, counter=(7,), shape=(2, 3)).shape
        (2, 3)
    """
    raw = words(seed, counter, math.prod(shape))
    return ((raw >> np.uint64(11)) * 2.0**-53).reshape(shape)


def normal(seed: int, counter: Sequence[int], shape: Sequence[int], limit: float = math.inf) -> np.ndarray:
    """Standard normal numbers, which may be truncated.

    Each uniform number gives one normal number, by the inverse of the normal distribution function. With a limit, the
    uniform numbers come from the part of [0, 1) inside the limit. This has the same distribution as redrawing numbers
    outside it.

    Args:
        seed: the key, 0 to 2**31 - 1.
        counter: the stream of that key, as in `words`.
        shape: shape of the result.
        limit: largest magnitude, in standard deviations. Defaults to no limit.

    Returns:
        float64 array of `shape`.

    Raises:
        ValueError: as `words`.

    Examples:
        >>> bool(np.abs(normal(seed=0, counter=(7,), shape=(1000,), limit=2)).max() <= 2)
        True
    """
    raw = words(seed, counter, math.prod(shape)).reshape(shape)
    u = ((raw >> np.uint64(12)) + 0.5) * 2.0**-52  # the middle of each of 2**52 steps, so never 0 or 1
    inside = math.erf(limit / math.sqrt(2))
    return inverse_normal_cdf(0.5 + (u - 0.5) * inside)


def permutation(seed: int, counter: Sequence[int], count: int) -> np.ndarray:
    """The numbers 0 to `count` - 1 in random order: sorted by one random word each.

    Args:
        seed: the key, 0 to 2**31 - 1.
        counter: the stream of that key, as in `words`.
        count: how many numbers.

    Returns:
        int64 array `(count,)`.

    Raises:
        ValueError: as `words`.

    Examples:
        >>> sorted(permutation(seed=0, counter=(7,), count=4).tolist())
        [0, 1, 2, 3]
    """
    return np.argsort(words(seed, counter, count), kind="stable")
