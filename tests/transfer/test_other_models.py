"""Models that people bring: Sequential, nested, subclassed, of several inputs; of other dtypes."""

import keras
import numpy as np
import pytest
from rich.console import Console

from keras_vit_edu import training
from keras_vit_edu.training import RunFolder
from keras_vit_edu.transfer import (
    FineTuning,
    Preprocessing,
    TransferClassifier,
    feature_model,
    freeze_backbone,
    unfreeze_last,
)
from keras_vit_edu.transfer.artifact_files import ArtifactError
from tests.support import opened_vit, to_numpy
from tests.transfer.small import coloured

layers = keras.layers
PREPROCESSING = Preprocessing(16, scale=1 / 127.5, offset=-1.0)
IMAGES, LABELS = coloured(18, 2)
NAMES = ["a", "b"]
QUIET = Console(quiet=True)


def body(**more):
    return [layers.Conv2D(4, 3, activation="relu", **more), layers.GlobalAveragePooling2D()]


def sequential():
    return keras.Sequential([keras.Input((16, 16, 3)), *body(), layers.Dense(2)], name="sequential")


def not_built():
    return keras.Sequential([*body(), layers.Dense(2)], name="not_built")


def sequential_in_functional():
    images = keras.Input((16, 16, 3))
    inner = keras.Sequential([*body(), layers.Dense(2)], name="inner")
    return keras.Model(images, inner(layers.Rescaling(2.0)(images)), name="outer")


def functional_in_sequential():
    images = keras.Input((16, 16, 3))
    x = images
    for layer in body():
        x = layer(x)
    inner = keras.Model(images, layers.Dense(2)(x), name="inner")
    return keras.Sequential([keras.Input((16, 16, 3)), layers.Rescaling(2.0), inner], name="outer")


def backbone_in_sequential():
    backbone = keras.Sequential([keras.Input((16, 16, 3)), *body()], name="backbone")
    return keras.Sequential([backbone, layers.Dense(2)], name="outer")


class Subclassed(keras.Model):
    def __init__(self, units=2, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.convolution, self.pooling = body()
        self.head = layers.Dense(units, activation=activation)

    def call(self, images):
        return self.head(self.pooling(self.convolution(images)))


def pooled_logits():
    """Functional, and its logits are no layer's Dense."""
    images = keras.Input((16, 16, 3))
    return keras.Model(images, layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(images)), name="pooled")


SPLIT = [sequential, not_built, sequential_in_functional, functional_in_sequential, backbone_in_sequential]
WHOLE = [Subclassed, pooled_logits]
by_name = pytest.mark.parametrize("make", SPLIT, ids=lambda make: make.__name__)


def classifier_of(make):
    keras.utils.set_random_seed(0)
    return TransferClassifier(make(), PREPROCESSING, NAMES)


def fitted(classifier, tmp_path, **options):
    settings = FineTuning(**{"probe_epochs": 2, "epochs": 1, "batch_size": 6, **options})
    return classifier.fit((IMAGES, LABELS), options=settings, cache=tmp_path / "cache", console=QUIET)


@pytest.mark.any_backend
@by_name
def test_the_default_fit_of_a_model_that_ends_in_a_head(make, tmp_path):
    classifier = classifier_of(make)
    before = {weight.path: to_numpy(weight) for weight in classifier.model.weights}
    record = fitted(classifier, tmp_path)
    assert [phase["name"] for phase in record["phases"]] == ["probe", "lp-ft"]
    assert record["phases"][0]["trainable"] == 4 * 2 + 2
    assert record["phases"][1]["trainable"] == record["phases"][1]["total"] == 4 * 27 + 4 + 4 * 2 + 2
    assert all((to_numpy(weight) != before[weight.path]).any() for weight in classifier.model.weights)
    assert classifier.evaluate(list(IMAGES), LABELS).accuracy >= 0.5
    assert len(classifier.predict(IMAGES[0])[0]) == 2


@by_name
def test_features_times_the_head_are_the_logits(make):
    model = classifier_of(make).model
    images = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype("float32")
    features = to_numpy(feature_model(model)(images))
    kernel, bias = (to_numpy(weight) for weight in model.weights[-2:])
    np.testing.assert_allclose(features @ kernel + bias, to_numpy(model(images)), atol=1e-5)


@by_name
def test_only_the_head_trains_when_the_rest_is_frozen(make):
    model = classifier_of(make).model
    assert freeze_backbone(model, QUIET) == (10, 122)
    assert [weight.shape[-1] for weight in model.trainable_weights] == [2, 2]
    assert unfreeze_last(model, None, QUIET) == (122, 122)


