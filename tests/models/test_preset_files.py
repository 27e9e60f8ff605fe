"""What `Preset` refuses, and what it leaves behind: files that are damaged, of strangers, or half written."""

import json
import os
import re
from importlib import resources
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
from keras.src.saving.serialization_lib import SafeModeScope

from keras_vit_edu import initializers
from keras_vit_edu.models import CNNClassifier, ViTClassifier
from keras_vit_edu.models.preset import Preset
from tests.models.small_preset import SMALL, edit, sha256, write_weights
from tests.support import random_weights, to_numpy, vit_classifier

# Reading and writing these files has nothing to do with the backend; `test_preset.py` fills models on each.
pytestmark = [pytest.mark.quick, pytest.mark.lowest, pytest.mark.any_backend]

BUNDLED = resources.files("keras_vit_edu.models") / "presets"


# Overwriting, and being stopped on the way. ---------------------------------------------------------------------------


def test_a_preset_is_not_replaced_unasked(folder, classifier):
    before = sha256(folder / "weights.safetensors")
    random_weights(classifier, seed=1)
    with pytest.raises(ValueError, match="preset is not empty; `overwrite=True` replaces"):
        classifier.save_to_preset(folder)
    assert sha256(folder / "weights.safetensors") == before


def test_overwrite_replaces_the_preset_and_nothing_else(folder, classifier, images):
    (folder / "README.md").write_text("mine")
    random_weights(classifier, seed=1)
    classifier.save_to_preset(folder, overwrite=True)
    np.testing.assert_array_equal(to_numpy(ViTClassifier.from_preset(folder)(images)), to_numpy(classifier(images)))
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "metadata.json", "weights.safetensors"]


def test_overwrite_does_not_follow_a_link(folder, classifier, tmp_path):
    (tmp_path / "other").write_text("precious")
    for name in ("config.json", "metadata.json", "weights.safetensors"):
        (folder / f"{name}.0a1b2c3d.new").symlink_to(tmp_path / "other")
    classifier.save_to_preset(folder, overwrite=True)
    assert (tmp_path / "other").read_text() == "precious"
    assert ViTClassifier.from_preset(folder).num_classes == 3


def test_overwrite_needs_nothing_to_overwrite(classifier, tmp_path):
    classifier.save_to_preset(tmp_path / "some" / "where", overwrite=True)
    assert ViTClassifier.from_preset(tmp_path / "some" / "where").num_classes == 3


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_not_taken_for_a_folder(classifier, tmp_path, overwrite):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ValueError, match=r"A preset is a folder, and .*file is a file"):
        classifier.save_to_preset(file, overwrite=overwrite)
    assert file.read_text() == "mine"


class Stopped(Exception):
    """Stands for a full disk or a pulled plug."""


