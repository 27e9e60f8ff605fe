"""`TransferClassifier.from_preset`: the same as keras_hub's."""

from pathlib import Path

import keras
import numpy as np
import pytest
from rich.console import Console

from keras_vit_edu.transfer import FineTuning, Preprocessing, TransferClassifier, hub
from tests.support import assert_agree, random_weights, to_numpy
from tests.transfer.hub_cache import fill_cache, random_classifier
from tests.transfer.small_classifier import NAMES, PHOTOS, small, softmax

DEIT_TINY = "deit_tiny_distilled_patch16_224_imagenet"


def preset(keras_hub, folder, family="ViT", num_classes=4, image_size=32, backbone=None, **head):
    """A small classifier of keras_hub with random weights and its preprocessor, saved as a preset."""
    mlp = {"ViT": {"mlp_dim": 24}, "DeiT": {"intermediate_dim": 24}}[family]
    theirs = getattr(keras_hub.models, f"{family}ImageClassifier")(
        backbone=getattr(keras_hub.models, f"{family}Backbone")(
            image_shape=(image_size, image_size, 3), patch_size=8, num_layers=2, num_heads=3, hidden_dim=12, **mlp,
            **(backbone or {}),
        ),
        num_classes=num_classes,
        preprocessor=getattr(keras_hub.models, f"{family}ImageClassifierPreprocessor")(
            getattr(keras_hub.layers, f"{family}ImageConverter")(
                image_size=(image_size, image_size), scale=[1 / 120, 1 / 127.5, 1 / 130], offset=[-1, -1.1, -0.9]
            )
        ),
        **head,
    )  # fmt: skip
    random_weights(theirs)
    theirs.save_to_preset(str(folder))
    return theirs


def their_logits(theirs, images):
    """Through keras_hub's own preprocessor, one image after the other."""
    rows = [theirs(theirs.preprocessor(image[None].astype("float32")), training=False) for image in images]
    return np.concatenate([to_numpy(row) for row in rows])


def test_a_model_that_would_preprocess_again_is_refused(keras_hub, tmp_path):
    theirs = preset(keras_hub, tmp_path / "preset")
    with pytest.raises(ValueError, match=r"Set `model.preprocessor = None`"):
        TransferClassifier(theirs, Preprocessing(32), ["a", "b", "c", "d"])
    images = [photo.astype("float32") for photo in PHOTOS]
    expected = softmax(their_logits(theirs, images))
    preprocessing = Preprocessing.from_converter(theirs.preprocessor.image_converter)
    theirs.preprocessor = None
    ours = TransferClassifier(theirs, preprocessing, ["a", "b", "c", "d"])
    np.testing.assert_allclose(ours.probabilities(images), expected, atol=1e-4)


HEADS = {
    "ViT": ("ViT", {}),
    "DeiT": ("DeiT", {}),
    "ViT with pre_logits": ("ViT", {"intermediate_dim": 7}),
    "ViT, mean of all tokens": ("ViT", {"pooling": "gap"}),
    "ViT that ends in a softmax": ("ViT", {"activation": "softmax", "intermediate_dim": 7}),
    "DeiT that ends in a softmax": ("DeiT", {"activation": "softmax"}),
}


@pytest.mark.parametrize(("family", "head"), HEADS.values(), ids=HEADS)
def test_the_same_probabilities_as_keras_hub(keras_hub, tmp_path, family, head):
    theirs = preset(keras_hub, tmp_path / "preset", family, **head)
    ours = TransferClassifier.from_preset(tmp_path / "preset")
    assert ours.is_opened
    expected = their_logits(theirs, PHOTOS)
    expected = expected if "activation" in head else softmax(expected)
    images = [photo.astype("float32") for photo in PHOTOS]
    np.testing.assert_allclose(ours.probabilities(images), expected, atol=1e-4)
    assert ours.class_names == ("0", "1", "2", "3")  # keras_hub keeps no names
    assert ours.provenance["preset"] == str(tmp_path / "preset")
    assert (ours.provenance["weights"], ours.provenance["head"]) == ("pretrained", "of the preset")


def test_the_labels_of_imagenet_are_keras_hubs(keras_hub, tmp_path, capsys):
    theirs = preset(keras_hub, tmp_path / "preset", num_classes=1000)
    ours = TransferClassifier.from_preset(tmp_path / "preset")
    images = [photo.astype("float32") for photo in PHOTOS]
    decoded = keras_hub.utils.decode_imagenet_predictions(softmax(their_logits(theirs, images)), top=5)
    for found, expected in zip(ours.predict(images), decoded, strict=True):
        assert [name for name, _ in found] == [name for name, _ in expected]
        np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], atol=1e-4)
    assert "does not name its 1000 classes; these are ImageNet's" in capsys.readouterr().err


