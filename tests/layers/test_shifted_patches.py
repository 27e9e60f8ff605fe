"""`ShiftedPatches`: patches that see across their borders."""

import keras
import numpy as np
import pytest

from keras_vit_edu.layers import ShiftedPatches
from keras_vit_edu.parity import oracle
from keras_vit_edu.parity.testing import assert_config_round_trip
from tests.support import compiled, to_numpy

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("image_shape", "patch_size"),
    [((4, 6, 1), 2), ((8, 12, 3), 4), ((6, 6, 2), (3, 2)), ((5, 5, 1), 5), ((9, 6, 1), (3, 6))],
)
def test_patches_are_those_of_the_oracle_in_both_data_formats(image_shape, patch_size, rng):
    images = rng.random((2, *image_shape), "float32")
    expected = oracle.shifted_patches(images, patch_size)
    last = ShiftedPatches(patch_size, data_format="channels_last")
    first = ShiftedPatches(patch_size, data_format="channels_first")
    channels_first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    for layer, given in ((last, images), (first, channels_first)):
        np.testing.assert_array_equal(to_numpy(layer(given)), expected)
        np.testing.assert_array_equal(to_numpy(compiled(layer)(keras.ops.convert_to_tensor(given))), expected)
        assert layer.compute_output_shape(given.shape) == expected.shape
        assert layer(keras.KerasTensor((None, *given.shape[1:]))).shape == (None, *expected.shape[1:])


def test_whole_numbers_stay_whole():
    images = np.arange(16, dtype="int32").reshape(1, 4, 4, 1)
    patches = to_numpy(ShiftedPatches(2)(images))
    assert patches.dtype == "int32"
    np.testing.assert_array_equal(patches, oracle.shifted_patches(images, 2))


def test_images_of_unknown_size():
    layer = ShiftedPatches(4, data_format="channels_last")
    assert layer(keras.KerasTensor((None, None, None, 3))).shape == (None, None, 240)
    assert layer.compute_output_shape((2, None, 8, 1)) == (2, None, 80)


def test_the_config_is_whole():
    arguments = {"patch_size": (4, 2), "data_format": "channels_first", "name": "mine", "trainable": False}
    assert_config_round_trip(ShiftedPatches, {**arguments, "dtype": keras.DTypePolicy("mixed_bfloat16")})


@pytest.mark.parametrize(
    ("patch_size", "shape", "complaint"),
    [
        (1, None, r"`patch_size` must be 2 or more, to be halved. Received: patch_size=\(1, 1\)"),
        ((4, 1), None, r"Received: patch_size=\(4, 1\)"),
        (0, None, "`patch_size` must be"),
        (4, (2, 8, 6, 1), "`patch_size` must divide the image: 6 / 4 leaves 2 pixels over"),
        (4, (8, 8, 1), r"Images must have 4 dimensions, \(B, H, W, C\)"),
    ],
)
def test_what_cannot_be_cut_is_an_error(patch_size, shape, complaint):
    with pytest.raises(ValueError, match=complaint):
        ShiftedPatches(patch_size, data_format="channels_last")(keras.KerasTensor(shape))
