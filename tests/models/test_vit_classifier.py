"""`ViTClassifier`: from an image to one score per class."""

import hashlib
import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_vit_edu.initializers import HeNormal
from keras_vit_edu.layers import PortableDropout
from keras_vit_edu.models import ViTBackbone, ViTClassifier
from keras_vit_edu.parity import oracle, output_and_gradients
from tests.models import course
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
    vit_classifier,
)

SMALL = {
    "num_classes": 3,
    "image_shape": (8, 12, 1),
    "patch_size": 4,
    "projection_dim": 8,
    "num_layers": 2,
    "num_heads": 2,
    "key_dim": 3,
    "mlp_dim": 10,
    "head_units": (6, 5),
}
HEAD_LAYERS = ("head_dense_0", "head_dense_1", "logits")
HEADS = {
    "flatten": {"head": "flatten", "num_prefix_tokens": 0},
    "flatten with prefix tokens": {"head": "flatten", "num_prefix_tokens": 1},
    "token": {"head": "token", "num_prefix_tokens": 2},
    "mean": {"head": "mean", "num_prefix_tokens": 0},
    "mean with prefix tokens": {"head": "mean", "num_prefix_tokens": 2},
    "sequence": {"head": "sequence", "num_prefix_tokens": 0},
    "sequence with prefix tokens": {"head": "sequence", "num_prefix_tokens": 2},
    "mean with prefix tokens in it": {"head": "mean_with_prefix", "num_prefix_tokens": 2},
    "no hidden layers": {"head": "token", "num_prefix_tokens": 1, "head_units": ()},
}

# Every argument but the backbone, none at its default.
NON_DEFAULT = {
    "num_classes": 3,
    "head": "token",
    "head_units": (9,),
    "head_dropout": (0.4, 0.2),
    "head_activation": keras.activations.tanh,
    "activation": keras.activations.softmax,
    "kernel_initializer": HeNormal(seed=3),
    "head_dtype": keras.DTypePolicy("mixed_bfloat16"),
    "frozen_layers": ["head_dense_0", "patch_encoder"],
    "name": "mine",
    "trainable": True,
}


def not_at_its_default():
    backbone = ViTBackbone((8, 12, 1), 4, 8, 2, 2, 3, 10, num_prefix_tokens=1, dtype="mixed_float16")
    return ViTClassifier(backbone, **NON_DEFAULT)


@pytest.fixture
def images(rng):
    return rng.random((2, 8, 12, 1), "float32")


def with_random_weights(**arguments):
    classifier = vit_classifier(**{**SMALL, **arguments})
    random_weights(classifier)
    return classifier


# What it computes. ----------------------------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_logits_are_those_of_the_equations(head, images):
    classifier = with_random_weights(**head)
    assert_agree(to_numpy(classifier(images)), oracle_logits(classifier, images), 2e-6)


def test_colour_images_of_three_channels_and_patches_that_are_not_square(rng):
    classifier = with_random_weights(image_shape=(8, 12, 3), patch_size=(2, 6), head="mean")
    images = rng.random((2, 8, 12, 3), "float32")
    assert_agree(to_numpy(classifier(images)), oracle_logits(classifier, images), 2e-6)


def oracle_logits(classifier: ViTClassifier, images: np.ndarray) -> np.ndarray:
    return oracle.vit_classifier(course.weights_of(classifier), images, classifier.get_config())


@pytest.mark.parametrize(("key_dim", "parameters"), [(64, 4_544_778), *on_one_backend((16, 4_345_866))])
def test_program_p_is_the_courses_program(key_dim, parameters, rng):
    theirs = course.create_vit_classifier(key_dim=key_dim)
    ours = vit_classifier(key_dim=key_dim)
    assert ours.count_params() == theirs.count_params() == parameters
    random_weights(ours, scale=0.05)
    course.give_weights(theirs, ours)
    images = rng.random((3, 28, 28, 1), "float32")
    assert_agree(to_numpy(ours(images)), to_numpy(theirs(images)), 1e-5)


@pytest.mark.parametrize(("preset", "key_dim"), [("vit_mnist_program_p", 64), ("vit_mnist_d16", 16)])
def test_parameters_counted_by_hand(preset, key_dim):
    width = 4 * key_dim
    patch_encoder = (49 * 64 + 64) + 16 * 64
    attention = 3 * (64 * width + width) + (width * 64 + 64)
    mlp = (64 * 128 + 128) + (128 * 64 + 64)
    norm = 2 * 64
    head = (16 * 64 * 2048 + 2048) + (2048 * 1024 + 1024) + (1024 * 10 + 10)
    by_hand = patch_encoder + 4 * (norm + attention + norm + mlp) + norm + head
    assert ViTClassifier.from_preset(preset, load_weights=False).count_params() == by_hand