@pytest.mark.parametrize("make", WHOLE, ids=lambda make: make.__name__)
def test_a_model_without_a_known_head_trains_whole(make, tmp_path):
    classifier = classifier_of(make)
    with pytest.raises(ValueError, match=r'must end in a Dense layer.*method="full", which trains') as error:
        fitted(classifier, tmp_path)
    assert "\n" not in str(error.value)
    before = [to_numpy(weight) for weight in classifier.model.weights]
    record = fitted(classifier, tmp_path, method="full", label_smoothing=0.1)
    assert record["phases"][0]["trainable"] == record["phases"][0]["total"]
    assert all((to_numpy(w) != old).any() for w, old in zip(classifier.model.weights, before, strict=True))


@pytest.mark.any_backend
def test_a_run_resumes_with_a_sequential(tmp_path):
    arguments = {"options": FineTuning(probe_epochs=1, epochs=1, batch_size=6), "cache": tmp_path, "console": QUIET}
    classifier = classifier_of(sequential)
    with pytest.raises(ArtifactError, match=r"Save this model with Keras, `model\.save\(\.\.\.\)`"):
        classifier.fit((IMAGES, LABELS), run=tmp_path / "run", **arguments)
    from keras_vit_edu.transfer import fine_tune

    with RunFolder(tmp_path / "run") as run:
        record = fine_tune(classifier.model, PREPROCESSING, (IMAGES, LABELS), run=run, **arguments)
    assert record["status"] == "finished"


def two_inputs():
    first, second = keras.Input((16, 16, 3)), keras.Input((4,))
    pooled = layers.GlobalAveragePooling2D()(first)
    return keras.Model([first, second], layers.Dense(2)(layers.Concatenate()([pooled, second])), name="two_inputs")


def two_outputs():
    images = keras.Input((16, 16, 3))
    pooled = layers.GlobalAveragePooling2D()(images)
    return keras.Model(images, [layers.Dense(2)(pooled), layers.Dense(2)(pooled)], name="two_outputs")


class GivesDictionary(Subclassed):
    def call(self, images):
        return {"logits": super().call(images)}


class TakesTwo(Subclassed):
    def call(self, images, numbers):
        return super().call(images)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_inputs, "two_inputs with 2 inputs and 1 outputs"),
        (two_outputs, "two_outputs with 1 inputs and 2 outputs"),
        (GivesDictionary, "which gives a dict"),
        (TakesTwo, "cannot be called on images of shape"),
        (lambda: Subclassed(units=3), r"a logit for each of the 2 class names.*\(None, 3\)"),
        (lambda: Subclassed(activation="softmax"), "must give logits"),
        (lambda: keras.Sequential([sequential(), layers.Softmax()]), "must give logits"),
        (lambda: keras.Sequential([sequential(), layers.Activation("softmax")]), "must give logits"),
        (lambda: keras.Sequential([*body(), layers.Dense(2, activation="sigmoid")]), "must give logits"),
        (lambda: keras.Sequential([keras.Input((8, 8, 3)), *body(), layers.Dense(2)]), "images of the model.s shape"),
        (lambda: "model.keras", "must be a `keras.Model`. Received: str"),
        (lambda: None, "must be a `keras.Model`. Received: NoneType"),
        (lambda: layers.Dense(2), "must be a `keras.Model`. Received: Dense"),
    ],
)
def test_a_model_that_is_no_image_classifier_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        TransferClassifier(make(), PREPROCESSING, NAMES)
    assert "\n" not in str(error.value)


@pytest.mark.any_backend
def test_a_model_of_any_size_that_is_not_built_needs_one():
    with pytest.raises(ValueError, match="image size of this model is unknown"):
        TransferClassifier(Subclassed(), Preprocessing(None), NAMES)


