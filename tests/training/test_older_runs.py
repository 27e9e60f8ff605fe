"""A run that was begun before 0.1.0 is resumed to the weights that it would have had."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from rich.console import Console

from keras_vit_edu import datasets, training
from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.training import Recipe, RunFolder
from tests.support import BACKEND
from tests.training.small_runs import without_pictures

pytestmark = pytest.mark.lowest

HALF = Path(__file__).with_name("before_half")  # stopped in its second epoch
DATA = {"x_train": 200, "y_train": 200, "x_test": 50, "y_test": 50}


@pytest.mark.skipif(BACKEND != "jax", reason="the run was begun on JAX")
def test_a_run_with_a_flat_configuration(tmp_path):
    shutil.copytree(HALF, tmp_path / "run")
    begun = json.loads((HALF / "run.json").read_text())["configuration"]
    sample = datasets.load("mnist-sample")
    np.savez(tmp_path / "data.npz", **{name: getattr(sample, name)[:count] for name, count in DATA.items()})
    keras.utils.set_random_seed(0)
    model = ViTClassifier.from_config(begun["model"]["config"])
    with without_pictures(), RunFolder(tmp_path / "run") as run:
        images = datasets.load("mnist", tmp_path / "data.npz")
        record = training.train(model, images, run, Recipe.from_json(begun["recipe"]), Console(quiet=True))
    assert record["status"] == "finished"
    with np.load(HALF.with_suffix(".npz")) as expected:
        for found, name in zip(model.get_weights(), sorted(expected), strict=True):
            np.testing.assert_allclose(found, expected[name], rtol=0, atol=1e-6)
