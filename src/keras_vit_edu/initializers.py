"""Keras's initializers, drawn in NumPy: the same seed gives the same weights on every backend.

Each class subclasses Keras's class of the same name, with the same arguments and the same distribution. Only numbers
differ. Keras fixes the seeds (`keras.utils.set_random_seed`). These classes fix the draws.

`initializer(shape, dtype=None)` returns a tensor of `shape`. `dtype` defaults to `keras.config.floatx()`. `seed` is

- an int in [0, 2**31): every call gives the same numbers
- a `keras.random.SeedGenerator`: every call gives the next numbers
- None: draws an int from Python's `random`, as Keras does

Any other seed is a `ValueError`.

>>> import keras
>>> print(keras.ops.convert_to_numpy(GlorotUniform(seed=0)((2, 3))).round(3))
[[-1.07  -0.566 -0.851]
 [ 0.141  0.005 -0.487]]
>>> dense = keras.layers.Dense(8, kernel_initializer=HeNormal())  # set_random_seed fixes its seed
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from keras_vit_edu import random
from keras_vit_edu._types import DType, Initializer, Seed, Tensor

__all__ = [
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "LecunNormal",
    "LecunUniform",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "for_child",
    "get",
]

# The standard deviation of a standard normal truncated at +-2.
TRUNCATED_STDDEV = 0.87962566103423978

_register = keras.saving.register_keras_serializable(package="keras_vit_edu")


def _checked(seed: Seed | dict | None) -> Seed | dict | None:
    """Check a seed, as in this file's docstring. A dict is the config of a `SeedGenerator`."""
    return seed if isinstance(seed, (dict, keras.random.SeedGenerator)) else random.check_seed(seed)


class _PortableDraws:
    """Random numbers from NumPy, in the stream of the seed."""

    seed: Any

    def _stream(self) -> tuple[int, tuple[int]]:
        """Seed and counter: an int seed gives the same stream at every call, a `SeedGenerator` the next one."""
        if isinstance(self.seed, keras.random.SeedGenerator):
            seed, counter = ops.convert_to_numpy(self.seed.next()).astype("int64")
            return int(seed), (int(counter),)
        return self.seed, (0,)

    def _uniform(self, shape: Sequence[int], low: float, high: float, dtype: DType | None) -> Tensor:
        return _as_tensor(low + (high - low) * random.uniform(*self._stream(), shape), dtype)

    def _normal(
        self, shape: Sequence[int], mean: float, stddev: float, dtype: DType | None, limit: float = math.inf
    ) -> Tensor:
        return _as_tensor(mean + stddev * random.normal(*self._stream(), shape, limit), dtype)


def _as_tensor(values: np.ndarray, dtype: DType | None) -> Tensor:
    # NumPy rounds to float32. A narrower dtype then rounds to nearest even on every backend.
    return ops.cast(ops.convert_to_tensor(values.astype("float32")), dtype or keras.config.floatx())


@_register
class RandomUniform(_PortableDraws, keras.initializers.RandomUniform):
    """Uniform between `minval` and `maxval`; rounding to the dtype may give `maxval` itself.

    Args:
        minval: lower end of the range.
        maxval: upper end of the range.
        seed: see `keras_vit_edu.initializers`.
    """

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: Seed | None = None) -> None:
        super().__init__(minval=minval, maxval=maxval, seed=_checked(seed))

    def __call__(self, shape: Sequence[int], dtype: DType | None = None) -> Tensor:
        return self._uniform(shape, self.minval, self.maxval, dtype)


