import keras
import numpy as np
import pytest

from keras_vit_edu.layers import TokenDense
from keras_vit_edu.parity import output_and_gradients
from tests.support import assert_agree, random_weights, to_numpy

SHAPES = ((6, 4), (3, 5, 4), (2, 3, 5, 4))


def both(shape, **arguments):
    """Keras's layer and ours, with the same weights, and inputs for them."""
    theirs = keras.layers.Dense(7, name="theirs", **arguments)
    ours = TokenDense(7, name="ours", **arguments)
    for layer in (theirs, ours):
        layer.build(shape)
    random_weights(theirs)
    ours.set_weights(theirs.get_weights())
    return theirs, ours, np.random.default_rng(1).normal(size=shape).astype("float32")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("arguments", [{}, {"use_bias": False}, {"activation": "gelu"}])
def test_output_and_gradients_are_those_of_keras_dense(shape, arguments):
    theirs, ours, x = both(shape, **arguments)
    (expected, expected_of_x, expected_of_weights), (output, of_x, of_weights) = (
        output_and_gradients(layer, [x]) for layer in (theirs, ours)
    )
    assert_agree(output, expected, 1e-6)
    assert_agree(of_x[0], expected_of_x[0], 2e-6)
    for mine, other in zip(of_weights.values(), expected_of_weights.values(), strict=True):
        assert_agree(mine, other, 2e-6)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_whole_numbers_are_taken_as_keras_dense_takes_them(dtype):
    theirs, ours, x = both((3, 5, 4))
    whole = np.abs(4 * x).astype(dtype)
    assert_agree(to_numpy(ours(whole)), to_numpy(theirs(whole)), 1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_that_of_keras_dense(policy):
    theirs, ours, x = both((3, 5, 4), dtype=policy)
    output = ours(x)
    assert keras.backend.standardize_dtype(output.dtype) == ours.compute_dtype
    assert_agree(to_numpy(output), to_numpy(theirs(x)), 1e-2)


def test_lora_changes_the_output_as_it_does_that_of_keras_dense():
    theirs, ours, x = both((3, 5, 4))
    without = to_numpy(ours(x))
    for layer in (theirs, ours):
        layer.enable_lora(2)
        layer.lora_kernel_a.assign(np.full((4, 2), 0.5, "float32"))
        layer.lora_kernel_b.assign(np.full((2, 7), 0.25, "float32"))
    assert np.abs(to_numpy(ours(x)) - without).max() > 0.1
    assert_agree(to_numpy(ours(x)), to_numpy(theirs(x)), 1e-6)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_it_quantizes_as_keras_dense_does(mode):
    theirs, ours, x = both((3, 5, 4))
    for layer in (theirs, ours):
        layer.quantize(mode)
    assert_agree(to_numpy(ours(x)), to_numpy(theirs(x)), 1e-6)


def test_the_shape_of_a_batch_of_unknown_size_is_known():
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, TokenDense(7)(inputs))
    assert model.output_shape == (None, 5, 7)
    assert model.predict(np.zeros((3, 5, 4), "float32"), verbose=0).shape == (3, 5, 7)


def test_a_penalty_on_outputs_is_counted_per_image_as_keras_does():
    theirs, ours, x = both((3, 5, 4), activity_regularizer=keras.regularizers.L2(0.1))
    theirs(x)
    ours(x)
    assert_agree(to_numpy(ours.losses[0]), to_numpy(theirs.losses[0]), 1e-6)


def test_the_configuration_goes_round():
    layer = TokenDense(7, activation="gelu", use_bias=False, name="mine")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is TokenDense
    assert again.get_config() == layer.get_config()
