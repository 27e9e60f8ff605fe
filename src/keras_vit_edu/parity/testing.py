"""Assertions for tests of Keras layers: configuration, building and calling, saving, the same numbers everywhere.

For any layer, not only ours; with pytest or without. Those that start a process for each backend want functions that
can be imported by module path, as `keras_vit_edu.parity.check` does.
"""

import contextlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_vit_edu.parity.own_code import Inputs, check, check_saving

__all__ = [
    "assert_builds_and_calls",
    "assert_config_round_trip",
    "assert_same_on_every_backend",
    "assert_saves_and_loads",
    "constructor_arguments",
    "revived",
]

OF_EVERY_LAYER = {"name", "trainable", "dtype"}
PLAIN = (bool, int, float, str, tuple, list, type(None))


def revived(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Make a layer again from its configuration, after a trip through JSON text.

    Args:
        layer: any registered Keras layer.

    Returns:
        A new layer with the same configuration, and with other weights.

    Examples:
        >>> revived(keras.layers.Dense(3, activation="relu")).units
        3
    """
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    return keras.saving.deserialize_keras_object(config)


def constructor_arguments(cls: type) -> set[str]:
    """The names of a constructor's arguments, with Keras's own for `**kwargs`.

    Args:
        cls: a class of Keras layers.

    Returns:
        A set of names, without `self`.

    Examples:
        >>> sorted(constructor_arguments(keras.layers.Flatten))
        ['data_format', 'dtype', 'name', 'trainable']
    """
    parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - {"self"}
    return names | OF_EVERY_LAYER


def assert_config_round_trip(cls: type, arguments: Mapping[str, Any]) -> None:
    """Every argument of a layer's constructor survives its configuration, through JSON, under other global settings.

    Args:
        cls: the layer's class.
        arguments: a value for every argument of its constructor, `name`, `trainable` and `dtype` among them, each
            other than its default: one that is left at its default could get lost unseen.

    Raises:
        AssertionError: if `arguments` leave one out or give one its default; if the configuration has other keys than
            the constructor has arguments, or another value than was given; or if it changes on the way.

    Examples:
        >>> arguments = {"rate": 0.5, "noise_shape": (None, 1), "seed": 3}
        >>> arguments |= {"name": "mine", "trainable": False, "dtype": "mixed_bfloat16"}
        >>> assert_config_round_trip(keras.layers.Dropout, arguments)
    """
    wanted = constructor_arguments(cls)
    assert set(arguments) == wanted, (
        f"`arguments` must be those of {cls.__name__}: {_names(wanted - set(arguments))} missing, "
        f"{_names(set(arguments) - wanted)} too many"
    )
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    for name, value in arguments.items():
        if name in parameters:
            assert value is not parameters[name].default, f"{name}={value!r} is the default: a loss would not be seen"
            assert not isinstance(value, PLAIN) or value != parameters[name].default, f"{name}={value!r} is the default"

    layer: Any = cls(**arguments)
    config = layer.get_config()
    assert set(config) == wanted, (
        f"the configuration of {cls.__name__} must have the constructor's arguments: {_names(wanted - set(config))} "
        f"missing, {_names(set(config) - wanted)} too many"
    )
    for name, value in arguments.items():
        if isinstance(config[name], PLAIN) and isinstance(value, PLAIN):
            assert _as_json(config[name]) == _as_json(value), (
                f"{name} was {value!r}, the configuration has {config[name]!r}"
            )
    with _other_settings():
        copy = revived(layer)
        config_of_copy = copy.get_config()
    assert type(copy) is cls
    for name, value in config_of_copy.items():
        assert _as_json(value) == _as_json(config[name]), f"{name} was {config[name]!r} and came back as {value!r}"


def assert_builds_and_calls(make: Callable[[], keras.layers.Layer], *inputs: np.ndarray, **arguments: Any) -> None:
    """A layer has the same variables whether built or called, and promises the shapes and dtypes that it gives.

    Args:
        make: gives a new layer each time.
        *inputs: arrays to call it with.
        **arguments: of the call.

    Raises:
        AssertionError: if `build` makes other variables than a call does, or a symbolic call has another shape or
            dtype than the eager one, with the batch known or not.

    Examples:
        >>> assert_builds_and_calls(lambda: keras.layers.Dense(3), np.zeros((2, 5), "float32"))
    """
    called, built = make(), make()
    eager = keras.tree.flatten(called(*inputs, **arguments))
    built.build(*(array.shape for array in inputs))
    assert _variables(built) == _variables(called), (
        f"building makes the variables {_variables(built)}, calling {_variables(called)}"
    )
    for batch in (len(inputs[0]), None):
        symbols = [keras.KerasTensor((batch, *array.shape[1:]), dtype=array.dtype.name) for array in inputs]
        symbolic = keras.tree.flatten(make()(*symbols, **arguments))
        promised = [(tuple(x.shape), keras.backend.standardize_dtype(x.dtype)) for x in symbolic]
        given = [((batch, *x.shape[1:]), keras.backend.standardize_dtype(x.dtype)) for x in eager]
        assert promised == given, f"a symbolic call promises {promised}, an eager one gives {given}"


def assert_same_on_every_backend(
    build_fn: Callable[[], keras.layers.Layer] | str, inputs: Inputs, **options: Any
) -> None:
    """Outputs and gradients agree on all installed backends.

    Args:
        build_fn: gives a layer or model, as in `parity.check`.
        inputs: arrays or shapes, as in `parity.check`.
        **options: further arguments of `parity.check`.

    Raises:
        AssertionError: if they differ, or fewer than two backends are installed.
        ValueError, ParityError: as `parity.check`.
    """
    check(build_fn, inputs, **options).raise_for_differences()


def assert_saves_and_loads(
    build_fn: Callable[[], keras.layers.Layer] | str,
    inputs: Inputs,
    backends: Sequence[str] | None = None,
    **options: Any,
) -> None:
    """Each installed backend loads what each of them saved: nine pairs for three backends.

    Args:
        build_fn: gives a model, as in `parity.check_saving`.
        inputs: arrays or shapes, as in `parity.check`.
        backends: names of the backends. Defaults to all that are installed.
        **options: further arguments of `parity.check_saving`.

    Raises:
        AssertionError: if weights or outputs differ.
        ValueError, ParityError: as `parity.check`.
    """
    check_saving(build_fn, inputs, backends=backends, **options).raise_for_differences()


@contextlib.contextmanager
def _other_settings() -> Iterator[None]:
    """Global settings that a configuration must not depend on."""
    policy, data_format = keras.config.dtype_policy(), keras.config.image_data_format()
    keras.config.set_dtype_policy("mixed_float16")
    keras.config.set_image_data_format("channels_last" if data_format == "channels_first" else "channels_first")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_image_data_format(data_format)


def _variables(layer: Any) -> list[tuple[str, tuple[int, ...], str]]:
    """Path inside of the layer, shape and dtype of every variable."""
    return [(v.path.removeprefix(f"{layer.name}/"), tuple(v.shape), v.dtype) for v in layer.weights]


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
