"""Presets: a model's configuration and weights in a folder, read and written."""

import json
from importlib import resources

import keras
import numpy as np
import pytest
import safetensors.numpy

from keras_vit_edu import initializers
from keras_vit_edu.layers import ConvStem
from keras_vit_edu.models import CNNClassifier, ViTBackbone, ViTClassifier
from keras_vit_edu.models.fit_to_images import overrides_for_images
from keras_vit_edu.models.flat_config import flattened
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.models.weight_names import weights_by_name
from tests.models.small_preset import SMALL, sha256
from tests.support import LATER_ARGUMENTS, on_one_backend, random_weights, to_numpy, vit_classifier

pytestmark = [pytest.mark.quick, pytest.mark.lowest]

BUNDLED = resources.files("keras_vit_edu.models") / "presets"


# Bundled presets. -----------------------------------------------------------------------------------------------------


def test_the_bundled_presets():
    assert list(CNNClassifier.presets) == ["cnn_mnist"]
    assert list(ViTClassifier.presets) == [
        "vit_fashion_hybrid", "vit_mnist_d16", "vit_mnist_hybrid", "vit_mnist_program_p", "vit_mnist_pure"
    ]  # fmt: skip
    assert list(Preset.presets) == [*CNNClassifier.presets, *ViTClassifier.presets]


def test_every_bundled_folder_is_the_preset_of_some_class():
    assert sorted(entry.name for entry in BUNDLED.iterdir()) == list(Preset.presets)


@pytest.mark.parametrize("name", Preset.presets)
def test_a_bundled_preset_is_what_its_metadata_says(name):
    metadata = Preset.presets[name]
    model = Preset.from_preset(name, load_weights=False)
    assert model.name == name
    assert model.count_params() == metadata["parameters"]
    assert len(metadata["class_names"]) == model.num_classes
    assert metadata["description"]
    assert metadata["format_version"] in (1, 2)
    height, width, _ = model.input_shape[1:]
    assert f"{height}x{width}" in metadata["input"]
    assert (metadata["weights_sha256"] is None) == (not (BUNDLED / name / "weights.safetensors").is_file())


@pytest.mark.parametrize("name", Preset.presets)
def test_a_bundled_preset_names_every_argument_so_that_new_defaults_leave_it_alone(name):
    config = json.loads((BUNDLED / name / "config.json").read_text())["config"]
    left_to_the_user = {"dtype", "trainable", "frozen_layers"}
    later = {"position_bias", "head_dtype", "logits_activation", "backbone_kernel_initializer"}
    known = flattened(Preset.from_preset(name, load_weights=False).get_config())
    of_another_stem = {argument for argument in config if argument.startswith("stem_")} - set(known)
    later |= {"stem_activation", "stem_kernel_initializer"}  # of a stem that differs from the backbone
    assert set(config) - of_another_stem == set(known) - left_to_the_user - later
    assert not any(config[argument] for argument in of_another_stem)


@pytest.mark.parametrize(
    ("name", "at_most"),
    [("vit_mnist_pure", 1_200_000), ("vit_mnist_hybrid", 600_000), ("vit_fashion_hybrid", 600_000)],
)
def test_the_small_presets_are_small(name, at_most):
    assert Preset.presets[name]["parameters"] <= at_most


def test_a_configuration_from_before_there_was_an_argument_still_loads(tmp_path):
    old = json.loads((BUNDLED / "vit_mnist_d16" / "config.json").read_text())
    for argument in LATER_ARGUMENTS:
        del old["config"][argument]
    (tmp_path / "config.json").write_text(json.dumps(old))
    (tmp_path / "metadata.json").write_text((BUNDLED / "vit_mnist_d16" / "metadata.json").read_text())
    now = ViTClassifier.from_preset("vit_mnist_d16", load_weights=False)
    assert ViTClassifier.from_preset(tmp_path, load_weights=False).get_config() == now.get_config()