@pytest.mark.parametrize("head", [{}, {"intermediate_dim": 7}, {"activation": "softmax"}])
def test_a_new_head_is_zero_and_the_backbone_pretrained(keras_hub, tmp_path, head):
    theirs = preset(keras_hub, tmp_path / "preset", **head)
    ours = TransferClassifier.from_preset(tmp_path / "preset", class_names=NAMES)
    assert ours.class_names == tuple(NAMES)
    assert ours.model.head_units == ()
    np.testing.assert_array_equal(ours.probabilities(PHOTOS), np.full((4, 3), 1 / 3, "float32"))
    assert all(not weight.any() for weight in ours.model.get_layer("logits").get_weights())
    images = ours.preprocess(PHOTOS)
    assert_agree(to_numpy(ours.model.backbone(images)), to_numpy(theirs.backbone(images)), 1e-5)
    assert ours.provenance["head"] == "new"


def test_a_new_head_keeps_the_pooling_and_without_a_class_token_takes_the_mean(keras_hub, tmp_path):
    preset(keras_hub, tmp_path / "gap", pooling="gap")
    assert TransferClassifier.from_preset(tmp_path / "gap", class_names=NAMES).model.head == "mean_with_prefix"
    preset(keras_hub, tmp_path / "tokenless", backbone={"use_class_token": False})
    assert TransferClassifier.from_preset(tmp_path / "tokenless", class_names=NAMES).model.head == "mean_with_prefix"


def test_another_image_size(keras_hub, tmp_path):
    preset(keras_hub, tmp_path / "preset")
    ours = TransferClassifier.from_preset(tmp_path / "preset", image_size=(48, 40))
    assert ours.preprocess(PHOTOS).shape == (4, 48, 40, 3)
    assert ours.attention_scores(PHOTOS)[0].shape == (4, 3, 31, 31)
    with pytest.raises(ValueError, match="divide the image"):
        TransferClassifier.from_preset(tmp_path / "preset", image_size=33)


def test_a_preset_without_a_head(keras_hub, tmp_path):
    theirs = preset(keras_hub, tmp_path / "preset")
    theirs.backbone.save_to_preset(str(tmp_path / "backbone"))
    converter = theirs.preprocessor.image_converter
    converter.save_to_preset(str(tmp_path / "backbone"))
    with pytest.raises(hub.NoHead, match=r"without a classification head.*give `class_names` for a new head\.$"):
        TransferClassifier.from_preset(tmp_path / "backbone")
    ours = TransferClassifier.from_preset(tmp_path / "backbone", class_names=NAMES)
    images = ours.preprocess(PHOTOS)
    assert_agree(to_numpy(ours.model.backbone(images)), to_numpy(theirs.backbone(images)), 1e-5)
    (tmp_path / "preset" / "task.weights.h5").unlink()  # keras_hub would take a random head
    with pytest.raises(hub.NoHead, match="but not for its head"):
        TransferClassifier.from_preset(tmp_path / "preset")
    assert TransferClassifier.from_preset(tmp_path / "preset", load_weights=False).num_classes == 4


