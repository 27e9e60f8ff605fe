"""The saved result: loaded again on every backend, and refused if anything about it is not as it should be."""

import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy

from keras_vit_edu._install import install_command
from keras_vit_edu.layers import ConvStem, Patches
from keras_vit_edu.models import ViTBackbone, ViTClassifier
from keras_vit_edu.transfer import (
    ArtifactError,
    Preprocessing,
    TransferClassifier,
)
from tests.support import assert_agree, opened_vit, random_weights, to_numpy, vit_classifier

COMMITTED = Path(__file__).with_name("artifact_v1.zip")
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 40, 30, 3), "uint8")


def classifier(num_classes=2, seed=0, **head):
    backbone = ViTBackbone((16, 16, 3), 8, 6, num_layers=2, num_heads=2, key_dim=3, mlp_dim=8, num_prefix_tokens=1)
    model = opened_vit(backbone, num_classes, **head)
    random_weights(model, seed=seed)
    return TransferClassifier(model, Preprocessing(16, scale=1 / 255), [f"class {i}" for i in range(num_classes)])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The same classifier as a folder and as a zip; not to be changed."""
    root = tmp_path_factory.mktemp("saved")
    small = classifier()
    small.save(root / "small")
    small.save(root / "small.zip")
    return root


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the folder, to spoil."""
    return Path(shutil.copytree(saved / "small", tmp_path / "small"))


# Kept and found again. ------------------------------------------------------------------------------------------------


def test_the_committed_artifact_of_format_1_gives_the_logits_that_it_gave(rng):
    loaded = TransferClassifier.load(COMMITTED)
    with np.load(COMMITTED.with_suffix(".npz")) as stored:
        logits = to_numpy(loaded.model(loaded.preprocess(stored["images"]), training=False))
        assert_agree(logits, stored["logits"], 1e-5)
    assert loaded.class_names == ("Äpfel", "pear", "梨")
    assert loaded.provenance == {"preset": "none, random weights"}
    assert loaded.metrics == {"accuracy": 0.5}
    assert loaded.preprocessing == Preprocessing(
        (32, 24), False, True, "bicubic", antialias=True, scale=(0.017, 0.018, 0.019), offset=(-2.1, -2.0, -1.8)
    )
    assert [tuple(of_a_block.shape) for of_a_block in loaded.attention_scores(IMAGES)] == [(3, 3, 14, 14)] * 2


@pytest.mark.any_backend
def test_its_arrays_have_the_documented_names():
    with zipfile.ZipFile(COMMITTED) as archive:
        names = set(safetensors.numpy.load(archive.read("weights.safetensors")))
    of_a_block = {f"{norm}/{name}" for norm in ("attention_norm", "mlp_norm") for name in ("gamma", "beta")} | {
        f"{dense}/{name}"
        for dense in (*(f"attention/{x}_dense" for x in ("q", "k", "v", "out")), "mlp_hidden", "mlp_output")
        for name in ("kernel", "bias")
    }
    assert names == {
        "backbone/patch_encoder/prefix_tokens", "backbone/patch_encoder/position_embedding",
        "backbone/patch_encoder/projection/kernel", "backbone/patch_encoder/projection/bias",
        *(f"backbone/transformer_block_{i}/{name}" for i in range(2) for name in of_a_block),
        "backbone/encoder_norm/gamma", "backbone/encoder_norm/beta",
        "pre_logits/kernel", "pre_logits/bias", "logits/kernel", "logits/bias",
    }  # fmt: skip


