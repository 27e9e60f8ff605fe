"""All uses of Keras's private names. No other file touches a private name of Keras.

`tests/test_keras_internals.py` tests the assumptions of each function. If a Keras upgrade breaks one, it fails there.
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
    """A layer and all layers inside it, each once. An outer layer comes before its inner layers."""
    return layer._flatten_layers()


def sublayers(layer: keras.Layer) -> list[keras.Layer]:
    """The layers directly inside a layer."""
    return layer._flatten_layers(include_self=False, recursive=False)


def seed_generators(layer: keras.Layer) -> Sequence[Any]:
    """The `keras.random.SeedGenerator`s of a layer itself, not of the layers inside it."""
    return layer._seed_generators


def stored_kernel(layer: keras.Layer) -> keras.Variable | None:
    """The variable behind `layer.kernel`, which is a sum under LoRA. None if there is no kernel."""
    return getattr(layer, "_kernel", None)


def origin(tensor: Any) -> tuple[Any, list[Any]]:
    """The operation (usually a layer) that made a symbolic tensor, and its input tensors."""
    history = tensor._keras_history
    return history.operation, history.operation._inbound_nodes[history.node_index].input_tensors


# Variables. -----------------------------------------------------------------------------------------------------------


def held_value(variable: keras.Variable) -> Any:
    """The tensor that a variable holds, ignoring any `StatelessScope`; None before it has a value."""
    return variable._value


def set_held_value(variable: keras.Variable, value: Any) -> None:
    """Let a variable hold this tensor itself, not a copy, ignoring any `StatelessScope`."""
    variable._value = value


# Training. ------------------------------------------------------------------------------------------------------------


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """The arguments of the last `model.compile`, as the same objects: Keras cannot rebuild a custom loss."""
    return dict(model._compile_config.config)


def moving_averages(optimizer: keras.optimizers.Optimizer) -> Sequence[keras.Variable]:
    """The moving averages of the trainable weights, in their order. Needs `use_ema=True` and a built optimizer."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # under mixed_float16
    return optimizer._model_variables_moving_average


def has_weight_decay(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> bool:
    """Whether weight decay applies to a variable, that is, `exclude_from_weight_decay` did not exclude it."""
    return bool(optimizer._use_weight_decay(variable))


# Random numbers. ------------------------------------------------------------------------------------------------------


def note_seed(seed: int) -> None:
    """Set Keras's global seed. Keras draws its next seeds from the current state of Python's `random`."""
    global_state.set_global_attribute(GLOBAL_RANDOM_SEED, seed)
    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)


# Loading. -------------------------------------------------------------------------------------------------------------


def safe_mode() -> contextlib.AbstractContextManager[Any]:
    """Load no code inside the block, even if the user called `keras.config.enable_unsafe_deserialization`.

    That call overrides the argument `safe_mode=True` of Keras's functions.
    """
    return SafeModeScope(True)


# TensorFlow beside another backend. -----------------------------------------------------------------------------------


def leave_tensorflow_out() -> None:
    """Make Keras on another backend treat TensorFlow as not installed.

    When Keras serializes a model, it imports TensorFlow to check whether an argument is a `tf.TensorShape`. The import
    takes seconds.
    """
    for module in (module_utils.tensorflow, module_utils.gfile):
        if module._available is None:  # Keras has not looked yet
            module._available = False
            _left_out.append(module)


def let_tensorflow_in() -> None:
    """Undo `leave_tensorflow_out`, for code that needs TensorFlow beside another backend, such as keras_hub."""
    while _left_out:
        _left_out.pop()._available = None
