"""`OpenedViTBackbone` and `OpenedViTClassifier` by themselves; keras_hub is not needed."""

import keras
import numpy as np
import pytest

from keras_vit_edu.parity import oracle
from keras_vit_edu.parity.testing import constructor_arguments
from keras_vit_edu.transfer import OpenedViTBackbone, OpenedViTClassifier
from tests.support import assert_agree, random_weights, relative_difference, revived, to_numpy

SIZES = {"projection_dim": 8, "num_layers": 2, "num_heads": 2, "key_dim": 3, "mlp_dim": 10}
IMAGES = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype("float32")

# Every argument, none at its default but `trainable`, which has a test of its own.
NON_DEFAULT = {
    "image_shape": (3, 8, 12),
    "patch_size": (4, 2),
    **SIZES,
    "num_prefix_tokens": 2,
    "dropout": 0.1,
    "hidden_dropout": 0.2,
    "projection_dropout": 0.3,
    "attention_dropout": 0.4,
    "embedding_dropout": 0.5,
    "use_bias": False,
    "layer_norm_epsilon": 1e-3,
    "data_format": "channels_first",
    "frozen_layers": ["patch_encoder", "transformer_block_1"],
    "dtype": keras.DTypePolicy("mixed_bfloat16"),
    "name": "mine",
    "trainable": True,
}
HEAD = {
    "num_classes": 5,
    "pooling": "gap",
    "pre_logits_dim": 7,
    "head_dropout": 0.25,
    "activation": "softmax",
    "head_dtype": keras.DTypePolicy("float32"),
    "name": "whole",
    "trainable": True,
}


def backbone(**arguments):
    """A small backbone with random weights."""
    model = OpenedViTBackbone(**{"image_shape": (8, 12, 3), "patch_size": 4, **SIZES, **arguments})
    random_weights(model)
    return model


def test_every_argument_of_a_backbone_survives_its_configuration():
    assert set(NON_DEFAULT) == constructor_arguments(OpenedViTBackbone)
    model = OpenedViTBackbone(**NON_DEFAULT)
    copy = revived(model)
    for one in (model, copy):
        config = one.get_config()
        assert set(config) == set(NON_DEFAULT)
        for argument, value in NON_DEFAULT.items():
            if argument == "dtype":
                assert one.dtype_policy == value
            else:
                assert config[argument] == value, argument
                assert getattr(one, argument) == value, argument
    assert [layer.trainable for layer in copy.transformer_blocks] == [True, False]


def test_dropout_rates_reach_their_places():
    model = OpenedViTBackbone(**NON_DEFAULT)
    block = model.transformer_blocks[0]
    assert model.get_layer("embedding_dropout").rate == 0.5
    assert (block.mlp_output_dropout.rate, block.mlp_hidden_dropout.rate) == (0.1, 0.2)
    assert (block.attention_output_dropout.rate, block.attention.score_dropout.rate) == (0.3, 0.4)


def test_every_argument_of_a_classifier_survives_its_configuration():
    assert set(HEAD) | {"backbone"} == constructor_arguments(OpenedViTClassifier) - {"dtype"}
    model = OpenedViTClassifier(OpenedViTBackbone(**NON_DEFAULT), **HEAD)
    copy = revived(model)
    assert copy.get_config() == model.get_config()
    for one in (model, copy):
        for argument, value in HEAD.items():
            if argument == "activation":
                assert one.activation is keras.activations.softmax
            else:
                assert getattr(one, argument) == value, argument
        assert one.backbone.frozen_layers == NON_DEFAULT["frozen_layers"]
        assert one.get_layer("head_dropout").rate == 0.25


@pytest.mark.parametrize("part", ["all", "backbone"])
def test_what_is_frozen_stays_frozen_after_saving(part, tmp_path):
    model = OpenedViTClassifier(backbone(), num_classes=3)
    (model if part == "all" else model.backbone).trainable = False
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert len(again.trainable_weights) == (0 if part == "all" else 2)
    np.testing.assert_array_equal(to_numpy(again(IMAGES)), to_numpy(model(IMAGES)))


def test_the_numbers_are_those_of_the_equations():
    model = OpenedViTClassifier(backbone(layer_norm_epsilon=0.1), num_classes=3)
    random_weights(model)
    inside = model.backbone
    after, scores = inside.intermediates(IMAGES), inside.attention_scores(IMAGES)
    tokens = to_numpy(after["patch_encoder"])
    for i, block in enumerate(inside.transformer_blocks):
        weights = {w.path.partition(f"{block.name}/")[2]: to_numpy(w) for w in block.trainable_weights}
        tokens, expected = oracle.transformer_block(weights, tokens, num_heads=2, epsilon=0.1)
        assert_agree(to_numpy(after[block.name]), tokens, 2e-6)
        assert_agree(to_numpy(scores[i]), expected, 2e-6)
    norm = inside.get_layer("encoder_norm")
    tokens = oracle.layer_norm({"gamma": to_numpy(norm.gamma), "beta": to_numpy(norm.beta)}, tokens, 0.1)
    logits = model.get_layer("logits")
    expected = tokens[:, 0] @ to_numpy(logits.kernel) + to_numpy(logits.bias)
    assert_agree(to_numpy(model(IMAGES)), expected, 5e-6)


def test_a_look_inside_is_without_dropout_and_takes_any_array():
    model = backbone(dropout=0.5, attention_dropout=0.5, embedding_dropout=0.5, projection_dropout=0.5)
    expected = to_numpy(model(IMAGES))
    for images in (IMAGES, IMAGES.astype("float64"), keras.ops.convert_to_tensor(IMAGES)):
        assert_agree(to_numpy(model.intermediates(images)["encoder_norm"]), expected, 1e-6)
    assert relative_difference(to_numpy(model(IMAGES, training=True)), expected) > 0.1


def test_a_backbone_takes_another_head_and_trains():
    first = OpenedViTClassifier(backbone(), num_classes=3)
    second = OpenedViTClassifier(first.backbone, num_classes=4)
    assert second.backbone is first.backbone
    before = [to_numpy(w) for w in second.trainable_weights]
    second.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    second.fit(IMAGES, np.array([0, 3]), verbose=0)
    moved = [np.abs(to_numpy(w) - old).max() > 0 for w, old in zip(second.trainable_weights, before, strict=True)]
    assert np.mean(moved) > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": 8}, r"`image_shape` must be a list.*Received: image_shape=8"),
        ({"image_shape": (8, 12)}, r"Images must have 4 dimensions.*Received"),
        ({"num_layers": 0}, r"`num_layers` must be 1 or more.*Received: num_layers=0"),
        ({"patch_size": 5}, r"`patch_size` must divide the image.*Received"),
        ({"embedding_dropout": 1}, r"`embedding_dropout` must be a number in \[0, 1\)"),
        ({"frozen_layers": ["head"]}, "There is no layer 'head' to freeze"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        backbone(**arguments)


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match=r"`pooling` must be one of \('token', 'gap'\)\. Received: pooling='mean'"):
        OpenedViTClassifier(backbone(), num_classes=3, pooling="mean")