def test_a_preset_without_an_image_converter_wants_a_preprocessing(keras_hub, tmp_path):
    theirs = preset(keras_hub, tmp_path / "preset")
    theirs.preprocessor = None
    theirs.save_to_preset(str(tmp_path / "bare"))
    for name in ("preprocessor.json", "image_converter.json"):
        Path(tmp_path / "bare" / name).unlink(missing_ok=True)
    with pytest.raises(ValueError, match="Pass `preprocessing`"):
        TransferClassifier.from_preset(tmp_path / "bare")
    ours = TransferClassifier.from_preset(tmp_path / "bare", preprocessing=Preprocessing(32, scale=1 / 255))
    assert ours.preprocessing.scale == 1 / 255


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": ["a", "a"]}, "each another one"),
        ({"class_names": ["a"]}, "two class names or more"),
        ({"class_names": []}, "must be a list of 1 to 100,000 texts"),
    ],
)
def test_class_names_for_a_new_head(keras_hub, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        TransferClassifier.from_preset(tmp_path / "preset", **arguments)


def test_an_artifact_is_no_preset(tmp_path):
    small().save(tmp_path / "saved")
    with pytest.raises(ValueError, match="saved by a TransferClassifier, whose `load` opens it"):
        TransferClassifier.from_preset(tmp_path / "saved")


def test_other_dtypes(keras_hub, tmp_path):
    preset(keras_hub, tmp_path / "preset")
    ours = TransferClassifier.from_preset(tmp_path / "preset", dtype="mixed_bfloat16")
    assert ours.model.backbone.compute_dtype == "bfloat16"
    expected = TransferClassifier.from_preset(tmp_path / "preset").probabilities(PHOTOS)
    np.testing.assert_allclose(ours.probabilities(PHOTOS), expected, atol=0.05)


@pytest.fixture
def resnet(keras_hub, tmp_path):
    """A preset of a small ResNet that ends in a softmax."""
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[3], stackwise_num_filters=[64], stackwise_num_blocks=[1],
        stackwise_num_strides=[1], block_type="basic_block", image_shape=(None, None, 3),
    )  # fmt: skip
    theirs = keras_hub.models.ResNetImageClassifier(
        backbone=backbone,
        num_classes=3,
        activation="softmax",
        preprocessor=keras_hub.models.ResNetImageClassifierPreprocessor(
            keras_hub.layers.ResNetImageConverter(image_size=(24, 24), scale=1 / 255)
        ),
    )
    random_weights(theirs, scale=0.05)
    for weight in theirs.non_trainable_weights:
        weight.assign(keras.ops.abs(weight) + 0.5)
    theirs.save_to_preset(str(tmp_path / "resnet"))
    return theirs, tmp_path / "resnet"


def test_another_family_is_used_unchanged_and_prints_one_line(resnet, capsys):
    theirs, folder = resnet
    ours = TransferClassifier.from_preset(folder)
    assert all(layer.built for layer in ours.model._flatten_layers())  # else JAX builds the model at every batch
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "keras_vit_edu" in line] == [
        f"keras_vit_edu: {folder} is used unchanged; there are no attention maps."
    ]
    images = [photo.astype("float32") for photo in PHOTOS]
    np.testing.assert_allclose(ours.probabilities(images), their_logits(theirs, images), atol=1e-4)
    assert not ours.is_opened
    with pytest.raises(ValueError, match=r"a ResNetImageClassifier$"):
        ours.attention_scores(PHOTOS)
    assert "total" in " ".join(_lines(ours))
    ours.save(folder.parent / "kept.zip")
    kept = TransferClassifier.load(folder.parent / "kept.zip")
    np.testing.assert_array_equal(kept.probabilities(PHOTOS), ours.probabilities(PHOTOS))


def _lines(classifier):
    lines = []
    classifier.summary(lines.append)
    return lines


def test_another_family_with_a_new_head_and_another_size(resnet):
    _, folder = resnet
    ours = TransferClassifier.from_preset(folder, class_names=["a", "b"], image_size=40)
    assert ours.preprocess(PHOTOS).shape == (4, 40, 40, 3)
    np.testing.assert_array_equal(ours.probabilities(PHOTOS), np.full((4, 2), 0.5, "float32"))


def test_a_new_head_keeps_the_presets_layers_below_the_head(keras_hub, tmp_path):
    models = keras_hub.models
    backbone = models.MobileNetBackbone(
        stackwise_expansion=[[8], [16]], stackwise_num_blocks=[1, 1], stackwise_num_filters=[[8], [8]],
        stackwise_kernel_size=[[3], [3]], stackwise_num_strides=[[2], [1]], stackwise_se_ratio=[[None], [0.25]],
        stackwise_activation=[["relu"], ["hard_swish"]], stackwise_padding=[[1], [1]], output_num_filters=16,
        input_activation="hard_swish", output_activation="hard_swish", input_num_filters=8, image_shape=(32, 32, 3),
        depthwise_filters=8, depthwise_stride=2, depthwise_residual=False, squeeze_and_excite=0.5, last_layer_filter=16,
    )  # fmt: skip
    preprocessor = models.MobileNetImageClassifierPreprocessor(
        keras_hub.layers.MobileNetImageConverter(image_size=(32, 32), scale=1 / 255)
    )
    theirs = models.MobileNetImageClassifier(
        backbone=backbone, num_classes=7, preprocessor=preprocessor, num_features=16
    )
    theirs.save_to_preset(str(tmp_path / "mobilenet"))
    ours = TransferClassifier.from_preset(tmp_path / "mobilenet", ["a", "b", "c"])
    np.testing.assert_array_equal(ours.probabilities(PHOTOS), np.full((4, 3), 1 / 3, "float32"))
    below = [to_numpy(weight) for weight in theirs.weights if weight.shape[-1:] != (7,)]
    kept = [to_numpy(weight) for weight in ours.model.weights if weight.shape[-1:] != (3,)]
    assert any("classifier_conv" in weight.path for weight in theirs.weights)  # which keras_hub leaves random
    assert len(below) == len(kept) == len(theirs.weights) - 2
    for expected, found in zip(below, kept, strict=True):
        np.testing.assert_array_equal(found, expected)

    (tmp_path / "mobilenet" / "task.weights.h5").unlink()
    with pytest.raises(ValueError, match="layers between backbone and head, and their weights are missing"):
        TransferClassifier.from_preset(tmp_path / "mobilenet", ["a", "b"])