def test_preset_itself_reads_presets_of_every_class():
    assert type(Preset.from_preset("cnn_mnist", load_weights=False)) is CNNClassifier
    assert type(Preset.from_preset("vit_mnist_d16", load_weights=False)) is ViTClassifier
    with pytest.raises(ValueError, match="cnn_mnist is a preset of CNNClassifier, not of ViTClassifier"):
        ViTClassifier.from_preset("cnn_mnist", load_weights=False)


def test_a_preset_of_an_unknown_class_is_refused(classifier, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "class_name": "Popen"}))
    with pytest.raises(ValueError, match="is a preset of Popen, which is no class of this library"):
        Preset.from_preset(folder)


def test_a_bundled_preset_follows_the_global_dtype_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = ViTClassifier.from_preset("vit_mnist_d16", load_weights=False)
    assert model.dtype_policy.name == "mixed_bfloat16"


def test_program_p_and_the_courses_text_differ_in_the_size_of_a_head_alone():
    program_p, text = (
        flattened(ViTClassifier.from_preset(name, load_weights=False).get_config())
        for name in ("vit_mnist_program_p", "vit_mnist_d16")
    )
    assert {key for key in text if text[key] != program_p[key]} == {"name", "key_dim"}
    assert (program_p["key_dim"], text["key_dim"]) == (64, 16)


def test_overrides_take_the_place_of_the_presets_arguments():
    model = ViTClassifier.from_preset(
        "vit_mnist_d16", load_weights=False, num_classes=26, head_units=(7,), name="letters"
    )
    assert (model.num_classes, model.head_units, model.name) == (26, (7,), "letters")
    assert model.backbone.key_dim == 16


def test_a_subclass_reads_the_presets_of_its_class():
    class Mine(ViTClassifier):
        pass

    assert list(Mine.presets) == list(ViTClassifier.presets)
    assert type(Mine.from_preset("vit_mnist_d16", load_weights=False)) is Mine


# Written and read. ----------------------------------------------------------------------------------------------------


def test_a_written_preset_gives_the_same_logits(classifier, folder, images):
    loaded = ViTClassifier.from_preset(folder)
    np.testing.assert_array_equal(to_numpy(loaded(images)), to_numpy(classifier(images)))
    assert loaded.get_config() == classifier.get_config()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", *on_one_backend("bfloat16", "float16")])
def test_whatever_the_dtype_policy(policy, images, tmp_path):
    model = vit_classifier(**SMALL, dtype=policy)
    random_weights(model)
    model.save_to_preset(tmp_path)
    loaded = ViTClassifier.from_preset(tmp_path)
    assert loaded.dtype_policy.name == policy
    np.testing.assert_array_equal(to_numpy(loaded(images)), to_numpy(model(images)))


def test_a_preset_can_be_read_into_another_dtype(folder, classifier):
    loaded = ViTClassifier.from_preset(folder, dtype="bfloat16")
    weights = {weight.path: to_numpy(weight) for weight in loaded.weights}
    for weight in classifier.weights:
        np.testing.assert_allclose(weights[weight.path], to_numpy(weight), rtol=2**-8)


def test_weights_lie_in_the_file_in_float32_under_their_paths(folder, classifier):
    stored = safetensors.numpy.load_file(folder / "weights.safetensors")
    assert {f"{classifier.name}/{path}" for path in stored} == {weight.path for weight in classifier.weights}
    for weight in classifier.weights:
        array = stored[weight.path.removeprefix(f"{classifier.name}/")]
        assert array.dtype == "float32"
        np.testing.assert_array_equal(array, keras.ops.convert_to_numpy(weight))


def test_the_metadata_says_what_it_was_told_and_what_it_counted(folder, classifier):
    assert json.loads((folder / "metadata.json").read_text()) == {
        "description": "a test",
        "class_names": ["a", "b", "c"],
        "format_version": 3,
        "parameters": classifier.count_params(),
        "weights_dtype": "float32",
        "weights_bytes": (folder / "weights.safetensors").stat().st_size,
        "weights_sha256": sha256(folder / "weights.safetensors"),
    }


