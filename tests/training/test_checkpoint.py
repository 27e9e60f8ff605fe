import hashlib
import json
import shutil

import keras
import numpy as np
import pytest
import safetensors.numpy

from keras_vit_edu import training
from keras_vit_edu._files import write_atomically
from keras_vit_edu.training import Recipe, RunFolderError, checkpoint
from keras_vit_edu.training.checkpoint import load_newest, save_checkpoint
from tests.support import to_numpy
from tests.training.small_runs import RECIPE, assert_same, everything, go, new_model

pytestmark = [pytest.mark.usefixtures("no_pictures"), pytest.mark.lowest]


@pytest.mark.any_backend
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


@pytest.mark.any_backend
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


@pytest.mark.any_backend
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


@pytest.mark.any_backend
def test_a_leftover_of_a_write_is_not_a_checkpoint(tmp_path, small, uninterrupted):
    go(tmp_path / "run", small, stop_at=2)
    (tmp_path / "run" / "checkpoint" / "epoch-00003.safetensors.new").write_bytes(b"half")
    assert_same(go(tmp_path / "run", small), uninterrupted[0])


@pytest.mark.any_backend
def test_a_failed_write_keeps_the_old_checkpoints(tmp_path, monkeypatch):
    file = tmp_path / "file"
    write_atomically(file, b"old")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def compiled(model):
    model.compile(optimizer=RECIPE.build_optimizer(model, 4), loss="mse")
    return model


def test_a_checkpoint_of_another_model_or_optimizer(tmp_path):
    save_checkpoint(tmp_path, compiled(new_model()), 1, {"loss": [1.0]})
    with pytest.raises(RunFolderError, match="is from another model or optimizer"):
        load_newest(tmp_path, compiled(new_model(mlp_dim=24)), print)
    other = new_model()
    other.compile(optimizer=Recipe(optimizer="sgd").build_optimizer(other, 4), loss="mse")
    with pytest.raises(RunFolderError, match="is from another model or optimizer"):
        load_newest(tmp_path, other, print)


@pytest.mark.any_backend
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


def test_names_numbered_by_keras_are_found_in_the_same_process(tmp_path):
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


def test_without_a_checkpoint_load_newest_returns_none(tmp_path):
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