def stop_at(call: int, monkeypatch, target, name: str):
    """Let the `call`-th call of a function fail."""
    original, calls = getattr(target, name), []

    def sometimes(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            raise Stopped
        return original(*args, **kwargs)

    monkeypatch.setattr(target, name, sometimes)


@pytest.mark.parametrize("call", [1, 2, 3])
def test_stopped_while_writing_the_old_preset_is_whole(call, folder, classifier, monkeypatch):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    random_weights(classifier, seed=1)
    stop_at(call, monkeypatch, os, "fsync")
    with pytest.raises(Stopped):
        classifier.save_to_preset(folder, overwrite=True)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("call", [1, 2, 3])
def test_stopped_while_moving_the_folder_is_refused(call, folder, classifier, monkeypatch):
    random_weights(classifier, seed=1)
    stop_at(call, monkeypatch, os, "replace")
    with pytest.raises(Stopped):
        classifier.save_to_preset(folder, overwrite=True)
    with pytest.raises(ValueError, match=r"holds no preset: metadata.json missing"):
        ViTClassifier.from_preset(folder)
    assert not [file for file in folder.iterdir() if file.suffix == ".new"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_weights_that_are_not_finite_are_refused(value, dtype, classifier, tmp_path):
    classifier.get_layer("logits").bias.assign([0, value, 0])
    with pytest.raises(ValueError, match="Weights are finite numbers"):
        classifier.save_to_preset(tmp_path / "preset", weights_dtype=dtype)
    assert not (tmp_path / "preset").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 300}, "`num_heads` .*at most 256"),
        ({"head_units": (2,) * 65}, "`head_units` .*at most 64 entries"),
    ],
)
def test_a_model_that_from_preset_refuses_is_refused(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        vit_classifier(**{**SMALL, **arguments}).save_to_preset(tmp_path / "preset")
    assert not (tmp_path / "preset").exists()


def test_metadata_that_is_too_long_is_refused(classifier, tmp_path):
    with pytest.raises(ValueError, match=r"metadata.json must have at most 4,194,304 bytes.*of `class_names`"):
        classifier.save_to_preset(tmp_path / "preset", {"class_names": [f"{i:0100}" for i in range(40_000)]})
    assert not (tmp_path / "preset").exists()


def test_metadata_that_is_not_json_is_refused_before_anything_is_written(classifier, tmp_path):
    with pytest.raises(ValueError, match=r"metadata.json would not be JSON: .*float32"):
        classifier.save_to_preset(tmp_path / "preset", {"test_accuracy": np.float32(0.99)})
    assert not (tmp_path / "preset").exists()


def test_a_model_with_lora_weights_is_refused(classifier, tmp_path):
    classifier.get_layer("logits").enable_lora(2)
    with pytest.raises(ValueError, match=r"A preset holds plain weights.*LoRA.*logits/lora_kernel_a"):
        classifier.save_to_preset(tmp_path)


def test_a_quantized_model_is_refused(classifier, tmp_path):
    classifier.get_layer("logits").quantize("int8")
    with pytest.raises(ValueError, match=r"A preset holds plain weights.*logits/kernel of dtype int8"):
        classifier.save_to_preset(tmp_path)


# What is wrong with a preset, in one error. ---------------------------------------------------------------------------


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ValueError, match=r"no preset 'vit_mnist_programp'.*Did you mean vit_mnist_program_p"):
        ViTClassifier.from_preset("vit_mnist_programp")


def test_a_preset_like_no_other_names_them_all():
    with pytest.raises(ValueError, match=r"no preset 'resnet50'.*There are .*vit_mnist_d16, .*vit_mnist_pure\."):
        ViTClassifier.from_preset("resnet50")


def test_weights_of_a_preset_without_weights(folder):
    (folder / "weights.safetensors").unlink()
    edit(folder / "metadata.json", weights_sha256=None)
    with pytest.raises(ValueError, match=r"preset is a configuration without weights.*load_weights=False\)"):
        ViTClassifier.from_preset(folder)
    assert ViTClassifier.from_preset(folder, load_weights=False).num_classes == 3


@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"holds no preset: {name} missing"):
        ViTClassifier.from_preset(folder)


def test_missing_weights(folder):
    (folder / "weights.safetensors").unlink()
    with pytest.raises(ValueError, match=r"preset lacks weights.safetensors.*load_weights=False\)"):
        ViTClassifier.from_preset(folder)


def test_a_folder_with_something_else(tmp_path):
    with pytest.raises(ValueError, match=r"holds no preset: config.json and metadata.json missing"):
        ViTClassifier.from_preset(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "cannot be read"),
        (b"", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[1, 2]", "must hold a JSON object. Received: list"),
    ],
)
def test_a_damaged_json_file(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} {message}"):
        ViTClassifier.from_preset(folder)


def test_weights_with_one_bit_flipped(folder):
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"weights.safetensors is damaged.*Its SHA-256 is"):
        ViTClassifier.from_preset(folder)


def test_weights_cut_short(folder):
    data = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"weights.safetensors is damaged"):
        ViTClassifier.from_preset(folder)


def test_weights_that_are_no_safetensors_though_the_checksum_fits(folder):
    (folder / "weights.safetensors").write_bytes(b"something else")
    edit(folder / "metadata.json", weights_sha256=sha256(folder / "weights.safetensors"))
    with pytest.raises(ValueError, match=r"weights.safetensors cannot be read"):
        ViTClassifier.from_preset(folder)