def test_the_defaults_are_those_of_program_p():
    preset = ViTClassifier.from_preset("vit_mnist_program_p", load_weights=False).get_config()
    default = vit_classifier().get_config()
    assert {**preset, "name": None} == {**default, "name": None}


@pytest.mark.quick
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_channels_first_gives_the_same_logits(head, rng):
    last = with_random_weights(**head, image_shape=(8, 12, 3), data_format="channels_last")
    first = vit_classifier(**{**SMALL, **head, "image_shape": (3, 8, 12)}, data_format="channels_first")
    copy_weights(last, first)
    images = rng.random((2, 8, 12, 3), "float32")
    np.testing.assert_array_equal(to_numpy(first(images.transpose(0, 3, 1, 2))), to_numpy(last(images)))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", *on_one_backend("float32")])
def test_shapes_and_dtypes_agree_symbolically_eagerly_and_compiled(policy, rng):
    classifier = vit_classifier(**{**SMALL, "num_layers": 1}, head="mean", dtype=policy)
    for batch in (None, 1, 7):
        symbolic = classifier(keras.KerasTensor((batch, 8, 12, 1)))
        assert (symbolic.shape, symbolic.dtype) == ((batch, 3), "float32")
        assert classifier.compute_output_shape((batch, 8, 12, 1)) == (batch, 3)
    for batch in (1, 7):
        images = ops.convert_to_tensor(rng.random((batch, 8, 12, 1), "float32"))
        for output in (classifier(images), compiled(classifier)(images)):
            assert tuple(output.shape) == (batch, 3)
            assert keras.backend.standardize_dtype(output.dtype) == "float32"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_close_to_float32(policy, images):
    classifier = with_random_weights()
    mixed = vit_classifier(**SMALL, dtype=policy)
    copy_weights(classifier, mixed)
    assert mixed.backbone.output.dtype == policy.removeprefix("mixed_")
    difference = relative_difference(to_numpy(mixed(images)), to_numpy(classifier(images)))
    assert 0 < difference <= 2e-2


@pytest.mark.parametrize("head", ["sequence", *on_one_backend("flatten", "token", "mean")])
def test_gradients_reach_every_trainable_weight(head, images, rng):
    classifier = vit_classifier(**SMALL, num_prefix_tokens=1, head=head)
    random_weights(classifier, scale=0.8)
    cotangent = rng.normal(size=(2, 3)).astype("float32")
    _, _, gradients = output_and_gradients(classifier, [images], cotangent)
    assert len(gradients) == len(classifier.weights)
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for path, gradient in gradients.items():
        if path.endswith("k_dense/bias"):  # adds the same to every score of a row, which the softmax takes off again
            assert np.abs(gradient).max() < 1e-5 * largest
        else:
            assert np.abs(gradient).max() > 1e-4 * largest, path


# Variables: their paths and their first values. -----------------------------------------------------------------------

BLOCK = [
    "attention_norm/gamma",
    "attention_norm/beta",
    "attention/q_dense/kernel",
    "attention/q_dense/bias",
    "attention/k_dense/kernel",
    "attention/k_dense/bias",
    "attention/v_dense/kernel",
    "attention/v_dense/bias",
    "attention/out_dense/kernel",
    "attention/out_dense/bias",
    "mlp_norm/gamma",
    "mlp_norm/beta",
    "mlp_hidden/kernel",
    "mlp_hidden/bias",
    "mlp_output/kernel",
    "mlp_output/bias",
]
# Presets keep their weights under these paths: a new name here makes every stored preset unreadable.
PATHS_OF_PROGRAM_P = [
    "backbone/patch_encoder/position_embedding",
    "backbone/patch_encoder/projection/kernel",
    "backbone/patch_encoder/projection/bias",
    *(f"backbone/transformer_block_{i}/{weight}" for i in range(4) for weight in BLOCK),
    "backbone/encoder_norm/gamma",
    "backbone/encoder_norm/beta",
    "head_dense_0/kernel",
    "head_dense_0/bias",
    "head_dense_1/kernel",
    "head_dense_1/bias",
    "logits/kernel",
    "logits/bias",
]