def test_without_keras_hub_it_loads_all_the_same():
    code = (
        "import sys; sys.modules['keras_hub'] = None\n"
        "from keras_vit_edu.transfer import TransferClassifier\n"
        f"print(TransferClassifier.load({str(COMMITTED)!r}).num_classes)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "3\n", done.stderr


@pytest.mark.parametrize("name", ["small", "small.zip", "small.ZIP", "below/small.zip"])
def test_a_loaded_artifact_equals_the_saved_one(name, tmp_path):
    ours = classifier(num_classes=3, pre_logits_dim=5, head="mean_with_prefix", head_dropout=(0.0, 0.1))
    ours.metrics, ours.provenance = {"accuracy": 0.75}, {"preset": "some"}
    ours.save(tmp_path / name)
    loaded = TransferClassifier.load(tmp_path / name)
    np.testing.assert_array_equal(loaded.probabilities(IMAGES), ours.probabilities(IMAGES))
    assert loaded.class_names == ours.class_names
    assert loaded.preprocessing == ours.preprocessing
    assert (loaded.metrics, loaded.provenance) == (ours.metrics, ours.provenance)
    assert loaded.model.head_dropout == (0.0, 0.1)
    assert not [file for file in tmp_path.rglob("*") if file.name.endswith(".new")]


@pytest.mark.any_backend
def test_a_zip_unpacked_into_a_folder_loads(saved, tmp_path):
    shutil.unpack_archive(saved / "small.zip", tmp_path / "by hand")
    loaded = TransferClassifier.load(tmp_path / "by hand")
    np.testing.assert_array_equal(
        loaded.probabilities(IMAGES), TransferClassifier.load(saved / "small.zip").probabilities(IMAGES)
    )


@pytest.mark.any_backend
def test_the_same_classifier_makes_the_same_file(saved, tmp_path):
    TransferClassifier.load(saved / "small.zip").save(tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == (saved / "small.zip").read_bytes()


def test_the_updates_of_lora_are_added_to_the_weights(tmp_path):
    ours = classifier()
    dense = ours.model.backbone.transformer_blocks[0].attention.q_dense
    dense.enable_lora(2)
    for variable in (dense.lora_kernel_a, dense.lora_kernel_b):
        variable.assign(np.random.default_rng(1).normal(size=variable.shape))
    ours.save(tmp_path / "lora.zip")
    loaded = TransferClassifier.load(tmp_path / "lora.zip")
    assert loaded.num_parameters == classifier().num_parameters
    expected = to_numpy(ours.model(ours.preprocess(IMAGES), training=False))
    assert_agree(to_numpy(loaded.model(loaded.preprocess(IMAGES), training=False)), expected, 1e-5)


def test_mixed_precision_and_channels_first_are_kept(tmp_path):
    backbone = ViTBackbone(
        (3, 16, 16), 8, 6, num_layers=1, num_heads=2, key_dim=3, mlp_dim=8, data_format="channels_first",
        dtype="mixed_bfloat16",
    )  # fmt: skip
    model = opened_vit(backbone, 2, head="mean", head_dtype="float32")
    ours = TransferClassifier(model, Preprocessing(16, data_format="channels_first"), ["a", "b"])
    ours.save(tmp_path / "mixed")
    loaded = TransferClassifier.load(tmp_path / "mixed")
    assert loaded.model.backbone.dtype_policy.name == "mixed_bfloat16"
    assert loaded.model.head_dtype.name == "float32"
    np.testing.assert_array_equal(loaded.probabilities(IMAGES), ours.probabilities(IMAGES))
    np.testing.assert_array_equal(ours.preprocess(IMAGES), np.moveaxis(Preprocessing(16)(IMAGES), -1, 1))


@pytest.mark.any_backend
def test_a_model_that_cannot_be_loaded_is_not_saved(tmp_path):
    class Own(ViTClassifier):
        """It could compute anything."""

    backbone = ViTBackbone((16, 16, 3), 8, 6, 1, 2, 3, 8, num_prefix_tokens=1)
    with pytest.raises(ArtifactError, match=r"Save this model with Keras.* Received: .*, a Own$"):
        TransferClassifier(Own(backbone, 2), Preprocessing(16), ["a", "b"]).save(tmp_path / "own")
    sizes = {"num_layers": 1, "num_heads": 2, "key_dim": 3, "mlp_dim": 8, "num_prefix_tokens": 1}
    backbone = ViTBackbone((16, 16, 3), 8, 6, **sizes, stem=keras.Sequential([Patches(8)]))
    with pytest.raises(ArtifactError, match="Its stem or position bias is not a layer of this library"):
        TransferClassifier(opened_vit(backbone, 2), Preprocessing(16), ["a", "b"]).save(tmp_path / "own_stem")
    backbone = ViTBackbone((16, 16, 3), 8, 6, **sizes, stem=ConvStem((4, 4, 4), activation=keras.activations.elu))
    with pytest.raises(ArtifactError, match="`stem_activation` must be one of"):
        TransferClassifier(opened_vit(backbone, 2), Preprocessing(16), ["a", "b"]).save(tmp_path / "elu")
    quantized = classifier()
    quantized.model.get_layer("logits").quantize("int8")
    with pytest.raises(ArtifactError, match="quantized"):
        quantized.save(tmp_path / "quantized")
    assert not list(tmp_path.iterdir())


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "arguments",
    [
        {"head": "flatten", "head_units": (5,), "head_activation": "relu", "locality": 0.5, "stem": "shifted"},
        {
            "head": "sequence",
            "stem": "conv",
            "stem_filters": (3, 3, 3),
            "stem_normalization": "layer",
            "stem_activation": "relu",
        },
    ],
)
def test_every_classifier_of_ours_is_kept(arguments, tmp_path):
    sizes = {"image_shape": (16, 16, 3), "patch_size": 8, "projection_dim": 6, "num_layers": 1, "num_heads": 2}
    model = vit_classifier(2, **sizes, key_dim=3, mlp_dim=8, **{"head_units": (), **arguments})
    random_weights(model)
    ours = TransferClassifier(model, Preprocessing(16, scale=1 / 255), ["a", "b"])
    ours.save(tmp_path / "ours.zip")
    loaded = TransferClassifier.load(tmp_path / "ours.zip")
    np.testing.assert_array_equal(loaded.probabilities(IMAGES), ours.probabilities(IMAGES))


@pytest.mark.any_backend
def test_metrics_that_are_no_json_are_refused_before_anything_is_written(tmp_path):
    ours = classifier()
    ours.metrics = {"accuracy": float("nan")}
    for name in ("a", "a.zip"):
        with pytest.raises(ValueError, match=r"artifact\.json would not be JSON"):
            ours.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


# Written over another one. --------------------------------------------------------------------------------------------


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["small", "small.zip"])
def test_saved_again_the_newer_one_is_there_and_nothing_else(name, tmp_path):
    for seed in range(3):
        classifier(seed=seed).save(tmp_path / name)
        loaded = TransferClassifier.load(tmp_path / name)
        np.testing.assert_array_equal(loaded.probabilities(IMAGES), classifier(seed=seed).probabilities(IMAGES))
    if name == "small":
        assert len(list((tmp_path / name).iterdir())) == 2


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["photos", "photos.zip", "file"])
def test_something_else_is_not_overwritten(name, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("a photo")
    (tmp_path / "file").write_text("a file")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("cat.jpg", "a photo")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(ArtifactError, match=r"Received: ") as error:
        classifier().save(tmp_path / name)
    assert "\n" not in str(error.value)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.any_backend
@pytest.mark.skipif(sys.platform == "win32", reason="a limit on the size of files is set as POSIX has it")
@pytest.mark.parametrize("name", ["small", "small.zip"])
def test_on_a_full_disk_the_old_artifact_stays(name, tmp_path):
    classifier(seed=0).save(tmp_path / name)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match=rf"The artifact .*{name} could not be written: "):
            classifier(seed=1).save(tmp_path / name)
        with pytest.raises(OSError, match="could not be written"):
            classifier(seed=1).save(tmp_path / f"new-{name}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.any_backend
@pytest.mark.skipif(os.name != "posix", reason="folders are flushed to the disk on POSIX")
@pytest.mark.parametrize("flushed", range(1, 5))  # weights, their folder; manifest, its folder
def test_a_disk_that_fails_leaves_one_whole_artifact(flushed, tmp_path, monkeypatch):
    olds, news = classifier(seed=0), classifier(seed=1)
    olds.save(tmp_path / "small")
    fsync, done = os.fsync, []

    def failing(descriptor):
        done.append(descriptor)
        if len(done) == flushed:
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match=r"could not be written: Input/output error"):
        news.save(tmp_path / "small")
    found = TransferClassifier.load(tmp_path / "small").probabilities(IMAGES)
    np.testing.assert_array_equal(found, (news if flushed == 4 else olds).probabilities(IMAGES))