def test_weights_of_another_shape(folder):
    weights = safetensors.numpy.load_file(folder / "weights.safetensors")
    weights["logits/bias"] = np.zeros(4, "float32")
    write_weights(folder, weights)
    message = r"not those of this model. Only there: logits/bias \(4,\). Only in the model: logits/bias \(3,\)\."
    with pytest.raises(ValueError, match=message):
        ViTClassifier.from_preset(folder)


def test_a_weight_too_many(folder):
    weights = safetensors.numpy.load_file(folder / "weights.safetensors")
    write_weights(folder, {**weights, "extra/kernel": np.zeros((2, 2), "float32")})
    with pytest.raises(ValueError, match=r"Only there: extra/kernel \(2, 2\). Only in the model: nothing\."):
        ViTClassifier.from_preset(folder)


def test_a_weight_too_few(folder):
    weights = safetensors.numpy.load_file(folder / "weights.safetensors")
    del weights["backbone/encoder_norm/gamma"]
    write_weights(folder, weights)
    with pytest.raises(
        ValueError, match=r"Only there: nothing. Only in the model: backbone/encoder_norm/gamma \(8,\)\."
    ):
        ViTClassifier.from_preset(folder)


def test_weights_that_an_override_makes_unfit(folder):
    with pytest.raises(ValueError, match=r"Only there: .*gamma \(8,\).*Only in the model: .*gamma \(9,\)"):
        ViTClassifier.from_preset(folder, projection_dim=9)


def test_a_much_larger_model_is_told_of_in_three_weights(folder):
    with pytest.raises(ValueError, match=r"Only in the model: .* and 13 more\."):
        ViTClassifier.from_preset(folder, num_layers=2)


@pytest.mark.parametrize("version", [0, 4, None, "1", True, [1]])
def test_another_format_version(folder, version):
    edit(folder / "metadata.json", format_version=version)
    with pytest.raises(
        ValueError, match=rf"of format 1, 2 and 3\. Received: .*preset of format {re.escape(str(version))}"
    ):
        ViTClassifier.from_preset(folder)


@pytest.mark.parametrize("version", [1, 2])
def test_a_format_that_is_known(folder, version, classifier, images):
    metadata = json.loads((folder / "metadata.json").read_text())
    edit(folder / "config.json", config={**SMALL, "name": "flat"})  # as those formats had it
    if version == 1:  # it knew nothing of these
        del metadata["weights_dtype"], metadata["weights_bytes"]
    (folder / "metadata.json").write_text(json.dumps({**metadata, "format_version": version}))
    np.testing.assert_array_equal(to_numpy(ViTClassifier.from_preset(folder)(images)), to_numpy(classifier(images)))


def test_an_argument_that_the_constructor_does_not_have(folder):
    config = json.loads((folder / "config.json").read_text())["config"]
    edit(folder / "config.json", config={**config, "num_experts": 8})
    with pytest.raises(ValueError, match=r"arguments of the preset .* do not fit ViTClassifier: .*num_experts"):
        ViTClassifier.from_preset(folder)


def test_an_override_that_the_constructor_does_not_have(folder):
    with pytest.raises(ValueError, match=r"do not fit ViTClassifier: .*num_experts"):
        ViTClassifier.from_preset(folder, num_experts=8)


def test_a_config_without_arguments(folder):
    (folder / "config.json").write_text('{"class_name": "ViTClassifier"}')
    with pytest.raises(ValueError, match=r"its arguments, `config`\. Received: class_name"):
        ViTClassifier.from_preset(folder)


def test_a_preset_of_another_class(folder):
    edit(folder / "config.json", class_name="ViTBackbone")
    with pytest.raises(ValueError, match="is a preset of ViTBackbone, not of ViTClassifier"):
        ViTClassifier.from_preset(folder)


@pytest.mark.parametrize("class_name", [None, ["ViTClassifier"]])
def test_a_class_that_is_no_name(folder, class_name):
    edit(folder / "config.json", class_name=class_name)
    with pytest.raises(ValueError, match="must hold the name of a class"):
        Preset.from_preset(folder)


