import keras
import numpy as np
import pytest
from keras import ops

from keras_vit_edu.explain import Grid, look_inside
from keras_vit_edu.layers import (
    ConvStem,
    MyMultiHeadAttention,
    PatchEncoder,
    Patches,
    RelativePositionBias,
    ShiftedPatches,
    TransformerBlock,
)
from keras_vit_edu.models import CNNClassifier, ViTBackbone
from tests.explain.small import SIZES, small_classifier
from tests.support import assert_agree, random_weights, to_numpy


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_prefix_tokens": 2, "head": "token"},
        {"stem": ConvStem((4, 4)), "head": "sequence"},
        {"stem": ShiftedPatches(4), "position_bias": RelativePositionBias(locality=1.0)},
        {"data_format": "channels_first", "image_shape": (3, 8, 12), "head": "flatten"},
    ],
    ids=["plain", "prefix", "conv", "shifted", "first"],
)
def test_what_is_seen_is_what_the_model_computes(arguments, rng):
    model = small_classifier(**arguments)
    images = rng.random((2, *model.backbone.image_shape), "float32")
    inside = look_inside(model, images)
    assert_agree(inside.output, to_numpy(model(images)), 1e-5)
    expected = [to_numpy(scores) for scores in model.attention_scores(images)]
    assert len(inside.scores) == len(expected) == 2
    for seen, of_block in zip(inside.scores, expected, strict=True):
        assert_agree(seen, of_block, 1e-5)
    assert inside.grid == Grid(2, 3, arguments.get("num_prefix_tokens", 0))
    after = list(model.intermediates(images).values())[:-1]  # without the last normalisation
    for seen, tokens in zip(inside.tokens, after, strict=True):
        assert_agree(seen, to_numpy(tokens), 1e-5)


def own_model():
    images = keras.Input((8, 12, 3))
    tokens = PatchEncoder(6, 8, num_prefix_tokens=1)(Patches(4, data_format="channels_last")(images))
    tokens = TransformerBlock(2, 4, 10)(tokens)
    return keras.Model(images, keras.layers.Dense(4)(tokens[:, 0]), name="own")


class Subclassed(keras.Model):
    """A model whose layers Keras finds, and whose positions are its own."""

    def __init__(self):
        super().__init__()
        self.patches = Patches(4, data_format="channels_last")
        self.embed = keras.layers.Dense(8)
        self.attention = MyMultiHeadAttention(2, 4)
        self.logits = keras.layers.Dense(4)

    def call(self, images):
        x = self.embed(self.patches(images))
        return self.logits(ops.mean(self.attention(x, x), axis=1))


def nested():
    images = keras.Input((8, 12, 3))
    return keras.Model(images, keras.layers.Dense(2)(own_model()(images)))


@pytest.mark.parametrize(("make", "blocks", "prefix"), [(own_model, 1, 1), (Subclassed, 1, 0), (nested, 1, 1)])
def test_any_model_of_these_layers(make, blocks, prefix, rng):
    model, images = make(), rng.random((2, 8, 12, 3), "float32")
    model(images)
    random_weights(model)
    inside = look_inside(model, images)
    assert_agree(inside.output, to_numpy(model(images)), 1e-5)
    assert (len(inside.scores), inside.grid) == (blocks, Grid(2, 3, prefix))
    np.testing.assert_allclose(inside.scores[0].sum(axis=-1), 1, atol=1e-6)
    again = look_inside(model, images)  # what was compiled is used again
    np.testing.assert_array_equal(again.output, inside.output)


def test_new_weights_are_seen(rng):
    model = small_classifier()
    images = rng.random((2, 8, 12, 3), "float32")
    look_inside(model, images)
    random_weights(model, seed=7)
    assert_agree(look_inside(model, images).output, to_numpy(model(images)), 1e-5)


def test_backbone_alone(rng):
    backbone = ViTBackbone((8, 12, 3), 4, **SIZES)
    assert look_inside(backbone, rng.random((2, 8, 12, 3), "float32")).output.shape == (2, 6, 8)


def test_attention_over_other_tokens_is_left_out(rng):
    images = keras.Input((8, 12, 3))
    tokens = PatchEncoder(6, 8)(Patches(4, data_format="channels_last")(images))
    first = tokens[:, :2]
    pooled = MyMultiHeadAttention(2, 4, name="cross")(first, tokens)
    model = keras.Model(images, keras.layers.Dense(2)(ops.mean(TransformerBlock(2, 4, 10)(tokens), 1) + pooled[:, 0]))
    inside = look_inside(model, rng.random((2, 8, 12, 3), "float32"))
    assert [scores.shape for scores in inside.scores] == [(2, 2, 6, 6)]


# Mistakes. ------------------------------------------------------------------------------------------------------------


def test_a_model_without_attention_is_refused(rng):
    model = CNNClassifier(4, (8, 12, 3), filters=(3,), convolutions=1, head_units=())
    with pytest.raises(ValueError, match="Only the attention of `MyMultiHeadAttention` can be shown"):
        look_inside(model, rng.random((2, 8, 12, 3), "float32"))
    with pytest.raises(ValueError, match=r"must be a `keras.Model`. Received: str"):
        look_inside("vit_mnist_pure", rng.random((2, 8, 12, 3), "float32"))


def test_a_model_without_a_grid_is_refused(rng):
    images = keras.Input((8, 12, 3))
    rows = keras.layers.Reshape((8, 36))(images)
    model = keras.Model(images, TransformerBlock(2, 4, 10)(rows))
    with pytest.raises(ValueError, match=r"no grid of patches that is known"):
        look_inside(model, rng.random((2, 8, 12, 3), "float32"))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 8, 8, 3)), r"must be a batch \(B, 8, 12, 3\).*Received: an array of shape \(2, 8, 8, 3\)"),
        (np.zeros((8, 12, 3)), "must be a batch"),
        (np.zeros((0, 8, 12, 3)), "must be a batch"),
        (np.full((1, 8, 12, 3), np.nan), "must be finite"),
        ("photo.jpg", "must be an array of numbers. Received: str"),
    ],
)
def test_images_that_do_not_fit(images, message):
    with pytest.raises(ValueError, match=message):
        look_inside(small_classifier(), images)


def test_weights_that_are_not_finite():
    model = small_classifier()
    model.get_layer("logits").bias.assign([np.nan, 0, 0, 0])
    with pytest.raises(ValueError, match="is not finite"):
        look_inside(model, np.zeros((1, 8, 12, 3), "float32"))