def test_the_paths_of_the_weights_are_frozen():
    vit_classifier(**SMALL)  # how many models were made before does not matter
    classifier = ViTClassifier.from_preset("vit_mnist_program_p", load_weights=False)
    assert [weight.path for weight in classifier.weights] == [
        f"vit_mnist_program_p/{path}" for path in PATHS_OF_PROGRAM_P
    ]


def test_prefix_tokens_have_a_path_of_their_own():
    classifier = vit_classifier(**SMALL, num_prefix_tokens=1)
    assert f"{classifier.name}/backbone/patch_encoder/prefix_tokens" in [weight.path for weight in classifier.weights]


def test_a_model_without_a_name_gets_one_that_no_other_has():
    keras.utils.clear_session()
    assert [vit_classifier(**SMALL).name for _ in range(3)] == [
        "vit_classifier",
        "vit_classifier_1",
        "vit_classifier_2",
    ]


def test_variables_are_made_in_the_constructor_and_none_by_a_call(images):
    classifier = vit_classifier(**SMALL)
    before = [variable.path for variable in classifier.variables]
    classifier(images, training=True)
    assert [variable.path for variable in classifier.variables] == before
    assert classifier.built


def test_the_same_seed_gives_the_same_weights_on_every_backend():
    keras.utils.set_random_seed(0)
    classifier = ViTClassifier.from_preset("vit_mnist_program_p", load_weights=False)
    digest = hashlib.sha256()
    for weight in classifier.weights:
        digest.update(ops.convert_to_numpy(weight).astype("<f4").tobytes())
    assert digest.hexdigest() == "d670ecd76896eebc741176b8e6fb7d60cb119615da9596a45e525aac56af25e1"


# The seeds of Program P's dropouts, in its blocks and its head, before there was stochastic depth.
SEEDS = [
    783650879, 106046332, 157798603, 976832603, 268979134, 663968656, 541903390, 234551095, 957413343, 841597327,
    985946605, 521760890, 466188457, 655934895, 980338160,
]  # fmt: skip


def test_the_same_seed_gives_the_same_dropout_masks_as_ever():
    keras.utils.set_random_seed(0)
    classifier = ViTClassifier.from_preset("vit_mnist_program_p", load_weights=False)
    assert [int(to_numpy(layer.seed_generator.state)[0]) for layer in dropouts(classifier) if layer.rate] == SEEDS


def test_another_seed_gives_other_weights():
    kernels = []
    for seed in (0, 1):
        keras.utils.set_random_seed(seed)
        kernels.append(to_numpy(vit_classifier(**SMALL).get_layer("logits").kernel))
    assert (kernels[0] != kernels[1]).all()


# Configuration. -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", sorted(set(NON_DEFAULT) - {"trainable"}))
def test_no_argument_is_at_its_default_below(argument):
    assert NON_DEFAULT[argument] != inspect.signature(ViTClassifier.__init__).parameters[argument].default


def test_config_keys_are_the_constructors_arguments():
    assert {*NON_DEFAULT, "backbone"} == constructor_arguments(ViTClassifier) - {"dtype"}
    assert set(not_at_its_default().get_config()) == {*NON_DEFAULT, "backbone"}


def test_every_argument_survives_its_config_and_json():
    classifier = not_at_its_default()
    for copy in (revived(classifier), ViTClassifier.from_config(classifier.get_config())):
        assert copy.get_config() == classifier.get_config()
        for argument, value in NON_DEFAULT.items():
            if argument == "kernel_initializer":
                assert isinstance(copy.kernel_initializer, HeNormal)
                assert copy.kernel_initializer.get_config()["seed"] == 3
            elif argument == "head_dtype":
                assert (copy.dtype_policy.name, copy.head_dtype.name) == ("mixed_float16", "mixed_bfloat16")
            elif argument == "frozen_layers":
                assert sorted(copy.frozen_layers) == sorted(value)
            else:
                assert getattr(copy, argument) == value, argument


def test_arguments_reach_the_layers():
    classifier = not_at_its_default()
    assert classifier.get_layer("head_dense_0").activation is keras.activations.tanh
    assert classifier.get_layer("head_dense_0").units == 9
    assert [classifier.get_layer(name).rate for name in ("head_dropout", "head_dropout_0")] == [0.4, 0.2]
    assert classifier.get_layer("logits").activation is keras.activations.softmax
    assert classifier.get_layer("logits").compute_dtype == "bfloat16"
    kernel = classifier.get_layer("head_dense_0").kernel_initializer
    assert isinstance(kernel, HeNormal)
    assert kernel.seed != 3  # derived, or two kernels of one shape would be equal


