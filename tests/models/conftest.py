import pytest

from tests.models.small_preset import SMALL
from tests.support import random_weights, vit_classifier


@pytest.fixture
def images(rng):
    return rng.random((2, 8, 12, 1), "float32")


@pytest.fixture
def classifier():
    model = vit_classifier(**SMALL)
    random_weights(model)
    return model


@pytest.fixture
def folder(classifier, tmp_path):
    """A preset that was written just now."""
    classifier.save_to_preset(tmp_path / "preset", {"description": "a test", "class_names": ["a", "b", "c"]})
    return tmp_path / "preset"
