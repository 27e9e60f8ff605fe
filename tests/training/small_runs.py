"""Runs of seconds, that have everything with a state, and ways to interrupt them."""

import contextlib
import os
import sys

import keras
import numpy as np
import pytest
from rich.console import Console

from keras_vit_edu import training
from keras_vit_edu.training import Recipe
from tests.support import vit_classifier

# Everything that has a state: an average, a schedule, moments, dropout in every place, one-hot labels, clipping.
RECIPE = Recipe(
    epochs=4, batch_size=50, ema=0.9, schedule="cosine", warmup_epochs=1, label_smoothing=0.1, global_clipnorm=1.0,
    no_weight_decay=("bias", "norm"),
)  # fmt: skip


@contextlib.contextmanager
def without_pictures():
    """Runs that draw nothing: what is tested is how they end."""
    with pytest.MonkeyPatch.context() as patch:
        module = sys.modules["keras_vit_edu.training.train"]  # the package's `train` is the function
        patch.setattr(module, "draw_layers", lambda *arguments: None)
        patch.setattr(module, "draw_curves", lambda *arguments: None)
        yield


def new_model(**arguments):
    keras.utils.set_random_seed(0)
    sizes = {"projection_dim": 8, "num_layers": 1, "num_heads": 2, "key_dim": 4, "mlp_dim": 16, "head_units": (16,)}
    return vit_classifier(**{**sizes, "name": "small", **arguments})


class StopAt(keras.callbacks.Callback):
    """An interruption in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.stop_at, self.epoch = epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.stop_at and batch == 1:
            raise KeyboardInterrupt


class SendSignal(keras.callbacks.Callback):
    """A real signal, sent to this process in the middle of some phase of the third epoch."""

    def __init__(self, number, phase):
        super().__init__()
        self.number, self.phase, self.epoch, self.batches_after = number, phase, 0, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def _step(self, phase):
        if (self.epoch, phase) == (2, self.phase):
            os.kill(os.getpid(), self.number)
        self.batches_after += phase == "step" and self.epoch > 2

    def on_train_batch_begin(self, batch, logs=None):
        self._step("step" if batch == 1 else "")

    def on_test_batch_begin(self, batch, logs=None):
        self._step("validation")

    def on_epoch_end(self, epoch, logs=None):
        self._step("checkpoint")


def go(path, dataset, stop_at=None, recipe=RECIPE, model=None, said=None, overwrite=False, callbacks=()):
    """Train, or resume; returns the model. `stop_at`: the epoch, from 0, in which it is interrupted."""
    model = model or new_model()
    console = Console(quiet=said is None)
    if said is not None:
        console.print = lambda line, **_: said.append(line)
    callbacks = [*callbacks, *([] if stop_at is None else [StopAt(stop_at)])]
    with training.RunFolder(path, overwrite=overwrite) as run:
        try:
            training.train(model, dataset, run, recipe, console, callbacks)
        except KeyboardInterrupt:
            assert stop_at is not None
    return model


def everything(model):
    """Weights and dropout counters."""
    return [keras.ops.convert_to_numpy(variable.value) for variable in model.variables]


def assert_same(model, other):
    for ours, theirs in zip(everything(model), everything(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
