"""Artifacts and presets of a stranger: sizes, numbers that are none, pipes, names with control characters."""

import hashlib
import io
import json
import os
import sys

import numpy as np
import pytest
import safetensors.numpy

from keras_vit_edu import _tensor_file
from keras_vit_edu.models import ViTBackbone, ViTClassifier
from keras_vit_edu.transfer import ArtifactError, Preprocessing, TransferClassifier
from tests.support import opened_vit, vit_classifier
from tests.untrusted.test_building import SMALL, resident

pytestmark = pytest.mark.any_backend


@pytest.fixture
def folder(tmp_path):
    sizes = {"num_layers": 1, "num_heads": 2, "key_dim": 3, "mlp_dim": 8, "num_prefix_tokens": 1}
    model = opened_vit(ViTBackbone((16, 16, 3), 8, 6, **sizes), 2)
    TransferClassifier(model, Preprocessing(16, scale=1 / 255), ["cat", "dog"]).save(tmp_path / "a")
    return tmp_path / "a"


@pytest.fixture
def preset(tmp_path):
    vit_classifier(**SMALL).save_to_preset(tmp_path / "preset", {"class_names": list("0123456789")})
    return tmp_path / "preset"


def edited(file, change):
    content = json.loads(file.read_bytes())
    change(content)
    file.write_text(json.dumps(content))


def with_weights(folder, data):
    """Put another file of weights in, told of rightly."""
    (folder / "weights.safetensors").write_bytes(data)
    said = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if (folder / "artifact.json").exists():
        edited(folder / "artifact.json", lambda manifest: manifest["weights"].update(said))
    else:
        edited(folder / "metadata.json", lambda known: known.update(weights_sha256=said["sha256"]))


def spoiled(folder, value):
    """The weights in a file, one number of them changed."""
    arrays = safetensors.numpy.load((folder / "weights.safetensors").read_bytes())
    last = sorted(arrays)[-1]
    arrays[last] = arrays[last].copy()
    arrays[last].ravel()[-1] = value
    return safetensors.numpy.save(arrays)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(value, folder, preset):
    with_weights(folder, spoiled(folder, value))
    with pytest.raises(ArtifactError, match=r"Weights are finite numbers.*NaN or infinity"):
        TransferClassifier.load(folder)
    with_weights(preset, spoiled(preset, value))
    with pytest.raises(ValueError, match=r"Weights are finite numbers.*NaN or infinity"):
        ViTClassifier.from_preset(preset)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_not_finite(text, folder, preset):
    for file, field, load in [
        (folder / "artifact.json", b'"scale": ', lambda: TransferClassifier.load(folder)),
        (preset / "config.json", b'"layer_norm_epsilon": ', lambda: ViTClassifier.from_preset(preset)),
        (preset / "metadata.json", b'"parameters": ', lambda: ViTClassifier.from_preset(preset)),
    ]:
        before = file.read_bytes()
        file.write_bytes(before.replace(field, field + text.encode() + b', "x": ', 1))
        with pytest.raises(ValueError, match=r"is no JSON|beyond all floats"):
            load()
        file.write_bytes(before)


def test_pixels_that_no_model_takes(folder):
    edited(folder / "artifact.json", lambda manifest: manifest["preprocessing"].update(image_size=[100_000, 100_000]))
    with pytest.raises(ArtifactError, match="at most 4,096 pixels"):
        TransferClassifier.load(folder)


@pytest.mark.parametrize("name", ["artifact.json", "weights.safetensors", "config.json", "metadata.json"])
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(name, folder, preset):
    for place in (folder, preset):
        if (place / name).exists():
            (place / name).unlink()
            os.mkfifo(place / name)
    with pytest.raises(ValueError, match=r"lacks|missing|regular file"):
        TransferClassifier.load(folder) if name == "artifact.json" else ViTClassifier.from_preset(preset)


# keras_hub's. ---------------------------------------------------------------------------------------------------------

