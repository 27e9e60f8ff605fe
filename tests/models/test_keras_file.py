"""Models of Keras's own layers, in `.keras` files."""

import io
import math
import tracemalloc
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_vit_edu.models.keras_file import load_keras_file
from tests.support import random_weights, to_numpy

pytestmark = [pytest.mark.quick, pytest.mark.lowest]

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


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_bfloat16", "float16"])
def test_a_model_of_another_dtype(dtype, tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype=dtype, name="dense")])
    model.get_layer("dense").kernel.assign([[1, -2], [3, 0.5], [0.25, 6]])
    model.save(tmp_path / "model.keras")
    loaded = load_keras_file(tmp_path / "model.keras").get_layer("dense")
    assert loaded.dtype_policy.name == dtype
    np.testing.assert_array_equal(to_numpy(loaded.kernel), [[1, -2], [3, 0.5], [0.25, 6]])
    np.testing.assert_array_equal(to_numpy(loaded.bias), [0, 0])


def with_weights(file, array):
    """A `.keras` file whose model has other weights: one array."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save(file)
    stored = io.BytesIO()
    with h5py.File(stored, "w") as opened:
        opened["a"] = array
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in (entries | {"model.weights.h5": stored.getvalue()}).items():
            archive.writestr(name, data)
    return file


@pytest.mark.any_backend
@pytest.mark.parametrize("shape", [(), (3,), (1, 1, 1_100_000), (2, 1_100_000), (2, 3, 500_000), (2_100_000, 1)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_last_weight_is_not_finite(shape, dtype, tmp_path):
    array = np.zeros(max(math.prod(shape), 1), dtype)
    array[-1] = np.nan
    with pytest.raises(ValueError, match="'a' holds NaN or infinity"):
        load_keras_file(with_weights(tmp_path / "model.keras", array.reshape(shape)))


@pytest.mark.any_backend
@pytest.mark.parametrize("shape", [(10_000_000,), (1, 10_000_000), (1, 2, 5_000_000), (10_000_000, 1)])
def test_weights_are_looked_at_in_pieces(shape, tmp_path):
    file = with_weights(tmp_path / "model.keras", np.zeros(shape, "float32"))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="lacks arrays of the shapes"):
            load_keras_file(file)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000  # bytes; all of the weights are 40,000,000
    finally:
        tracemalloc.stop()
