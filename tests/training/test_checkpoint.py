import hashlib
import json
import os
import shutil
import signal
import sys

import keras
import numpy as np
import pytest
import safetensors.numpy
from rich.console import Console

from keras_vit_edu import datasets, training
from keras_vit_edu._files import write_atomically
from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.training import Recipe, RunFolderError, TrainingFailed, checkpoint
from keras_vit_edu.training.checkpoint import load_newest, save_checkpoint
from tests.support import revived, to_numpy

# Everything that has a state: an average, a schedule, moments, dropout in every place, one-hot labels, clipping.
RECIPE = Recipe(
    epochs=4, batch_size=50, ema=0.9, schedule="cosine", warmup_epochs=1, label_smoothing=0.1, clip_norm=1.0,
    no_weight_decay=("bias", "norm"),
)  # fmt: skip


@pytest.fixture(scope="module")
def small():
    sample = datasets.load("mnist-sample")
    return datasets.ImageDataset(
        "mnist-sample", "the package", sample.x_train[:220], sample.y_train[:220], sample.x_test[:60],
        sample.y_test[:60], sample.class_names,
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _without_pictures():
    """These runs draw nothing: what is tested is how they end."""
    with pytest.MonkeyPatch.context() as patch:
        module = sys.modules["keras_vit_edu.training.train"]  # the package's `train` is the function
        patch.setattr(module, "draw_layers", lambda *arguments: None)
        patch.setattr(module, "draw_curves", lambda *arguments: None)
        yield


def new_model(**arguments):
    keras.utils.set_random_seed(0)
    sizes = {"projection_dim": 8, "num_layers": 1, "num_heads": 2, "key_dim": 4, "mlp_dim": 16, "head_units": (16,)}
    return ViTClassifier(**{**sizes, "name": "small", **arguments})


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


@pytest.fixture(scope="module")
def uninterrupted(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return go(folder, small), folder


@pytest.mark.parametrize("stops", [pytest.param([0], marks=pytest.mark.any_backend), [1, 1, 3]])
def test_a_run_that_was_interrupted_ends_the_same(tmp_path, small, uninterrupted, stops):
    for stop_at in stops:
        go(tmp_path / "run", small, stop_at)
        assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
    assert_same(go(tmp_path / "run", small), uninterrupted[0])


@pytest.mark.any_backend
def test_its_history_is_the_same_and_its_sessions_are_told(tmp_path, small, uninterrupted):
    go(tmp_path / "run", small, stop_at=2)
    go(tmp_path / "run", small)

    def rows(folder):
        return [line.rsplit(",", 1)[0] for line in (folder / "history.csv").read_text().splitlines()]  # without seconds

    assert rows(tmp_path / "run") == rows(uninterrupted[1])
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "finished"
    assert [session["epochs_done"] for session in record["sessions"]] == [0, 2]
    assert [session["backend"] for session in record["sessions"]] == [keras.backend.backend()] * 2


@pytest.mark.any_backend
def test_a_run_interrupted_after_its_last_epoch_only_has_the_end_to_do(tmp_path, small, uninterrupted, monkeypatch):
    model = new_model()
    monkeypatch.setattr(model, "evaluate", interrupt_the_final(model.evaluate))
    go(tmp_path / "run", small, stop_at=99, model=model)
    assert not (tmp_path / "run" / "model.keras").exists()
    assert_same(go(tmp_path / "run", small), uninterrupted[0])


@pytest.mark.any_backend
def test_a_full_disk_is_what_is_told_even_if_telling_fails(tmp_path, small, monkeypatch):
    with training.RunFolder(tmp_path / "run") as run:

        def full(*arguments, **keywords):
            monkeypatch.setattr(run, "update", full_for_run_json)
            raise OSError(28, "No space left on device: checkpoint")

        def full_for_run_json(**entries):
            raise OSError(28, "No space left on device: run.json")

        monkeypatch.setattr("keras_vit_edu.training.callbacks.save_checkpoint", full)
        with pytest.raises(OSError, match="checkpoint"):
            training.train(new_model(), small, run, RECIPE, Console(quiet=True))


def interrupt_the_final(evaluate):
    """`evaluate`, but the one after `fit` is interrupted."""

    def evaluate_or_stop(*arguments, **keywords):
        if "_use_cached_eval_dataset" in keywords:
            return evaluate(*arguments, **keywords)
        raise KeyboardInterrupt

    return evaluate_or_stop


def test_the_newest_two_checkpoints_are_kept(uninterrupted):
    names = sorted(file.name for file in (uninterrupted[1] / "checkpoint").iterdir())
    assert names == ["epoch-00003.safetensors", "epoch-00004.safetensors"]


def damage(file, how):
    data = bytearray(file.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    elif how == "empty":
        data = b""
    elif how == "another history":
        data = data.replace(b"1.0", b"1.5")
    elif how == "a flipped bit":
        data[-5] ^= 1
    else:
        data[:8] = b"\xff" * 8
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["empty", "truncated", "a flipped bit", "a broken header", "another history"])
def test_damage_is_noticed(tmp_path, how):
    model = compiled(new_model())
    for epoch in (1, 2):
        save_checkpoint(tmp_path, model, epoch, {"loss": [1.0] * epoch})
    damage(tmp_path / "epoch-00002.safetensors", how)
    said = []
    assert load_newest(tmp_path, model, said.append).epochs_done == 1
    assert len(said) == 1


@pytest.mark.any_backend
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, small, uninterrupted):
    go(tmp_path / "run", small, stop_at=3)
    damage(tmp_path / "run" / "checkpoint" / "epoch-00003.safetensors", "a flipped bit")
    said = []
    assert_same(go(tmp_path / "run", small, said=said), uninterrupted[0])
    assert any("epoch-00003.safetensors is damaged" in line for line in said)
    assert any("resuming after epoch 2" in line for line in said)


def test_if_all_are_damaged_it_says_so(tmp_path, small):
    go(tmp_path / "run", small, stop_at=2)
    for file in (tmp_path / "run" / "checkpoint").iterdir():
        damage(file, "truncated")
    with pytest.raises(RunFolderError, match=r"Every checkpoint .* is damaged\. Pass `overwrite=True`"):
        go(tmp_path / "run", small)


@pytest.mark.any_backend
def test_if_all_are_damaged_overwrite_starts_again(tmp_path, small, uninterrupted):
    go(tmp_path / "run", small, stop_at=2)
    for file in (tmp_path / "run" / "checkpoint").iterdir():
        damage(file, "truncated")
    said = []
    assert_same(go(tmp_path / "run", small, said=said, overwrite=True), uninterrupted[0])
    assert any("is damaged. Starting again." in line for line in said)


@pytest.mark.parametrize(
    ("number", "phase"),
    [
        (signal.SIGTERM, "step"),
        pytest.param(signal.SIGINT, "validation", marks=pytest.mark.any_backend),
        pytest.param(signal.SIGTERM, "checkpoint", marks=pytest.mark.any_backend),
    ],
)
def test_a_signal_ends_the_run_after_the_batch_and_it_resumes(tmp_path, small, uninterrupted, number, phase):
    model, sender = new_model(), SendSignal(number, phase)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match=number.name), training.RunFolder(tmp_path / "run") as run:
        training.train(model, small, run, RECIPE, Console(quiet=True), [sender])
    assert signal.getsignal(number) is before
    assert sender.batches_after == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["epochs_done"]) == ("interrupted", 3 if phase == "checkpoint" else 2)
    assert all(np.isfinite(to_numpy(weight)).all() for weight in model.weights)  # the model is whole
    assert_same(go(tmp_path / "run", small), uninterrupted[0])


