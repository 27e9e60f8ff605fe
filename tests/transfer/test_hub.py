"""Presets of keras_hub: listed, and loaded without a network."""

import builtins
import re
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_vit_edu import transfer
from keras_vit_edu._install import install_command
from keras_vit_edu.transfer import hub
from tests.support import assert_agree, to_numpy
from tests.transfer.hub_cache import fill_cache, random_classifier

DEIT_TINY, VIT_BASE = "deit_tiny_distilled_patch16_224_imagenet", "vit_base_patch16_224_imagenet"
HINT = re.escape(install_command("hub")) + "$"


# Without keras_hub. ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [hub.list_presets, lambda: hub.load_preset(DEIT_TINY)], ids=["list_presets", "load"])
def test_a_missing_keras_hub_gives_the_line_that_installs_it(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match=HINT) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_broken_keras_hub_is_not_taken_for_a_missing_one(monkeypatch):
    real = builtins.__import__

    def importing(name, *arguments, **more):
        if name == "keras_hub":
            raise ModuleNotFoundError("No module named 'kagglesdk'", name="kagglesdk")
        return real(name, *arguments, **more)

    monkeypatch.delitem(sys.modules, "keras_hub", raising=False)
    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(ModuleNotFoundError, match="kagglesdk"):
        hub.list_presets()


