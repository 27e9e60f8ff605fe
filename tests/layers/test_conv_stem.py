"""`ConvStem`: from an image to local features, by strided convolutions."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from keras_vit_edu.initializers import HeNormal
from keras_vit_edu.layers import ConvStem
from keras_vit_edu.parity import oracle, output_and_gradients
from tests.support import (
    assert_agree,
    compiled,
    constructor_arguments,
    copy_weights,
    on_one_backend,
    random_weights,
    relative_difference,
    revived,
    to_numpy,
)

# Every argument, none at its default.
NON_DEFAULT = {
    "filters": (4, 5, 3),
    "strides": (1, 2, 2),
    "pools": (2, 1, 3),
    "dropout": 0.3,
    "normalization": "layer",
    "activation": keras.activations.relu,
    "kernel_initializer": HeNormal(seed=3),
    "data_format": "channels_first",
    "name": "mine",
    "trainable": False,
    "dtype": keras.DTypePolicy("mixed_bfloat16"),
}


def conv_stem(image_shape=(8, 6, 2), **arguments):
    stem = ConvStem(**{"filters": (4, 5), **arguments})
    stem.build((None, *image_shape))
    random_weights(stem)
    return stem


def weights_of(stem):
    return {w.path.removeprefix(f"{stem.name}/"): to_numpy(w) for w in stem.weights}


def by_equation(stem, images):
    activation = keras.activations.serialize(stem.activation)
    return oracle.conv_stem(weights_of(stem), images, stem.strides, activation, stem.pools)


@pytest.mark.parametrize(
    ("size", "strides", "pools"),
    [
        ((7, 5), None, None),
        ((4, 9), (3, 1), None),
        ((7, 5), (1, 2), (2, 1)),
        *on_one_backend(
            ((8, 6), None, None), ((1, 2), (2, 1), None), ((8, 4), (1, 1), (2, 2)), ((7, 8), (1, 1), (3, 2))
        ),
    ],
)
def test_features_are_those_of_the_equations_for_even_and_odd_sizes(size, strides, pools, rng):
    stem = conv_stem((*size, 2), strides=strides, pools=pools)
    images = rng.normal(size=(2, *size, 2)).astype("float32")
    expected = by_equation(stem, images)
    assert_agree(to_numpy(stem(images)), expected, 2e-6)
    assert stem.compute_output_shape((None, *size, 2)) == (None, *expected.shape[1:])


def test_a_28_pixel_image_becomes_7x7_places():
    stem = ConvStem((3, 5))
    assert stem.grid_size((None, 28, 28, 1)) == (7, 7)
    assert stem.stride == 4
    assert stem.compute_output_shape((None, 28, 28, 1)) == (None, 49, 5)
    assert stem.compute_output_shape((None, None, 28, 1)) == (None, None, 5)
    pooled = ConvStem((3, 5, 6), (1, 1, 1), (2, 2, 1))
    assert (pooled.stride, pooled.grid_size((None, 28, 28, 1))) == (4, (7, 7))


def test_max_pooling_keeps_the_largest_of_each_square():
    stem = ConvStem((1,), (1,), (2,), activation="linear")
    stem.build((None, 3, 4, 1))
    kernel = np.zeros((3, 3, 1, 1), "float32")
    kernel[1, 1] = 1  # the pixel itself
    stem.set_weights([kernel, np.zeros(1, "float32")])
    image = np.array([[1, 2, -1, -2], [3, 0, -4, -3], [5, -6, 7, 8]], "float32")
    np.testing.assert_array_equal(to_numpy(stem(image[None, ..., None])).ravel(), [3, -1, 5, 8])


def test_layer_normalization_comes_between_convolution_and_activation():
    stem = ConvStem((3,), (1,), normalization="layer", activation="relu")
    stem.build((None, 4, 4, 3))
    kernel = np.zeros((3, 3, 3, 3), "float32")
    kernel[1, 1] = np.eye(3)  # the convolution hands on the pixel itself
    scale, offset = np.array([2, 1, 3], "float32"), np.array([0.5, 0, -1], "float32")
    stem.set_weights([kernel, np.zeros(3, "float32"), scale, offset])
    x = np.random.default_rng(0).normal(3, 2, (8, 4, 4, 3)).astype("float32")
    normalized = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)
    expected = np.maximum(scale * normalized + offset, 0).reshape(8, 16, 3)
    np.testing.assert_allclose(to_numpy(stem(x)), expected, rtol=1e-4, atol=1e-4)


def test_dropout_acts_in_training_where_the_image_becomes_smaller():
    keras.utils.set_random_seed(0)
    stem = ConvStem((1, 1, 1), (1, 1, 2), (1, 2, 1), dropout=0.5, activation="linear")
    stem.build((None, 64, 64, 1))
    kernel = np.zeros((3, 3, 1, 1), "float32")
    kernel[1, 1] = 1  # each convolution hands on the pixel itself
    stem.set_weights([kernel, np.zeros(1, "float32")] * 3)
    ones = np.ones((8, 64, 64, 1), "float32")
    np.testing.assert_array_equal(to_numpy(stem(ones)), 1)
    dropped = to_numpy(stem(ones, training=True))
    assert set(np.unique(dropped)) == {0.0, 4.0}  # kept by both dropouts, the pooling's and the stride's, or by none
    assert abs((dropped > 0).mean() - 0.25) < 0.04  # of 2,048, of which two masks of 1/2 keep a quarter
    assert (to_numpy(stem(ones, training=True)) != dropped).any()


@pytest.mark.parametrize(("strides", "pools"), [((2, 2), (1, 1)), ((1, 2), (2, 1))])
def test_gradients_are_those_of_the_equations(strides, pools, rng):
    stem = conv_stem((5, 4, 2), strides=strides, pools=pools)
    images, cotangent = rng.normal(size=(2, 5, 4, 2)).astype("float32"), rng.normal(size=(2, 2, 5)).astype("float32")
    _, (of_images,), of_weights = output_and_gradients(stem, [images], cotangent)
    actual = {"images": of_images} | {path.removeprefix(f"{stem.name}/"): g for path, g in of_weights.items()}
    given = {"images": images, **weights_of(stem)}
    assert actual.keys() == given.keys()
    for name, value in given.items():

        def loss(value, name=name):
            weights = {**given, name: value}
            return (oracle.conv_stem(weights, weights.pop("images"), strides, "gelu", pools) * cotangent).sum()

        assert relative_difference(actual[name], oracle.gradient(loss, value)) <= 1e-5, name


def test_pixels_of_whole_numbers_are_taken_as_they_are(rng):
    images = rng.integers(0, 255, (2, 9, 9, 1)).astype("uint8")
    stem = ConvStem((4, 6))
    np.testing.assert_array_equal(to_numpy(stem(images)), to_numpy(stem(images.astype("float32"))))


def test_channels_first_gives_the_same_features(rng):
    last = conv_stem((8, 6, 2), data_format="channels_last")
    first = conv_stem((2, 8, 6), data_format="channels_first")
    images = rng.normal(size=(2, 8, 6, 2)).astype("float32")
    np.testing.assert_array_equal(to_numpy(first(images.transpose(0, 3, 1, 2))), to_numpy(last(images)))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", *on_one_backend("float32")])
def test_symbolic_eager_and_compiled_shapes_and_dtypes_agree(policy, rng):
    stem = conv_stem(dtype=policy)
    dtype = keras.DTypePolicy(policy).compute_dtype
    assert stem(keras.KerasTensor((None, 8, 6, 2))).shape == (None, 4, 5)
    images = ops.convert_to_tensor(rng.normal(size=(3, 8, 6, 2)).astype("float32"))
    expected = by_equation(stem, to_numpy(images))
    for output in (stem(images), compiled(stem)(images)):
        assert keras.backend.standardize_dtype(output.dtype) == dtype
        assert_agree(to_numpy(output), expected, 2e-6 if policy == "float32" else 2e-2)


def test_config_keys_are_the_constructors_arguments_and_survive():
    assert set(NON_DEFAULT) == constructor_arguments(ConvStem)
    defaults = inspect.signature(ConvStem.__init__).parameters
    stem = ConvStem(**NON_DEFAULT)
    assert set(stem.get_config()) == set(NON_DEFAULT)
    copy = revived(stem)
    assert copy.get_config() == stem.get_config()
    for argument in (
        "filters",
        "strides",
        "pools",
        "dropout",
        "normalization",
        "activation",
        "data_format",
        "name",
        "trainable",
    ):
        assert getattr(copy, argument) == NON_DEFAULT[argument]
        assert argument not in defaults or NON_DEFAULT[argument] != defaults[argument].default
    assert copy.kernel_initializer.seed == 3
    assert {convolution.compute_dtype for convolution in copy.convolutions} == {"bfloat16"}


def test_kernels_come_from_the_seed_and_differ():
    stems = [ConvStem((2, 2, 2), kernel_initializer=HeNormal(seed=1), strides=(1, 1, 1)) for _ in range(2)]
    for stem in stems:
        stem.build((None, 4, 4, 2))
    first, second = ([to_numpy(c.kernel) for c in stem.convolutions] for stem in stems)
    np.testing.assert_array_equal(first, second)
    assert len({kernel.tobytes() for kernel in first}) == 3


def test_a_copy_with_the_weights_computes_the_same_and_so_does_a_saved_one(tmp_path, rng):
    stem = conv_stem()
    copy = revived(stem)
    copy_weights(stem, copy)
    images = rng.normal(size=(2, 8, 6, 2)).astype("float32")
    np.testing.assert_array_equal(to_numpy(copy(images)), to_numpy(stem(images)))
    model = keras.Sequential([keras.Input((8, 6, 2)), stem])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(loaded(images)), to_numpy(stem(images)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": ()}, r"there must be one at least. Received: filters=\(\)"),
        ({"filters": 8}, "`filters` must be a list of whole numbers.*8"),
        ({"filters": (8, 0)}, "`filters` must be 1 or more.*0"),
        ({"filters": (8,), "strides": (2, 2)}, r"one entry per convolution.*strides=\(2, 2\)"),
        ({"filters": (8,), "pools": (2, 2)}, r"one entry per convolution.*pools=\(2, 2\)"),
        ({"filters": (8,), "pools": (0,)}, "`pools` must be 1 or more.*0"),
        ({"filters": (8,), "strides": (0,)}, "`strides` must be 1 or more.*0"),
        ({"filters": (8,), "dropout": 1.0}, "`dropout` must be .*1.0"),
        ({"filters": (8,), "normalization": "batch"}, "`normalization` must be 'layer' or None.*'batch'"),
        ({"filters": (8,), "data_format": "middle"}, "`data_format` must be .*middle"),
    ],
)
def test_a_bad_argument_is_one_clear_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvStem(**arguments)


def test_images_must_be_of_rank_4():
    with pytest.raises(ValueError, match=r"4 dimensions, \(B, H, W, C\). Received: images of shape \(2, 8, 6\)"):
        ConvStem((4,))(np.zeros((2, 8, 6), "float32"))
