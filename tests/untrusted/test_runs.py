"""Run folders, recipes and options of a stranger: one line, whatever is in them."""

import json
import os
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_vit_edu import cli, training
from keras_vit_edu.models.keras_file import load_keras_file
from keras_vit_edu.training.checkpoint import load_newest, save_checkpoint
from keras_vit_edu.training.run_record import class_names_of, dataset_of, read_record
from tests.support import random_weights, to_numpy, vit_classifier
from tests.untrusted.test_building import SMALL

pytestmark = pytest.mark.any_backend

RECORD = {
    "status": "finished",
    "configuration": {"dataset": {"name": "mnist-sample", "sha256": "0"}},
    "source": "the package",
    "class_names": list("0123456789"),
    "sessions": [],
}
DEEP = '{"a":' + "[" * 10_000 + "]" * 10_000 + "}"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model, and its `.keras`."""
    model = vit_classifier(10, **SMALL)
    random_weights(model)
    file = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(file)
    return model, file


@pytest.fixture
def run(saved, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(saved[1], folder)
    (folder / "run.json").write_text(json.dumps(RECORD))
    return folder


def refused(capsys, *arguments):
    """What the command says, which is one line."""
    status = cli.run(list(map(str, arguments)))
    said = capsys.readouterr().err.strip()
    assert status in (1, 2)
    assert "\n" not in said
    assert "Traceback" not in said
    return said


# run.json. ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        *({"class_names": names} for names in (None, 5, [], [1, 2], ["a", "a"], [""], {"a": 1}, "0123456789")),
        {"class_names": [str(i) for i in range(200_000)]},
        *({"configuration": value} for value in (None, 5, [], {}, {"dataset": 5}, {"dataset": {"name": 5}})),
        {"configuration": {"dataset": {"name": []}}},
        {"source": 5},
        {"source": "a\0b"},
        {"status": 5},
        {"status": "running\x1b[31m"},
        {"sessions": 5},
        {"fine_tuning": 5},
    ],
    ids=lambda change: str(change)[:40],
)
def test_entries_of_other_kinds(change, run, capsys):
    (run / "run.json").write_text(json.dumps({**RECORD, **change}))
    assert "\x1b" not in refused(capsys, "evaluate", run)


@pytest.mark.parametrize("text", [DEEP, "5", "NaN", '{"a": 1e999}', "", "\0"], ids=["deep", *"abcde"])
def test_what_is_no_record(text, run, tmp_path, capsys):
    (run / "run.json").write_text(text)
    assert "damaged" in refused(capsys, "evaluate", run)
    assert "--overwrite" in refused(capsys, "train", "--run", run, "--epochs", "1")
    (tmp_path / "recipe.json").write_text(text)
    assert "recipe" in refused(capsys, "train", "--recipe", tmp_path / "recipe.json", "--run", tmp_path / "new")
    photos = tmp_path / "photos"
    photos.mkdir()
    refused(capsys, "fine-tune", photos, "--preset", "x", "--run", "r", "--options", tmp_path / "recipe.json")


def test_devices_and_pipes(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.mkdir("photos")
    for path in ("pipe", "/dev/zero", "/proc/kmsg", "/proc/self/mem", "photos"):
        refused(capsys, "train", "--recipe", path, "--run", "new")
        refused(capsys, "fine-tune", "photos", "--preset", "x", "--run", "new", "--options", path)
        refused(capsys, "evaluate", path)
    for name in ("run.json", "model.keras"):
        (run / name).unlink()
        os.mkfifo(run / name)
        refused(capsys, "evaluate", run)
        (run / name).unlink()
        (run / name).write_text(json.dumps(RECORD))
    assert not os.path.exists("new")


def test_a_sound_record_is_read(run):
    record = read_record(run)
    assert dataset_of(record, run) == ({"name": "mnist-sample", "sha256": "0"}, "the package")
    assert class_names_of(record, run) == tuple("0123456789")


# model.keras. ---------------------------------------------------------------------------------------------------------


def test_a_model_in_a_keras_file_is_loaded_as_keras_does(saved, rng):
    model, file = saved
    images = rng.random((2, 28, 28, 1), "float32")
    expected = to_numpy(keras.saving.load_model(file)(images))
    np.testing.assert_array_equal(to_numpy(load_keras_file(file)(images)), expected)
    assert load_keras_file(file).name == model.name


def changed(file, target, entries, compression=zipfile.ZIP_STORED):
    """The file with some of its entries replaced."""
    with zipfile.ZipFile(file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()} | entries
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return target


def config_with(file, **values):
    with zipfile.ZipFile(file) as archive:
        config = json.loads(archive.read("config.json"))
    config["config"] |= values
    return {"config.json": json.dumps(config)}


def h5(tmp_path, fill):
    with h5py.File(tmp_path / "w.h5", "w") as opened:
        fill(opened)
    return (tmp_path / "w.h5").read_bytes()


@pytest.mark.parametrize(
    "values",
    [
        {"projection_dim": 100_000},
        {"num_layers": 10**6},
        {"num_layers": 10**9},
        {"num_classes": 10**12},
        {"layer_norm_epsilon": 10**400},
        {"head_units": [10**6] * 10},
        {"num_heads": "x"},
        {"dtype": 5},
        {"activation": {"class_name": "__lambda__", "config": {"value": "x"}}},
    ],
    ids=str,
)
def test_a_configuration_larger_than_the_weights(values, saved, tmp_path):
    file = changed(saved[1], tmp_path / "model.keras", config_with(saved[1], **values))
    with pytest.raises(ValueError, match=r"model\.keras cannot be loaded") as error:
        load_keras_file(file)
    assert "\n" not in str(error.value)


def test_weights_that_claim_to_be_large(saved, tmp_path):
    target = tmp_path / "model.keras"

    def chunked(opened):
        opened.create_dataset("a", (10**6, 10**6), "f4", chunks=(1, 1))

    def packed(opened):
        opened.create_dataset("a", data=np.zeros(10**6), compression="gzip")

    def late(opened):
        opened.create_dataset("a", (10**6, 10**6), "f4")

    def elsewhere(opened):
        opened.create_dataset("a", (10,), "f4", external=[("/etc/passwd", 0, 40)])

    def virtual(opened):
        layout = h5py.VirtualLayout((10**6, 10**6), "f4")
        layout[0] = h5py.VirtualSource("/etc/passwd", "a", (10**6,))
        opened.create_virtual_dataset("a", layout)

    def linked(opened):
        opened["a"] = h5py.ExternalLink("/etc/passwd", "/a")

    def cyclic(opened):
        opened.create_group("a")["b"] = opened["/"]

    def texts(opened):
        opened["a"] = "text"

    def many(opened):
        for i in range(3000):
            opened[str(i)] = np.float32(1)

    def not_finite(opened):
        opened["a"] = np.array([1, np.nan], "float32")

    for fill in (chunked, packed, late, elsewhere, virtual, linked, cyclic, texts, many, not_finite):
        changed(saved[1], target, {"model.weights.h5": h5(tmp_path, fill)})
        with pytest.raises(ValueError, match=r"model\.keras cannot be loaded: ") as error:
            load_keras_file(target)
        assert "\n" not in str(error.value), fill


def test_zips_that_are_no_keras_file(saved, tmp_path):
    target, file = tmp_path / "model.keras", saved[1]
    spoiled = [
        changed(file, tmp_path / "bomb.keras", {"model.weights.h5": bytes(10**8)}, zipfile.ZIP_DEFLATED),
        changed(file, tmp_path / "deep.keras", {"config.json": DEEP}),
        changed(file, tmp_path / "long.keras", {"config.json": b" " * (5 << 20) + b"{}"}, zipfile.ZIP_DEFLATED),
        changed(file, tmp_path / "list.keras", {"config.json": "[]"}),
        changed(file, tmp_path / "none.keras", {"config.json": "{}"}),
        changed(file, tmp_path / "more.keras", {"../../x": "x"}),
        changed(file, tmp_path / "empty.keras", {"model.weights.h5": b""}),
    ]
    target.write_bytes(file.read_bytes()[:-100])
    for each in [*spoiled, target, tmp_path, tmp_path / "nowhere"]:
        with pytest.raises(ValueError, match="cannot be loaded: "):
            load_keras_file(each)


def test_code_in_a_keras_file_is_not_run(tmp_path):
    layer = keras.layers.Lambda(lambda x: x)
    keras.Sequential([keras.Input((2,)), layer]).save(tmp_path / "model.keras")
    keras.config.enable_unsafe_deserialization()
    try:
        with pytest.raises(ValueError, match="cannot be loaded"):
            load_keras_file(tmp_path / "model.keras")
    finally:
        keras.src.backend.common.global_state.set_global_attribute("safe_mode_saving", None)


# Checkpoints. ---------------------------------------------------------------------------------------------------------


def compiled(seed):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")])
    model.compile(keras.optimizers.SGD(momentum=0.9, name="sgd"), "mse")
    model.optimizer.build(model.trainable_variables)
    random_weights(model, seed=seed)
    return model


def test_a_checkpoint_with_any_bit_flipped_is_passed_over(tmp_path):
    older, newer = compiled(1), compiled(2)
    save_checkpoint(tmp_path, older, 1, {"loss": [1.0]})
    newest = save_checkpoint(tmp_path, newer, 2, {"loss": [1.0, 0.5]})
    sound = newest.read_bytes()
    model, complaints = compiled(3), []
    for place in range(0, len(sound), 7):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << place % 8
        newest.write_bytes(damaged)
        found = load_newest(tmp_path, model, complaints.append)
        assert found.epochs_done == 1, place
        np.testing.assert_array_equal(model.get_weights()[0], older.get_weights()[0])
    assert len(complaints) == len(range(0, len(sound), 7))
    newest.write_bytes(sound)
    assert load_newest(tmp_path, model, complaints.append).epochs_done == 2


@pytest.mark.parametrize("version", ["2", "9" * 5000])
def test_every_bit_of_the_version_and_a_newer_one(version, tmp_path, monkeypatch):
    save_checkpoint(tmp_path, compiled(1), 1, {"loss": [1.0]})
    newest = save_checkpoint(tmp_path, compiled(2), 2, {"loss": [1.0, 0.5]})
    sound, model = newest.read_bytes(), compiled(3)
    place = sound.index(b'"format_version":"') + len(b'"format_version":"')
    for bit in range(8):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << bit
        newest.write_bytes(damaged)
        assert load_newest(tmp_path, model, lambda line: None).epochs_done == 1
    monkeypatch.setattr("keras_vit_edu.training.checkpoint.FORMAT_VERSION", version)
    save_checkpoint(tmp_path, compiled(2), 3, {"loss": [1.0, 0.5, 0.2]})
    monkeypatch.undo()
    with pytest.raises(training.RunFolderError, match=r"is a checkpoint of format .*Update it"):
        load_newest(tmp_path, model, lambda line: None)


def test_a_pipe_and_a_huge_file_are_no_checkpoint(tmp_path):
    save_checkpoint(tmp_path, compiled(1), 1, {"loss": [1.0]})
    os.mkfifo(tmp_path / "epoch-00003.safetensors")
    (tmp_path / "epoch-00002.safetensors").touch()
    os.truncate(tmp_path / "epoch-00002.safetensors", 10**11)
    assert load_newest(tmp_path, compiled(3), lambda line: None).epochs_done == 1
