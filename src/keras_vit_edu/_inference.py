"""One batch through a model, from whatever thread.

On JAX Keras takes the weights out of a model while a batch is computed and gives their memory away. A second thread
would find no weights ("Buffer has been deleted or donated"), and an exception raised by a signal's handler would leave
none. So batches take turns, in the whole process, and a signal waits for the end of the batch.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras

from keras_vit_edu import _interruption
from keras_vit_edu._weights import unshare

_lock = threading.RLock()


@contextlib.contextmanager
def turn(model: Any) -> Iterator[None]:
    """A block in which no other thread computes with, or reads, a model's weights by these functions.

    Args:
        model: whose weights the block reads.

    Raises:
        KeyboardInterrupt: at its end, if a signal came meanwhile whose handler raises it.
    """
    with _interruption.held(hand_over=True), _lock:
        unshare(model)
        yield
    _interruption.check()


def predict_batch(model: keras.Model, images: Any) -> Any:
    """What a model gives for one batch: `model.predict_on_batch(images)`, one thread at a time."""
    with turn(model):
        return model.predict_on_batch(images)
