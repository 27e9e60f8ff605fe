"""Patches: every pixel of every patch where `tf.image.extract_patches` puts it, and back again."""

import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_vit_edu.layers import Patches
from keras_vit_edu.parity.testing import assert_config_round_trip
from tests.support import BACKEND, compilers, revived, to_numpy

pytestmark = pytest.mark.quick


def cut(images, patch_height, patch_width):
    """Patches of `(B, H, W, C)`, pixel by pixel: rows of patches, patches of a row, rows of pixels, pixels of a row."""
    images = np.asarray(images)
    batch, height, width, channels = images.shape
    rows, columns = height // patch_height, width // patch_width
    patches = np.empty((batch, rows * columns, patch_height * patch_width * channels), images.dtype)
    for b in range(batch):
        for n in range(rows * columns):
            row, column = n // columns, n % columns
            i = 0
            for y in range(row * patch_height, (row + 1) * patch_height):
                for x in range(column * patch_width, (column + 1) * patch_width):
                    for c in range(channels):
                        patches[b, n, i] = images[b, y, x, c]
                        i += 1
    return patches


def pictures(*shape, dtype="float32"):
    """Images of which every pixel has a value of its own."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


# Values. --------------------------------------------------------------------------------------------------------------


def test_a_case_by_hand():
    image = [  # two rows, four columns, two channels
        [[1, 2], [3, 4], [5, 6], [7, 8]],
        [[9, 10], [11, 12], [13, 14], [15, 16]],
    ]
    patches = to_numpy(Patches((1, 2))(np.array([image])))
    np.testing.assert_array_equal(patches, [[[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]])
    patches = to_numpy(Patches(2)(np.array([image])))
    np.testing.assert_array_equal(patches, [[[1, 2, 3, 4, 9, 10, 11, 12], [5, 6, 7, 8, 13, 14, 15, 16]]])


small = st.integers(1, 3)


@pytest.mark.any_backend
@settings(max_examples=25)
@given(
    batch=small,
    rows=small,
    columns=small,
    patch_size=st.tuples(small, small),
    channels=small,
    dtype=st.sampled_from(["float32", "uint8", "int32", "bool"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_patches_of_any_shape_are_bit_exact_and_restore_inverts_them(
    batch, rows, columns, patch_size, channels, dtype, seed
):
    shape = (batch, rows * patch_size[0], columns * patch_size[1], channels)
    raw = np.random.default_rng(seed).integers(0, 256, shape).astype("uint8")
    images = raw.astype(dtype) / np.float32(255) if dtype == "float32" else raw.astype(dtype)
    expected = cut(images, *patch_size)
    for data_format, placed in (("channels_last", images), ("channels_first", images.transpose(0, 3, 1, 2))):
        layer = Patches(patch_size, data_format=data_format)
        patches = layer(placed)
        assert keras.backend.standardize_dtype(patches.dtype) == dtype
        np.testing.assert_array_equal(ops.convert_to_numpy(patches), expected)
        np.testing.assert_array_equal(ops.convert_to_numpy(layer.restore(patches, shape[1:3])), placed)


if BACKEND == "tensorflow":

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("patch_size", [(2, 2), (4, 3), (1, 6), (8, 12)])
    def test_patches_are_those_of_tensorflow(patch_size, channels):
        import tensorflow as tf

        images = pictures(2, 8, 12, channels)
        sizes = [1, *patch_size, 1]
        expected = tf.image.extract_patches(images, sizes=sizes, strides=sizes, rates=[1, 1, 1, 1], padding="VALID")
        expected = tf.reshape(expected, (2, -1, patch_size[0] * patch_size[1] * channels))
        np.testing.assert_array_equal(to_numpy(Patches(patch_size)(images)), to_numpy(expected))


def test_a_convolution_with_the_identity_as_kernel_cuts_the_same_patches():
    # The published ViT cuts and projects with one strided convolution; its kernel reads a patch in the same order.
    images = pictures(2, 6, 8, 3)
    identity = np.eye(3 * 4 * 3, dtype="float32").reshape(3, 4, 3, 36)
    expected = ops.reshape(ops.conv(images, identity, strides=(3, 4)), (2, 4, 36))
    np.testing.assert_array_equal(to_numpy(Patches((3, 4))(images)), to_numpy(expected))


def test_none_takes_kerass_data_format_as_the_layer_is_made():
    keras.config.set_image_data_format("channels_first")
    layer = Patches(2)
    keras.config.set_image_data_format("channels_last")
    assert layer.data_format == "channels_first"
    images = pictures(1, 4, 6, 3)
    np.testing.assert_array_equal(to_numpy(layer(images.transpose(0, 3, 1, 2))), cut(images, 2, 2))


def test_the_grid_of_an_image_is_its_rows_and_columns_of_patches():
    assert Patches((2, 3)).grid_size((None, 8, 9, 1)) == (4, 3)
    assert Patches((2, 3)).grid_size((None, None, 9, 1)) == (None, 3)
    assert Patches((2, 3), data_format="channels_first").grid_size((None, 1, 8, 9)) == (4, 3)


# Dtypes. --------------------------------------------------------------------------------------------------------------

# float64 and narrow floats arrive in the layer's compute dtype; ints and bools are left alone.
DTYPES = [
    ("float32", "uint8", "uint8"),
    ("float32", "int32", "int32"),
    ("float32", "bool", "bool"),
    ("float32", "float16", "float32"),
    ("float32", "float64", "float32"),
    ("float16", "float32", "float16"),
    ("mixed_bfloat16", "float32", "bfloat16"),
    ("mixed_bfloat16", "uint8", "uint8"),
    ("mixed_float16", "float16", "float16"),
]


@pytest.mark.parametrize(("policy", "dtype", "expected"), DTYPES)
def test_the_dtype_is_the_same_eager_and_symbolic(policy, dtype, expected):
    layer = Patches(2, dtype=policy)
    images = pictures(1, 4, 4, 1, dtype=dtype)
    eager = layer(images)
    symbolic = layer(keras.Input((4, 4, 1), dtype=dtype))
    assert keras.backend.standardize_dtype(eager.dtype) == symbolic.dtype == expected
    np.testing.assert_array_equal(to_numpy(eager), cut(images, 2, 2))


def test_without_autocast_floats_stay_what_they_are():
    layer = Patches(2, autocast=False)
    symbolic = layer(keras.Input((4, 4, 1), dtype="float16"))
    eager = layer(pictures(1, 4, 4, 1, dtype="float16"))
    assert keras.backend.standardize_dtype(eager.dtype) == symbolic.dtype == "float16"


# Symbolic, eager and compiled. ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("batch", [None, 1, 7])
def test_symbolic_eager_and_model_shapes_agree(batch, data_format, channels):
    shape = (6, 8, channels) if data_format == "channels_last" else (channels, 6, 8)
    inputs = keras.Input(shape, batch_size=batch)
    layer = Patches((3, 2), data_format=data_format)
    outputs = layer(inputs)
    assert outputs.shape == (batch, 8, 6 * channels)
    assert layer.compute_output_shape((batch, *shape)) == (batch, 8, 6 * channels)
    assert tuple(keras.Model(inputs, outputs)(np.zeros((batch or 5, *shape))).shape) == (batch or 5, 8, 6 * channels)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((None, 8, 1), (None, None, 6)),
        ((6, None, 1), (None, None, 6)),
        ((None, None, 3), (None, None, 18)),
        ((6, 8, None), (None, 8, None)),
        ((None, None, None), (None, None, None)),
    ],
)
def test_one_model_serves_sizes_that_were_unknown(shape, expected):
    inputs = keras.Input(shape)
    outputs = Patches((3, 2))(inputs)
    assert outputs.shape == expected
    model = keras.Model(inputs, outputs)
    for height, width in ((6, 8), (3, 8), (6, 2)):
        size = tuple(known or given for known, given in zip(shape, (height, width, 3), strict=True))
        images = pictures(2, *size)
        np.testing.assert_array_equal(to_numpy(model(images)), cut(images, 3, 2))


@pytest.mark.parametrize("compiler", compilers())
def test_compiled_it_cuts_and_restores_as_eagerly(compiler):
    layer = Patches((3, 2))
    images = pictures(2, 6, 8, 3)
    both = compilers()[compiler](lambda x: (layer(x), layer.restore(layer(x), (6, 8))))
    patches, restored = both(ops.convert_to_tensor(images))
    np.testing.assert_array_equal(to_numpy(patches), cut(images, 3, 2))
    np.testing.assert_array_equal(to_numpy(restored), images)


if BACKEND == "tensorflow":

    def test_a_graph_of_unknown_sizes_cuts_and_restores():
        import tensorflow as tf

        layer = Patches((3, 2))

        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3))])
        def patches_of(x):
            return layer(x)

        @tf.function(input_signature=[tf.TensorSpec((None, None, 18))])
        def restored(x):
            return layer.restore(x, (6, 8))

        for batch in (1, 7):
            images = pictures(batch, 6, 8, 3)
            np.testing.assert_array_equal(to_numpy(patches_of(images)), cut(images, 3, 2))
            np.testing.assert_array_equal(to_numpy(restored(cut(images, 3, 2))), images)
        with pytest.raises(tf.errors.InvalidArgumentError):
            patches_of(pictures(1, 7, 8, 3))
        with pytest.raises(tf.errors.InvalidArgumentError):
            restored(pictures(1, 9, 18))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_patches_are_restored_inside_a_functional_model(data_format):
    layer = Patches((3, 2), data_format=data_format)
    shape = (6, 8, 3) if data_format == "channels_last" else (3, 6, 8)
    inputs = keras.Input(shape)
    outputs = layer.restore(layer(inputs), (6, 8))
    assert outputs.shape[1:] == shape
    images = pictures(2, *shape)
    np.testing.assert_array_equal(to_numpy(keras.Model(inputs, outputs)(images)), images)


def test_an_unknown_number_of_patches_is_not_restored_inside_a_functional_model():
    layer = Patches((3, 2))
    with pytest.raises(ValueError, match=r"This image has 2 \* 4 = 8 patches"):
        layer.restore(layer(keras.Input((None, None, 3))), (6, 8))


def test_an_empty_batch_is_cut_and_restored():
    layer = Patches((3, 2))
    patches = layer(np.zeros((0, 6, 8, 3)))
    assert tuple(patches.shape) == (0, 8, 18)
    assert tuple(layer.restore(patches, (6, 8)).shape) == (0, 6, 8, 3)


def test_a_square_image_is_restored_to_one_side():
    images = pictures(2, 6, 6, 3)
    layer = Patches(3)
    np.testing.assert_array_equal(to_numpy(layer.restore(layer(images), 6)), images)


# Configuration. -------------------------------------------------------------------------------------------------------

ARGUMENTS = {
    "patch_size": (3, 2),
    "data_format": "channels_first",
    "name": "other",
    "trainable": False,
    "dtype": "mixed_bfloat16",
}


def test_every_argument_survives_the_config_under_other_global_settings():
    layer = Patches(**ARGUMENTS)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float64")
    again = revived(layer)
    assert type(again) is Patches
    assert again.get_config() == layer.get_config()
    for argument, value in ARGUMENTS.items():
        actual = again.dtype_policy.name if argument == "dtype" else getattr(again, argument)
        assert actual == value, argument
    images = pictures(2, 3, 6, 8)
    np.testing.assert_array_equal(to_numpy(again(images)), to_numpy(layer(images)))


def test_a_default_data_format_survives_the_config_under_another_global_one():
    keras.config.set_image_data_format("channels_first")
    layer = Patches(2)
    keras.config.set_image_data_format("channels_last")
    assert revived(layer).data_format == "channels_first"


def test_the_config_is_json():
    config = json.loads(json.dumps(Patches((3, 2)).get_config()))
    assert Patches.from_config(config).patch_size == (3, 2)


def test_every_argument_survives_its_configuration():
    assert_config_round_trip(Patches, ARGUMENTS)


def test_it_is_registered_under_the_package():
    assert keras.saving.get_registered_name(Patches) == "keras_vit_edu>Patches"


def test_it_has_no_variables():
    layer = Patches(2)
    layer.build((None, 4, 4, 1))
    assert layer.built
    assert layer.variables == []


# Errors. --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch_size", [0, -1, 2.0, (2, 0), (2, -3), (2, 2.0), (2,), (2, 2, 2), "2", None, True])
def test_a_patch_size_that_is_none_is_refused(patch_size):
    with pytest.raises(ValueError, match=r"`patch_size` must be .*Received: patch_size="):
        Patches(patch_size)


@pytest.mark.parametrize("data_format", ["channel_last", "NHWC", 1])
def test_an_unknown_data_format_is_refused(data_format):
    with pytest.raises(ValueError, match=f"`data_format` must be .*Received: data_format={data_format!r}"):
        Patches(2, data_format=data_format)


WAYS_IN = {
    "call": lambda layer, shape: layer(np.zeros(shape)),
    "symbolic call": lambda layer, shape: layer(keras.Input(shape[1:])),
    "build": lambda layer, shape: layer.build(shape),
    "compute_output_shape": lambda layer, shape: layer.compute_output_shape(shape),
    "grid_size": lambda layer, shape: layer.grid_size(shape),
}


@pytest.mark.parametrize("way_in", WAYS_IN)
@pytest.mark.parametrize(
    ("patch_size", "shape", "data_format", "the_sum"),
    [
        (5, (1, 28, 28, 1), "channels_last", "28 / 5 leaves 3 pixels over"),
        ((4, 3), (1, 28, 28, 1), "channels_last", "28 / 3 leaves 1 pixels over"),
        ((3, 4), (1, 28, 28, 1), "channels_last", "28 / 3 leaves 1 pixels over"),
        (8, (1, 4, 8, 1), "channels_last", "4 / 8 leaves 4 pixels over"),
        ((4, 3), (1, 3, 28, 28), "channels_first", "28 / 3 leaves 1 pixels over"),
    ],
)
def test_a_patch_that_does_not_divide_the_image_is_refused_with_the_sum(
    patch_size, shape, data_format, the_sum, way_in
):
    with pytest.raises(ValueError, match=f"`patch_size` must divide the image: {the_sum}.*Received: .*patch_size="):
        WAYS_IN[way_in](Patches(patch_size, data_format=data_format), shape)


def test_a_built_layer_refuses_another_image_that_it_cannot_cut():
    layer = Patches(4)
    layer(np.zeros((1, 8, 8, 1)))
    with pytest.raises(ValueError, match="10 / 4 leaves 2 pixels over"):
        layer(np.zeros((1, 8, 10, 1)))


@pytest.mark.parametrize("way_in", WAYS_IN)
@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 4), (1, 1, 4, 4, 1)])
@pytest.mark.parametrize(
    ("data_format", "layout"), [("channels_last", r"\(B, H, W, C\)"), ("channels_first", r"\(B, C, H, W\)")]
)
def test_another_rank_is_refused_and_the_layout_named(shape, data_format, layout, way_in):
    with pytest.raises(ValueError, match=f"4 dimensions, {layout}. Received: images of shape"):
        WAYS_IN[way_in](Patches(2, data_format=data_format), shape)


@pytest.mark.parametrize(
    ("shape", "image_size", "message"),
    [
        ((1, 4, 12), (4, 5), r"`image_size` must be a multiple of patch_size=\(2, 2\)"),
        ((1, 4, 12), (5, 4), r"`image_size` must be a multiple of patch_size=\(2, 2\)"),
        ((1, 4, 13), (4, 4), r"`patches` must be \(B, N, 2 \* 2 \* channels\)"),
        ((4, 12), (4, 4), r"`patches` must be \(B, N, 2 \* 2 \* channels\)"),
        ((1, 5, 12), (4, 4), r"This image has 2 \* 2 = 4 patches"),
    ],
)
def test_patches_that_do_not_fit_the_image_are_not_restored(shape, image_size, message):
    with pytest.raises(ValueError, match=message + r".*Received: patches of shape \(.*image_size=\("):
        Patches(2).restore(np.zeros(shape), image_size)


@pytest.mark.parametrize("image_size", [0, (4, 0), 4.0, (4, 4, 3), None])
def test_an_image_size_that_is_none_is_refused(image_size):
    with pytest.raises(ValueError, match=r"`image_size` must be .*Received: image_size="):
        Patches(2).restore(np.zeros((1, 4, 12)), image_size)