def test_an_argument_that_the_constructor_of_a_cnn_does_not_have(tmp_path):
    config = json.loads((BUNDLED / "cnn_mnist" / "config.json").read_text())
    config["config"]["num_experts"] = 8
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "metadata.json").write_text((BUNDLED / "cnn_mnist" / "metadata.json").read_text())
    with pytest.raises(ValueError, match=r"do not fit CNNClassifier: .*num_experts"):
        CNNClassifier.from_preset(tmp_path, load_weights=False)


# Paths that lead elsewhere. -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vit_mnist_d16/../vit_mnist_pure", "vit_mnist_d16/", "./vit_mnist_d16", "../presets"])
def test_a_name_is_no_path_into_the_package(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"There is no preset .*, and no folder of that name"):
        ViTClassifier.from_preset(name, load_weights=False)


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "weights.safetensors"])
def test_a_file_that_is_a_link_out_of_the_folder(name, folder, tmp_path):
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(Path("..") / name)
    with pytest.raises(ValueError, match=rf"{name} is a link that leads out of it. Received: .*, which is .*{name}$"):
        ViTClassifier.from_preset(folder)


def test_links_inside_the_folder_and_to_the_folder_are_followed(folder, tmp_path):
    (folder / "weights.safetensors").rename(folder / "v1.safetensors")
    (folder / "weights.safetensors").symlink_to("v1.safetensors")
    (tmp_path / "newest").symlink_to(folder)
    assert ViTClassifier.from_preset(tmp_path / "newest").num_classes == 3


# Code. ----------------------------------------------------------------------------------------------------------------

LAMBDA = {"class_name": "__lambda__", "config": {"value": "4wAAAAA="}}
DOTTED = {"class_name": "layers.Lambda", "module": "keras", "config": {"function": "planted"}}
PLANTED = {"class_name": "Planted", "module": "planted", "config": {}, "registered_name": "Planted"}


