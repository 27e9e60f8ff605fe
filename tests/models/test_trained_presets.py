"""Presets with weights keep their word: all that are bundled, and one that `tools/preset_from_run.py` makes here."""

import dataclasses
import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_vit_edu import cli, datasets, training
from keras_vit_edu.datasets import AUGMENTATIONS
from keras_vit_edu.datasets.mnist import locate
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.models.reference_logits import recorded_logits, reference_logits
from tests.support import assert_agree

# On the other backends `keras-vit-edu parity` compares the logits with the recorded ones.
pytestmark = pytest.mark.any_backend

ROOT = Path(__file__).parents[2]
TRAINED = [name for name, metadata in Preset.presets.items() if metadata["weights_sha256"]]
MADE_HERE = "made here"
TRAIN = ["train", "--preset", "cnn_mnist", "--recipe", "program-p", "--epochs", "2", "--ema", "0.5", "--seed", "3"]

TOOL = SimpleNamespace(**runpy.run_path(str(ROOT / "tools" / "preset_from_run.py")))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """300 + 500 images of the bundled sample, as if they were all of MNIST."""
    sample = datasets.load("mnist-sample")
    file = tmp_path_factory.mktemp("data") / "small.npz"
    parts = {"x_train": 300, "y_train": 300, "x_test": 500, "y_test": 500}
    np.savez(file, **{name: getattr(sample, name)[:count] for name, count in parts.items()})
    return file


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert cli.run([*TRAIN, "--data", str(data), "--run", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def made(run, data, tmp_path_factory):
    """The preset made of that run."""
    out = tmp_path_factory.mktemp("presets")
    TOOL.main([str(run), "--name", "cnn_mnist", "--data", str(data), "--out", str(out), "--runs", "2"])
    return out / "cnn_mnist"


@pytest.fixture(params=[*TRAINED, MADE_HERE])
def preset(request):
    """The name or the folder of a preset with weights."""
    return request.getfixturevalue("made") if request.param == MADE_HERE else request.param


@pytest.fixture
def metadata(preset):
    return metadata_of(preset) if isinstance(preset, Path) else Preset.presets[preset]


def metadata_of(folder):
    return json.loads((folder / "metadata.json").read_text())


def count_right(model, dataset):
    images = dataset.x_test.astype("float32") / np.float32(255)
    logits = model.predict(images, batch_size=500, verbose=0)  # no shorter batch at the end: it is compiled once
    return int((logits.argmax(axis=1) == dataset.y_test).sum())


# What every preset with weights promises. -----------------------------------------------------------------------------

OFFLINE = """
import socket, sys
def refuse(*arguments, **keywords): raise OSError("no network here")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import keras_vit_edu, numpy as np
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.models.reference_logits import reference_logits
np.savez("logits.npz", **{preset: reference_logits(Preset.from_preset(preset)) for preset in sys.argv[1:]})
"""


@pytest.fixture(scope="module")
def logits_offline(made, tmp_path_factory):
    """What a fresh process without a network computed, by preset."""
    folder = tmp_path_factory.mktemp("logits")
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, *TRAINED, str(made)],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return np.load(folder / "logits.npz")


def test_it_loads_in_a_fresh_process_without_a_network_and_gives_the_recorded_logits(preset, metadata, logits_offline):
    assert_agree(logits_offline[str(preset)], recorded_logits(metadata), 1e-5)


def test_it_gets_as_many_of_the_bundled_sample_right_as_it_says(preset, metadata):
    if metadata["sample_right"] is None:
        pytest.skip(f"trained on {metadata['dataset']['name']}, of which no sample is bundled")
    sample = datasets.load("mnist-sample")
    assert len(sample.y_test) == metadata["sample_images"] == 2000
    assert abs(count_right(Preset.from_preset(preset), sample) - metadata["sample_right"]) <= 1


# Of the presets for MNIST, the sample above tests a fifth of the same images.
OF_MNIST = [name for name in TRAINED if Preset.presets[name]["dataset"]["name"] == "mnist"]
OTHERS = [name for name in [*TRAINED, MADE_HERE] if name not in OF_MNIST]


@pytest.mark.parametrize(
    "preset", [*OTHERS, *(pytest.param(name, marks=pytest.mark.slow) for name in OF_MNIST)], indirect=True
)
def test_it_gets_as_many_of_the_whole_test_set_right_as_it_says(preset, metadata, request):
    name = metadata["dataset"]["name"]
    path = request.getfixturevalue("data") if isinstance(preset, Path) else None
    if path is None and locate(name) is None:
        pytest.skip(f"wants all of {name}: set KERAS_VIT_EDU_DATA to a folder with it")
    dataset = datasets.load(name, path)
    assert len(dataset.y_test) == metadata["test_images"]
    assert abs(count_right(Preset.from_preset(preset), dataset) - metadata["test_right"]) <= 2


def test_written_and_read_again_it_gives_the_same_logits(preset, metadata, tmp_path):
    model = Preset.from_preset(preset)
    model.save_to_preset(tmp_path, weights_dtype=metadata["weights_dtype"])
    np.testing.assert_array_equal(reference_logits(Preset.from_preset(tmp_path)), reference_logits(model))


def test_its_weights_are_float32_in_the_model_and_as_large_in_the_file_as_it_says(preset, metadata):
    model = Preset.from_preset(preset)
    assert {weight.dtype for weight in model.weights} == {"float32"}
    of_each = {"float32": 4, "float16": 2}[metadata["weights_dtype"]]
    assert 0 < metadata["weights_bytes"] - of_each * metadata["parameters"] < 20_000  # safetensors' header


def test_it_says_where_it_comes_from(preset, metadata):
    assert metadata["format_version"] in (2, 3)
    assert len(metadata["dataset"]["sha256"]) == 64
    assert set(metadata["dataset"]["images"]) == {"train", "validation", "test"}
    recipe = training.Recipe.from_json(metadata["recipe"])  # a whole recipe, of this version
    assert (recipe.seed, recipe.epochs) == (metadata["seed"], metadata["epochs"])
    assert recipe.validation_split == metadata["dataset"]["validation_split"]
    assert metadata["runs"] >= 1
    assert metadata["training_seconds"] > 0
    assert 0 < metadata["validation_accuracy"] <= 1
    assert metadata["device"]
    assert {"keras-vit-edu", "keras", metadata["backend"]} <= set(metadata["versions"])
    right, images = metadata["test_right"], metadata["test_images"]
    assert metadata["test_accuracy"] == right / images
    assert metadata["test_standard_error"] == pytest.approx((right * (images - right) / images**3) ** 0.5)
    assert recorded_logits(metadata).shape == (32, len(metadata["class_names"]))


def test_float16_costs_it_no_test_image(metadata):
    right = metadata["test_right_by_weights_dtype"]
    assert metadata["test_right"] == right[metadata["weights_dtype"]]
    assert metadata["weights_dtype"] == "float32" or right["float16"] >= right["float32"]


def test_it_names_no_path_of_the_machine_that_made_it(metadata):
    texts = [text for key, text in metadata.items() if isinstance(text, str) and key != "description"]
    assert not [text for text in texts if "/" in text or "\\" in text]


# The tool. ------------------------------------------------------------------------------------------------------------


def test_the_tool_records_what_the_run_was(made, run):
    record, metadata = json.loads((run / "run.json").read_text()), metadata_of(made)
    assert metadata["test_accuracy"] == pytest.approx(record["test_accuracy"], abs=0.003)
    for key in ("recipe", "seed", "backend", "device", "versions", "validation_accuracy"):
        assert metadata[key] == record[key]
    assert metadata["dataset"]["sha256"] == record["configuration"]["dataset"]["sha256"]
    assert metadata["dataset"]["images"] == {"train": 270, "validation": 30, "test": 500}
    assert (metadata["epochs"], metadata["runs"]) == (2, 2)
    assert metadata["command"] == (
        "keras-vit-edu train --preset cnn_mnist --dataset mnist --recipe program-p --ema 0.5 --epochs 2 --seed 3 "
        f"--backend {keras.backend.backend()}"
    )


def test_the_tool_keeps_configuration_and_description(made):
    bundled = Preset.presets["cnn_mnist"]
    metadata = metadata_of(made)
    assert {key: metadata[key] for key in ("description", "class_names", "input", "parameters")} == {
        key: bundled[key] for key in ("description", "class_names", "input", "parameters")
    }
    assert (made / "config.json").read_bytes() == (TOOL.BUNDLED / "cnn_mnist" / "config.json").read_bytes()
    assert sorted(os.listdir(made)) == ["config.json", "metadata.json", "weights.safetensors"]


def test_the_recorded_logits_are_those_of_the_rounded_weights(made, run):
    of_the_run = reference_logits(keras.saving.load_model(run / "model.keras"))
    recorded = recorded_logits(metadata_of(made))
    assert metadata_of(made)["weights_dtype"] == "float16"
    np.testing.assert_array_equal(recorded, reference_logits(Preset.from_preset(made)))
    assert not np.array_equal(recorded, of_the_run)


def test_the_recorded_command_repeats_the_run(made, run, data, tmp_path):
    program, *arguments = shlex.split(metadata_of(made)["command"])
    assert program == "keras-vit-edu"
    assert cli.run([*arguments, "--data", str(data), "--run", str(tmp_path / "again"), "--quiet"]) == 0
    first, again = (json.loads((folder / "run.json").read_text()) for folder in (run, tmp_path / "again"))
    assert again["configuration"] == first["configuration"]
    assert again["test_loss"] == first["test_loss"]


def test_the_command_has_every_option_that_the_recipe_needs(run):
    record = json.loads((run / "run.json").read_text())
    digits = AUGMENTATIONS["digits"].to_json()
    changes = {"augmentation": digits, "augmentation_final_epochs": 2, "no_weight_decay": ["bias", "norm"]}
    command = TOOL.reproducing_command({**record, "recipe": {**record["recipe"], **changes}}, "cnn_mnist")
    assert "--augmentation digits --augmentation-final-epochs 2" in command
    assert "--no-weight-decay bias --no-weight-decay norm" in command


@pytest.mark.parametrize("name", TRAINED)
def test_the_command_of_a_bundled_preset_still_means_its_recipe(name):
    """What a recipe with a name says may change; then the presets that were trained by it need another command."""
    metadata = Preset.presets[name]
    recipe = training.Recipe.from_json(metadata["recipe"]).to_json()
    dataset = {"dataset": {"name": metadata["dataset"]["name"]}}
    record = {"recipe": recipe, "configuration": dataset, "sessions": [{}], "backend": metadata["backend"]}
    assert TOOL.reproducing_command(record, name) == metadata["command"]


def test_there_is_no_sample_of_clothes(made):
    digits = datasets.load("mnist-sample")
    few = {"x_test": digits.x_test[:10], "y_test": digits.y_test[:10]}
    clothes = dataclasses.replace(digits, name="fashion-mnist", **few)
    found = TOOL.measurements(Preset.from_preset(made), clothes, {"float32": 7, "float16": 8}, "float16")
    assert (found["test_accuracy"], found["sample_right"], found["sample_images"]) == (0.8, None, None)
    assert len(found["reference_logits"]) == 32


def test_float16_is_left_out_if_told_so_or_if_it_costs_an_image(run, data, tmp_path, monkeypatch):
    whole = TOOL.make(run, "cnn_mnist", data, tmp_path / "told", try_float16=False)
    assert metadata_of(whole)["weights_dtype"] == "float32"
    counts = iter([300, 299, 1200])
    globals_of_the_tool = TOOL.make.__globals__
    monkeypatch.setitem(globals_of_the_tool, "count_right", lambda model, dataset: next(counts))
    record = {**json.loads((run / "run.json").read_text()), "test_accuracy": 0.6}
    monkeypatch.setitem(globals_of_the_tool, "read_record", lambda run: record)
    measured = metadata_of(TOOL.make(run, "cnn_mnist", data, tmp_path / "measured"))
    assert measured["test_right_by_weights_dtype"] == {"float32": 300, "float16": 299}
    assert (measured["weights_dtype"], measured["test_right"], measured["sample_right"]) == ("float32", 300, 1200)


def test_what_no_preset_is_made_of(run, data, tmp_path, capsys):
    def complaint(run, *arguments):
        with pytest.raises(SystemExit) as exit:
            TOOL.main([str(run), "--data", str(data), "--out", str(tmp_path / "out"), *arguments])
        assert exit.value.code == 2
        return capsys.readouterr().err

    def changed(**entries):
        shutil.copytree(run, tmp_path / "changed", dirs_exist_ok=True)
        record = json.loads((run / "run.json").read_text())
        (tmp_path / "changed" / "run.json").write_text(json.dumps({**record, **entries}))
        return tmp_path / "changed"

    name = ["--name", "cnn_mnist"]
    recipe = json.loads((run / "run.json").read_text())["recipe"]
    assert "no bundled preset '../cnn_mnist'" in complaint(run, "--name", "../cnn_mnist")
    assert "is no run of vit_mnist_pure: name was" in complaint(run, "--name", "vit_mnist_pure")
    assert "not finished. Received: status='interrupted'" in complaint(changed(status="interrupted"), *name)
    assert "Received: a model that gets" in complaint(changed(test_accuracy=0.01), *name)
    assert "1 run or more. Received: runs=0" in complaint(run, *name, "--runs", "0")
    assert "one with a name. Received: 'mine'" in complaint(changed(recipe={**recipe, "name": "mine"}), *name)
    sessions = [{"backend": "jax", "jit_compile": None}, {"backend": "torch", "jit_compile": None}]
    assert "Received: jax, torch" in complaint(changed(sessions=sessions), *name)
    unclipped = {**recipe, "name": "hybrid", "global_clipnorm": None}
    assert "No option of train gives 'global_clipnorm'" in complaint(changed(recipe=unclipped), *name)
    assert "gives 'augmentation'" in complaint(changed(recipe={**recipe, "augmentation": {"rotation": 1}}), *name)
    sessions = [{"backend": "jax", "jit_compile": True}, {"backend": "jax", "jit_compile": None}]
    assert "compiled by XLA from beginning to end" in complaint(changed(sessions=sessions), *name)
    older = {field: value for field, value in recipe.items() if field != "augmentation_final_epochs"}
    assert TOOL.read_record(changed(recipe=older))["recipe"] == recipe
    assert "No such file or directory" in complaint(tmp_path / "nowhere", *name)
    on_the_sample = {"dataset": {"name": "mnist-sample", "sha256": "0"}}
    assert "mnist-sample is bundled and has no path" in complaint(changed(configuration=on_the_sample), *name)
    other = tmp_path / "other.npz"
    with np.load(data) as arrays:
        np.savez(other, **{**arrays, "x_test": arrays["x_test"][::-1]})
    assert "is not the mnist of the run" in complaint(run, *name, "--data", str(other))
    assert not (tmp_path / "out").exists()
