import dataclasses
import importlib.metadata
import shutil

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from keras_vit_edu.datasets import scan_folder
from keras_vit_edu.transfer import compute_features, default_cache, feature_model
from tests.support import BACKEND, random_weights, to_numpy
from tests.transfer.small import PREPROCESSING, classifier, coloured

QUIET = Console(quiet=True)
IMAGES, LABELS = coloured(11)


@pytest.fixture
def counted(monkeypatch):
    """How many batches a model predicted since."""
    calls = []
    real = keras.Model.predict_on_batch

    def counting(self, x):
        calls.append(len(x))
        return real(self, x)

    monkeypatch.setattr(keras.Model, "predict_on_batch", counting)
    return calls


def features(part, cache, data=(IMAGES, LABELS), preprocessing=PREPROCESSING, **arguments):
    return compute_features(part, preprocessing, data, cache, batch_size=4, console=QUIET, **arguments)


def test_features_are_the_inputs_of_the_head(tmp_path):
    model = classifier(pre_logits_dim=5)
    found = features(feature_model(model), tmp_path)
    assert found.shape == (11, 5)
    assert found.dtype == np.float32
    head = model.get_layer("logits")
    expected = to_numpy(model(PREPROCESSING(IMAGES)))
    np.testing.assert_allclose(found @ to_numpy(head.kernel) + to_numpy(head.bias), expected, atol=1e-5)


def test_the_second_time_they_are_read(tmp_path, counted):
    model = classifier()
    first = features(feature_model(model), tmp_path)
    assert counted == [4, 4, 4]  # the last one filled up
    again = features(feature_model(model), tmp_path)
    np.testing.assert_array_equal(first, again)
    twin = classifier()  # under another name
    np.testing.assert_array_equal(first, features(feature_model(twin), tmp_path))
    twin.trainable = False
    features(feature_model(twin), tmp_path)
    assert len(counted) == 3


@pytest.mark.any_backend
def test_another_model_preprocessing_or_image_is_computed(tmp_path, counted):
    model = classifier()
    features(feature_model(model), tmp_path)
    random_weights(model, seed=2)
    features(feature_model(model), tmp_path)
    assert len(counted) == 6
    features(feature_model(model), tmp_path, preprocessing=dataclasses.replace(PREPROCESSING, scale=1 / 255))
    assert len(counted) == 9
    others = IMAGES.copy()
    others[3, 0, 0, 0] ^= 1
    features(feature_model(model), tmp_path, data=(others, LABELS))
    assert len(counted) == 12
    other = classifier(layer_norm_epsilon=1e-3)  # of the same weights
    other.set_weights(model.get_weights())
    features(feature_model(other), tmp_path)
    assert len(counted) == 15
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.any_backend
def test_another_version_is_computed(tmp_path, counted, monkeypatch):
    model = classifier()
    features(feature_model(model), tmp_path)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.1")
    features(feature_model(model), tmp_path)
    assert len(counted) == 6


def test_another_precision_is_computed(tmp_path, counted):
    if BACKEND != "torch":
        pytest.skip("PyTorch says how exact products are asked to be, on a CPU too")
    import torch

    model = classifier()
    features(feature_model(model), tmp_path)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if before == "highest" else "highest")
    try:
        features(feature_model(model), tmp_path)
    finally:
        torch.set_float32_matmul_precision(before)
    assert len(counted) == 6


@pytest.mark.any_backend
@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "foreign"])
def test_a_damaged_file_is_computed_again(tmp_path, counted, damage):
    model = classifier()
    expected = features(feature_model(model), tmp_path)
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(data[:-8])
    elif damage == "bit":
        data[-5] ^= 1
        file.write_bytes(data)
    elif damage == "empty":
        file.write_bytes(b"")
    else:  # whole, but of other images
        features(feature_model(model), tmp_path / "other", data=(IMAGES[::-1], LABELS))
        shutil.copy(next((tmp_path / "other").iterdir()), file)
        counted.clear()
        counted += [4, 4, 4]
    np.testing.assert_array_equal(features(feature_model(model), tmp_path), expected)
    assert len(counted) == 6
    np.testing.assert_array_equal(features(feature_model(model), tmp_path), expected)
    assert len(counted) == 6


@pytest.mark.any_backend
def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    found = compute_features(feature_model(classifier()), PREPROCESSING, (IMAGES, LABELS), tmp_path / "file")
    assert found.shape == (11, 12)
    assert "features are not cached" in capsys.readouterr().out


@pytest.mark.any_backend
def test_a_folder_of_photographs_gives_what_its_pixels_give(tmp_path, counted):
    for i, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        (tmp_path / "photos" / f"class {label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / f"class {label}" / f"{i:02}.png")
    folder = scan_folder(tmp_path / "photos")
    part = feature_model(classifier())
    in_order = np.concatenate([IMAGES[label == LABELS] for label in range(3)])
    expected = features(part, tmp_path / "one", data=(in_order, np.sort(LABELS)))
    np.testing.assert_array_equal(features(part, tmp_path / "two", data=folder), expected)
    counted.clear()
    shutil.move(tmp_path / "photos", tmp_path / "elsewhere")
    np.testing.assert_array_equal(features(part, tmp_path / "two", data=scan_folder(tmp_path / "elsewhere")), expected)
    assert counted == []


@pytest.mark.any_backend
def test_where_they_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_VIT_EDU_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("KERAS_VIT_EDU_CACHE")
    assert default_cache().parts[-2:] == (".cache", "keras_vit_edu")