@pytest.mark.any_backend
@pytest.mark.parametrize("argument", ["activation", "head_activation", "kernel_initializer", "dtype", "num_classes"])
@pytest.mark.parametrize(
    "object_with_code",
    [
        LAMBDA,
        {**LAMBDA, "module": "keras"},
        {**LAMBDA, "module": "keras_vit_edu.initializers", "registered_name": "keras_vit_edu>HeNormal"},
        {**PLANTED, "registered_name": "keras_vit_edu>HeNormal"},
        {"class_name": "function", "module": "os", "config": "system", "registered_name": "function"},
        {"class_name": "Popen", "module": "subprocess", "config": {"args": "true"}, "registered_name": None},
        {"class_name": "Lambda", "module": "keras.layers", "config": {"function": LAMBDA}, "registered_name": None},
        {"class_name": "Constant", "module": "keras.initializers", "config": {"value": [LAMBDA]}},
        {"class_name": "layers.TorchModuleWrapper", "module": "keras", "config": {"module": {}}},
        {"class_name": "Constant", "module": "keras.initializers", "config": {"value": DOTTED}},
        {"class_name": "DTypePolicyMap", "module": "keras.dtype_policies", "config": {"policy_map": {"a": DOTTED}}},
        {"class_name": "function", "module": "keras", "config": "utils.get_file", "registered_name": "function"},
        PLANTED,
    ],
    ids=[
        "lambda",
        "lambda of Keras",
        "lambda as ours",
        "module as ours",
        "function",
        "class",
        "layer",
        "nested",
        "a dotted name",
        "a dotted name in an initializer",
        "a dotted name in a map of dtypes",
        "a function by a dotted name",
        "module",
    ],
)
def test_a_configuration_with_code_is_refused_whatever_keras_is_told(
    argument, object_with_code, folder, tmp_path, monkeypatch
):
    (tmp_path / "planted.py").write_text("import pathlib; pathlib.Path('ran').touch()\ndef Planted(x): return x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    config = json.loads((folder / "config.json").read_text())["config"]
    edit(folder / "config.json", config={**config, argument: object_with_code})
    with SafeModeScope(False), pytest.raises(ValueError, match=r"holds no code. Received: '.*' of module"):
        ViTClassifier.from_preset(folder)
    assert not (tmp_path / "ran").exists()


def test_loading_imports_nothing_from_the_folder(folder, monkeypatch):
    for name in ("config.py", "__init__.py", "ViTClassifier.py", "keras.py"):
        (folder / name).write_text("raise SystemExit('code of the preset ran')")
    monkeypatch.chdir(folder)
    assert ViTClassifier.from_preset(".").num_classes == 3


def test_a_model_with_code_is_not_written(tmp_path):
    model = vit_classifier(**SMALL, head_activation=keras.layers.Lambda(lambda x: x, output_shape=(6,)))
    with pytest.raises(ValueError, match=r"holds no code. Received: 'Lambda' of module 'keras.layers'"):
        model.save_to_preset(tmp_path / "preset")
    assert not (tmp_path / "preset").exists()


def test_registered_objects_are_written_and_read(tmp_path, images):
    initializer = initializers.HeNormal(seed=keras.random.SeedGenerator(3))
    model = vit_classifier(**SMALL, head_activation=twice, kernel_initializer=initializer, dtype="mixed_bfloat16")
    model.save_to_preset(tmp_path)
    np.testing.assert_array_equal(to_numpy(ViTClassifier.from_preset(tmp_path)(images)), to_numpy(model(images)))


@keras.saving.register_keras_serializable(package="test_preset")
def twice(x):
    return 2 * x


# Weights in float16. --------------------------------------------------------------------------------------------------


def test_half_of_the_bytes_and_rounded_weights_loaded_as_float32(classifier, folder, tmp_path):
    classifier.save_to_preset(tmp_path / "half", weights_dtype="float16")
    arrays = safetensors.numpy.load_file(tmp_path / "half" / "weights.safetensors")
    whole = safetensors.numpy.load_file(folder / "weights.safetensors")
    assert {array.dtype for array in arrays.values()} == {np.dtype("float16")}
    assert sum(array.nbytes for array in arrays.values()) * 2 == sum(array.nbytes for array in whole.values())
    assert json.loads((tmp_path / "half" / "metadata.json").read_text())["weights_dtype"] == "float16"
    loaded = {weight.path: weight for weight in ViTClassifier.from_preset(tmp_path / "half").weights}
    for weight in classifier.weights:
        assert loaded[weight.path].dtype == "float32"
        np.testing.assert_array_equal(to_numpy(loaded[weight.path]), to_numpy(weight).astype("float16"))


def test_a_weight_that_float16_cannot_hold_is_refused(classifier, tmp_path):
    bias = classifier.get_layer("logits").bias
    bias.assign([0.0, 65504.0, 0.0])  # the largest
    classifier.save_to_preset(tmp_path / "largest", weights_dtype="float16")
    bias.assign([0.0, 0.0, -7e4])
    with pytest.raises(ValueError, match=r"up to 65504.*Received: logits/bias with a weight of -70000"):
        classifier.save_to_preset(tmp_path / "preset", weights_dtype="float16")
    assert not (tmp_path / "preset").exists()
    classifier.save_to_preset(tmp_path / "preset")


@pytest.mark.parametrize("dtype", ["bfloat16", "float64", None])
def test_another_dtype_of_the_weights_is_refused(classifier, tmp_path, dtype):
    with pytest.raises(ValueError, match=f"must be float32 or float16. Received: weights_dtype={dtype!r}"):
        classifier.save_to_preset(tmp_path / "preset", weights_dtype=dtype)


@pytest.mark.parametrize(("told", "stored"), [("float32", "float16"), ("float16", "float32"), ("int8", "int8")])
def test_a_dtype_that_the_metadata_does_not_tell_of(folder, told, stored):
    weights = safetensors.numpy.load_file(folder / "weights.safetensors")
    write_weights(folder, {path: array.astype(stored) for path, array in weights.items()})
    edit(folder / "metadata.json", weights_dtype=told)
    with pytest.raises(ValueError, match=f"Received: .*weights.safetensors with {stored}, weights_dtype='{told}'"):
        ViTClassifier.from_preset(folder)
