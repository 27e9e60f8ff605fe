"""The forward pass in JavaScript computes what Keras does, in Node."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import keras_vit_edu
from keras_vit_edu import explain
from keras_vit_edu.layers import ConvStem, RelativePositionBias, ShiftedPatches
from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.models.flat_config import flattened
from tests.explain.small import small_classifier
from tests.support import assert_agree

NODE = shutil.which("node")
pytestmark = [
    pytest.mark.any_backend,
    pytest.mark.skipif(NODE is None, reason="wants Node"),
]
SCRIPT = Path(keras_vit_edu.__file__).parent / "explain" / "page" / "vit.js"

FORWARD = """
const ViT = require(process.argv[1]);
const fs = require("fs");
const folder = process.argv[2];
const given = JSON.parse(fs.readFileSync(`${folder}/given.json`));
const bytes = fs.readFileSync(`${folder}/weights.safetensors`);
const arrays = ViT.readSafetensors(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
const model = new ViT.Model(given.config, arrays);
const found = given.images.map((image) => {
  const { tokens, scores, logits, final, pooling } = model.forward(Float32Array.from(image), given.changes);
  const lens = model.logitLens(tokens);
  const flow = scores[0] ? ViT.rollout(scores, given.config.num_heads, model.count) : [];
  return [tokens, scores, [logits], [final], pooling ? [pooling] : [], lens, [flow]]
    .map((list) => list.map((x) => x && Array.from(x)));
});
console.log(JSON.stringify(found));
"""


def in_javascript(model, images, folder, changes=None, weights_dtype="float32"):
    """Tokens, scores, logits, final tokens, pooling, lens and rollout of each image."""
    model.save_to_preset(folder, weights_dtype=weights_dtype, overwrite=True)
    given = {
        "config": flattened(json.loads((folder / "config.json").read_text())["config"]),
        "images": [image.ravel().tolist() for image in images],
        "changes": changes or {},
    }
    (folder / "given.json").write_text(json.dumps(given))
    done = subprocess.run([NODE, "-e", FORWARD, str(SCRIPT), str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


MODELS = [
    {},
    {"head": "token", "num_prefix_tokens": 2, "output_activation": "gelu"},
    {"head": "mean_with_prefix", "num_prefix_tokens": 1, "use_bias": False, "activation": "relu"},
    {"head": "flatten", "head_units": (5,), "stem": ShiftedPatches(4)},
    {"head": "sequence", "stem": ConvStem((3, 4)), "position_bias": RelativePositionBias(locality=1.0)},
    {"stem": ConvStem((3, 4), strides=(1, 2), pools=(2, 1), normalization="layer"), "num_prefix_tokens": 1},
]


@pytest.mark.parametrize("arguments", MODELS, ids=[str(i) for i in range(len(MODELS))])
def test_tokens_scores_and_logits_are_those_of_keras(arguments, rng, tmp_path):
    model = small_classifier(**arguments)
    images = rng.random((2, 8, 12, 3), "float32")
    inside = explain.look_inside(model, images)
    lens = explain.logit_lens(model, images, inside)
    flow = explain.rollout(inside.scores)
    for i, found in enumerate(in_javascript(model, images, tmp_path)):
        tokens, scores, (logits,), (final,), pooling, of_lens, (rolled,) = found
        for ours, theirs in zip(inside.tokens, tokens, strict=True):
            assert_agree(np.array(theirs).reshape(ours[i].shape), ours[i], 1e-5)
        for ours, theirs in zip(inside.scores, scores, strict=True):
            assert_agree(np.array(theirs).reshape(ours[i].shape), ours[i], 1e-5)
        assert_agree(np.array(final).reshape(inside.final[i].shape), inside.final[i], 1e-5)
        assert_agree(np.array(logits), inside.output[i], 1e-5)
        assert_agree(np.array(of_lens), lens[i], 1e-5)
        assert_agree(np.array(rolled).reshape(flow[i].shape), flow[i], 1e-5)
        if inside.pooling is not None:
            assert_agree(np.array(pooling[0]), inside.pooling[i], 1e-5)


@pytest.mark.parametrize("name", ["vit_mnist_pure", "vit_mnist_hybrid"])
def test_a_trained_preset_with_its_float16_weights(name, tmp_path):
    from keras_vit_edu import datasets

    model = ViTClassifier.from_preset(name)
    images = datasets.load("mnist-sample").x_test[:4] / np.float32(255)
    inside = explain.look_inside(model, images)
    for i, found in enumerate(in_javascript(model, images, tmp_path, weights_dtype="float16")):
        assert_agree(np.array(found[2][0]), inside.output[i], 1e-5)
        for ours, theirs in zip(inside.scores, found[1], strict=True):
            assert_agree(np.array(theirs).reshape(ours[i].shape), ours[i], 1e-5)


def test_a_hidden_patch_is_occlusion_and_a_head_that_is_off_is_ablation(rng, tmp_path):
    for arguments in ({"head": "mean", "num_prefix_tokens": 1}, {"head": "sequence"}, {"head": "flatten"}):
        model = small_classifier(**arguments)
        images = rng.random((1, 8, 12, 3), "float32")
        whole = explain.look_inside(model, images).output[0]
        lost = explain.occlusion(model, images, target=2).ravel()
        ((_, _, (logits,), *_),) = in_javascript(model, images, tmp_path, {"hidden": [0, 0, 0, 1, 0, 0]})
        assert_agree(whole[2] - logits[2], lost[3], 1e-4)
        ablated = explain.head_ablation(model, images, target=2)
        ((_, _, (logits,), *_),) = in_javascript(model, images, tmp_path, {"off": [[0, 0], [0, 1]]})
        assert_agree(whole[2] - logits[2], ablated[0, 1, 1], 1e-4)


def test_other_positions_and_no_blocks(rng, tmp_path):
    model = small_classifier(head="mean", num_prefix_tokens=1)
    images = rng.random((1, 8, 12, 3), "float32")
    encoder = model.backbone.get_layer("patch_encoder")
    positions = np.array(encoder.position_embedding)
    order = [2, 0, 1, 5, 4, 3]
    ((_, _, (shuffled,), *_),) = in_javascript(model, images, tmp_path, {"order": order})
    ((_, _, (without,), *_),) = in_javascript(model, images, tmp_path, {"order": None})
    ((_, scores, (skipped,), _, _, lens, _),) = in_javascript(model, images, tmp_path, {"skip": [1, 1]})
    assert scores == [None, None]
    assert_agree(np.array(skipped), np.array(lens[0]), 1e-12)
    encoder.position_embedding.assign(positions[[0, *(1 + np.array(order))]])
    assert_agree(np.array(shuffled), explain.look_inside(model, images).output[0], 1e-5)
    encoder.position_embedding.assign(np.r_[positions[:1], 0 * positions[1:]])
    assert_agree(np.array(without), explain.look_inside(model, images).output[0], 1e-5)


def test_the_error_function_and_float16():
    points = np.r_[np.linspace(-7, 7, 2001), 0.84375, 1.25, 1 / 0.35, 1e-300, 6.0]
    halves = list(range(0, 65536, 7))
    code = f"""
    const ViT = require({json.dumps(str(SCRIPT))});
    const [points, halves] = {json.dumps([points.tolist(), halves])};
    console.log(JSON.stringify([points.map(ViT.erf), halves.map((bits) => String(ViT.fromHalf(bits)))]));
    """
    done = subprocess.run([NODE, "-e", code], capture_output=True, text=True, check=True)
    found, numbers = json.loads(done.stdout)
    np.testing.assert_allclose(found, [math.erf(x) for x in points], rtol=4e-16)
    expected = np.array(halves, "uint16").view("float16").astype("float64")
    np.testing.assert_array_equal(np.array([float(text.replace("Infinity", "inf")) for text in numbers]), expected)