@pytest.mark.any_backend
def test_a_model_that_is_too_large_to_load_is_not_saved(tmp_path):
    ours = classifier()
    ours.metrics = {"confusion": [0] * 2_000_000}
    for name in ("a", "a.zip"):
        with pytest.raises(
            ArtifactError, match=r"artifact\.json must have at most 8,388,608.*most of them of `metrics`"
        ):
            ours.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from keras_vit_edu.transfer import artifact_files
path, step = Path(sys.argv[1]), int(sys.argv[2])
replace, done = os.replace, []
def dying(*arguments):
    done.append(arguments)
    if len(done) == step // 2 + 1 and step % 2 == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*arguments)
    if len(done) == step // 2 + 1 and step % 2 == 1:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = dying
manifest, weights = (path.parent / "manifest").read_bytes(), (path.parent / "weights").read_bytes()
import json
artifact_files.write(path, json.loads(manifest), weights)
"""


@pytest.mark.any_backend
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
def test_killed_at_any_step_it_leaves_the_old_artifact_or_the_new_one(tmp_path):
    olds, news = classifier(seed=0), classifier(seed=1)
    news.save(tmp_path / "new")
    manifest = json.loads((tmp_path / "new" / "artifact.json").read_bytes())
    del manifest["weights"]["file"]
    (tmp_path / "manifest").write_text(json.dumps(manifest))
    (tmp_path / "weights").write_bytes((tmp_path / "new" / "weights.safetensors").read_bytes())
    for step, is_new in enumerate([False, False, False, True]):  # before and after each of the two renames
        olds.save(tmp_path / "killed")
        done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(step)])
        assert done.returncode == -signal.SIGKILL
        found = TransferClassifier.load(tmp_path / "killed").probabilities(IMAGES)
        np.testing.assert_array_equal(found, (news if is_new else olds).probabilities(IMAGES))
    olds.save(tmp_path / "killed")
    assert len(list((tmp_path / "killed").iterdir())) == 2  # what the killed ones left is gone


@pytest.mark.any_backend
def test_weights_of_someone_else_are_no_artifact_that_may_be_overwritten(saved, tmp_path):
    for name in ("weights.safetensors", "weights-2.safetensors"):
        theirs = tmp_path / name.partition(".")[0]
        theirs.mkdir()
        safetensors.numpy.save_file({"a": np.zeros(3)}, theirs / name)
        before = (theirs / name).read_bytes()
        with pytest.raises(ArtifactError, match="Only an artifact can be overwritten"):
            classifier().save(theirs)
        assert (theirs / name).read_bytes() == before
    killed = tmp_path / "killed"  # in the first save, after the weights
    classifier().save(killed)
    (killed / "artifact.json").unlink()
    classifier().save(killed)
    TransferClassifier.load(killed)


# Refused. -------------------------------------------------------------------------------------------------------------


def refused(path, message):
    with pytest.raises(ArtifactError, match=message) as error:
        TransferClassifier.load(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def changed(folder, change):
    """Let `change` change the manifest of an artifact in a folder."""
    manifest = json.loads((folder / "artifact.json").read_bytes())
    change(manifest)
    (folder / "artifact.json").write_text(json.dumps(manifest))
    return folder


def with_weights(folder, arrays):
    """Put other weights into the folder, told of rightly."""
    data = safetensors.numpy.save(arrays)
    (folder / "weights.safetensors").write_bytes(data)
    said = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return changed(folder, lambda manifest: manifest["weights"].update(said))


@pytest.mark.any_backend
def test_nothing_there(tmp_path):
    refused(tmp_path / "nowhere", "There is no artifact, neither a folder nor a file")


@pytest.mark.any_backend
def test_changed_weights(folder):
    file = folder / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    refused(folder, r"weights\.safetensors is damaged.*SHA-256")


@pytest.mark.any_backend
@pytest.mark.parametrize("size", [0, 100, 10**12], ids=["empty", "cut off", "a terabyte"])
def test_weights_of_another_size_are_not_even_read(size, folder):
    os.truncate(folder / "weights.safetensors", size)  # a terabyte of nothing takes no room
    refused(folder, rf"is damaged.*artifact\.json says [\d,]+ bytes.*where it has {size:,}")


@pytest.mark.any_backend
def test_a_terabyte_that_the_manifest_tells_of_is_refused_too(folder):
    os.truncate(folder / "weights.safetensors", 10**12)
    changed(folder, lambda manifest: manifest["weights"].update(bytes=10**12))
    refused(folder, r"Weights may have at most 3,221,225,472 bytes.* with 1,000,000,000,000")


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["artifact.json", "weights.safetensors"])
def test_a_missing_file(name, folder, tmp_path):
    (folder / name).unlink()
    refused(folder, f"The artifact lacks {name}")


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["artifact.json", "weights.safetensors"])
def test_a_link_that_leads_out_of_the_folder(name, folder, tmp_path):
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    refused(folder, f"{name} is a link that leads out of it")


@pytest.mark.any_backend
def test_a_manifest_that_is_no_json(folder):
    for content, reason in [
        (b"{", "damaged"),
        (b"\xff", "damaged"),
        (b"[1]", "must hold a JSON object"),
        (b"[" * 100_000, "damaged"),
        (b'{"format_version": NaN}', "NaN is no JSON"),
        (b" " * (1 << 23) + b"{}", "must have at most 8,388,608 bytes"),
    ]:
        (folder / "artifact.json").write_bytes(content)
        refused(folder, reason)


def arguments(**changes):
    """A change of arguments of the model."""
    return lambda manifest: manifest["architecture"]["arguments"].update(changes)


CHANGES = {
    "newer version": (lambda m: m.update(format_version=3), "newer version of keras_vit_edu.* of format 3$"),
    "version of another kind": (lambda m: m.update(format_version=True), "must be a whole number.*format_version=True"),
    "another format": (lambda m: m.update(format="a preset"), "format must be.*of format 'a preset'"),
    "unknown field": (lambda m: m.update(colour=1), "has no field 'colour'"),
    "missing field": (lambda m: m.pop("metrics"), "a field 'metrics', which is missing"),
    "unknown argument": (arguments(nun_layers=2), "'nun_layers'.*num_layers"),
    "missing argument": (lambda m: m["architecture"]["arguments"].pop("mlp_dim"), "field 'mlp_dim', which is missing"),
    "argument of another kind": (arguments(num_heads="2"), "num_heads='2'"),
    "argument out of range": (arguments(dropout=2), "dropout=2"),
    "another epsilon": (arguments(layer_norm_epsilon=None), "arguments.*refused"),
    "a dtype with code": (arguments(dtype={"class_name": "X"}), "`dtype` must be one"),
    "another head": (arguments(head="max"), "head='max'"),
    "a stem with code": (arguments(stem={"class_name": "X"}), "`stem` must be a"),
    "other kind": (lambda m: m["architecture"].update(kind="pickle"), "`kind` must be.*'pickle'"),
    "no object": (lambda m: m.update(architecture=[]), r"`architecture` must be a JSON object\. Received: \[\]"),
    "one name less": (lambda m: m["class_names"].pop(), "1 class names, num_classes=2, 2 in the weights"),
    "one name more": (lambda m: m["class_names"].append("x"), "3 class names, num_classes=2, 2 in the weights"),
    "another number of classes": (arguments(num_classes=9), "num_classes=9, 2 in"),
    "names that are none": (lambda m: m.update(class_names=["a", 2]), "must be a list of 1 to 100,000 texts"),
    "another preprocessing": (lambda m: m["preprocessing"].update(antialias="yes"), "antialias='yes'"),
    "a preprocessing of another size": (lambda m: m["preprocessing"].update(image_size=[8, 8]), "must give images of"),
    "weights elsewhere": (lambda m: m["weights"].update(file="../../etc/passwd"), "`file` must be one of"),
    "no checksum": (lambda m: m["weights"].update(sha256=None), "SHA-256"),
    "another dtype of weights": (lambda m: m["weights"].update(dtype="float16"), "weights_dtype='float16'"),
    "a billion layers": (arguments(num_layers=10**9), "at most 1,000,000"),
    "a billion wide": (arguments(projection_dim=10**9), "at most 1,000,000"),
    "a billion in the MLP": (arguments(mlp_dim=10**9), "at most 1,000,000"),
    "a huge image": (arguments(image_shape=[80000, 80000, 3]), "at most 8,192"),
    "no prefix token": (arguments(num_prefix_tokens=0), "num_prefix_tokens=0"),
}  # fmt: skip


@pytest.mark.any_backend
@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_a_changed_manifest(change, message, folder):
    refused(changed(folder, change), message)


@pytest.mark.any_backend
@pytest.mark.parametrize("drop", [True, False])
def test_weights_of_another_model(drop, folder):
    arrays = safetensors.numpy.load((folder / "weights.safetensors").read_bytes())
    if drop:
        del arrays["backbone/encoder_norm/gamma"]
    else:
        arrays["backbone/encoder_norm/gamma"] = np.ones(7, "float32")
    refused(with_weights(folder, arrays), r"do not fit the architecture.*backbone/encoder_norm/gamma of shape \(")


@pytest.mark.any_backend
def test_weights_that_are_no_safetensors(folder):
    (folder / "weights.safetensors").write_bytes(b"no weights")
    said = {"bytes": 10, "sha256": hashlib.sha256(b"no weights").hexdigest()}
    refused(changed(folder, lambda manifest: manifest["weights"].update(said)), "cannot be read")


# Zips. ----------------------------------------------------------------------------------------------------------------


def entries(saved):
    with zipfile.ZipFile(saved / "small.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path, contents, compression=zipfile.ZIP_STORED):
    """A zip of pairs of a name, or a `ZipInfo`, and content."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents:
            archive.writestr(name, content)
    return path