def test_what_is_counted_wins_over_what_is_told(classifier, tmp_path):
    classifier.save_to_preset(tmp_path, {"parameters": 1, "format_version": 7, "weights_sha256": "0"})
    assert ViTClassifier.from_preset(tmp_path).count_params() == classifier.count_params()
    assert json.loads((tmp_path / "metadata.json").read_text())["parameters"] == classifier.count_params()


def test_load_weights_false_gives_other_weights(folder, classifier):
    loaded = ViTClassifier.from_preset(folder, load_weights=False)
    assert loaded.get_config() == classifier.get_config()
    assert (to_numpy(loaded.get_layer("logits").kernel) != to_numpy(classifier.get_layer("logits").kernel)).all()


@pytest.mark.any_backend
def test_backbone_and_head_keep_their_own_initializers(tmp_path):
    sizes = {"projection_dim": 8, "num_layers": 1, "num_heads": 2, "key_dim": 3, "mlp_dim": 10}
    stem = ConvStem((4, 4), kernel_initializer=initializers.HeUniform(seed=2))
    backbone = ViTBackbone((8, 12, 1), 4, **sizes, stem=stem, kernel_initializer=initializers.HeNormal(seed=1))
    model = ViTClassifier(backbone, 3, head_units=(), kernel_initializer=initializers.GlorotUniform(seed=3))
    model.save_to_preset(tmp_path)
    for overrides in ({}, {"dropout": 0.2}):
        again = ViTClassifier.from_preset(tmp_path, load_weights=False, **overrides)
        for name, weight in weights_by_name(model).items():
            if name.endswith("/kernel") and name != "backbone/patch_encoder/projection/kernel":
                np.testing.assert_array_equal(to_numpy(weights_by_name(again)[name]), to_numpy(weight), name)


def test_an_initializer_given_to_from_preset_is_for_all_parts(tmp_path):
    sizes = {"projection_dim": 8, "num_layers": 1, "num_heads": 2, "key_dim": 3, "mlp_dim": 10}
    stem = ConvStem((4, 4), kernel_initializer="he_uniform")
    backbone = ViTBackbone((8, 12, 1), 4, **sizes, stem=stem, kernel_initializer="he_normal")
    ViTClassifier(backbone).save_to_preset(tmp_path)
    again = ViTClassifier.from_preset(tmp_path, load_weights=False, kernel_initializer="zeros")
    for name, weight in weights_by_name(again).items():
        if name.endswith("/kernel") and name != "backbone/patch_encoder/projection/kernel":  # which has its own
            assert not to_numpy(weight).any(), name


@pytest.mark.any_backend
def test_a_stem_with_an_activation_and_an_initializer_of_its_own_has_flat_names(tmp_path):
    sizes = {"projection_dim": 8, "num_layers": 1, "num_heads": 2, "key_dim": 3, "mlp_dim": 10}
    stem = ConvStem((4, 4), activation="relu", kernel_initializer="he_normal")
    ViTClassifier(ViTBackbone((8, 12, 1), 4, **sizes, stem=stem), 3, "mean", ()).save_to_preset(tmp_path)
    again = ViTClassifier.from_preset(tmp_path, stem_dropout=0.2).backbone
    assert (again.stem.dropout, again.stem.activation, again.activation) == (
        0.2, keras.activations.relu, keras.activations.gelu,
    )  # fmt: skip
    assert isinstance(again.stem.kernel_initializer, initializers.HeNormal)
    fitted = overrides_for_images(tmp_path, (12, 12, 1), 3, {"patch_size": 8})
    assert fitted == {"patch_size": 8, "image_shape": [12, 12, 1], "stem_pools": [1, 2]}


