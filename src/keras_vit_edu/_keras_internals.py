"""Everything private of Keras that this package uses. No other file touches a private name of Keras.

`tests/test_keras_internals.py` says what each function relies on: an upgrade of Keras that breaks one fails there.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.utils import module_utils
from keras.src.utils.rng_utils import GLOBAL_RANDOM_SEED

_left_out: list[module_utils.LazyModule] = []


# Layers. --------------------------------------------------------------------------------------------------------------


def layers_within(layer: keras.Layer) -> list[keras.Layer]:
    """A layer and all layers inside it, each once, an outer layer before its inner ones."""
    return layer._flatten_layers()


def sublayers(layer: keras.Layer) -> list[keras.Layer]:
    """The layers directly inside a layer."""
    return layer._flatten_layers(include_self=False, recursive=False)


def seed_generators(layer: keras.Layer) -> Sequence[Any]:
    """The `keras.random.SeedGenerator`s of a layer itself, not of the layers inside it."""
    return layer._seed_generators


def stored_kernel(layer: keras.Layer) -> keras.Variable | None:
    """The variable that `layer.kernel` comes from: with LoRA, `layer.kernel` is a sum. None if there is none."""
    return getattr(layer, "_kernel", None)


def origin(tensor: Any) -> tuple[Any, list[Any]]:
    """The operation, in most cases a layer, that made a symbolic tensor, and the tensors that went into it."""
    history = tensor._keras_history
    return history.operation, history.operation._inbound_nodes[history.node_index].input_tensors


# Variables. -----------------------------------------------------------------------------------------------------------


def held_value(variable: keras.Variable) -> Any:
    """The tensor that a variable holds, whatever `StatelessScope` it is read in; None before it has one."""
    return variable._value


def set_held_value(variable: keras.Variable, value: Any) -> None:
    """Let a variable hold this tensor itself, not a copy, whatever `StatelessScope` this happens in."""
    variable._value = value


# Training. ------------------------------------------------------------------------------------------------------------


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """The arguments of the last `model.compile`, the very objects: Keras cannot rebuild a user's own loss."""
    return dict(model._compile_config.config)


def moving_averages(optimizer: keras.optimizers.Optimizer) -> Sequence[keras.Variable]:
    """The moving averages of the weights, in the order of the trainable weights; for `use_ema=True`, once built."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # under mixed_float16
    return optimizer._model_variables_moving_average


def has_weight_decay(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> bool:
    """Whether weight decay applies to a variable: `exclude_from_weight_decay` has not named it."""
    return bool(optimizer._use_weight_decay(variable))


# Random numbers. ------------------------------------------------------------------------------------------------------


def note_seed(seed: int) -> None:
    """Let Keras know the seed, and draw its next seeds from Python's `random` as that is now."""
    global_state.set_global_attribute(GLOBAL_RANDOM_SEED, seed)
    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)


# Loading. -------------------------------------------------------------------------------------------------------------


def safe_mode() -> contextlib.AbstractContextManager[Any]:
    """Load no code in here, though the user has called `keras.config.enable_unsafe_deserialization`.

    That call wins over the argument `safe_mode=True` of Keras's functions.
    """
    return SafeModeScope(True)


# TensorFlow beside another backend. -----------------------------------------------------------------------------------


def leave_tensorflow_out() -> None:
    """Let Keras, on another backend, take TensorFlow for not installed.

    It imports TensorFlow, which takes seconds, as soon as it serializes a model, to ask whether an argument is a
    `tf.TensorShape`.
    """
    for module in (module_utils.tensorflow, module_utils.gfile):
        if module._available is None:  # Keras has not looked yet
            module._available = False
            _left_out.append(module)


def let_tensorflow_in() -> None:
    """Undo `leave_tensorflow_out`, for code that may want TensorFlow beside another backend: keras_hub."""
    while _left_out:
        _left_out.pop()._available = None