@_register
class RandomNormal(_PortableDraws, keras.initializers.RandomNormal):
    """Normal.

    Args:
        mean: mean of the distribution.
        stddev: standard deviation of the distribution.
        seed: see `keras_vit_edu.initializers`.
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Seed | None = None) -> None:
        super().__init__(mean=mean, stddev=stddev, seed=_checked(seed))

    def __call__(self, shape: Sequence[int], dtype: DType | None = None) -> Tensor:
        return self._normal(shape, self.mean, self.stddev, dtype)


@_register
class TruncatedNormal(_PortableDraws, keras.initializers.TruncatedNormal):
    """Normal, truncated at two standard deviations from the mean.

    Args:
        mean: mean of the distribution.
        stddev: standard deviation before truncation; after it, the standard deviation is 0.8796 times this.
        seed: see `keras_vit_edu.initializers`.
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Seed | None = None) -> None:
        super().__init__(mean=mean, stddev=stddev, seed=_checked(seed))

    def __call__(self, shape: Sequence[int], dtype: DType | None = None) -> Tensor:
        return self._normal(shape, self.mean, self.stddev, dtype, limit=2)


class _VarianceScalingDraws(_PortableDraws):
    """The draws of the Glorot, He and LeCun initializers: weights of variance `scale / fan`."""

    scale: float
    mode: str
    distribution: str
    input_axes: Sequence[int] | None
    output_axes: Sequence[int] | None

    def __call__(self, shape: Sequence[int], dtype: DType | None = None) -> Tensor:
        fan_in, fan_out = _fans(shape, self.input_axes, self.output_axes)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return self._uniform(shape, -limit, limit, dtype)
        if self.distribution == "untruncated_normal":
            return self._normal(shape, 0.0, math.sqrt(variance), dtype)
        return self._normal(shape, 0.0, math.sqrt(variance) / TRUNCATED_STDDEV, dtype, limit=2)


def _fans(shape: Sequence[int], input_axes: Sequence[int] | None, output_axes: Sequence[int] | None) -> tuple[int, int]:
    """The number of inputs per output of a kernel of this shape, and of outputs per input."""
    if input_axes is not None and output_axes is not None:
        return math.prod(shape[axis] for axis in input_axes), math.prod(shape[axis] for axis in output_axes)
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    receptive_field = math.prod(shape[:-2])
    return shape[-2] * receptive_field, shape[-1] * receptive_field


