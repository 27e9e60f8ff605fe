"""Files that were written before 0.1.0 load and compute what they computed then."""

from pathlib import Path

import keras
import numpy as np
import pytest

from keras_vit_edu.models import ViTClassifier
from tests.support import assert_agree, to_numpy

pytestmark = pytest.mark.lowest

BEFORE = Path(__file__).with_name("before")  # written on JAX, when ViTClassifier had 36 arguments


@pytest.fixture(scope="module")
def outputs():
    with np.load(BEFORE / "outputs.npz") as stored:
        return dict(stored)


@pytest.mark.parametrize(("name", "inputs"), [("flat", "images"), ("opened", "images"), ("block", "tokens")])
def test_a_keras_file(name, inputs, outputs):
    model = keras.saving.load_model(BEFORE / f"{name}.keras")
    assert_agree(to_numpy(model(outputs[inputs])), outputs[name], 1e-5)
    # The dropout masks go on where they were.
    assert_agree(to_numpy(model(outputs[inputs], training=True)), outputs[f"{name}_training"], 1e-5)
    if name != "block":
        assert type(model) is ViTClassifier
        assert ViTClassifier.from_config(model.get_config()).get_config() == model.get_config()


def test_what_was_frozen_is_frozen():
    model = keras.saving.load_model(BEFORE / "flat.keras")
    assert model.frozen_layers == ["patch_encoder"]
    assert model.get_layer("backbone").get_layer("patch_encoder").trainable_weights == []
