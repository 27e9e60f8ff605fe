"""A folder of transformers as preset: against transformers' own models and image processors, real ones."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from keras_vit_edu import transfer
from keras_vit_edu.transfer import FineTuning, Preprocessing, TransferClassifier, hub
from keras_vit_edu.transfer.transformers_images import read_preprocessing
from keras_vit_edu.transfer.transformers_weights import _renamed
from tests.support import assert_agree, relative_difference, to_numpy

pytest.importorskip("torch", reason="torch is not installed", exc_type=ImportError)
transformers = pytest.importorskip("transformers", reason="transformers is not installed", exc_type=ImportError)

pytestmark = pytest.mark.hub

SIZES = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "image_size": 16,
    "patch_size": 4,
    "id2label": {0: "cat", 1: "dog", 2: "owl"},
    "label2id": {"cat": 0, "dog": 1, "owl": 2},
    "attn_implementation": "eager",
}
NAMES = ("cat", "dog", "owl")
RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (40, 50, 3)).astype("uint8")
PHOTOS = [PHOTO, RNG.integers(0, 256, (23, 19, 3)).astype("uint8"), np.tile(PHOTO, (4, 3, 1))]
MODELS = {
    "ViT": (transformers.ViTForImageClassification, transformers.ViTConfig),
    "DeiT": (transformers.DeiTForImageClassification, transformers.DeiTConfig),
    "distilled DeiT": (transformers.DeiTForImageClassificationWithTeacher, transformers.DeiTConfig),
    "bare ViT": (transformers.ViTModel, transformers.ViTConfig),
    "bare DeiT": (transformers.DeiTModel, transformers.DeiTConfig),
}
PROCESSORS = {"ViT": transformers.ViTImageProcessorPil, "DeiT": transformers.DeiTImageProcessorPil}


def random_model(kind, **sizes):
    """The torch model, every parameter random, none 0 or 1."""
    import torch

    cls, config = MODELS[kind]
    model = cls(config(**{**SIZES, **sizes}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def saved(folder, kind="ViT", processor=True, **sizes):
    """The model, and what `save_pretrained` wrote of it and of its image processor."""
    model = random_model(kind, **sizes)
    model.save_pretrained(folder)
    if processor:
        family = "DeiT" if "DeiT" in kind else "ViT"
        PROCESSORS[family](size={"height": 16, "width": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(
            folder
        )
    return model


def theirs(model, pixels):
    """What transformers gives for pixels `(B, H, W, 3)`: logits, or the last tokens; and attention scores."""
    import torch

    with torch.no_grad():
        output = model(torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))), output_attentions=True)
    for name in ("cls_logits", "logits", "last_hidden_state"):
        if getattr(output, name, None) is not None:
            return getattr(output, name).numpy(), [scores.numpy() for scores in output.attentions]
    raise AssertionError(type(output))


def changed_json(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


# Logits. --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ViT", "DeiT", "distilled DeiT"])
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"image_size": [8, 16], "patch_size": [4, 8]},
        {"qkv_bias": False, "hidden_act": "relu", "layer_norm_eps": 1e-2},
    ],
    ids=["usual", "not square", "other options"],
)
def test_logits_and_attention_are_those_of_transformers(kind, sizes, tmp_path):
    model = saved(tmp_path, kind, **sizes)
    preprocessing = Preprocessing(tuple(sizes.get("image_size", (16, 16))))
    classifier = TransferClassifier.from_preset(tmp_path, preprocessing=preprocessing)
    pixels = RNG.normal(size=(2, *preprocessing.image_size, 3)).astype("float32")
    logits, scores = theirs(model, pixels)
    assert_agree(to_numpy(classifier.model(pixels)), logits, 1e-5)
    for ours, wanted in zip(classifier.model.attention_scores(pixels), scores, strict=True):
        assert_agree(to_numpy(ours), wanted, 1e-5)
    assert classifier.class_names == NAMES


@pytest.mark.parametrize("kind", ["ViT", "DeiT"])
def test_photographs_are_classified_as_transformers_does(kind, tmp_path):
    model = saved(tmp_path, kind)
    pixels = transformers_pixels(transformers.AutoImageProcessor.from_pretrained(tmp_path), PHOTOS)
    logits, _ = theirs(model, pixels)
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    found = TransferClassifier.from_preset(tmp_path).probabilities(PHOTOS)
    np.testing.assert_allclose(found, expected, atol=0.02)  # a pixel in some thousand differs by 1 of 255


@pytest.mark.parametrize("kind", ["bare ViT", "bare DeiT"])
def test_a_bare_model_takes_a_new_head_and_has_no_own(kind, tmp_path):
    model = saved(tmp_path, kind)
    classifier = TransferClassifier.from_preset(tmp_path, ["red", "green"])
    pixels = RNG.normal(size=(2, 16, 16, 3)).astype("float32")
    assert_agree(to_numpy(classifier.model.backbone(pixels)), theirs(model, pixels)[0], 1e-5)
    np.testing.assert_array_equal(classifier.probabilities([PHOTO]), [[0.5, 0.5]])
    with pytest.raises(hub.NoHead, match=r"has no head for classes\..*give `class_names` for a new head\.$"):
        TransferClassifier.from_preset(tmp_path)


def test_a_new_head_keeps_the_backbone_and_begins_with_zeros(tmp_path):
    model = saved(tmp_path, "DeiT")
    classifier = TransferClassifier.from_preset(tmp_path, ["red", "green"])
    pixels = RNG.normal(size=(1, 16, 16, 3)).astype("float32")
    assert_agree(to_numpy(classifier.model.backbone(pixels)), theirs(model.deit, pixels)[0], 1e-5)
    assert not classifier.model.get_layer("logits").get_weights()[0].any()


def test_another_image_size_interpolates_the_positions(tmp_path):
    model = saved(tmp_path, "ViT")
    classifier = TransferClassifier.from_preset(tmp_path, image_size=32)
    assert classifier.preprocessing.image_size == classifier.model.backbone.image_shape[:2] == (32, 32)
    own, larger = (
        to_numpy(TransferClassifier.from_preset(tmp_path, image_size=size).model.backbone.get_layer("patch_encoder")
                 .position_embedding) for size in (16, 32)
    )  # fmt: skip
    stored = model.vit.embeddings.position_embeddings.detach().numpy()[0]
    np.testing.assert_array_equal(own, stored)
    np.testing.assert_array_equal(larger[0], stored[0])
    assert larger.shape == (65, 12)
    assert abs(larger[1:].mean() - stored[1:].mean()) < 0.05


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_other_dtypes_become_float32(dtype, tmp_path):
    import torch

    model = saved(tmp_path, "ViT").to(getattr(torch, dtype))
    model.save_pretrained(tmp_path)
    classifier = TransferClassifier.from_preset(tmp_path)
    pixels = RNG.normal(size=(2, 16, 16, 3)).astype("float32")
    assert_agree(to_numpy(classifier.model(pixels)), theirs(model.to(torch.float32), pixels)[0], 1e-5)


def test_weights_in_several_files(tmp_path):
    model = saved(tmp_path, "ViT")
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    pixels = RNG.normal(size=(2, 16, 16, 3)).astype("float32")
    assert_agree(to_numpy(TransferClassifier.from_preset(tmp_path).model(pixels)), theirs(model, pixels)[0], 1e-5)


@pytest.mark.parametrize(
    ("written", "ours"),
    [
        ("vit.encoder.layer.3.attention.attention.query.weight", "layers.3.attention.q_proj.weight"),
        ("deit.layers.3.attention.q_proj.weight", "layers.3.attention.q_proj.weight"),
        ("encoder.layer.0.attention.output.dense.bias", "layers.0.attention.o_proj.bias"),
        ("vit.encoder.layer.10.intermediate.dense.weight", "layers.10.mlp.fc1.weight"),
        ("vit.encoder.layer.10.output.dense.weight", "layers.10.mlp.fc2.weight"),
        ("vit.layers.1.mlp.fc2.bias", "layers.1.mlp.fc2.bias"),
        ("embeddings.cls_token", "embeddings.cls_token"),
    ],
)
def test_the_names_of_older_and_newer_transformers(written, ours):
    assert _renamed(written) == ours


# Preprocessing. -------------------------------------------------------------------------------------------------------


def transformers_pixels(processor, images):
    several = [processor(image, return_tensors="np", input_data_format="channels_last") for image in images]
    return np.concatenate([one["pixel_values"] for one in several]).transpose(0, 2, 3, 1)


def assert_pixels_agree(processor, preprocessing, images):
    """To 1 of 255, and in most places far nearer; scale and offset to float32."""
    expected = transformers_pixels(processor, images)
    found = preprocessing(images)
    scale = np.broadcast_to(1.0 if preprocessing.scale is None else preprocessing.scale, 3)
    difference = np.abs(found - expected) / scale
    assert difference.max() < 1.01
    assert np.mean(difference > 0.5) < 0.02


@pytest.mark.parametrize("family", ["ViT", "DeiT"])
@pytest.mark.parametrize("resample", [0, 1, 2, 3])
def test_pixels_are_those_of_the_image_processor(family, resample, tmp_path):
    processor = PROCESSORS[family](resample=resample)
    processor.save_pretrained(tmp_path)
    assert_pixels_agree(processor, read_preprocessing(tmp_path, family.lower()), PHOTOS)


@pytest.mark.parametrize(
    "options",
    [
        {"size": {"shortest_edge": 60}, "do_center_crop": True, "crop_size": {"height": 48, "width": 55}},
        {"size": {"shortest_edge": 31}, "do_center_crop": True, "crop_size": 31},
        {"size": {"height": 31, "width": 60}, "do_center_crop": True, "crop_size": 47},  # padded above and below
        {"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": 47},
        {"size": 64, "do_center_crop": False},
        {"do_rescale": False},
        {"do_normalize": False},
        {"do_normalize": False, "do_rescale": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
    ],
    ids=str,
)
def test_the_options_of_an_image_processor(options, tmp_path):
    processor = PROCESSORS["ViT"](resample=2, **options)
    processor.save_pretrained(tmp_path)
    preprocessing = read_preprocessing(tmp_path, "vit")
    assert_pixels_agree(processor, preprocessing, PHOTOS)
    assert Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json()))) == preprocessing


def test_without_a_resize_images_are_taken_as_they_are(tmp_path):
    processor = PROCESSORS["ViT"](do_resize=False)
    processor.save_pretrained(tmp_path)
    assert_pixels_agree(processor, read_preprocessing(tmp_path, "vit"), [PHOTO])


@pytest.mark.parametrize(
    ("said", "model_type", "image_size", "resize_size"),
    [
        # As published with google/vit-base-patch16-224-in21k, facebook/deit-tiny-patch16-224 and later ones.
        ({"do_normalize": True, "do_resize": True, "resample": 2, "size": 224}, "vit", (224, 224), None),
        ({"feature_extractor_type": "DeiTFeatureExtractor", "size": 256}, "vit", (224, 224), (256, 256)),
        ({"feature_extractor_type": "ViTFeatureExtractor", "size": 384}, "deit", (384, 384), None),
        ({"image_processor_type": "DeiTImageProcessorFast", "crop_size": None}, "vit", (224, 224), (256, 256)),
        ({"image_processor_type": "ViTImageProcessorFast"}, "deit", (224, 224), None),
        ({}, "deit", (224, 224), (256, 256)),
    ],
)  # fmt: skip
def test_missing_settings_are_the_processors_defaults(said, model_type, image_size, resize_size, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    found = read_preprocessing(tmp_path, model_type)
    assert (found.image_size, found.resize_size) == (image_size, resize_size)
    np.testing.assert_allclose(np.ravel(found.scale), 2 / 255)
    assert found.interpolation == ("bilinear" if resize_size is None else "bicubic")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"image_processor_type": "CLIPImageProcessor"}, "must be one of ViTImageProcessor.*'CLIPImageProcessor'"),
        ({"size": {"shortest_edge": 224}}, "a height and a width where no crop follows"),
        ({"size": {"longest_edge": 224}}, "`size` must be a number"),
        ({"size": "large"}, "`size` must be a whole number"),
        ({"resample": 5}, "`resample` must be one of 0"),
        ({"resample": [2]}, "`resample` must be one of 0"),
        ({"image_std": [0.5, 0.0, 0.5]}, "`image_std` must not be 0"),
        ({"image_mean": [0.5, 0.5]}, "`image_mean` must be a number, or three"),
        ({"do_resize": "yes"}, "`do_resize` must be true or false"),
        ({"do_pad": True}, "not padded"),
        ({"do_resize": False, "do_center_crop": True}, "A crop must follow a resize"),
        ({"rescale_factor": "1/255"}, "`scale` must be a number"),
    ],
)
def test_unsupported_steps_are_refused_in_one_line(said, message, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=message) as error:
        read_preprocessing(tmp_path, "vit")
    assert "\n" not in str(error.value)
    assert "preprocessor_config.json" in str(error.value)


# Keeping, tuning, evaluating. -----------------------------------------------------------------------------------------


def test_it_is_tuned_kept_and_loaded_without_transformers(tmp_path):
    saved(tmp_path / "vit", "DeiT")
    file = tmp_path / "vit" / "preprocessor_config.json"
    changed_json(file, size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16})
    classifier = TransferClassifier.from_preset(tmp_path / "vit", ["dark", "bright"])
    images = RNG.integers(0, 120, (12, 24, 30, 3)).astype("uint8")
    images[6:] += 100
    options = FineTuning(probe_epochs=2, epochs=1, batch_size=4)
    record = classifier.fit((images, np.repeat([0, 1], 6)), options=options, run=tmp_path / "run", cache=tmp_path / "c")
    assert record["phases"][0]["name"] == "probe"
    loaded = TransferClassifier.load(tmp_path / "run" / "classifier")
    assert loaded.preprocessing == classifier.preprocessing
    assert loaded.preprocessing.resize_size == 20
    np.testing.assert_array_equal(loaded.probabilities(PHOTOS), classifier.probabilities(PHOTOS))
    assert loaded.provenance["written_by"] == "transformers"


# What is refused. -----------------------------------------------------------------------------------------------------


def refused(folder, message, error=ValueError, **arguments):
    with pytest.raises(error, match=message) as caught:
        TransferClassifier.from_preset(folder, **arguments)
    assert "\n" not in str(caught.value)


def test_a_folder_that_lacks_something(tmp_path):
    saved(tmp_path / "vit")
    for name, message in {
        "preprocessor_config.json": "must hold preprocessor_config.json",
        "model.safetensors": r"must be in model\.safetensors\..*`save_pretrained`.*with no weights",
    }.items():
        folder = shutil.copytree(tmp_path / "vit", tmp_path / name)
        (folder / name).unlink()
        refused(folder, message)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    refused(folder, r"with pytorch_model\.bin$")


def test_damaged_weights_and_those_of_another_model(tmp_path):
    saved(tmp_path / "vit")
    whole = (tmp_path / "vit" / "model.safetensors").read_bytes()
    for name, data in {
        "cut": whole[:-5],
        "empty": b"",
        "text": b"version https://git-lfs.github.com/spec/v1\n",
    }.items():
        folder = shutil.copytree(tmp_path / "vit", tmp_path / name)
        (folder / "model.safetensors").write_bytes(data)
        refused(folder, "The weights are damaged")
    for name, changes, message in (
        ("layers", {"num_hidden_layers": 100_000_000}, "as many layers as config.json says"),
        ("width", {"hidden_size": 24}, "with embeddings.* of shape"),
        ("mlp", {"intermediate_size": 10**9}, r"layers\.0\.mlp\.fc1"),
        ("patch", {"patch_size": 5}, "`patch_size` must divide the image"),
        ("names", {"id2label": {"0": "a", "1": "b"}}, "with 2 names for 3 classes"),
        ("numbers", {"id2label": {"zero": "a"}}, "`id2label` must name the classes"),
        ("activation", {"hidden_act": "gelu_new"}, "`hidden_act` must be one of"),
        ("channels", {"num_channels": 1}, "3 channels"),
        ("type", {"hidden_size": "wide"}, "`hidden_size` must be a whole number"),
        ("quantized", {"quantization_config": {"bits": 4}}, "must not be quantized"),
        ("deit", {"model_type": "deit"}, "position_embeddings"),
    ):
        folder = shutil.copytree(tmp_path / "vit", tmp_path / name)
        changed_json(folder / "config.json", **changes)
        refused(folder, message)


def test_weights_that_are_not_finite(tmp_path):
    import torch

    model = saved(tmp_path)
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path)
    refused(tmp_path, "must be finite numbers.*classifier.weight")


def test_weights_of_whole_numbers(tmp_path):
    import safetensors.numpy

    saved(tmp_path)
    arrays = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    arrays["classifier.weight"] = arrays["classifier.weight"].astype("int8")
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    refused(tmp_path, "classifier.weight of int8")


def with_header(folder, content, data=b""):
    """Weights with that header."""
    (folder / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content + data)


def test_headers_that_no_weights_have(tmp_path):
    saved(tmp_path)
    entry = '"%s":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
    many = ",".join(entry % (i, 4 * i, 4 * i + 4) for i in range(2000))
    for content, data, message in (
        (b"{%s}" % many.encode(), bytes(8000), "1 to 816 arrays, and this one 2,000"),
        (b'{"__metadata__":{"a":"%s"}}' % (b"x" * (5 << 20)), b"", "larger than 4,194,304 bytes"),
        (b'{"a":' + b"[" * 100_000, b"", "nested too deep"),
        (b'{"a":{"dtype":"F32","shape":[0,1000000000000],"data_offsets":[0,0]}}', b"", "a shape that no weight has"),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[NaN,4]}}', bytes(4), "NaN is no JSON"),
    ):
        with_header(tmp_path, content, data)
        refused(tmp_path, f"The weights are damaged: .*{message}")


def test_shards_outside_of_the_folder_or_missing(tmp_path):
    saved(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    for content, message in {
        '{"weight_map": {"a": "../secret.safetensors"}}': "in safetensors files of the folder",
        '{"weight_map": {"a": "missing.safetensors"}}': r"without missing\.safetensors",
        '{"weight_map": []}': "must name the file of each array",
        "[": "cannot be read as JSON",
    }.items():
        index.write_text(content)
        refused(tmp_path, message)


def test_a_model_without_weights_has_bounded_sizes(tmp_path):
    saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert TransferClassifier.from_preset(tmp_path, load_weights=False).class_names == NAMES
    for changes, message in (
        ({"num_hidden_layers": 100_000}, "`num_layers` of a preset may be at most 512"),
        ({"num_hidden_layers": 500, "hidden_size": 3000}, "at most 1,000,000,000 parameters"),
        ({"image_size": 8000}, "at most 65,536 patches"),
    ):
        changed_json(tmp_path / "config.json", **changes)
        refused(tmp_path, message, load_weights=False)
        changed_json(tmp_path / "config.json", **{name: SIZES[name] for name in changes})


def test_a_config_that_is_no_json(tmp_path):
    (tmp_path / "config.json").write_text("{")
    refused(tmp_path, "cannot be read as JSON")


# By way of keras_hub. -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bare ViT", "DeiT", "not square", "cut", "no weights"])
def test_files_that_keras_hub_cannot_read_give_one_line(kind, tmp_path, keras_hub):
    sizes = {"image_size": (8, 16)} if kind == "not square" else {}
    saved(tmp_path, kind if kind in MODELS else "ViT", **sizes)
    if kind == "cut":
        (tmp_path / "model.safetensors").write_bytes(b"no weights")
    if kind == "no weights":
        (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError) as error:  # noqa: PT011
        transfer.load_preset(tmp_path)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_another_architecture_is_refused_in_one_line(tmp_path, keras_hub):
    config = transformers.BertConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=3, intermediate_size=20)
    transformers.BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        TransferClassifier.from_preset(tmp_path, ["a", "b"])
    assert len(str(error.value)) < 1000


# hf://. ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hugging_face_cache(keras_hub, monkeypatch, tmp_path):
    """A cache of Hugging Face with a ViT in it, and no network."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    root = tmp_path / "hf" / "models--someone--vit"
    saved(root / "snapshots" / "abc")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc")
    return root


