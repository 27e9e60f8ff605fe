import json

import keras
import numpy as np
import pytest
from rich.console import Console

from keras_vit_edu import training
from keras_vit_edu.training import TrainingFailed
from tests.training.small_runs import RECIPE, new_model

pytestmark = [pytest.mark.usefixtures("no_pictures"), pytest.mark.lowest]


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, small):
    class Poison(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                kernel = self.model.get_layer("logits").kernel
                kernel.assign(kernel * np.nan)

    with (
        training.RunFolder(tmp_path / "run") as run,
        pytest.raises(TrainingFailed, match="nan since step 1 of epoch 3"),
    ):
        training.train(new_model(), small, run, RECIPE, Console(quiet=True), [Poison()])
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "failed"
    assert "nan since step 1 of epoch 3" in record["reason"]
    assert max(file.name for file in (tmp_path / "run" / "checkpoint").iterdir()) == "epoch-00002.safetensors"


@pytest.mark.any_backend
@pytest.mark.parametrize("ema", [None, 0.9])
def test_weights_that_the_last_step_of_an_epoch_spoils_make_no_checkpoint(tmp_path, small, ema):
    recipe = training.Recipe(optimizer="sgd", learning_rate=1e30, batch_size=len(small.x_train), epochs=2, ema=ema)
    for _ in range(2):  # the loss of the first step is that of the fresh weights, and finite
        with training.RunFolder(tmp_path / "run") as run, pytest.raises(TrainingFailed, match="after epoch 1"):
            training.train(new_model(), small, run, recipe, Console(quiet=True))
    assert not list((tmp_path / "run" / "checkpoint").glob("*"))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def test_validation_and_saving_use_the_average(tmp_path, small):
    """The moving average again by hand, from the weights after every step."""
    model = new_model()
    average = [keras.ops.convert_to_numpy(v.value).astype("float64") for v in model.trainable_variables]

    class Follow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if keras.backend.backend() == "jax":
                self.model.jax_state_sync()
            for mean, variable in zip(average, self.model.trainable_variables, strict=True):
                mean *= 0.9
                mean += 0.1 * keras.ops.convert_to_numpy(variable.value)

    with training.RunFolder(tmp_path / "run") as run:
        record = training.train(model, small, run, RECIPE.replace(epochs=2), Console(quiet=True), [Follow()])
    for mean, variable in zip(average, model.trainable_variables, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable.value), mean, atol=1e-6)
    logits = model.predict(small.x_train[198:].astype("float32") / 255, verbose=0)
    assert record["validation_accuracy"] == pytest.approx(
        np.mean(logits.argmax(axis=1) == small.y_train[198:]), abs=1e-6
    )