@_register
class VarianceScaling(_VarianceScalingDraws, keras.initializers.VarianceScaling):
    """Weights of variance `scale / fan`, so that signals keep their size from layer to layer.

    Args:
        scale: positive number.
        mode: `"fan_in"` (inputs of each output), `"fan_out"` (outputs of each input) or `"fan_avg"` (their mean).
        distribution: `"truncated_normal"` (at two standard deviations), `"untruncated_normal"` or `"uniform"`.
        seed: see `keras_vit_edu.initializers`.
        input_axes: axes of the kernel that count as inputs. Defaults to the last but one. The axes before it (a
            receptive field) count for both.
        output_axes: axes that count as outputs. Defaults to the last.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: Literal["fan_in", "fan_out", "fan_avg"] = "fan_in",
        distribution: Literal["truncated_normal", "untruncated_normal", "uniform"] = "truncated_normal",
        seed: Seed | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(
            scale=scale,
            mode=mode,
            distribution=distribution,
            seed=_checked(seed),
            input_axes=input_axes,
            output_axes=output_axes,
        )


class _NamedVarianceScaling(_VarianceScalingDraws):
    """The constructor of initializers whose name fixes scale, mode and distribution."""

    def __init__(
        self,
        seed: Seed | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(seed=_checked(seed), input_axes=input_axes, output_axes=output_axes)  # type: ignore[call-arg]


@_register
class GlorotUniform(_NamedVarianceScaling, keras.initializers.GlorotUniform):
    """Uniform in +-sqrt(6 / (fan_in + fan_out)).

    Args:
        seed: see `keras_vit_edu.initializers`.
        input_axes: see `VarianceScaling`.
        output_axes: see `VarianceScaling`.

    Reference:
        Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010).
    """


@_register
class GlorotNormal(_NamedVarianceScaling, keras.initializers.GlorotNormal):
    """Truncated normal of variance 2 / (fan_in + fan_out).

    Args:
        seed: see `keras_vit_edu.initializers`.
        input_axes: see `VarianceScaling`.
        output_axes: see `VarianceScaling`.

    Reference:
        Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010).
    """


@_register
class HeUniform(_NamedVarianceScaling, keras.initializers.HeUniform):
    """Uniform in +-sqrt(6 / fan_in).

    Args:
        seed: see `keras_vit_edu.initializers`.
        input_axes: see `VarianceScaling`.
        output_axes: see `VarianceScaling`.

    Reference:
        He et al., "Delving deep into rectifiers" (2015).
    """


@_register
class HeNormal(_NamedVarianceScaling, keras.initializers.HeNormal):
    """Truncated normal of variance 2 / fan_in.

    Args:
        seed: see `keras_vit_edu.initializers`.
        input_axes: see `VarianceScaling`.
        output_axes: see `VarianceScaling`.

    Reference:
        He et al., "Delving deep into rectifiers" (2015).
    """


@_register
class LecunUniform(_NamedVarianceScaling, keras.initializers.LecunUniform):
    """Uniform in +-sqrt(3 / fan_in).

    Args:
        seed: see `keras_vit_edu.initializers`.
        input_axes: see `VarianceScaling`.
        output_axes: see `VarianceScaling`.

    Reference:
        Klambauer et al., "Self-normalizing neural networks" (2017).
    """


@_register
class LecunNormal(_NamedVarianceScaling, keras.initializers.LecunNormal):
    """Truncated normal of variance 1 / fan_in.

    Args:
        seed: see `keras_vit_edu.initializers`.
        input_axes: see `VarianceScaling`.
        output_axes: see `VarianceScaling`.

    Reference:
        Klambauer et al., "Self-normalizing neural networks" (2017).
    """


PORTABLE = {
    "random_uniform": RandomUniform,
    "uniform": RandomUniform,
    "random_normal": RandomNormal,
    "normal": RandomNormal,
    "truncated_normal": TruncatedNormal,
    "variance_scaling": VarianceScaling,
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
    "lecun_uniform": LecunUniform,
    "lecun_normal": LecunNormal,
}
PORTABLE |= {cls.__name__: cls for cls in PORTABLE.values()}


def get(identifier: Initializer | type | None) -> Any:
    """Get an initializer.

    Args:
        identifier: a name gives the portable initializer, if there is one. An initializer, a class, a function or a
            config is used unchanged: `keras.initializers.GlorotUniform()` draws as Keras does.

    Returns:
        A callable `(shape, dtype=None) -> tensor`, or None for None.

    Raises:
        ValueError: for an unknown name.

    Examples:
        >>> type(get("glorot_uniform")).__module__
        'keras_vit_edu.initializers'
        >>> type(get("zeros")).__name__
        'Zeros'
    """
    if isinstance(identifier, str) and identifier in PORTABLE:
        return PORTABLE[identifier]()
    return keras.initializers.get(identifier)


def for_child(initializer: Any, child: str) -> Any:
    """Copy `initializer` for the child named `child`, with a different seed.

    The same seed for kernels of the same shape makes them equal: query and key projection would start with the same
    weights. An int seed is mixed with the child's name. An initializer whose seed was None draws a new seed per copy.
    A `SeedGenerator` gives the next numbers at every call, so it is shared. So is an initializer without a seed.

    Args:
        initializer: an initializer, as from `get`.
        child: a name that is unique among the children of this layer.

    Returns:
        An initializer of the same class, or `initializer` itself.

    Raises:
        ValueError: for an int seed outside [0, 2**31).

    Examples:
        >>> query, key = (for_child(GlorotUniform(seed=0), child) for child in ("query", "key"))
        >>> query.seed == key.seed
        False
    """
    config = initializer.get_config() if isinstance(initializer, keras.initializers.Initializer) else {}
    if "seed" not in config or isinstance(config["seed"], dict):
        return initializer
    return type(initializer).from_config({**config, "seed": random.derive_seed(config["seed"], child)})