def test_a_new_head_for_a_vgg_is_refused(keras_hub, tmp_path):
    backbone = keras_hub.models.VGGBackbone([1, 1, 1], [4, 4, 8], image_shape=(64, 64, 3))
    preprocessor = keras_hub.models.VGGImageClassifierPreprocessor(
        keras_hub.layers.VGGImageConverter(image_size=(64, 64), scale=1 / 255)
    )
    theirs = keras_hub.models.VGGImageClassifier(
        backbone=backbone, num_classes=4, preprocessor=preprocessor, pooling_hidden_dim=8
    )
    theirs.save_to_preset(str(tmp_path / "vgg"))
    assert TransferClassifier.from_preset(tmp_path / "vgg").num_classes == 4
    with pytest.raises(ValueError, match="ends in a Sequential and only has its own classes"):
        TransferClassifier.from_preset(tmp_path / "vgg", ["a", "b"])


@pytest.mark.filterwarnings("ignore:Layer 'attn' .* was passed an input with a mask:UserWarning:keras")
def test_the_same_seed_drops_the_same_paths(keras_hub, tmp_path):
    backbone = keras_hub.models.SwinTransformerBackbone(
        image_shape=(32, 32, 3), embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=4, patch_size=4
    )
    preprocessor = keras_hub.models.SwinTransformerImageClassifierPreprocessor(
        keras_hub.layers.SwinTransformerImageConverter(image_size=(32, 32), scale=1 / 255)
    )
    keras_hub.models.SwinTransformerImageClassifier(
        backbone=backbone, num_classes=3, preprocessor=preprocessor
    ).save_to_preset(str(tmp_path / "swin"))
    losses = []
    for run in ("one", "two"):
        ours = TransferClassifier.from_preset(tmp_path / "swin", ["a", "b"])
        photographs = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), "uint8"), np.arange(12) % 2
        options = FineTuning(method="full", epochs=2, batch_size=4, learning_rate=1e-2, validation_split=0)
        record = ours.fit(photographs, options=options, run=tmp_path / run, console=Console(quiet=True))
        losses.append(record["history"]["loss"])
    assert losses[0] == losses[1]


def test_deit_tiny_by_its_name(keras_hub, tmp_path, monkeypatch):
    theirs = random_classifier(DEIT_TINY)
    fill_cache(tmp_path / "cache", DEIT_TINY, theirs)
    ours = TransferClassifier.from_preset(DEIT_TINY)
    assert ours.num_parameters == 5_524_800 + 193 * 1000
    images = [photo.astype("float32") for photo in PHOTOS[:2]]
    decoded = keras_hub.utils.decode_imagenet_predictions(softmax(their_logits(theirs, images)), top=5)
    for found, expected in zip(ours.predict(images), decoded, strict=True):
        np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], atol=1e-4)
        assert [name for name, _ in found] == [name for name, _ in expected]
    ours.save(tmp_path / "deit.zip")
    loaded = TransferClassifier.load(tmp_path / "deit.zip")
    np.testing.assert_array_equal(loaded.probabilities(images), ours.probabilities(images))
    assert loaded.provenance["preset"] == DEIT_TINY


def test_a_name_that_cannot_be_had_and_the_fallback(keras_hub, tmp_path, capsys):
    with pytest.raises(hub.PresetUnavailable, match=f"The preset {DEIT_TINY} is not in the cache"):
        TransferClassifier.from_preset(DEIT_TINY)
    preset(keras_hub, tmp_path / "preset")
    ours = TransferClassifier.from_preset(DEIT_TINY, class_names=NAMES, fallback=str(tmp_path / "preset"))
    assert ours.provenance["preset"] == str(tmp_path / "preset")
    assert f"Loading {tmp_path / 'preset'} instead" in capsys.readouterr().err