@pytest.mark.any_backend
def test_a_file_that_is_no_zip(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"no zip at all")
    refused(tmp_path / "a.zip", "this file is not a zip")
    (tmp_path / "empty.zip").write_bytes(b"")
    refused(tmp_path / "empty.zip", "this file is not a zip")


@pytest.mark.any_backend
def test_a_truncated_zip(saved, tmp_path):
    data = (saved / "small.zip").read_bytes()
    for size in (len(data) - 1, len(data) // 2, 100):
        (tmp_path / "cut.zip").write_bytes(data[:size])
        refused(tmp_path / "cut.zip", "The zip is damaged, cut off")


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["artifact.json", "weights.safetensors"])
def test_a_zip_with_a_changed_byte(name, saved, tmp_path):
    data = bytearray((saved / "small.zip").read_bytes())
    with zipfile.ZipFile(saved / "small.zip") as archive:
        entry = archive.getinfo(name)
    data[entry.header_offset + 30 + len(name) + entry.compress_size // 2] ^= 1
    (tmp_path / "changed.zip").write_bytes(data)
    refused(tmp_path / "changed.zip", "damaged")


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "name",
    ["../weights.safetensors", "/etc/weights.safetensors", "C:\\weights.safetensors", "a/../../x", "..\\x", "\\x"],
)
def test_an_entry_that_leads_out_of_the_folder(name, saved, tmp_path):
    content = entries(saved)
    path = zipped(tmp_path / "slip.zip", [("artifact.json", content["artifact.json"]), (name, b"x")])
    refused(path, "an entry that leads out of its folder")
    assert [file.name for file in tmp_path.iterdir()] == ["slip.zip"]


