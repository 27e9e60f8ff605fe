"""Ctrl-C and requests to end, acted on between the batches of `fit` and `evaluate`."""

from typing import Any

import keras

from keras_vit_edu import _interruption


class StopWhenAsked(keras.callbacks.Callback):
    """Raises `KeyboardInterrupt` after the batch in which a signal came; goes last among the callbacks.

    Inside `fit` an exception after a batch is safe: Keras puts the weights back into the model first. Inside
    `evaluate` it is not on JAX, so the loop over the batches is left, and the exception follows when it has ended.

    Raises:
        KeyboardInterrupt: inside `_interruption.held`, if SIGINT or SIGTERM has come.
    """

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        _interruption.check()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if _interruption.has_come():
            self.model.stop_evaluating = True

    def on_test_end(self, logs: Any = None) -> None:
        _interruption.check()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        _interruption.check()