VIT = {"image_shape": [32, 32, 3], "patch_size": [4, 4], "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 8}


@pytest.mark.hub
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux tells of it")
@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_dim": 20_000, "mlp_dim": 20_000},
        {"num_layers": 10**6},
        {"num_layers": 10**9},
        {"num_layers": 5000, "hidden_dim": 2, "mlp_dim": 1},
        {"hidden_dim": 10**6},
        {"image_shape": [10**6, 10**6, 3]},
        {"image_shape": [10**5, 10**5, 3], "patch_size": [10**5, 10**5]},
        {"num_heads": 10**6},
        {"mlp_dim": 10**400},
    ],
    ids=str,
)
def test_a_model_of_keras_hub_that_is_larger_than_its_weights(sizes, folder):
    pytest.importorskip("keras_hub")
    backbone = {
        "module": "keras_hub.src.models.vit.vit_backbone",
        "class_name": "ViTBackbone",
        "config": {**VIT, **sizes},
        "registered_name": "keras_hub>ViTBackbone",
    }
    described = {
        "kind": "keras_hub",
        "class_name": "keras_hub>ViTImageClassifier",
        "config": {"num_classes": 2, "backbone": backbone},
    }
    edited(folder / "artifact.json", lambda manifest: manifest.update(architecture=described))
    before = resident()
    with pytest.raises(ArtifactError) as error:
        TransferClassifier.load(folder)
    assert "\n" not in str(error.value)
    assert resident() - before < 500


# The file of the weights. ---------------------------------------------------------------------------------------------


def header_of(content, data=b""):
    text = json.dumps(content).encode() if not isinstance(content, bytes) else content
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no header"),
        ((1 << 62).to_bytes(8, "little"), "no header"),
        (header_of(b"[" * 10_000), "nested too deep"),
        (header_of([]), "no object"),
        (header_of({}), "1 to"),
        (header_of({"a": 5}), "lacks the dtype"),
        (header_of({"a": entry(shape=(10**12,), offsets=(0, 4 * 10**12))}), "the file has 0"),
        (header_of({"a": entry(shape=(10**12,))}, b"0000"), "another size"),
        (header_of({"a": entry(shape=(0,), offsets=(0, 0))}), "no weight has"),
        (header_of({"a": entry(shape=(-1,), offsets=(0, -4))}), "no weight has"),
        (header_of({"a": entry(shape=(1,) * 100)}, b"0000"), "no weight has"),
        (header_of({"a": entry(shape=("1",))}, b"0000"), "must be whole numbers"),
        (header_of({"a": entry(), "b": entry()}, b"0000"), "gaps between its arrays, or they overlap"),
        (header_of({"a": entry(), "b": entry(offsets=(8, 12))}, b"0" * 12), "gaps between its arrays, or they overlap"),
        (header_of({"a": entry()}, b"00000"), "has 5"),
        (header_of({"a": entry("F64", offsets=(0, 8)), "b": entry(offsets=(8, 12))}, b"0" * 12), "float32 and float64"),
        (header_of({"a": entry("X")}, b"0000"), "of dtype 'X'"),
        (header_of({str(i): entry(offsets=(4 * i, 4 * i + 4)) for i in range(2000)}, b"0" * 8000), "arrays"),
    ],
)  # fmt: skip
def test_a_header_that_is_none(data, reason):
    checksum = hashlib.sha256(data).hexdigest()
    with io.BytesIO(data) as stream, pytest.raises(ValueError, match=reason):
        _tensor_file.verified(stream, len(data), "w", "m", checksum, "float32", ("float32",))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_safetensors_wrote_is_read(dtype, rng):
    arrays = {
        f"{i}/kernel": rng.normal(size=shape).astype(dtype) for i, shape in enumerate([(3, 5), (7,), (), (1, 1, 2)])
    }
    data = safetensors.numpy.save(arrays, metadata={"part_of": "a test"})
    with io.BytesIO(data) as stream:
        header = _tensor_file.verified(
            stream, len(data), "w", "m", hashlib.sha256(data).hexdigest(), dtype, ("float32", "float16")
        )
        stream.seek(0)
        found = dict(_tensor_file.arrays(stream, header))
    assert header.elements == 15 + 7 + 1 + 2
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array.astype("float32"))