def test_a_folder_may_be_given_as_text(folder):
    assert ViTClassifier.from_preset(str(folder)).num_classes == 3


def test_training_goes_on_from_a_preset_whatever_was_frozen(classifier, tmp_path):
    classifier.trainable = False
    classifier.save_to_preset(tmp_path)
    loaded = ViTClassifier.from_preset(tmp_path)
    assert len(loaded.trainable_weights) == len(loaded.weights)


@pytest.mark.parametrize("head", [{"head": "token", "num_prefix_tokens": 2}, {"head": "mean"}])
def test_every_head(head, images, tmp_path):
    model = vit_classifier(**SMALL, **head)
    random_weights(model)
    model.save_to_preset(tmp_path)
    np.testing.assert_array_equal(to_numpy(ViTClassifier.from_preset(tmp_path)(images)), to_numpy(model(images)))


class Outer(keras.layers.Layer):
    """Makes a classifier in its own `build`, so Keras puts its name before the path of every weight."""

    def build(self, shape):
        self.classifier = vit_classifier(**SMALL)

    def call(self, images):
        return self.classifier(images)


def test_a_classifier_made_inside_another_layer_is_written_and_read_as_any_other(folder, images, tmp_path):
    outer = Outer(name="outer")
    outer(images)
    assert outer.classifier.weights[0].path.startswith("outer/vit_classifier")
    outer.classifier.save_to_preset(tmp_path / "inner")
    stored = safetensors.numpy.load_file(tmp_path / "inner" / "weights.safetensors")
    assert stored.keys() == safetensors.numpy.load_file(folder / "weights.safetensors").keys()
    with keras.name_scope("experiment"):
        loaded = ViTClassifier.from_preset(tmp_path / "inner")
    np.testing.assert_array_equal(to_numpy(loaded(images)), to_numpy(outer.classifier(images)))


@keras.saving.register_keras_serializable("tests")
class TwoSteps(keras.layers.Layer):
    """A stem of a user's own, whose parts have names of Keras's, and one that ends as the stem's own does."""

    def __init__(self, patch_size=4, **kwargs):
        super().__init__(**kwargs)
        self.patch_size = patch_size
        self.cut = keras.layers.Conv2D(5, patch_size, patch_size, data_format="channels_last")
        self.mix = keras.layers.Conv2D(5, 1, name="mix_stem", data_format="channels_last")

    def build(self, shape):
        self.cut.build(shape)
        self.mix.build((None, None, None, 5))

    def call(self, images):
        return keras.ops.reshape(self.mix(self.cut(images)), (-1, 6, 5))

    def get_config(self):
        return {**super().get_config(), "patch_size": self.patch_size}


@keras.saving.register_keras_serializable("tests")
class BiasOfTokens(keras.layers.Layer):
    """A position bias of a user's own, with a layer that Keras numbers."""

    def build(self, shape):
        self.inner = keras.layers.Dense(shape[1])
        self.inner.build(shape)

    def call(self, tokens):
        return self.inner(tokens)[:, None]


def test_a_users_own_stem_and_position_bias_are_written_and_read(images, tmp_path):
    sizes = {"projection_dim": 8, "num_layers": 2, "num_heads": 2, "key_dim": 3, "mlp_dim": 10}
    backbone = ViTBackbone((8, 12, 1), 4, **sizes, stem=TwoSteps(), position_bias=BiasOfTokens())
    model = ViTClassifier(backbone, 3, "mean", ())
    random_weights(model)
    named = weights_by_name(model)
    assert len(named) == len(model.weights)
    assert {name for name in named if name.startswith("backbone/stem")} == {f"backbone/stem/000{i}" for i in range(4)}
    assert "backbone/transformer_block_1/position_bias/0001" in named
    model.save_to_preset(tmp_path)
    loaded = ViTClassifier.from_preset(tmp_path)
    np.testing.assert_array_equal(to_numpy(loaded(images)), to_numpy(model(images)))