@pytest.mark.any_backend
def test_what_is_left_of_a_write_is_no_checkpoint(tmp_path, small, uninterrupted):
    go(tmp_path / "run", small, stop_at=2)
    (tmp_path / "run" / "checkpoint" / "epoch-00003.safetensors.new").write_bytes(b"half")
    assert_same(go(tmp_path / "run", small), uninterrupted[0])


def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "file"
    write_atomically(file, b"old")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"epochs": 5}, r"recipe\.epochs was 4 and is 5"),
        ({"ema": None, "seed": 1}, r"recipe\.ema was 0\.9 and is null; recipe\.seed was 0 and is 1"),
    ],
)
def test_another_recipe_is_another_run(tmp_path, small, change, complaint):
    go(tmp_path / "run", small, stop_at=0)
    with pytest.raises(RunFolderError, match=complaint):
        go(tmp_path / "run", small, recipe=Recipe(**{**RECIPE.to_json(), **change}))


@pytest.mark.any_backend
def test_another_model_is_another_run(tmp_path, small):
    go(tmp_path / "run", small, stop_at=0)
    with pytest.raises(RunFolderError, match=r"model\.config\.mlp_dim was 16 and is 24"):
        go(tmp_path / "run", small, model=new_model(mlp_dim=24))


def test_a_dataset_that_changed_is_another_run(tmp_path, small):
    go(tmp_path / "run", small, stop_at=0)
    changed = small.x_train.copy()
    changed[3, 14, 14] ^= 1
    other = datasets.ImageDataset(
        small.name, small.source, changed, small.y_train, small.x_test, small.y_test, small.class_names
    )
    with pytest.raises(RunFolderError, match=r"dataset\.sha256 was"):
        go(tmp_path / "run", other)


def compiled(model):
    model.compile(optimizer=RECIPE.build_optimizer(model, 4), loss="mse")
    return model


def test_a_checkpoint_of_another_model_or_optimizer(tmp_path):
    save_checkpoint(tmp_path, compiled(new_model()), 1, {"loss": [1.0]})
    with pytest.raises(RunFolderError, match="is of another model or optimizer"):
        load_newest(tmp_path, compiled(new_model(mlp_dim=24)), print)
    other = new_model()
    other.compile(optimizer=Recipe(optimizer="sgd").build_optimizer(other, 4), loss="mse")
    with pytest.raises(RunFolderError, match="is of another model or optimizer"):
        load_newest(tmp_path, other, print)


