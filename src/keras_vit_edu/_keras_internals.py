"""What this package takes from Keras that is not public there. Each name has a test."""

import contextlib
from typing import Any

from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.utils import module_utils
from keras.src.utils.rng_utils import GLOBAL_RANDOM_SEED

_left_out: list[module_utils.LazyModule] = []


def note_seed(seed: int) -> None:
    """Let Keras know the seed, and draw its next seeds from Python's `random` as that is now."""
    global_state.set_global_attribute(GLOBAL_RANDOM_SEED, seed)
    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)


def safe_mode() -> contextlib.AbstractContextManager[Any]:
    """Load no code in here, though the user has called `keras.config.enable_unsafe_deserialization`.

    That call wins over the argument `safe_mode=True` of Keras's functions.
    """
    return SafeModeScope(True)


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
