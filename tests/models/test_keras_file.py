"""Models of Keras's own layers, in `.keras` files."""

import keras
import numpy as np
import pytest

from keras_vit_edu.models.keras_file import load_keras_file
from tests.support import random_weights, to_numpy

# Layers with a counter of random numbers, which Keras does not save, behind an image.
WITH_COUNTERS = {
    "dropout": lambda: [keras.layers.Flatten(), keras.layers.Dropout(0.5)],
    "flip": lambda: [keras.layers.RandomFlip(), keras.layers.Flatten()],
    "lstm": lambda: [keras.layers.Reshape((4, 4)), keras.layers.LSTM(3, dropout=0.5)],
    "noise": lambda: [keras.layers.GaussianNoise(0.5), keras.layers.BatchNormalization(), keras.layers.Flatten()],
}


@pytest.mark.parametrize("name", WITH_COUNTERS)
def test_layers_of_keras_that_draw_random_numbers(name, rng, tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 1)), *WITH_COUNTERS[name](), keras.layers.Dense(2)])
    random_weights(model)
    model.save(tmp_path / "model.keras")
    loaded = load_keras_file(tmp_path / "model.keras")
    for weight, same in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(same, weight)
    images = rng.random((3, 4, 4, 1), "float32")
    np.testing.assert_array_equal(to_numpy(loaded(images, training=False)), to_numpy(model(images, training=False)))