def test_a_handle_of_hugging_face(hugging_face_cache):
    classifier = TransferClassifier.from_preset("hf://someone/vit")
    assert classifier.class_names == NAMES
    assert classifier.provenance["preset"] == "hf://someone/vit"
    folder = hugging_face_cache / "snapshots" / "abc"
    expected = TransferClassifier.from_preset(folder).probabilities(PHOTOS)
    np.testing.assert_array_equal(classifier.probabilities(PHOTOS), expected)
    for file in folder.iterdir():  # copied there by hand
        file.rename(hugging_face_cache / file.name)
    assert TransferClassifier.from_preset("hf://someone/vit").class_names == NAMES


def test_a_handle_that_cannot_be_had(hugging_face_cache):
    refused("hf://someone/else", "is not in the cache", hub.PresetUnavailable)
    refused("hf://no handle", r"hf://")


def test_a_missing_huggingface_hub_gives_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    refused("hf://someone/vit", r"hf:// needs huggingface_hub: pip install huggingface_hub$", ImportError)


def test_the_distilled_logits_are_others(tmp_path):
    import torch

    model = saved(tmp_path, "distilled DeiT")
    pixels = RNG.normal(size=(2, 16, 16, 3)).astype("float32")
    with torch.no_grad():
        output = model(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    ours = to_numpy(TransferClassifier.from_preset(tmp_path).model(pixels))
    assert relative_difference(ours, output.distillation_logits.numpy()) > 1e-2
    assert Path(tmp_path, "model.safetensors").is_file()
