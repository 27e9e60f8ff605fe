"""`CNNClassifier`: the convolutional network to compare with."""

import inspect

import keras
import numpy as np
import pytest

from keras_vit_edu.initializers import HeNormal
from keras_vit_edu.models import CNNClassifier
from keras_vit_edu.parity import oracle, output_and_gradients
from tests.support import (
    assert_agree,
    constructor_arguments,
    copy_weights,
    random_weights,
    revived,
    to_numpy,
)

pytestmark = pytest.mark.lowest

SMALL = {
    "num_classes": 3,
    "image_shape": (9, 6, 2),
    "filters": (4, 3),
    "head_units": (5,),
}

# Every argument, none at its default.
NON_DEFAULT = {
    "num_classes": 3,
    "image_shape": (2, 9, 6),
    "filters": (4, 3),
    "convolutions": 1,
    "dropout": 0.1,
    "activation": keras.activations.relu,
    "head_units": (5, 4),
    "head_dropout": 0.2,
    "kernel_initializer": HeNormal(seed=3),
    "data_format": "channels_first",
    "frozen_layers": ["stage_0_convolution_0"],
    "dtype": keras.DTypePolicy("mixed_bfloat16"),
    "name": "mine",
    "trainable": True,
}


@pytest.fixture
def images(rng):
    return rng.random((2, 9, 6, 2), "float32")


def with_random_weights(**arguments):
    classifier = CNNClassifier(**{**SMALL, **arguments})
    random_weights(classifier)
    return classifier


def weights_of(classifier):
    return {w.path.removeprefix(f"{classifier.name}/"): to_numpy(w) for w in classifier.weights}


@pytest.mark.parametrize("arguments", [{}, {"convolutions": 1, "activation": "relu", "head_units": ()}])
def test_logits_are_those_of_the_equations(arguments, images):
    classifier = with_random_weights(**arguments)
    expected = oracle.cnn_classifier(weights_of(classifier), images, classifier.get_config())
    assert_agree(to_numpy(classifier(images)), expected, 2e-6)
    assert classifier.output_shape == (None, 3)


def test_gradients_are_those_of_the_equations(images, rng):
    classifier = with_random_weights(
        activation="tanh", convolutions=1, image_shape=(4, 4, 2), filters=(3,), head_units=()
    )
    images, cotangent = images[:, :4, :4], rng.normal(size=(2, 3)).astype("float32")
    _, (of_images,), of_weights = output_and_gradients(classifier, [images], cotangent)
    weights = weights_of(classifier)

    def loss(images=images, **changed):
        logits = oracle.cnn_classifier({**weights, **changed}, images, classifier.get_config())
        return (logits * cotangent).sum()

    assert_agree(of_images, oracle.gradient(loss, images), 1e-5)
    for path, weight in weights.items():
        expected = oracle.gradient(lambda value, path=path: loss(**{path: value}), weight)
        assert_agree(of_weights[f"{classifier.name}/{path}"], expected, 1e-5)


def test_channels_first_gives_the_same_logits(images):
    last = with_random_weights(data_format="channels_last")
    first = CNNClassifier(**{**SMALL, "image_shape": (2, 9, 6)}, data_format="channels_first")
    copy_weights(last, first)
    np.testing.assert_array_equal(to_numpy(first(images.transpose(0, 3, 1, 2))), to_numpy(last(images)))


def test_config_keys_are_the_constructors_arguments_and_survive():
    assert set(NON_DEFAULT) == constructor_arguments(CNNClassifier)
    defaults = inspect.signature(CNNClassifier.__init__).parameters
    classifier = CNNClassifier(**NON_DEFAULT)
    assert set(classifier.get_config()) == set(NON_DEFAULT)
    copy = revived(classifier)
    assert copy.get_config() == classifier.get_config()
    for argument, value in NON_DEFAULT.items():
        assert argument == "trainable" or value != defaults[argument].default, argument
        if argument == "kernel_initializer":
            assert copy.kernel_initializer.seed == 3
        elif argument == "dtype":
            assert copy.dtype_policy.name == "mixed_bfloat16"
        else:
            assert getattr(copy, argument) == value, argument
    assert copy.output.dtype == "float32"
    assert [copy.get_layer(f"stage_{i}_dropout").rate for i in range(2)] == [0.1, 0.1]
    assert [copy.get_layer(f"head_dropout_{i}").rate for i in range(2)] == [0.2, 0.2]


def test_the_paths_of_the_weights_are_frozen():
    classifier = CNNClassifier(**SMALL, name="mine")
    layers = [f"stage_{stage}_convolution_{i}" for stage in range(2) for i in range(2)] + ["head_dense_0", "logits"]
    expected = [f"mine/{layer}/{weight}" for layer in layers for weight in ("kernel", "bias")]
    assert [weight.path for weight in classifier.weights] == expected


def test_it_trains_and_comes_back_from_a_file_and_a_preset(tmp_path, images):
    classifier = CNNClassifier(**SMALL, name="mine")
    classifier.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = classifier.get_weights()
    classifier.fit(np.tile(images, (3, 1, 1, 1))[:5], np.array([0, 1, 2, 0, 1]), batch_size=3, verbose=0)
    assert all((old != new).any() for old, new in zip(before, classifier.get_weights(), strict=True))
    expected = to_numpy(classifier(images))
    keras.models.clone_model(classifier).save(tmp_path / "model.keras")
    classifier.save_to_preset(tmp_path / "preset")
    np.testing.assert_array_equal(to_numpy(CNNClassifier.from_preset(tmp_path / "preset")(images)), expected)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    copy_weights(classifier, loaded)
    np.testing.assert_array_equal(to_numpy(loaded(images)), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "`num_classes` must be 1 or more.*0"),
        ({"image_shape": (9, 6)}, r"`image_shape` must be \(H, W, C\).*\(9, 6\)"),
        ({"filters": (4, 4, 4)}, r"3 stages halve an image to less than a pixel.*image_shape=\(9, 6, 2\)"),
        ({"convolutions": 0}, "`convolutions` must be 1 or more"),
        ({"dropout": 1}, r"`dropout` must be a number in \[0, 1\)"),
        ({"head_units": 5}, "`head_units` must be a list of whole numbers"),
        ({"data_format": "middle"}, "`data_format` must be .*middle"),
        ({"frozen_layers": ["tail"]}, "There is no layer 'tail' to freeze"),
    ],
)
def test_a_bad_argument_is_one_clear_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        CNNClassifier(**{**SMALL, **arguments})
