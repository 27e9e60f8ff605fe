"""Saved here, to be loaded by every backend.

With `KERAS_VIT_EDU_PAIRS` set to a folder, what is written stays there, under the backend's name, for
`check_pairs.py` to read with each of the others. This process can read it back, too.
"""

import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from keras_vit_edu import layers
from tests.pairs import read
from tests.pairs.everything import batch, classifier, everything
from tests.support import BACKEND, random_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    keras.utils.set_random_seed(0)
    pairs = os.environ.get("KERAS_VIT_EDU_PAIRS")
    folder = (Path(pairs) if pairs else tmp_path_factory.mktemp("pairs")) / BACKEND
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write(folder)
    return folder


def write(folder: Path) -> None:
    images, labels = batch()
    numbers = {"images": images, "labels": labels}

    model = everything()
    random_weights(model)
    for _ in range(2):  # so that the dropouts' counters are not 0
        model(images, training=True)
    model.save(folder / "uncompiled.keras")
    model.save_weights(folder / "model.weights.h5")
    (folder / "model.json").write_text(model.to_json())
    numbers["logits"] = ops.convert_to_numpy(model(images))
    numbers["next_training_call"] = ops.convert_to_numpy(model(images, training=True))
    read.compile_for_training(model)
    numbers["losses"] = read.train(model, images, labels)

    model.save(folder / "compiled.keras")
    numbers["compiled_logits"] = ops.convert_to_numpy(model(images))
    numbers["compiled_losses"] = read.train(model, images, labels)

    preset = classifier("preset", "token")
    random_weights(preset)
    preset.save_to_preset(folder / "preset", {"class_names": ["a", "b", "c", "d"]})
    numbers["preset_logits"] = ops.convert_to_numpy(preset(images))
    np.savez(folder / "numbers.npz", **numbers)


def test_every_layer_of_the_package_is_in_it():
    classes = {getattr(layers, name).__name__ for name in layers.__all__ if isinstance(getattr(layers, name), type)}
    assert classes <= {type(layer).__name__ for layer in everything()._flatten_layers()}


@pytest.mark.any_backend  # `check_pairs.py` reads it on each
def test_what_was_written_reads_back_in_this_process(folder):
    found = read.report(folder)
    assert found.pop("compiled") == found.pop("compiled_training") == "fine"
    assert found.pop("logits_before_load_weights") > 0.1
    assert max(found.values()) < 1e-5


def test_training_had_an_effect(folder):
    numbers = np.load(folder / "numbers.npz")
    assert (numbers["next_training_call"] != numbers["logits"]).any()
    assert len(set(numbers["losses"])) == 3
    assert read.difference(numbers["compiled_logits"], numbers["logits"]) > 0.01


def test_the_model_holds_every_registered_class(folder):
    stored = (folder / "model.json").read_text()
    for name in ("Patches", "PatchEncoder", "TransformerBlock", "MyMultiHeadAttention", "PortableDropout"):
        assert f"keras_vit_edu>{name}" in stored
    for name in ("ViTBackbone", "ViTClassifier", "HeNormal", "TruncatedNormal"):
        assert f"keras_vit_edu>{name}" in stored
    for head in ("flatten", "token", "mean"):
        assert f'"head": "{head}"' in stored
