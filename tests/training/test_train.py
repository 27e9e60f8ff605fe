import csv
import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from keras_vit_edu import datasets, training
from keras_vit_edu.models.flat_config import flattened
from tests.support import LATER_ARGUMENTS, vit_classifier

pytestmark = pytest.mark.lowest


@pytest.fixture(scope="module")
def small():
    """400 + 100 images of the bundled sample."""
    sample = datasets.load("mnist-sample")
    return datasets.ImageDataset(
        "mnist-sample",
        "the package",
        sample.x_train[:400],
        sample.y_train[:400],
        sample.x_test[:100],
        sample.y_test[:100],
        sample.class_names,
    )


def tiny_model(seed=0):
    keras.utils.set_random_seed(seed)
    return vit_classifier(
        projection_dim=16, num_layers=1, num_heads=2, key_dim=8, mlp_dim=32, head="mean", head_units=(), name="tiny"
    )


def trained(path, dataset, model=None, **arguments):
    """Model and record of a run of three short epochs; `arguments` are of `train` and of the recipe."""
    of_train = {"console": Console(quiet=True)}
    of_train |= {name: arguments.pop(name) for name in ("console", "callbacks", "jit_compile") if name in arguments}
    recipe = training.Recipe(**{"epochs": 3, "batch_size": 50, **arguments})
    model = model or tiny_model(recipe.seed)
    with training.RunFolder(path) as run:
        return model, training.train(model, dataset, run, recipe, **of_train)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small):
    """Model, record and folder of one finished run."""
    folder = tmp_path_factory.mktemp("train") / "run"
    model, record = trained(folder, small)
    return model, record, folder


def test_the_folder_holds_everything(finished):
    folder = finished[2]
    wanted = {"run.json", "history.csv", "accuracy.png", "loss.png", "summary.txt", "model.keras", "checkpoint"}
    if shutil.which("dot"):
        wanted.add("model.png")
    assert {file.name for file in folder.iterdir() if not file.name.startswith(".")} == wanted
    for name in ("accuracy.png", "loss.png"):
        with Image.open(folder / name) as image:
            assert image.width > 400


def test_run_json_says_what_ran_and_how_well(finished, small):
    model, record, folder = finished
    written = json.loads((folder / "run.json").read_text())
    assert written == record
    assert written["status"] == "finished"
    assert written["backend"] == keras.backend.backend()
    assert written["versions"]["keras"] == keras.__version__
    assert written["seed"] == written["recipe"]["seed"] == written["configuration"]["recipe"]["seed"] == 0
    assert written["configuration"]["recipe"]["epochs"] == written["epochs_done"] == 3
    assert written["parameters"] == model.count_params()
    assert written["images"] == {"train": 360, "validation": 40, "test": 100}
    logits = model.predict(small.x_test.astype("float32") / 255, verbose=0)
    assert written["test_accuracy"] == pytest.approx(np.mean(logits.argmax(axis=1) == small.y_test), abs=1e-6)


def test_history_csv_has_a_row_per_epoch(finished):
    with open(finished[2] / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert set(rows[0]) == {"epoch", "accuracy", "loss", "val_accuracy", "val_loss", "seconds"}
    assert float(rows[2]["loss"]) < float(rows[0]["loss"])


def test_the_last_row_is_the_model_that_was_saved(finished, small):
    model, record, folder = finished
    loaded = keras.saving.load_model(folder / "model.keras")
    images = small.x_train[360:].astype("float32") / 255
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))
    accuracy = np.mean(loaded.predict(images, verbose=0).argmax(axis=1) == small.y_train[360:])
    assert record["validation_accuracy"] == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.any_backend
def test_an_augmented_run_trains_on_varied_images_and_is_tested_on_clean_ones(tmp_path, small, finished):
    recipe = {"augmentation": {"rotation": 15, "mixup": 0.2}, "augmentation_final_epochs": 1, "epochs": 2}
    model, record = trained(tmp_path / "run", small, **recipe)
    assert record["recipe"]["augmentation"]["rotation"] == 15
    logits = model.predict(small.x_test.astype("float32") / 255, verbose=0)
    assert record["test_accuracy"] == pytest.approx(np.mean(logits.argmax(axis=1) == small.y_test), abs=1e-6)
    first_losses = [
        float((folder / "history.csv").read_text().splitlines()[1].split(",")[2])
        for folder in (tmp_path / "run", finished[2])
    ]
    assert abs(first_losses[0] - first_losses[1]) > 1e-3  # the same weights and order, on other images


