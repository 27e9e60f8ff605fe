"""Shapes, grids and widths come as people have them: lists, arrays, ranges; configurations stay plain."""

import json

import keras
import numpy as np
import pytest

from keras_vit_edu import layers
from keras_vit_edu.models import CNNClassifier
from tests.support import BACKEND, to_numpy, vit_classifier

pytestmark = pytest.mark.quick

AS_GIVEN = {"list": list, "array": np.array, "ints of numpy": lambda sizes: tuple(map(np.int64, sizes))}
if BACKEND == "tensorflow":
    import tensorflow as tf

    AS_GIVEN["TensorShape"] = tf.TensorShape
if BACKEND == "torch":
    import torch

    AS_GIVEN["Size"] = torch.Size

MAKERS = {
    "Patches": lambda given: layers.Patches(given((2, 4))),
    "ShiftedPatches": lambda given: layers.ShiftedPatches(given((2, 4))),
    "ConvStem": lambda given: layers.ConvStem(given((4, 5)), given((1, 2)), given((2, 1))),
    "PatchEncoder": lambda given: layers.PatchEncoder(6, 8, grid_size=given((2, 3))),
    "RelativePositionBias": lambda given: layers.RelativePositionBias(2, given((2, 3))),
    "TransformerBlock": lambda given: layers.TransformerBlock(
        2, 4, 8, position_bias=layers.RelativePositionBias(grid_size=given((2, 3)))
    ),
    "MyMultiHeadAttention": lambda given: layers.MyMultiHeadAttention(2, 4, output_shape=given((3,))),
    "PortableDropout": lambda given: layers.PortableDropout(0.5, noise_shape=given((2, 1))),
    "ViTClassifier": lambda given: vit_classifier(
        3, given((8, 8, 1)), given((4, 4)), 8, 1, 2, 4, 8, head_units=given((5,)), stem="conv",
        stem_filters=given((4, 4)), stem_strides=given((2, 2)), stem_pools=given((1, 1)), name="model",
    ),
    "CNNClassifier": lambda given: CNNClassifier(
        3, given((8, 8, 1)), given((4, 5)), head_units=given((6,)), name="model"
    ),
}  # fmt: skip


@pytest.mark.parametrize("given", AS_GIVEN)
@pytest.mark.parametrize("name", MAKERS)
def test_a_configuration_is_that_of_tuples(name, given):
    expected, found = MAKERS[name](tuple).get_config(), MAKERS[name](AS_GIVEN[given]).get_config()
    assert {**found, "name": ""} == {**expected, "name": ""}
    json.dumps(found)


@pytest.mark.parametrize("given", AS_GIVEN)
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: layers.Patches(2), (2, 4, 4, 1)),
        (lambda: layers.ShiftedPatches(2), (2, 4, 4, 1)),
        (lambda: layers.ConvStem((4, 4), normalization="layer"), (2, 4, 4, 1)),
        (lambda: layers.PatchEncoder(4, 8), (2, 4, 6)),
        (lambda: layers.RelativePositionBias(2, (2, 2)), (2, 4, 8)),
        (lambda: layers.TransformerBlock(2, 4, 8, position_bias=layers.RelativePositionBias(None, (2, 2))), (2, 4, 8)),
        (lambda: layers.SequencePooling(), (2, 4, 8)),
        (lambda: layers.TokenDense(3), (2, 4, 8)),
    ],
)
def test_layers_are_built_on_any_kind_of_shape(make, shape, given):
    layer = make()
    layer.build(AS_GIVEN[given](shape))
    assert tuple(layer(np.zeros(shape, "float32")).shape) == layer.compute_output_shape(AS_GIVEN[given](shape))


@pytest.mark.parametrize("value", ["12", {1: 2}, {1, 2}, iter((1, 2))])
def test_a_noise_shape_that_is_no_sequence_is_refused(value):
    with pytest.raises(ValueError, match="`noise_shape` must be a list of whole numbers and None"):
        layers.PortableDropout(0.5, noise_shape=value)


def test_images_are_restored_to_any_kind_of_size():
    patches = layers.Patches(2)
    images = np.arange(32).reshape(1, 4, 8, 1)
    np.testing.assert_array_equal(to_numpy(patches.restore(patches(images), np.array([4, 8]))), images)


def test_many_heads_cost_what_their_table_does():
    layer = layers.RelativePositionBias(num_heads=20_000, grid_size=(3, 3), locality=1.0)
    layer.build((None, 9, 8))
    table = to_numpy(layer.table)
    # Worked by hand: the nearest places are above, left, right, below; from there it falls with the square.
    np.testing.assert_array_equal(table[:4].argmax(axis=1), [7, 11, 13, 17])
    assert table.shape == (20_000, 25)
    assert keras.ops.shape(layer.table) == (20_000, 25)


def test_a_large_grid_costs_nothing_before_it_is_built():
    assert layers.RelativePositionBias(2, (10**6, 10**6)).grid_size == (10**6, 10**6)