# With it. -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def keras_hub():
    return pytest.importorskip("keras_hub", reason="keras_hub is not installed", exc_type=ImportError)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache, and nobody to ask."""

    def unreachable(*arguments, **more):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def deit_tiny_cache(tmp_path_factory):
    """A cache with DeiT-tiny at its real size; for all tests, as it takes seconds to write."""
    pytest.importorskip("keras_hub", reason="keras_hub is not installed", exc_type=ImportError)
    root = tmp_path_factory.mktemp("kagglehub")
    fill_cache(root, DEIT_TINY)
    return root


def test_vit_and_deit_come_first_and_have_attention_maps(keras_hub):
    presets = hub.list_presets()
    opened = [preset for preset in presets if preset.attention_maps]
    assert presets[: len(opened)] == opened
    assert {preset.family for preset in opened} == {"vit", "deit"}
    assert {preset.family for preset in presets} >= {"swin_transformer", "mit", "dinov2", "resnet", "efficientnet"}
    others = presets[len(opened) :]
    is_dino = [preset.family in ("dinov2", "dinov3") for preset in others]  # for which keras_hub has no classifier
    notes = [preset.note for preset in others]
    assert {note for note, dino in zip(notes, is_dino, strict=True) if not dino} == {
        "no attention maps, used unchanged"
    }
    assert {note for note, dino in zip(notes, is_dino, strict=True) if dino} == {
        'a backbone alone, for `transfer.load_preset(..., task="backbone")`'
    }
    assert len({preset.name for preset in presets}) == len(presets) > 80
    assert set(keras_hub.models.ImageClassifier.presets) <= {preset.name for preset in presets}


@pytest.mark.parametrize(
    ("name", "family", "image_size", "parameters", "classes"),
    [
        (VIT_BASE, "vit", 224, 85_798_656, 1000),
        ("vit_base_patch32_384_imagenet", "vit", 384, 87_528_192, 1000),
        ("vit_huge_patch14_224_imagenet21k", "vit", 224, 630_764_800, None),
        (DEIT_TINY, "deit", 224, 5_524_800, 1000),
        ("deit_base_distilled_patch16_384_imagenet", "deit", 384, 86_092_032, 1000),
        ("swin_tiny_patch4_window7_224", "swin_transformer", 224, 27_519_354, 1000),
        ("mit_b0_cityscapes_1024", "mit", 1024, 3_321_962, None),
        ("densenet_121_imagenet", "densenet", 224, 7_037_504, 1000),  # 121 layers, not pixels
        ("mobilenet_v3_large_100_imagenet", "mobilenet", 224, 2_996_352, 1000),  # 100 % as wide, not pixels
        ("dinov2_small", "dinov2", None, 22_582_656, None),
        ("efficientnet_b5_sw_imagenet", "efficientnet", None, 30_389_784, None),  # ImageNet-12k
        ("efficientnet_b5_sw_ft_imagenet", "efficientnet", None, 30_389_784, 1000),
        ("mobilenet_v3_large_100_imagenet_21k", "mobilenet", 224, 2_996_352, None),
    ],
)
def test_the_registry_entry_of_a_preset(keras_hub, name, family, image_size, parameters, classes):
    (preset,) = (preset for preset in hub.list_presets() if preset.name == name)
    assert (preset.family, preset.image_size, preset.parameters, preset.classes) == (
        family, image_size, parameters, classes,
    )  # fmt: skip
    assert preset.handle.startswith("kaggle://keras/")
    assert preset.description


def test_presets_of_one_family_by_size(keras_hub):
    presets = hub.list_presets("deit")
    assert [preset.name.split("_")[1] for preset in presets] == ["tiny", "small", "base", "base"]
    with pytest.raises(ValueError, match=r"`family` must be one of vit, deit, .*Received: family='bert'$"):
        hub.list_presets("bert")


def test_a_preset_from_a_filled_cache_without_a_network(keras_hub, no_network, deit_tiny_cache, monkeypatch, rng):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(deit_tiny_cache))
    theirs = hub.load_preset(DEIT_TINY)
    assert type(theirs).__name__ == "DeiTImageClassifier"
    assert theirs.backbone.count_params() == 5_524_800
    images = rng.random((1, 224, 224, 3), "float32")
    expected = to_numpy(random_classifier(DEIT_TINY)(images))
    assert expected.shape == (1, 1000)
    assert_agree(to_numpy(theirs(images)), expected, 1e-5)
    ours = transfer.open_vit(theirs)
    assert_agree(to_numpy(ours(images)), expected, 1e-5)
    scores = ours.attention_scores(images)
    assert [tuple(of_a_block.shape) for of_a_block in scores] == [(1, 3, 198, 198)] * 12


def test_by_handle_by_folder_and_as_a_backbone(keras_hub, no_network, deit_tiny_cache, monkeypatch):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(deit_tiny_cache))
    handle = keras_hub.models.Backbone.presets[DEIT_TINY]["kaggle_handle"]
    assert hub.cache_folder(handle).is_dir()
    for preset in (handle, hub.cache_folder(handle)):
        backbone = hub.load_preset(preset, task="backbone")
        assert type(backbone).__name__ == "DeiTBackbone"
        assert transfer.open_vit(backbone).count_params() == 5_524_800
    assert hub.load_preset(DEIT_TINY, num_classes=7, load_weights=False).output_shape == (None, 7)


def test_a_folder_copied_into_the_cache_without_kagglehubs_marks(keras_hub, no_network, rng):
    classifier = random_classifier(DEIT_TINY, num_classes=3)
    fill_cache(no_network, DEIT_TINY, classifier, markers=False)
    images = rng.random((1, 224, 224, 3), "float32")
    np.testing.assert_array_equal(to_numpy(hub.load_preset(DEIT_TINY)(images)), to_numpy(classifier(images)))


def test_a_damaged_file_in_the_cache(keras_hub, no_network):
    folder = fill_cache(no_network, DEIT_TINY, random_classifier(DEIT_TINY, num_classes=3))
    weights = folder / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(hub.PresetUnavailable, match=r"deit_tiny.*\(OSError: .*truncated"):
        hub.load_preset(DEIT_TINY)


def test_no_network_and_no_cache_gives_one_message_that_says_what_to_do(keras_hub, no_network):
    with pytest.raises(hub.PresetUnavailable) as error:
        hub.load_preset(DEIT_TINY)
    text = str(error.value)
    assert f"The preset {DEIT_TINY} is not in the cache" in text
    folder = no_network / "models" / "keras" / "deit" / "keras" / DEIT_TINY / "1"
    assert str(folder) in text
    assert f"kagglehub.model_download('keras/deit/keras/{DEIT_TINY}/1')" in text
    assert "load the copied folder by its path" in text
    assert "\n" not in text
    assert len(text) < 1200


def test_the_fallback_of_the_course(keras_hub, no_network, monkeypatch, capsys):
    assert hub.COURSES_FALLBACK == VIT_BASE
    asked = []

    def from_preset(preset, **arguments):
        asked.append((preset, arguments))
        if preset == DEIT_TINY:
            raise ConnectionError("no network")
        return "a ViT"

    monkeypatch.setattr(keras_hub.models.ImageClassifier, "from_preset", from_preset)
    assert hub.load_preset(DEIT_TINY, fallback=hub.COURSES_FALLBACK, num_classes=4) == "a ViT"
    assert asked == [(DEIT_TINY, {"num_classes": 4}), (VIT_BASE, {"num_classes": 4})]
    shown = capsys.readouterr().err
    assert DEIT_TINY in shown
    assert shown.endswith(f"Loading {VIT_BASE} instead.\n")


def test_without_the_fallback_too_the_error_names_it(keras_hub, no_network):
    with pytest.raises(hub.PresetUnavailable, match=f"The preset {VIT_BASE} is not in the cache"):
        hub.load_preset(DEIT_TINY, fallback=VIT_BASE)


@pytest.mark.parametrize(
    ("preset", "arguments", "message"),
    [
        ("deit_tinny", {}, r"`preset` must be a name.*Received: 'deit_tinny'$"),
        (DEIT_TINY.replace("tiny", "tinny"), {}, rf"Did you mean {DEIT_TINY}( or \w+)?\?"),
        ("no/such/folder", {}, r"`preset` must be a name.*Received: 'no/such/folder'$"),
        (DEIT_TINY, {"task": "detector"}, r"`task` must be one of classifier, backbone\. Received: task='detector'$"),
    ],
)
def test_a_name_that_is_no_preset_is_refused(keras_hub, no_network, preset, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        hub.load_preset(preset, **arguments)
    assert not isinstance(error.value, hub.PresetUnavailable)


def test_where_the_files_of_a_preset_lie(keras_hub, no_network, monkeypatch, tmp_path):
    handle = keras_hub.models.Backbone.presets[DEIT_TINY]["kaggle_handle"]
    assert hub._folder_of(DEIT_TINY) == hub._folder_of(handle) == hub.cache_folder(handle)
    for version in (9, 10):
        (no_network / "models" / "someone" / "vit" / "keras" / "small" / str(version)).mkdir(parents=True)
    assert hub._folder_of("kaggle://someone/vit/keras/small").name == "10"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    snapshot = tmp_path / "hf" / "models--someone--vit" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text('{"id2label": {"0": "cat", "1": "dog"}}')
    assert hub._folder_of("hf://someone/vit") == snapshot
    assert hub.class_names_in_folder("hf://someone/vit") == ("cat", "dog")
    (snapshot / "task.json").write_text("{}")
    assert hub._has_weights_of_backbone_only(snapshot)
    (snapshot / "task.weights.h5").write_text("")
    assert not hub._has_weights_of_backbone_only(snapshot)


def test_which_presets_are_of_imagenet(keras_hub):
    assert hub.is_of_imagenet(DEIT_TINY)
    assert hub.is_of_imagenet("copies/vit_base_patch16_224_imagenet")
    assert not hub.is_of_imagenet("vit_huge_patch14_224_imagenet21k")
    assert not hub.is_of_imagenet("kaggle://someone/vit/keras/birds")


def test_a_wrong_argument_is_no_missing_network(keras_hub, no_network, deit_tiny_cache, monkeypatch):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(deit_tiny_cache))
    with pytest.raises(ValueError, match=r"`units`.*-3") as error:
        hub.load_preset(DEIT_TINY, num_classes=-3)
    assert not isinstance(error.value, hub.PresetUnavailable)


def test_the_import_of_the_package_does_not_import_keras_hub(keras_hub):
    code = "import sys, keras_vit_edu.transfer.hub; sys.exit('keras_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_vit_b16_at_its_real_size(keras_hub, no_network, rng):
    fill_cache(no_network, VIT_BASE)
    theirs = hub.load_preset(VIT_BASE)
    assert theirs.backbone.count_params() == 85_798_656
    images = rng.random((1, 224, 224, 3), "float32")
    ours = transfer.open_vit(theirs)
    assert ours.backbone.count_params() == 85_798_656
    assert_agree(to_numpy(ours(images)), to_numpy(theirs(images)), 1e-5)
    keras.backend.clear_session()