@pytest.mark.any_backend
@pytest.mark.parametrize("make", [sequential, not_built, sequential_in_functional], ids=lambda make: make.__name__)
def test_training_from_scratch_and_evaluation(make, tmp_path):
    from keras_vit_edu.datasets import ImageDataset

    images = np.stack([image[:16, :16] for image in IMAGES])
    dataset = ImageDataset("coloured", "here", images, LABELS, images, LABELS, ("a", "b"))
    keras.utils.set_random_seed(0)
    model = make()
    with RunFolder(tmp_path / "run") as run:
        recipe = training.load_recipe("program-p").replace(epochs=1, batch_size=6)
        record = training.train(model, dataset, run, recipe, console=QUIET)
    assert record["status"] == "finished"
    found = training.evaluate(model, images, LABELS, ("a", "b"))
    assert found.accuracy == pytest.approx(record["test_accuracy"], abs=1e-6)
    again = keras.saving.load_model(tmp_path / "run" / "model.keras")
    np.testing.assert_allclose(to_numpy(again(images / 255.0)), to_numpy(model(images / 255.0)), atol=1e-5)


@pytest.mark.any_backend
def test_evaluation_of_a_subclassed_model_and_of_one_that_does_not_fit():
    images = np.stack([image[:16, :16] for image in IMAGES])
    assert len(training.evaluate(Subclassed(), images, LABELS, ("a", "b")).labels) == 18
    for model in (two_inputs(), Subclassed(units=3), keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten()])):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            training.evaluate(model, images, LABELS, ("a", "b"))
        assert "\n" not in str(error.value)


# Dtypes. --------------------------------------------------------------------------------------------------------------


def opened(**arguments):
    from tests.transfer.small import SIZES

    keras.utils.set_random_seed(0)
    from keras_vit_edu.models import ViTBackbone

    return opened_vit(ViTBackbone((16, 16, 3), 8, **SIZES, **arguments), 2)


def compute_dtypes(model):
    """By the path below the outermost model, whose name counts."""
    named = {
        layer.path.split("/", 1)[-1]: layer for layer in model._flatten_layers() if layer.path and "/" in layer.path
    }
    return {path: layer.compute_dtype for path, layer in named.items()}


def test_a_map_of_policies_reaches_every_layer_as_keras_has_it():
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="float32")
    policies[".*/mlp_hidden"] = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    dtypes = compute_dtypes(opened(dtype=policies))
    assert {path for path, dtype in dtypes.items() if dtype == "bfloat16"} == {
        f"transformer_block_{i}/mlp_hidden" for i in range(3)
    }
    only_default = keras.dtype_policies.DTypePolicyMap(default_policy="mixed_bfloat16")  # without an entry
    model = opened(dtype=only_default)
    assert compute_dtypes(model) == compute_dtypes(opened(dtype="mixed_bfloat16"))
    images = np.random.default_rng(0).random((2, 16, 16, 3)).astype("float32")
    np.testing.assert_array_equal(to_numpy(model(images)), to_numpy(opened(dtype="mixed_bfloat16")(images)))


@pytest.mark.any_backend
def test_a_model_of_mixed_policies_is_tuned_and_classifies(tmp_path):
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="float32")
    policies[".*/mlp_hidden"] = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    classifier = TransferClassifier(opened(dtype=policies), PREPROCESSING, NAMES)
    plain = TransferClassifier(opened(), PREPROCESSING, NAMES)
    np.testing.assert_allclose(classifier.probabilities(IMAGES), plain.probabilities(IMAGES), atol=2e-2)
    record = fitted(classifier, tmp_path)
    assert np.isfinite(record["history"]["loss"]).all()
    with pytest.raises(ArtifactError, match=r"`dtype` must be one of float32.*'map_float32'"):
        classifier.save(tmp_path / "classifier")


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="`half` is a method of torch's modules")
def test_a_model_after_half_classifies_and_does_not_learn(tmp_path):
    plain = keras.Sequential([keras.Input((16, 16, 3)), layers.Flatten(), layers.Dense(2)])  # Keras's Conv2D cannot
    classifier = TransferClassifier(plain, PREPROCESSING, NAMES)
    before = classifier.probabilities(IMAGES)
    classifier.model.half()
    np.testing.assert_allclose(classifier.probabilities(IMAGES), before, atol=2e-3)
    with pytest.raises(ValueError, match=r"must be float32 for training.*weights of float16"):
        fitted(classifier, tmp_path)
    classifier.model.float()
    fitted(classifier, tmp_path)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="`half` is a method of torch's modules")
def test_an_opened_model_after_half_is_saved_in_float32(tmp_path):
    classifier = TransferClassifier(opened(), PREPROCESSING, NAMES)
    kept = [np.float32(np.float16(to_numpy(weight))) for weight in classifier.model.weights]
    classifier.model.half()
    classifier.save(tmp_path / "classifier")
    loaded = TransferClassifier.load(tmp_path / "classifier")
    for weight, value in zip(loaded.model.weights, kept, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value)
