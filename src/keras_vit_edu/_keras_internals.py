"""What this package takes from Keras that is not public there. Each name has a test."""

from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
from keras.src.utils.rng_utils import GLOBAL_RANDOM_SEED


def note_seed(seed: int) -> None:
    """Let Keras know the seed, and draw its next seeds from Python's `random` as that is now."""
    global_state.set_global_attribute(GLOBAL_RANDOM_SEED, seed)
    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)