def test_a_copy_made_under_other_global_settings_computes_the_same(images):
    classifier = with_random_weights(dtype="float32")
    expected = to_numpy(classifier(images))
    keras.config.set_image_data_format("channels_first")
    keras.config.set_dtype_policy("mixed_bfloat16")
    copy = revived(classifier)
    copy_weights(classifier, copy)
    np.testing.assert_array_equal(to_numpy(copy(images)), expected)


def test_a_saved_model_loads_without_custom_objects(images, tmp_path):
    classifier = with_random_weights(**HEADS["token"], kernel_initializer=HeNormal(seed=3))
    classifier.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is ViTClassifier
    assert loaded.get_config() == classifier.get_config()
    np.testing.assert_array_equal(to_numpy(loaded(images)), to_numpy(classifier(images)))


def test_weights_alone_are_saved_and_loaded(images, tmp_path):
    classifier, other = with_random_weights(), vit_classifier(**SMALL)
    classifier.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(to_numpy(other(images)), to_numpy(classifier(images)))


def test_a_frozen_backbone_stays_frozen_when_saved(tmp_path):
    classifier = vit_classifier(**SMALL, name="mine")
    classifier.backbone.trainable = False
    classifier.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not loaded.backbone.trainable
    head = [f"mine/{layer}/{weight}" for layer in HEAD_LAYERS for weight in ("kernel", "bias")]
    assert [weight.path for weight in loaded.trainable_weights] == head


def test_a_frozen_block_stays_frozen_in_a_copy():
    classifier = vit_classifier(**SMALL, name="mine")
    classifier.backbone.transformer_blocks[1].trainable = False
    frozen = [weight.path for weight in revived(classifier).non_trainable_weights]
    assert frozen == [f"mine/backbone/transformer_block_1/{weight}" for weight in BLOCK]


def test_a_block_that_was_thawed_again_trains_in_a_copy(tmp_path):
    classifier = vit_classifier(**SMALL, name="mine")
    classifier.backbone.trainable = False
    classifier.backbone.transformer_blocks[1].trainable = True
    trains = [weight.path for weight in classifier.trainable_weights]
    assert len(trains) == len(BLOCK) + 2 * len(HEAD_LAYERS)
    classifier.save(tmp_path / "model.keras")
    for copy in (revived(classifier), keras.saving.load_model(tmp_path / "model.keras")):
        assert [weight.path for weight in copy.trainable_weights] == trains


def test_a_frozen_classifier_stays_frozen_in_a_copy_and_so_does_its_backbone():
    classifier = vit_classifier(**SMALL, trainable=False)
    copy = revived(classifier)
    for model in (classifier, copy, copy.backbone):
        assert not model.trainable
        assert model.trainable_weights == []
    copy.trainable = True
    assert len(copy.trainable_weights) == len(copy.weights)


# Training. ------------------------------------------------------------------------------------------------------------


@pytest.mark.any_backend
def test_fit_takes_a_ragged_last_batch(rng):
    classifier = vit_classifier(
        **{**SMALL, "num_layers": 1}, head="sequence", stem="conv", stem_filters=(3, 4), stochastic_depth=0.2
    )
    classifier.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    before = classifier.get_weights()
    x, y = rng.random((7, 8, 12, 1), "float32"), rng.integers(0, 3, 7)
    loss = classifier.fit(x, y, batch_size=3, epochs=2, verbose=0).history["loss"]
    assert len(loss) == 2
    assert np.isfinite(loss).all()
    assert all((old != new).any() for old, new in zip(before, classifier.get_weights(), strict=True))
    assert_agree(classifier.predict(x, batch_size=4, verbose=0), oracle_logits(classifier, x), 1e-5)


