"""Compute one batch, safely from any thread.

On JAX Keras removes the weights from a model while it computes a batch, and donates their memory. A second thread would
find no weights ("Buffer has been deleted or donated"), and an exception in a signal handler would leave the model
without weights. So only one batch is computed at a time in the whole process, and a signal waits until its end.
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
    """Keep other threads from computing with these functions while the block runs.

    Args:
        model: the model whose weights the block reads.

    Raises:
        KeyboardInterrupt: at the end of the block, if a signal came and its handler raises this error.
    """
    with _interruption.held(hand_over=True), _lock:
        unshare(model)
        yield
    _interruption.check()


def predict_batch(model: keras.Model, images: Any) -> Any:
    """`model.predict_on_batch(images)`, one thread at a time."""
    with turn(model):
        return model.predict_on_batch(images)
