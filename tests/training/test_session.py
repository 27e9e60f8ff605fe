import json
import signal

import keras
import numpy as np
import pytest
from rich.console import Console

from keras_vit_edu import datasets, training
from keras_vit_edu.models import ViTBackbone, ViTClassifier
from keras_vit_edu.training import Recipe, RunFolderError
from tests.support import revived, to_numpy
from tests.training.small_runs import RECIPE, SendSignal, assert_same, everything, go, new_model

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.mark.any_backend  # on the others in half precision, below, and by signals, in `test_resume.py`
@pytest.mark.parametrize("stops", [[0], [1, 1, 3]])
def test_a_run_that_was_interrupted_ends_the_same(tmp_path, small, uninterrupted, stops):
    for stop_at in stops:
        go(tmp_path / "run", small, stop_at)
        assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
    assert_same(go(tmp_path / "run", small), uninterrupted[0])


@pytest.mark.any_backend
def test_its_history_is_the_same_and_its_sessions_are_recorded(tmp_path, small, uninterrupted):
    go(tmp_path / "run", small, stop_at=2)
    go(tmp_path / "run", small)

    def rows(folder):
        return [line.rsplit(",", 1)[0] for line in (folder / "history.csv").read_text().splitlines()]  # without seconds

    assert rows(tmp_path / "run") == rows(uninterrupted[1])
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "finished"
    assert [session["epochs_done"] for session in record["sessions"]] == [0, 2]
    assert [session["backend"] for session in record["sessions"]] == [keras.backend.backend()] * 2


def interrupt_the_final(evaluate):
    """`evaluate`, but the one after `fit` is interrupted."""

    def evaluate_or_stop(*arguments, **keywords):
        if "_use_cached_eval_dataset" in keywords:
            return evaluate(*arguments, **keywords)
        raise KeyboardInterrupt

    return evaluate_or_stop


@pytest.mark.any_backend
def test_a_run_interrupted_after_its_last_epoch_only_has_the_end_to_do(tmp_path, small, uninterrupted, monkeypatch):
    model = new_model()
    monkeypatch.setattr(model, "evaluate", interrupt_the_final(model.evaluate))
    go(tmp_path / "run", small, stop_at=99, model=model)
    assert not (tmp_path / "run" / "model.keras").exists()
    assert_same(go(tmp_path / "run", small), uninterrupted[0])


@pytest.mark.any_backend
def test_a_full_disk_is_reported_even_if_recording_it_fails(tmp_path, small, monkeypatch):
    with training.RunFolder(tmp_path / "run") as run:

        def full(*arguments, **keywords):
            monkeypatch.setattr(run, "update", full_for_run_json)
            raise OSError(28, "No space left on device: checkpoint")

        def full_for_run_json(**entries):
            raise OSError(28, "No space left on device: run.json")

        monkeypatch.setattr("keras_vit_edu.training.callbacks.save_checkpoint", full)
        with pytest.raises(OSError, match="checkpoint"):
            training.train(new_model(), small, run, RECIPE, Console(quiet=True))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("number", "phase"), [(signal.SIGTERM, "step"), (signal.SIGINT, "validation"), (signal.SIGTERM, "checkpoint")]
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
    with pytest.raises(RunFolderError, match=r"model\.config\.backbone\.config\.mlp_dim was 16 and is 24"):
        go(tmp_path / "run", small, model=new_model(mlp_dim=24))


@pytest.mark.any_backend
def test_a_dataset_that_changed_is_another_run(tmp_path, small):
    go(tmp_path / "run", small, stop_at=0)
    changed = small.x_train.copy()
    changed[3, 14, 14] ^= 1
    other = datasets.ImageDataset(
        small.name, small.source, changed, small.y_train, small.x_test, small.y_test, small.class_names
    )
    with pytest.raises(RunFolderError, match=r"dataset\.sha256 was"):
        go(tmp_path / "run", other)


@pytest.mark.any_backend
def test_the_fingerprint_of_a_model_is_the_same_for_a_model_made_again():
    from keras_vit_edu.training.train import _configuration

    sizes = {"projection_dim": 8, "num_layers": 1, "num_heads": 2, "key_dim": 4, "mlp_dim": 16}

    def made():  # Keras numbers the backbone
        return ViTClassifier(ViTBackbone(**sizes), head="mean", head_units=(), name="small")

    for models in ((made(), made()), (made(), revived(made())), (new_model(), revived(new_model()))):
        assert len({json.dumps(_configuration(model)) for model in models}) == 1
