"""Build models from untrusted configurations within a budget.

A configuration does not say how large its model is. So every variable and every layer is counted before it takes
memory. The first one beyond the budget stops the construction.
"""

import contextlib
import functools
import inspect
import math
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

LAYERS_PER_ARRAY = 8  # at most: blocks also have layers without weights
# For counters of dropout and layers without weights. They also let a slightly different model be built, so that the
# error can name the weights that differ.
SPARE_VARIABLES, SPARE_LAYERS, SPARE_ELEMENTS = 200, 200, 10**7


class TooLarge(ValueError):
    """A configuration describes a larger model than the budget allows."""


@dataclass
class Budget:
    """How much may still be built.

    Attributes:
        elements: numbers in all variables together.
        variables: how many variables.
        layers: how many layers.
        is_filled_later: whether a file fills every float variable later. Then no initial values are drawn.
    """

    elements: int
    variables: int
    layers: int
    is_filled_later: bool = False

    def take(self, what: str, count: int) -> None:
        """Count variables or layers before they are created.

        Raises:
            TooLarge: if the budget is exceeded.
        """
        left = getattr(self, what) - count
        setattr(self, what, left)
        if left < 0:
            raise TooLarge(
                f"The configuration describes a model with more {what} than its weights or the size limits allow."
            )


def budget_for(elements: int, arrays: int, is_filled_later: bool = False) -> Budget:
    """The budget for a model with `arrays` weight arrays that hold `elements` numbers in total."""
    return Budget(
        elements + SPARE_ELEMENTS,
        arrays + SPARE_VARIABLES,
        LAYERS_PER_ARRAY * arrays + SPARE_LAYERS,
        is_filled_later,
    )


_BUDGET: ContextVar[Budget | None] = ContextVar("budget", default=None)
_LOCK = threading.Lock()
_users = 0
_originals: dict[type, Any] = {}


@contextlib.contextmanager
def within(budget: Budget) -> Iterator[None]:
    """Count all Keras layers and variables that this thread creates inside the block.

    Examples:
        >>> with within(Budget(elements=100, variables=2, layers=2)):
        ...     try:
        ...         keras.layers.Dense(10).build((None, 1000))
        ...     except TooLarge as error:
        ...         print(error)
        The configuration describes a model with more elements than its weights or the size limits allow.
    """
    _install()
    token = _BUDGET.set(budget)
    try:
        yield
    finally:
        _BUDGET.reset(token)
        _uninstall()


def _install() -> None:
    global _users
    with _LOCK:
        _users += 1
        if _users == 1:
            for owner, counted in COUNTED.items():
                _originals[owner] = vars(owner).get("__init__")
                type.__setattr__(owner, "__init__", counted(getattr(owner, "__init__")))  # noqa: B009


def _uninstall() -> None:
    global _users
    with _LOCK:
        _users -= 1
        if _users == 0:
            for owner, original in _originals.items():
                if original is None:
                    type.__delattr__(owner, "__init__")
                else:
                    type.__setattr__(owner, "__init__", original)
            _originals.clear()


def _counted_variable(construct: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(construct)
    def counted(self: Any, initializer: Any, shape: Any = None, dtype: Any = None, *args: Any, **kwargs: Any) -> None:
        budget = _BUDGET.get()
        if budget is not None:
            is_drawn = callable(initializer) or isinstance(initializer, str)
            sizes = shape if is_drawn else getattr(initializer, "shape", ())
            sizes = (sizes,) if isinstance(sizes, int) else tuple(sizes or ())
            budget.take("variables", 1)
            budget.take("elements", math.prod(int(size or 0) for size in sizes))
            is_float = dtype is None or keras.backend.is_float_dtype(keras.backend.standardize_dtype(dtype))
            if budget.is_filled_later and is_drawn and is_float:
                initializer = unfilled
        construct(self, initializer, shape, dtype, *args, **kwargs)

    return counted


def _counted_layer(construct: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(construct)
    def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        budget = _BUDGET.get()
        if budget is not None:
            budget.take("layers", 1)
        construct(self, *args, **kwargs)

    counted.__signature__ = inspect.signature(construct)  # type: ignore[attr-defined]  # Keras looks at it
    return counted


COUNTED: dict[type, Any] = {keras.Variable: _counted_variable, keras.Layer: _counted_layer}


def unfilled(shape: Any, dtype: Any = None) -> Any:
    """A tensor with arbitrary values, for a variable that is filled later. It takes no memory until it is used."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.raw_ops.Empty(shape=tuple(shape), dtype=dtype, init=False)
    if backend == "jax":
        return np.zeros(shape, dtype)  # JAX uses the array as it is; an array that JAX creates is filled
    return keras.ops.empty(shape, dtype=dtype)