def test_a_frozen_backbone_does_not_move_in_fit(rng):
    classifier = vit_classifier(**SMALL, frozen_layers=["backbone"])
    classifier.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = classifier.backbone.get_weights()
    classifier.fit(rng.random((4, 8, 12, 1), "float32"), rng.integers(0, 3, 4), verbose=0)
    for old, new in zip(before, classifier.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def dropouts(classifier: ViTClassifier) -> list[PortableDropout]:
    layers = classifier._flatten_layers(include_self=False)
    return [layer for layer in layers if isinstance(layer, PortableDropout)]


def test_dropout_acts_in_training_only(images):
    classifier = with_random_weights()
    still = to_numpy(classifier(images))
    np.testing.assert_array_equal(to_numpy(classifier(images)), still)
    first, second = (to_numpy(classifier(images, training=True)) for _ in range(2))
    assert (first != still).any()
    assert (first != second).any()


def test_without_dropout_training_changes_nothing(images):
    classifier = with_random_weights(dropout=0.0, attention_dropout=0.0, head_dropout=0.0)
    assert_agree(to_numpy(classifier(images, training=True)), to_numpy(classifier(images)), 1e-6)


def test_every_dropout_has_a_seed_of_its_own_and_counts_the_training_calls(images):
    classifier = vit_classifier(**SMALL, stochastic_depth=0.1)
    for training in (True, False, True):
        classifier(images, training=training)
    states = [tuple(to_numpy(layer.seed_generator.state).tolist()) for layer in dropouts(classifier) if layer.rate]
    assert len(states) == 2 * 5 + 3  # five in each block, three in the head
    assert len({seed for seed, _ in states}) == len(states)
    assert {counter for _, counter in states} == {2}


def test_a_saved_model_goes_on_with_the_next_dropout_masks(images, tmp_path):
    classifier = with_random_weights()
    classifier(images, training=True)
    classifier.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(loaded(images, training=True)), to_numpy(classifier(images, training=True)))


def test_the_same_seed_gives_the_same_dropout(images):
    outputs = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        outputs.append(to_numpy(vit_classifier(**SMALL)(images, training=True)))
    np.testing.assert_array_equal(*outputs)


# As a part of something. ----------------------------------------------------------------------------------------------


def test_the_backbone_gives_features(images):
    classifier = with_random_weights()
    assert type(classifier.backbone) is ViTBackbone
    features = classifier.backbone(images)
    assert tuple(features.shape) == (2, 6, 8)
    x = ops.reshape(features, (2, 48))
    for name in HEAD_LAYERS:
        x = classifier.get_layer(name)(x)
    assert_agree(to_numpy(classifier(images)), to_numpy(x), 1e-6)


def test_a_clone_computes_the_same_with_the_same_weights(images):
    classifier = with_random_weights(**HEADS["mean with prefix tokens"])
    clone = keras.models.clone_model(classifier)
    assert all(ours is not theirs for ours, theirs in zip(classifier.weights, clone.weights, strict=True))
    copy_weights(classifier, clone)
    np.testing.assert_array_equal(to_numpy(clone(images)), to_numpy(classifier(images)))


def test_a_model_around_two_classifiers_is_saved_and_loaded(images, tmp_path):
    inputs = keras.Input((8, 12, 1))
    first, second = with_random_weights(name="first"), with_random_weights(**HEADS["token"], name="second")
    ensemble = keras.Model(inputs, keras.layers.Average()([first(inputs), second(inputs)]))
    ensemble.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = (to_numpy(first(images)) + to_numpy(second(images))) / 2
    assert_agree(to_numpy(loaded(images)), expected, 1e-6)


@pytest.mark.any_backend
def test_two_classifiers_in_one_model_train_as_each_would_alone(images):
    """They have weights of the same names, and Keras on torch knows the parameters of a model by their paths."""
    first, second = with_random_weights(name="first"), with_random_weights(name="second")
    inputs = keras.Input((8, 12, 1))
    pair = keras.Model(inputs, [first(inputs), second(inputs)])
    assert len({weight.path for weight in pair.weights}) == len(pair.weights)
    alone = revived(first)
    copy_weights(first, alone)
    labels = np.array([0, 2])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pair.compile(keras.optimizers.SGD(0.1), [loss, loss])
    alone.compile(keras.optimizers.SGD(0.1), loss)
    for layer in dropouts(first) + dropouts(second) + dropouts(alone):
        layer.rate = 0.0
    pair.fit(images, [labels, labels], epochs=3, verbose=0)
    alone.fit(images, labels, epochs=3, verbose=0)
    for model in (first, second):
        assert_agree(to_numpy(model(images)), to_numpy(alone(images)), 1e-5)


@keras.saving.register_keras_serializable(package="tests")
class ScaledClassifier(ViTClassifier):
    """A user's own class: one argument more, another `call`."""

    def __init__(self, backbone, temperature=1.0, **kwargs):
        super().__init__(backbone, **kwargs)
        self.temperature = temperature

    def call(self, images, training=None, mask=None):
        return super().call(images, training=training, mask=mask) / self.temperature

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}


