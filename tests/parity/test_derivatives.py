"""`output_and_gradients`: the same derivatives, as NumPy arrays, on every backend."""

import keras
import numpy as np
import pytest

from keras_vit_edu.layers import PortableDropout
from keras_vit_edu.parity import output_and_gradients

X = np.array([[1, 2], [3, 4]], "float32")
KERNEL = np.array([[1, 2, 3], [4, 5, 6]], "float32")
COTANGENT = np.array([[1, 0, 2], [0, 1, 0]], "float32")


@pytest.fixture
def dense():
    layer = keras.layers.Dense(3, name="dense")
    layer.build((None, 2))
    layer.set_weights([KERNEL, np.array([1, 1, 1], "float32")])
    return layer


def test_output_and_gradients_of_a_dense_layer(dense):
    output, (input_gradient,), gradients = output_and_gradients(dense, [X], COTANGENT)
    np.testing.assert_array_equal(output, X @ KERNEL + 1)
    np.testing.assert_array_equal(input_gradient, COTANGENT @ KERNEL.T)
    assert list(gradients) == ["dense/kernel", "dense/bias"]
    np.testing.assert_array_equal(gradients["dense/kernel"], X.T @ COTANGENT)
    np.testing.assert_array_equal(gradients["dense/bias"], [1, 1, 2])
    assert {type(x) for x in (output, input_gradient, *gradients.values())} == {np.ndarray}


def test_without_a_cotangent_the_gradients_are_of_the_sum(dense):
    _, (input_gradient,), gradients = output_and_gradients(dense, [X])
    np.testing.assert_array_equal(input_gradient, [[6, 15], [6, 15]])
    np.testing.assert_array_equal(gradients["dense/bias"], [2, 2, 2])


def test_frozen_weights_have_no_gradient(dense):
    dense.trainable = False
    _, (input_gradient,), gradients = output_and_gradients(dense, [X])
    assert gradients == {}
    np.testing.assert_array_equal(input_gradient, [[6, 15], [6, 15]])


def test_weights_of_one_path_have_a_gradient_each():
    model = keras.Sequential([keras.Input((2,))] + [keras.layers.Dense(2, use_bias=False) for _ in range(3)])
    for layer in model.layers:
        layer.kernel._path = "kernel"
    _, _, gradients = output_and_gradients(model, [X])
    assert list(gradients) == ["kernel", "kernel (2)", "kernel (3)"]


def test_unused_inputs_and_weights_have_gradients_of_zeros(dense):
    def first_input_without_bias(layer, x, unused):
        return keras.ops.matmul(x, layer.kernel)

    _, (_, unused_gradient), gradients = output_and_gradients(dense, [X, X + 1], call=first_input_without_bias)
    np.testing.assert_array_equal(unused_gradient, np.zeros((2, 2)))
    np.testing.assert_array_equal(gradients["dense/bias"], np.zeros(3))
    np.testing.assert_array_equal(gradients["dense/kernel"], [[4, 4, 4], [6, 6, 6]])


def test_call_gets_the_layer_and_the_inputs(dense):
    output, (gradient,), _ = output_and_gradients(dense, [X], call=lambda layer, x: 2 * layer(x))
    np.testing.assert_array_equal(output, 2 * (X @ KERNEL + 1))
    np.testing.assert_array_equal(gradient, [[12, 30], [12, 30]])


def test_training_reaches_the_layer_and_the_layer_is_left_as_it_was():
    dropout = PortableDropout(0.5, seed=0)
    x = np.ones((4, 8), "float32")
    first, (gradient,), _ = output_and_gradients(dropout, [x], training=True)
    assert set(first.flatten()) == {0.0, 2.0}
    np.testing.assert_array_equal(gradient, first)
    again, _, _ = output_and_gradients(dropout, [x], training=True)
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(dropout(x, training=True)), first)
    not_training, _, _ = output_and_gradients(dropout, [x])
    np.testing.assert_array_equal(not_training, x)
