"""Keras's initializers, drawn in NumPy: the same seed gives the same weights on every backend.

Each class subclasses Keras's own of the same name, takes the same arguments and draws from the same distribution; only
the numbers differ. Keras fixes the seeds (`keras.utils.set_random_seed`), these fix the draws.

>>> first, second = GlorotUniform(seed=0), GlorotUniform(seed=0)
>>> bool((first((3, 4)) == second((3, 4))).all())
True
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit_edu import random

_register = keras.saving.register_keras_serializable(package="keras_vit_edu")


class _PortableSeed:
    """Checks the seed, and turns it into the name of a stream of random numbers."""

    seed: Any

    def __init__(self, *args: Any, seed: Any = None, **kwargs: Any) -> None:
        if not isinstance(seed, (dict, keras.random.SeedGenerator)):
            seed = random.check_seed(seed)
        super().__init__(*args, seed=seed, **kwargs)  # type: ignore[call-arg]

    def _stream(self) -> tuple[int, tuple[int]]:
        """Seed and counter: an int seed gives the same stream at every call, a `SeedGenerator` the next one."""
        if isinstance(self.seed, keras.random.SeedGenerator):
            seed, counter = ops.convert_to_numpy(self.seed.next())
            return int(seed), (int(counter),)
        return self.seed, (0,)

    def _uniform(self, shape: Sequence[int], low: float, high: float, dtype: Any) -> Any:
        return _as_tensor(low + (high - low) * random.uniform(*self._stream(), shape), dtype)

    def _normal(self, shape: Sequence[int], mean: float, stddev: float, dtype: Any, limit: float = math.inf) -> Any:
        return _as_tensor(mean + stddev * random.normal(*self._stream(), shape, limit), dtype)


def _as_tensor(values: np.ndarray, dtype: Any) -> Any:
    # Rounded to float32 by NumPy; a narrower dtype then rounds to nearest even on every backend.
    return ops.cast(ops.convert_to_tensor(values.astype("float32")), dtype or keras.config.floatx())


class _PortableVarianceScaling(_PortableSeed):
    """The draws that Glorot, He and LeCun initializers share: weights of variance `scale / fan`."""

    scale: float
    mode: str
    distribution: str

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        # Keras before 3.15 has no `input_axes`.
        fan_in, fan_out = _fans(shape, getattr(self, "input_axes", None), getattr(self, "output_axes", None))
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return self._uniform(shape, -limit, limit, dtype)
        if self.distribution == "untruncated_normal":
            return self._normal(shape, 0.0, math.sqrt(variance), dtype)
        return self._normal(shape, 0.0, math.sqrt(variance) / TRUNCATED_STDDEV, dtype, limit=2)


# The standard deviation of a standard normal cut off at +-2.
TRUNCATED_STDDEV = 0.87962566103423978


def _fans(
    shape: Sequence[int], input_axes: Sequence[int] | None, output_axes: Sequence[int] | None
) -> tuple[int, int]:
    """How many inputs each output of a kernel of this shape sees, and how many outputs each input reaches."""
    if input_axes is not None and output_axes is not None:
        return math.prod(shape[axis] for axis in input_axes), math.prod(shape[axis] for axis in output_axes)
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    receptive_field = math.prod(shape[:-2])
    return shape[-2] * receptive_field, shape[-1] * receptive_field


@_register
class RandomUniform(_PortableSeed, keras.initializers.RandomUniform):
    """Uniform in [`minval`, `maxval`). Args: minval=-0.05, maxval=0.05, seed=None."""

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        return self._uniform(shape, self.minval, self.maxval, dtype)


@_register
class RandomNormal(_PortableSeed, keras.initializers.RandomNormal):
    """Normal. Args: mean=0.0, stddev=0.05, seed=None."""

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        return self._normal(shape, self.mean, self.stddev, dtype)


@_register
class TruncatedNormal(_PortableSeed, keras.initializers.TruncatedNormal):
    """Normal, nothing further than two standard deviations from the mean. Args: mean=0.0, stddev=0.05, seed=None."""

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        return self._normal(shape, self.mean, self.stddev, dtype, limit=2)


@_register
class VarianceScaling(_PortableVarianceScaling, keras.initializers.VarianceScaling):
    """Variance `scale / fan`. Args: scale=1.0, mode="fan_in", distribution="truncated_normal", seed=None."""


@_register
class GlorotUniform(_PortableVarianceScaling, keras.initializers.GlorotUniform):
    """Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010). Args: seed=None."""


@_register
class GlorotNormal(_PortableVarianceScaling, keras.initializers.GlorotNormal):
    """Truncated normal of variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010). Args: seed=None."""


@_register
class HeUniform(_PortableVarianceScaling, keras.initializers.HeUniform):
    """Uniform in +-sqrt(6 / fan_in) (He et al. 2015). Args: seed=None."""


@_register
class HeNormal(_PortableVarianceScaling, keras.initializers.HeNormal):
    """Truncated normal of variance 2 / fan_in (He et al. 2015). Args: seed=None."""


@_register
class LecunUniform(_PortableVarianceScaling, keras.initializers.LecunUniform):
    """Uniform in +-sqrt(3 / fan_in) (Klambauer et al. 2017). Args: seed=None."""


@_register
class LecunNormal(_PortableVarianceScaling, keras.initializers.LecunNormal):
    """Truncated normal of variance 1 / fan_in (Klambauer et al. 2017). Args: seed=None."""


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


def get(identifier: Any) -> Any:
    """The initializer that `identifier` names.

    Args:
        identifier: a name, which gives the portable initializer where there is one; an initializer, a class, a
            function or a config, which is taken as it is: passing `keras.initializers.GlorotUniform()` asks for
            Keras's own draws.

    Returns:
        A callable `(shape, dtype=None) -> tensor`, or None for None.

    Raises:
        ValueError: if nothing is known under that name.

    >>> type(get("glorot_uniform")).__module__
    'keras_vit_edu.initializers'
    >>> type(get("zeros")).__name__
    'Zeros'
    """
    if isinstance(identifier, str) and identifier in PORTABLE:
        return PORTABLE[identifier]()
    return keras.initializers.get(identifier)


def for_child(initializer: Any, child: str) -> Any:
    """A copy of `initializer` for the child called `child`, with a seed of its own.

    One seed for several kernels of one shape makes them equal: query and key projection would start the same. An
    initializer without a seed draws a new one per copy; an int seed is mixed with the child's name; a `SeedGenerator`
    gives the next numbers at every call, so it is shared.
    """
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if isinstance(config.get("seed"), dict):
        return initializer
    if config.get("seed") is not None:
        config["seed"] = random.derive_seed(config["seed"], child)
    return type(initializer).from_config(config)