@pytest.mark.quick
def test_a_subclass_is_saved_and_loaded(images, tmp_path):
    scaled, plain = ScaledClassifier.from_config({"temperature": 4.0, **SMALL}), with_random_weights()
    copy_weights(plain, scaled)
    scaled.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is ScaledClassifier
    assert_agree(to_numpy(loaded(images)), to_numpy(plain(images)) / 4, 1e-6)


def test_json_text_describes_the_model():
    classifier = vit_classifier(**SMALL)
    copy = keras.models.model_from_json(classifier.to_json())
    assert copy.get_config() == classifier.get_config()
    assert json.loads(classifier.to_json())["registered_name"] == "keras_vit_edu>ViTClassifier"


# Bad input. -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "`num_classes` must be 1 or more.*0"),
        ({"num_classes": 10.0}, "`num_classes` must be a whole number.*10.0"),
        ({"head": "sum"}, "`head` must be one of .*'mean', 'mean_with_prefix', 'sequence'.*Received: head='sum'"),
        ({"head": "token"}, '`head="token"` reads the first prefix token. Received: num_prefix_tokens=0'),
        ({"head_units": 5}, "`head_units` must be a list of widths.*head_units=5"),
        ({"head_units": None}, "`head_units` must be a list of widths.*head_units=None"),
        ({"head_units": (6, 0)}, "`head_units` must be 1 or more.*0"),
        ({"head_units": (6.0,)}, "`head_units` must be a whole number.*6.0"),
        ({"head_dropout": (0.1, 0.2)}, r"`head_dropout` must be a rate, or a list of 3.*\(0.1, 0.2\)"),
        ({"stem": "wavelets"}, "`stem` must be 'patches', 'shifted' or 'conv'. Received: stem='wavelets'"),
        ({"stem_filters": (4, 4)}, '`stem_filters` need `stem="conv"`. Received: stem=None'),
        ({"stem": "conv", "stem_filters": ()}, "there must be one at least"),
        ({"head_dropout": 1}, r"`head_dropout` must be a number in \[0, 1\).*1"),
        ({"image_shape": 28}, "`image_shape` must be"),
        ({"patch_size": 5}, "`patch_size` must divide the image: 8 / 5 leaves 3 pixels over"),
        ({"num_heads": 2.0}, "`num_heads` must be a whole number.*2.0"),
        ({"key_dim": -3}, "`key_dim` must be 1 or more.*-3"),
        ({"frozen_layers": ["tail"]}, "There is no layer 'tail' to freeze.*backbone"),
    ],
)
def test_a_bad_argument_is_one_clear_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        vit_classifier(**{**SMALL, **arguments})


def test_a_misspelt_argument_is_not_swallowed():
    with pytest.raises(TypeError, match="head_unit"):
        ViTClassifier(vit_classifier(**SMALL).backbone, head_unit=(5,))
    with pytest.raises(TypeError, match="head_unit"):
        vit_classifier(head_unit=(5,))


def test_a_backbone_is_needed():
    with pytest.raises(ValueError, match=r"`backbone` must be a ViTBackbone\. Received: backbone=10"):
        ViTClassifier(10)


def test_a_classifier_can_be_looked_into(rng):
    classifier = vit_classifier(**{**SMALL, "head": "mean", "head_units": ()})
    images = rng.random((2, *classifier.backbone.image_shape), "float32")
    assert_agree(
        to_numpy(classifier.intermediates(images)["encoder_norm"]), to_numpy(classifier.backbone(images)), 1e-6
    )
    for scores in classifier.attention_scores(images):
        np.testing.assert_allclose(to_numpy(scores).sum(axis=-1), 1, atol=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["backbone", "body", None])
def test_a_saved_optimizer_finds_the_weights_of_a_backbone_of_any_name(name, tmp_path):
    sizes = {"projection_dim": 8, "num_layers": 1, "num_heads": 2, "key_dim": 3, "mlp_dim": 10}
    model = ViTClassifier(ViTBackbone((8, 12, 1), 4, **sizes, name=name), 3, "mean", ())
    paths = [weight.path.removeprefix(model.name) for weight in model.weights]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [weight.path.removeprefix(loaded.name) for weight in loaded.weights] == paths
    again = ViTClassifier.from_config({**model.get_config(), "name": "other"})
    assert [weight.path.replace("other/", f"{model.name}/") for weight in again.weights] == [
        weight.path for weight in model.weights
    ]
