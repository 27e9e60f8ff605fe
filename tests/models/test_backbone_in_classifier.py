"""A backbone that is given to a classifier: it stays itself, whatever trains."""

import keras
import numpy as np
import pytest

from keras_vit_edu.models import ViTBackbone
from tests.support import assert_agree, opened_vit, random_weights, to_numpy

pytestmark = pytest.mark.lowest

SIZES = {"projection_dim": 8, "num_layers": 2, "num_heads": 2, "key_dim": 3, "mlp_dim": 10}
IMAGES = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype("float32")


def backbone(**arguments):
    """A small backbone with random weights."""
    model = ViTBackbone(**{"image_shape": (8, 12, 3), "patch_size": 4, "num_prefix_tokens": 1, **SIZES, **arguments})
    random_weights(model)
    return model


@pytest.mark.parametrize("part", ["all", "backbone"])
def test_what_is_frozen_stays_frozen_after_saving(part, tmp_path):
    model = opened_vit(backbone(), num_classes=3)
    (model if part == "all" else model.backbone).trainable = False
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert len(again.trainable_weights) == (0 if part == "all" else 2)
    np.testing.assert_array_equal(to_numpy(again(IMAGES)), to_numpy(model(IMAGES)))


def test_the_numbers_are_those_of_the_equations():
    model = opened_vit(backbone(), num_classes=3)
    random_weights(model)
    tokens = to_numpy(model.intermediates(IMAGES)["encoder_norm"])
    logits = model.get_layer("logits")
    expected = tokens[:, 0] @ to_numpy(logits.kernel) + to_numpy(logits.bias)
    assert_agree(to_numpy(model(IMAGES)), expected, 5e-6)
    assert_agree(to_numpy(model.attention_scores(IMAGES)[1]), to_numpy(model.backbone.attention_scores(IMAGES)[1]), 0)


def test_a_backbone_takes_another_head_and_trains():
    first = opened_vit(backbone(), num_classes=3)
    second = opened_vit(first.backbone, num_classes=4)
    assert second.backbone is first.backbone
    before = [to_numpy(w) for w in second.trainable_weights]
    second.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    second.fit(IMAGES, np.array([0, 3]), verbose=0)
    moved = [np.abs(to_numpy(w) - old).max() > 0 for w, old in zip(second.trainable_weights, before, strict=True)]
    assert np.mean(moved) > 0.9