def test_a_checkpoint_of_a_newer_format(tmp_path):
    arrays = {"a": np.zeros(3)}
    file = tmp_path / "epoch-00001.safetensors"
    header = {"format_version": "2"}
    digest = hashlib.sha256(json.dumps(header).encode() + b"a" + arrays["a"].tobytes()).hexdigest()
    file.write_bytes(safetensors.numpy.save(arrays, metadata={**header, "sha256": digest}))
    with pytest.raises(RunFolderError, match="of format 2; this version of keras_vit_edu reads up to 1"):
        load_newest(tmp_path, compiled(new_model()), print)
    for overwrite in (False, True):  # what another version can still resume is not removed
        with training.RunFolder(tmp_path / "run", overwrite=overwrite) as run:
            shutil.copytree(tmp_path, run / "checkpoint", ignore=lambda *_: ["run"], dirs_exist_ok=True)
            run.update(status="running")
            with pytest.raises(RunFolderError, match="of format 2"):
                run.load_newest(compiled(new_model()), print)
            assert (run / "checkpoint" / file.name).is_file()


def test_what_keras_numbers_is_found_again_in_the_same_process(tmp_path):
    """A model made anew, whose layers have no names of their own: `dense`, then `dense_1`; and older checkpoints."""

    def unnamed():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(2)])
        model.compile(optimizer=Recipe().build_optimizer(model, 4), loss="mse")
        return model

    first, again = unnamed(), unnamed()
    assert [v.path for v in first.weights] != [v.path for v in again.weights]
    save_checkpoint(tmp_path, first, 1, {"loss": [1.0]})
    assert load_newest(tmp_path, again, print).epochs_done == 1
    for mine, theirs in zip(again.variables, first.variables, strict=True):
        np.testing.assert_array_equal(to_numpy(mine), to_numpy(theirs))
    _, arrays = checkpoint._read(tmp_path / "epoch-00001.safetensors")
    older = {name.replace("/kernel", "_7/kernel"): array for name, array in arrays.items()}
    assert set(older) != set(arrays)
    third = unnamed()
    checkpoint._assign(third, older, tmp_path)
    for mine, theirs in zip(third.variables, first.variables, strict=True):
        np.testing.assert_array_equal(to_numpy(mine), to_numpy(theirs))


def test_no_checkpoint_is_none(tmp_path):
    assert load_newest(tmp_path / "nothing", compiled(new_model()), print) is None


def test_a_checkpoint_restores_every_variable(tmp_path, rng):
    model = compiled(new_model())
    for variable in [*model.variables, *model.optimizer.variables]:
        variable.assign(rng.integers(0, 1000, variable.shape))
    before = everything(model) + [keras.ops.convert_to_numpy(v.value) for v in model.optimizer.variables]
    save_checkpoint(tmp_path, model, 7, {"loss": [0.5] * 7})
    fresh = compiled(new_model())
    found = load_newest(tmp_path, fresh, print)
    after = everything(fresh) + [keras.ops.convert_to_numpy(v.value) for v in fresh.optimizer.variables]
    for ours, theirs in zip(before, after, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert found.epochs_done == 7
    assert found.history == {"loss": [0.5] * 7}


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


@pytest.mark.parametrize("ema", [pytest.param(None, marks=pytest.mark.any_backend), 0.9])
def test_weights_that_the_last_step_of_an_epoch_spoils_make_no_checkpoint(tmp_path, small, ema):
    recipe = training.Recipe(optimizer="sgd", learning_rate=1e30, batch_size=len(small.x_train), epochs=2, ema=ema)
    for _ in range(2):  # the loss of the first step is that of the fresh weights, and finite
        with training.RunFolder(tmp_path / "run") as run, pytest.raises(TrainingFailed, match="after epoch 1"):
            training.train(new_model(), small, run, recipe, Console(quiet=True))
    assert not list((tmp_path / "run" / "checkpoint").glob("*"))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("dtype", "ema"), [("mixed_float16", 0.9), pytest.param("mixed_bfloat16", None, marks=pytest.mark.any_backend)]
)
def test_a_run_in_half_precision_goes_on(tmp_path, small, dtype, ema):
    recipe = RECIPE.replace(ema=ema)
    whole = go(tmp_path / "whole", small, recipe=recipe, model=new_model(dtype=dtype))
    go(tmp_path / "parts", small, stop_at=1, recipe=recipe, model=new_model(dtype=dtype))
    parts = go(tmp_path / "parts", small, recipe=recipe, model=new_model(dtype=dtype))
    for ours, theirs in zip(everything(parts), everything(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_validated_and_kept_is_the_average(tmp_path, small):
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


def test_the_fingerprint_of_a_model_is_the_same_for_a_model_made_again():
    from keras_vit_edu.training.train import _configuration

    assert json.dumps(_configuration(new_model())) == json.dumps(_configuration(revived(new_model())))