@pytest.mark.any_backend
def test_an_entry_that_is_a_link(saved, tmp_path):
    link = zipfile.ZipInfo("weights.safetensors")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    content = entries(saved)
    path = zipped(tmp_path / "link.zip", [("artifact.json", content["artifact.json"]), (link, "/etc/passwd")])
    refused(path, "an entry that is a link or not a file")


@pytest.mark.any_backend
def test_other_entries_than_the_two(saved, tmp_path):
    content = entries(saved)
    refused(zipped(tmp_path / "one.zip", [*content.items()][:1]), "with 1 entries")
    extra = [*content.items(), ("weights-2.safetensors", b"")]
    refused(zipped(tmp_path / "three.zip", extra), "with 3 entries")
    refused(zipped(tmp_path / "other.zip", [*content.items(), ("run.py", b"print()")]), "with 'run.py'")
    apart = [(f"{number}/{name}", data) for number, (name, data) in enumerate(content.items())]
    refused(zipped(tmp_path / "apart.zip", apart), "must be in one folder")
    refused(zipped(tmp_path / "photos.zip", [("cat.jpg", b""), ("dog.jpg", b"")]), "with 'cat.jpg'")


def packed_by_a_file_manager(folder, path, top="pets", separator="/"):
    """As macOS and Windows do it: the folder, and beside it what they note."""
    beside = [
        (f"{top}/", b""),
        (f"{top}/.DS_Store", b"x"),
        ("__MACOSX/", b""),
        (f"__MACOSX/{top}/._artifact.json", b"x"),
    ]
    beside += [(f"{top}/Thumbs.db", b"x"), (f"{top}/desktop.ini", b"x")]
    files = [(f"{top}/{file.name}", file.read_bytes()) for file in sorted(folder.iterdir())]
    return zipped(path, [(name.replace("/", separator), data) for name, data in beside + files], zipfile.ZIP_DEFLATED)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("top", "separator"), [("pets", "/"), ("runs/pets/classifier", "/"), ("Tiere ä", "/"), ("pets", "\\")]
)
def test_a_zip_that_a_file_manager_made(top, separator, saved, tmp_path):
    path = packed_by_a_file_manager(saved / "small", tmp_path / "pets.zip", top, separator)
    expected = TransferClassifier.load(saved / "small").probabilities(IMAGES)
    np.testing.assert_array_equal(TransferClassifier.load(path).probabilities(IMAGES), expected)
    made = shutil.make_archive(str(tmp_path / "made"), "zip", root_dir=saved, base_dir="small")
    np.testing.assert_array_equal(TransferClassifier.load(made).probabilities(IMAGES), expected)