@pytest.mark.any_backend
def test_a_run_from_before_stems_and_augmentation_is_resumed(tmp_path, small):
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run", small, callbacks=[StopAt(1, KeyboardInterrupt())])
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    configuration = record["configuration"]
    flat = flattened(configuration["model"]["config"])
    later = (*LATER_ARGUMENTS, "position_bias", "head_dtype", "logits_activation", "backbone_kernel_initializer")
    configuration["model"]["config"] = {name: value for name, value in flat.items() if name not in later}
    for field in ("augmentation_final_epochs", "augmentation_final_strength"):
        del configuration["recipe"][field]
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    _, record = trained(tmp_path / "run", small)
    assert (record["status"], len(record["sessions"])) == ("finished", 2)


@pytest.mark.any_backend
def test_a_run_from_before_cropping_is_resumed(tmp_path, small):
    recipe = {"augmentation": {"rotation": 15}, "epochs": 2}
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run", small, callbacks=[StopAt(1, KeyboardInterrupt())], **recipe)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    older = record["configuration"]["recipe"]
    del older["augmentation"]["crop"]
    older["name"], older["clip_norm"] = "another", older.pop("global_clipnorm")  # as it was written once
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    _, record = trained(tmp_path / "run", small, **recipe)
    assert (record["status"], len(record["sessions"])) == ("finished", 2)


def test_the_saved_model_is_not_compiled(finished):
    assert not keras.saving.load_model(finished[2] / "model.keras").compiled


@pytest.mark.any_backend
def test_the_saved_model_keeps_its_dropout_counters(finished, small):
    model, _, folder = finished
    loaded = keras.saving.load_model(folder / "model.keras")
    images = keras.ops.convert_to_tensor(small.x_train[:8].astype("float32") / 255)
    first, second = (keras.ops.convert_to_numpy(m(images, training=True)) for m in (model, loaded))
    np.testing.assert_array_equal(first, second)


def test_the_summary_lists_layers_and_parameters(finished):
    text = (finished[2] / "summary.txt").read_text()
    assert "transformer_block_0" in text
    assert "Param #" in text
    assert f"Total params: {finished[0].count_params():,}" in text


def test_the_optimizer_is_adamw_with_the_courses_numbers(finished):
    optimizer = finished[0].optimizer
    assert isinstance(optimizer, keras.optimizers.AdamW)
    assert float(optimizer.learning_rate) == pytest.approx(1e-3)
    assert optimizer.weight_decay == pytest.approx(1e-4)


@pytest.mark.any_backend
def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path, small, finished):
    again, _ = trained(tmp_path / "a", small)
    other, _ = trained(tmp_path / "b", small, seed=1)
    same = [np.array_equal(a, b) for a, b in zip(again.get_weights(), finished[0].get_weights(), strict=True)]
    assert all(same)
    assert not np.array_equal(other.get_weights()[0], again.get_weights()[0])


class StopAt(keras.callbacks.Callback):
    def __init__(self, epoch, error):
        super().__init__()
        self.epoch, self.error = epoch, error

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise self.error


@pytest.mark.any_backend
@pytest.mark.parametrize(("ema", "share"), [(0.99, 79), (0.5, None)])  # 3 epochs of 8 steps: 0.99**24 = 0.786
def test_an_average_that_lags_behind_prints_a_note(tmp_path, small, ema, share):
    console = Console(record=True, width=200, quiet=False)
    with console.capture() as capture:
        trained(tmp_path / "run", small, console=console, ema=ema)
    assert (f"holds {share}% of the random weights" in capture.get()) == (share is not None)
    assert ("random weights" in capture.get()) == (share is not None)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX compiles by XLA anyway; torch takes minutes")
