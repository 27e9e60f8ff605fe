"""Callbacks of a run: history, checkpoints, and reasons to stop."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_vit_edu import _interruption
from keras_vit_edu._keras_internals import moving_averages
from keras_vit_edu._weights import copy_of
from keras_vit_edu.training.checkpoint import save_checkpoint
from keras_vit_edu.training.run_folder import RunFolder


class History(keras.callbacks.Callback):
    """Keeps the metrics and the duration of each epoch, and writes them to `history.csv`."""

    def __init__(self, run: RunFolder, values: dict[str, list[float]]) -> None:
        super().__init__()
        self.run = run
        self.values = values

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs."""
        return len(next(iter(self.values.values()), []))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = round(time.monotonic() - self._began, 2)
        for name, value in {**(logs or {}), "seconds": seconds}.items():
            self.values.setdefault(name, []).append(float(value))
        self.run.write_history(self.values)


class KeepCheckpoints(keras.callbacks.Callback):
    """Saves a checkpoint at the end of every epoch."""

    def __init__(self, folder: Path, history: History) -> None:
        super().__init__()
        self.folder = folder
        self.history = history
        self.epochs_done = history.epochs_done  # in the newest checkpoint
        self._seconds: list[float] = []

    @property
    def seconds_each(self) -> float:
        """Mean seconds per checkpoint in this session; 0 without checkpoints."""
        return round(sum(self._seconds) / max(len(self._seconds), 1), 3)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        began = time.monotonic()
        save_checkpoint(self.folder, self.model, epoch + 1, self.history.values)
        self.epochs_done = epoch + 1
        self._seconds.append(time.monotonic() - began)


class TrainingFailed(RuntimeError):
    """The run cannot continue. Its last checkpoint is kept."""


class StopIfNotFinite(keras.callbacks.Callback):
    """Stops the run at the first loss that is NaN or infinite, in training or validation, before a checkpoint is saved.

    Args:
        phase: name of the phase, for the message.
        epochs_before: number of epochs in earlier phases; Keras counts through all phases.
    """

    def __init__(self, phase: str = "epoch", epochs_before: int = 0) -> None:
        super().__init__()
        self.phase = phase
        self.epochs_before = epochs_before

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = f"{self.phase} {epoch + 1 - self.epochs_before}"

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            raise TrainingFailed(
                f"the loss is {loss} since step {batch + 1} of {self._epoch}; a lower learning rate or "
                "clipping may help. The last checkpoint is kept."
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        check_finite(logs or {}, f"after {self._epoch}")


def check_finite(logs: Mapping[str, float], when: str) -> None:
    """Raise `TrainingFailed` if a value is NaN or infinite. (A step computes its loss, then changes the weights.)"""
    for name, value in logs.items():
        if not math.isfinite(value):
            raise TrainingFailed(f"{name} is {float(value)} {when}; a lower learning rate or clipping may help.")


class StopWhenAsked(keras.callbacks.Callback):
    """Raises `KeyboardInterrupt` after the batch in which a signal came. Must be the last callback.

    Inside `fit` an exception after a batch is safe: Keras puts the weights back into the model first. Inside `evaluate`
    on JAX it is not safe. There the callback stops the loop over the batches, and raises the exception after it.

    Raises:
        KeyboardInterrupt: inside `_interruption.held`, if SIGINT or SIGTERM came.
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


class ValidateWithAverage(keras.callbacks.Callback):
    """Validates the model with the optimizer's moving average of the weights.

    (`keras.callbacks.SwapEMAWeights` does the same, but on TensorFlow it adds and subtracts, which rounds the weights.)
    """

    def on_test_begin(self, logs: Any = None) -> None:
        weights = self.model.trainable_variables
        averages = moving_averages(self.model.optimizer)
        self._kept = [copy_of(variable.value) for variable in weights]
        for variable, average in zip(weights, averages, strict=True):
            variable.assign(copy_of(average.value))

    def on_test_end(self, logs: Any = None) -> None:
        for variable, kept in zip(self.model.trainable_variables, self._kept, strict=True):
            variable.assign(kept)