@pytest.mark.any_backend
def test_clutter_of_a_file_manager_leads_nowhere_either(saved, tmp_path):
    content = [*entries(saved).items()]
    refused(zipped(tmp_path / "slip.zip", [*content, ("__MACOSX/../../x", b"")]), "leads out of its folder")
    refused(zipped(tmp_path / "many.zip", [*content, *((f"__MACOSX/{i}", b"") for i in range(60))]), "with 62 entries")


@pytest.mark.any_backend
def test_the_folder_of_a_run_stands_for_the_classifier_in_it(saved, tmp_path):
    shutil.copytree(saved / "small", tmp_path / "run" / "classifier")
    (tmp_path / "run" / "run.json").write_text("{}")
    expected = TransferClassifier.load(saved / "small").probabilities(IMAGES)
    for path in (tmp_path / "run", tmp_path / "run" / "classifier", tmp_path / "run" / "classifier" / "artifact.json"):
        np.testing.assert_array_equal(TransferClassifier.load(path).probabilities(IMAGES), expected)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("{}")
    refused(tmp_path / "other", "The run has no classifier for photographs")
    (tmp_path / "other" / "run.json").rename(tmp_path / "other" / "config.json")
    refused(tmp_path / "other", "Load it with `from_preset`")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "The artifact lacks artifact.json")