def test_a_run_compiled_by_xla_is_the_same_run(tmp_path, small, finished):
    model, record = trained(tmp_path / "xla", small, jit_compile=True)
    assert model.jit_compile
    assert record["sessions"][0]["jit_compile"] is True
    with (tmp_path / "xla" / "history.csv").open() as compiled, (finished[2] / "history.csv").open() as as_it_was:
        pairs = zip(csv.DictReader(compiled), csv.DictReader(as_it_was), strict=True)
        for ours, theirs in pairs:
            assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), abs=1e-5)
    assert not keras.saving.load_model(tmp_path / "xla" / "model.keras").compiled


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """A model of a few layers, not functional."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.flatten = keras.layers.Flatten()
        self.logits = keras.layers.Dense(10)

    def build(self, shape):
        self.logits.build((None, 28 * 28))

    def call(self, images):
        return self.logits(self.flatten(images))


def test_a_subclassed_model_is_trained_and_saved(tmp_path, small):
    model = Subclassed(name="mine")
    model.build((None, 28, 28, 1))
    model, record = trained(tmp_path / "run", small, model, epochs=1)
    assert record["status"] == "finished"
    saved = keras.saving.load_model(tmp_path / "run" / "model.keras")
    images = small.x_test[:8] / np.float32(255)
    np.testing.assert_array_equal(saved.predict(images, verbose=0), model.predict(images, verbose=0))


@pytest.mark.any_backend
def test_a_model_that_cannot_be_saved_is_refused_before_training(tmp_path, small):
    images = keras.Input((28, 28, 1))
    halved = keras.layers.Lambda(lambda x: x / 2)(images)
    model = keras.Model(images, keras.layers.Dense(10)(keras.layers.Flatten()(halved)), name="mine")
    with pytest.raises(ValueError, match=r"cannot be rebuilt from its config, so it cannot be saved\..*mine"):
        trained(tmp_path / "run", small, model)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.any_backend
def test_damaged_checkpoints_do_not_change_the_record_of_the_run(tmp_path, small):
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run", small, callbacks=[StopAt(1, KeyboardInterrupt())])
    before = (tmp_path / "run" / "run.json").read_bytes()
    assert json.loads(before)["status"] == "interrupted"
    for file in (tmp_path / "run" / "checkpoint").iterdir():
        file.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="is damaged"):
        trained(tmp_path / "run", small)
    assert (tmp_path / "run" / "run.json").read_bytes() == before


@pytest.mark.any_backend
@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), "interrupted"), (RuntimeError("x"), "failed")])
def test_a_run_that_was_stopped_says_so_and_keeps_its_history(tmp_path, small, error, status):
    with pytest.raises(type(error)):
        trained(tmp_path / "run", small, callbacks=[StopAt(2, error)])
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == status
    assert record["epochs_done"] == 2
    assert "test_accuracy" not in record
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 3


@pytest.mark.any_backend
def test_run_json_says_running_while_it_runs(tmp_path, small):
    seen = []

    def look(epoch, logs):
        seen.append(json.loads((tmp_path / "run" / "run.json").read_text())["status"])

    trained(tmp_path / "run", small, epochs=1, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=look)])
    assert seen == ["running"]


@pytest.mark.any_backend
def test_a_run_goes_on_though_graphviz_fails(tmp_path, small, monkeypatch):
    dot = tmp_path / "bin" / "dot"
    dot.parent.mkdir()
    dot.write_text("#!/bin/sh\ncase $1 in -V) exit 0;; esac\nexit 1\n")  # there, but without what it needs to draw
    dot.chmod(0o755)
    monkeypatch.setenv("PATH", f"{dot.parent}:/bin:/usr/bin")
    _, record = trained(tmp_path / "run", small, epochs=1)
    assert record["status"] == "finished"
    assert not (tmp_path / "run" / "model.png").exists()


@pytest.mark.any_backend
def test_a_run_goes_on_without_graphviz(tmp_path, small, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    _, record = trained(tmp_path / "run", small, epochs=1)
    assert record["status"] == "finished"
    assert not (tmp_path / "run" / "model.png").exists()
    assert "no model.png" in record["notes"][0]


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_model_png_is_drawn_where_graphviz_is(finished):
    with Image.open(finished[2] / "model.png") as image:
        assert image.height > 500
