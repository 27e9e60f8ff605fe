"""One name, whatever kind of classifier it stands for."""

from pathlib import Path

import numpy as np
import pytest

from keras_vit_edu import load_classifier
from keras_vit_edu.load_classifier import evaluation_folder
from keras_vit_edu.transfer import TransferClassifier
from tests.support import vit_classifier
from tests.transfer.small import PREPROCESSING, classifier

pytestmark = pytest.mark.any_backend


@pytest.mark.parametrize("place", ["runs/pets/classifier", "pets.zip"])
def test_what_fine_tuning_saved(place, tmp_path, rng):
    saved = TransferClassifier(classifier(), PREPROCESSING, ["ant", "bee", "cow"])
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    saved.save(tmp_path / place)
    images = rng.integers(0, 256, (2, 20, 24, 3)).astype("uint8")
    for name in {tmp_path / place, tmp_path / place.removesuffix("/classifier")}:  # a run's folder stands for it
        found = load_classifier(name)
        assert (found.class_names, found.dataset) == (("ant", "bee", "cow"), None)
        assert found.model is found.photographs.model
        np.testing.assert_allclose(found.photographs.probabilities(images), saved.probabilities(images), atol=1e-6)


def test_a_folder_with_a_preset(tmp_path, rng):
    sizes = {"projection_dim": 8, "num_layers": 1, "num_heads": 2, "key_dim": 4, "mlp_dim": 16, "head_units": (16,)}
    model = vit_classifier(4, **sizes)
    model.save_to_preset(tmp_path / "preset", {"class_names": ["a", "b", "c", "d"]})
    found = load_classifier(tmp_path / "preset")
    assert (found.class_names, found.photographs, found.dataset) == (("a", "b", "c", "d"), None, None)
    images = rng.random((2, 28, 28, 1), "float32")
    np.testing.assert_array_equal(found.model.predict(images, verbose=0), model.predict(images, verbose=0))


def test_what_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        load_classifier(tmp_path / "nowhere")


def test_a_report_has_a_folder_named_after_classifier_and_images():
    for name in ("pets", "runs/pets", "runs/pets/classifier", "pets.zip"):
        assert evaluation_folder(name, "photos") == Path("evaluate-pets-photos")
    assert evaluation_folder("runs/v1.2", "mnist") == Path("evaluate-v1.2-mnist")