@pytest.mark.any_backend
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_of_one_name(tmp_path):
    many = [("artifact.json", b"")] * 10_000
    refused(zipped(tmp_path / "many.zip", many), "with 10,000 entries")
    refused(zipped(tmp_path / "twice.zip", many[:2]), "two entries with the name")


@pytest.mark.any_backend
def test_a_zip_that_unpacks_to_far_more_than_it_is(saved, tmp_path):
    content = entries(saved)
    bomb = [("artifact.json", content["artifact.json"]), ("weights.safetensors", bytes(100_000_000))]
    refused(zipped(tmp_path / "bomb.zip", bomb, zipfile.ZIP_DEFLATED), "must unpack to about its own size.*to 100,0")


@pytest.mark.any_backend
@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_of_a_compression_that_unpacks_more_than_is_asked_for(compression, saved, tmp_path):
    path = zipped(tmp_path / "other.zip", entries(saved).items(), compression)
    refused(path, f"must be stored or deflated.*compression method {compression}")


def with_declared_size(path, name, size):
    """Let the directory of a zip lie about how large an entry is, unpacked."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(name.encode()))
    data[at + 24 : at + 28] = size.to_bytes(4, "little")
    path.write_bytes(data)
    return path


@pytest.mark.any_backend
def test_a_zip_that_claims_terabytes_or_hides_them(saved, tmp_path):
    content = list(entries(saved).items())
    name, size = content[1][0], len(content[1][1])
    path = with_declared_size(zipped(tmp_path / "claims.zip", content), name, 2**32 - 2)
    refused(path, "must unpack to about its own size")
    hidden = [content[0], (name, bytes(100_000_000))]
    path = with_declared_size(zipped(tmp_path / "hides.zip", hidden, zipfile.ZIP_DEFLATED), name, size)
    refused(path, "damaged")


@pytest.mark.any_backend
def test_an_encrypted_zip_and_one_of_an_unknown_compression(saved, tmp_path):
    data = (saved / "small.zip").read_bytes()
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"artifact.json"))
    for offset, value in ((8, 1), (10, 99)):
        spoilt = bytearray(data)
        spoilt[at + offset] = value
        (tmp_path / "a.zip").write_bytes(spoilt)
        refused(tmp_path / "a.zip", "cannot be read|damaged|compression method 99")


@pytest.mark.any_backend
def test_a_keras_file_is_no_artifact(tmp_path):
    classifier().model.save(tmp_path / "model.keras")
    refused(tmp_path / "model.keras", "entries|The zip of an artifact must hold")


# Another family. ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet():
    """A small ResNet of keras_hub, wrapped as it is."""
    keras_hub = pytest.importorskip("keras_hub", reason="keras_hub is not installed", exc_type=ImportError)
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[3], stackwise_num_filters=[64], stackwise_num_blocks=[1],
        stackwise_num_strides=[1], block_type="basic_block", image_shape=(None, None, 3),
    )  # fmt: skip
    model = keras_hub.models.ResNetImageClassifier(backbone=backbone, num_classes=2)
    random_weights(model)
    for weight in model.non_trainable_weights:  # variances are above 0
        weight.assign(keras.ops.abs(weight) + 0.5)
    return TransferClassifier(model, Preprocessing(16, scale=1 / 255), ["a", "b"])


@pytest.mark.hub
@pytest.mark.parametrize("name", ["resnet", "resnet.zip"])
def test_another_family_is_loaded_with_keras_hub(name, resnet, tmp_path):
    resnet.save(tmp_path / name)
    loaded = TransferClassifier.load(tmp_path / name)
    np.testing.assert_array_equal(loaded.probabilities(IMAGES), resnet.probabilities(IMAGES))
    assert type(loaded.model).__name__ == "ResNetImageClassifier"


@pytest.mark.hub
def test_without_keras_hub_it_says_what_is_missing(resnet, tmp_path, monkeypatch):
    resnet.save(tmp_path / "resnet")
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match=rf"holds a ResNetImageClassifier\. .*{re.escape(install_command('hub'))}$"):
        TransferClassifier.load(tmp_path / "resnet")


LAMBDA = {"class_name": "Lambda", "module": "keras.layers", "registered_name": None, "config": {}}
CODE = {
    "a lambda": LAMBDA,
    "a class of another module": {"class_name": "Popen", "module": "subprocess", "config": {}},
    "a function": {"class_name": "function", "module": "os", "config": "system", "registered_name": "system"},
    "python": {"class_name": "__lambda__", "config": {"value": "x"}},
    "a dotted name": {"class_name": "layers.Lambda", "module": "keras", "config": {}},
    "ours under Keras's module": {
        "class_name": "Patches", "module": "keras.initializers", "registered_name": "keras_vit_edu>Patches",
        "config": {"patch_size": 2},
    },
    "ours": {
        "class_name": "Patches", "module": None, "registered_name": "keras_vit_edu>Patches", "config": {"patch_size": 2}
    },
}  # fmt: skip


@pytest.mark.hub
@pytest.mark.parametrize("described", CODE.values(), ids=CODE)
def test_a_configuration_with_anything_but_keras_hubs_classes_is_refused(described, resnet, tmp_path):
    resnet.save(tmp_path / "resnet")
    changed(tmp_path / "resnet", lambda m: m["architecture"]["config"]["backbone"]["config"].update(name=described))
    refused(tmp_path / "resnet", "it holds no code|may name classes that keras_hub registers")


@pytest.mark.hub
def test_a_configuration_nested_without_end_is_refused(resnet, tmp_path):
    resnet.save(tmp_path / "resnet")
    depth = sys.getrecursionlimit() * 3 // 4
    text = (tmp_path / "resnet" / "artifact.json").read_text()
    nested = depth * '{"a": ' + "1" + depth * "}"
    (tmp_path / "resnet" / "artifact.json").write_text(text.replace('"basic_block"', nested))
    refused(tmp_path / "resnet", "nested too deeply|is damaged")


@pytest.mark.hub
@pytest.mark.parametrize("name", ["keras_hub>GemmaCausalLM", "keras_vit_edu>ViTClassifier", "os>system", None, ["x"]])
def test_a_class_that_is_no_image_classifier_of_keras_hub_is_refused(name, resnet, tmp_path):
    resnet.save(tmp_path / "resnet")
    changed(tmp_path / "resnet", lambda manifest: manifest["architecture"].update(class_name=name))
    refused(tmp_path / "resnet", "must be a class of keras_hub|registers no image classifier")


@pytest.mark.hub
def test_another_number_of_classes_in_another_family(resnet, tmp_path):
    resnet.save(tmp_path / "resnet")
    changed(tmp_path / "resnet", lambda manifest: manifest["class_names"].append("c"))
    refused(tmp_path / "resnet", "3 class names, num_classes=2")
    resnet.save(tmp_path / "resnet")
    changed(tmp_path / "resnet", lambda manifest: manifest["architecture"]["config"].update(pooling="median"))
    refused(tmp_path / "resnet", "cannot rebuild this model: .*median")
