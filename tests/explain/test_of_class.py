"""Explanations of a class: relevance, Grad-CAM, integrated gradients, occlusion, heads, the logit lens."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_vit_edu.explain import (
    grad_cam,
    head_ablation,
    integrated_gradients,
    logit_lens,
    look_inside,
    occlusion,
    relevance,
    target_rows,
)
from keras_vit_edu.layers import ConvStem, MyMultiHeadAttention, PatchEncoder, Patches, TransformerBlock
from keras_vit_edu.layers.hooks import hooked
from keras_vit_edu.models import ViTBackbone, ViTClassifier
from tests.explain.small import SIZES, small_classifier
from tests.support import assert_agree, random_weights, to_numpy

HEADS = [
    {"head": "token", "num_prefix_tokens": 2},
    {"head": "mean", "num_prefix_tokens": 1},
    {"head": "mean_with_prefix", "num_prefix_tokens": 1},
    {"head": "sequence"},
    {"head": "flatten"},
]
each_head = pytest.mark.parametrize("arguments", HEADS, ids=lambda arguments: arguments["head"])


@pytest.fixture
def images(rng):
    return rng.random((2, 8, 12, 3), "float32")


def logit_with_added(model, images, wanted, place, noise, classes):
    """The logits of `classes` with `noise` added to what the hook sees for the `place`-th time."""
    count = iter(range(100))

    def add(layer, name, tensor):
        if wanted(layer, name):
            return tensor + ops.cast(noise, tensor.dtype) if next(count) == place else tensor
        return tensor

    with hooked(add):
        logits = to_numpy(model(images, training=False)).astype("float64")
    return logits[np.arange(len(images)), classes]


def slope(model, images, wanted, place, like, classes, entry):
    """The derivative of a logit for one entry, by a central difference."""
    step = np.zeros_like(like)
    step[(slice(None), *entry)] = 3e-2
    higher, lower = (logit_with_added(model, images, wanted, place, noise, classes) for noise in (step, -step))
    return (higher - lower) / 6e-2


def is_scores(layer, name):
    return name == "scores" and isinstance(layer, MyMultiHeadAttention)


def is_norm(layer, name):
    return name == "normalised"


@pytest.mark.any_backend
@pytest.mark.parametrize("arguments", [HEADS[0], HEADS[1], HEADS[4]], ids=lambda arguments: arguments["head"])
def test_relevance_is_that_of_differences(arguments, images):
    """The gradients by differences of the logits, the rest from the equations, one image and entry at a time."""
    model = small_classifier(**arguments)
    images = images[:1]
    inside = look_inside(model, images)
    classes, count, prefix = inside.output.argmax(axis=1), inside.grid.num_tokens, inside.grid.num_prefix_tokens
    flow = np.eye(count)
    for place, scores in enumerate(inside.scores):
        speaks_for = np.zeros((count, count))
        for h in range(2):
            for t in range(count):
                for s in range(count):
                    gradient = slope(model, images, is_scores, place, scores, classes, (h, t, s))[0]
                    speaks_for[t, s] += max(gradient * scores[0, h, t, s], 0) / 2
        flow = flow + speaks_for @ flow
    final = to_numpy(model.backbone(images))
    places = 2 * len(model.backbone.transformer_blocks)  # the normalisations of the blocks come first
    start = np.zeros(count)
    for t in range(count):
        of_token = [slope(model, images, is_norm, places, final, classes, (t, d))[0] for d in range(8)]
        start[t] = max(of_token @ final[0, t], 0)
    if model.head == "token":
        start = np.eye(count)[0]
    elif not start.any():
        start = np.r_[np.zeros(prefix if model.head == "mean" else 0), np.ones(count)][:count]
    start /= start.sum()
    expected = (start @ flow)[inside.grid.num_prefix_tokens :].reshape(1, 2, 3)
    assert_agree(relevance(model, images), expected, 5e-3)


def test_relevance_of_a_model_without_blocks(images):
    inputs = keras.Input((8, 12, 3))
    tokens = PatchEncoder(6, 8)(Patches(4, data_format="channels_last")(inputs))
    mixed = ops.mean(MyMultiHeadAttention(2, 4)(tokens, tokens), axis=1)
    model = keras.Model(inputs, keras.layers.Dense(3)(mixed))
    random_weights(model)
    found = relevance(model, images)
    assert found.shape == (2, 2, 3)
    assert (found >= 1 / 6).all()  # R begins with I, and all patches count alike


def test_patches_in_another_order_give_the_map_in_that_order(images):
    """Without positions, and with the plain stem."""
    model = small_classifier()
    encoder = model.backbone.get_layer("patch_encoder")
    encoder.position_embedding.assign(np.zeros(encoder.position_embedding.shape))
    order = np.array([3, 0, 5, 1, 4, 2])
    patches = Patches(4, data_format="channels_last")
    moved = to_numpy(patches.restore(to_numpy(patches(images))[:, order], (8, 12)))
    for explain in (relevance, grad_cam, occlusion):
        compared = 0
        for target in range(4):
            before, after = explain(model, images, target=target), explain(model, moved, target=target)
            if before.any():  # Grad-CAM is 0 where nothing speaks for the class
                assert_agree(after.reshape(2, 6), before.reshape(2, 6)[:, order], 1e-4)
                compared += 1
        assert compared


@pytest.mark.any_backend
@pytest.mark.parametrize("block", [0, 1, None])
def test_grad_cam_is_that_of_differences(block, images):
    model = small_classifier(head="token", num_prefix_tokens=1)
    images = images[:1]
    inside = look_inside(model, images)
    place = 1 if block is None else block
    tokens, classes = inside.tokens[place], inside.output.argmax(axis=1)

    def is_token_layer(layer, name):
        return isinstance(layer, (PatchEncoder, TransformerBlock))

    gradient = np.array(
        [
            [slope(model, images, is_token_layer, place, tokens, classes, (t, d))[0] for d in range(8)]
            for t in range(1, 7)
        ]
    )
    expected = np.maximum(tokens[0, 1:] @ gradient.mean(axis=0), 0).reshape(1, 2, 3)
    assert_agree(grad_cam(model, images, block=block), expected, 5e-3)


# Integrated gradients. ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_integrated_gradients_sum_to_the_difference_of_logits(baseline, images):
    model = small_classifier()
    found = integrated_gradients(model, images, target=[2, 0], against=1, baseline=baseline, steps=120)
    logits = [to_numpy(model(x)).astype("float64") for x in (images, np.full_like(images, baseline))]
    whole, nothing = (entry[[0, 1], [2, 0]] - entry[:, 1] for entry in logits)
    assert found.shape == images.shape
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), whole - nothing, atol=1e-3)


@pytest.mark.any_backend
def test_integrated_gradients_by_hand():
    """y = x0 x1 from (0, 0) to (2, 3): each adds the same, x0 x1 / 2."""
    inputs = keras.Input((1, 2, 1))
    flat = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, ops.concatenate([flat[:, :1] * flat[:, 1:], 0 * flat[:, :1]], axis=1))
    found = integrated_gradients(model, np.array([2.0, 3.0]).reshape(1, 1, 2, 1), target=0, steps=7)
    np.testing.assert_allclose(found.ravel(), [3, 3], rtol=1e-6)


# Occlusion. -----------------------------------------------------------------------------------------------------------


@each_head
def test_without_a_token_is_as_if_it_were_not_there(arguments, images):
    """The tokens of the other patches alone go through the blocks and the head."""
    model = small_classifier(**arguments)
    backbone, prefix = model.backbone, arguments.get("num_prefix_tokens", 0)
    target = to_numpy(model(images)).argmax(axis=1)
    tokens = backbone.get_layer("patch_encoder")(backbone.stem(images))
    expected = np.zeros((2, 6))
    whole = to_numpy(model(images))[[0, 1], target]
    for patch in range(6):
        kept = [t for t in range(prefix + 6) if t != prefix + patch]
        x = ops.take(tokens, kept, axis=1)
        for block in backbone.transformer_blocks:
            x = block(x, training=False)
        x = to_numpy(backbone.get_layer("encoder_norm")(x))
        if model.head == "flatten":
            x = np.insert(x, patch, 0.0, axis=1).reshape(2, -1)
        elif model.head == "token":
            x = x[:, 0]
        elif model.head == "sequence":
            x = to_numpy(model.get_layer("sequence_pooling")(x))
        else:
            x = x[:, prefix if model.head == "mean" else 0 :].mean(axis=1)
        expected[:, patch] = whole - to_numpy(model.get_layer("logits")(x))[[0, 1], target]
    assert_agree(occlusion(model, images), expected.reshape(2, 2, 3), 1e-4)


@pytest.mark.any_backend
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_without_pixels_they_are_replaced(data_format, images):
    is_first = data_format == "channels_first"
    images = np.moveaxis(images, -1, 1) if is_first else images
    model = small_classifier(image_shape=images.shape[1:], data_format=data_format, stem=ConvStem((4, 4)))
    found = occlusion(model, images, target=3, without="pixels", value=0.25)
    changed = images.copy()
    where = (slice(None), slice(4, 8), slice(8, 12))  # the last patch
    changed[(slice(None), slice(None), *where[1:]) if is_first else where] = 0.25
    assert_agree(found[:, 1, 2], to_numpy(model(images))[:, 3] - to_numpy(model(changed))[:, 3], 1e-4)


@pytest.mark.any_backend
def test_occlusion_of_another_models_tokens_is_refused(images):
    model = ViTBackbone((8, 12, 3), 4, **SIZES)
    whole = keras.Model(model.input, keras.layers.Dense(2)(model.output[:, 0]))
    with pytest.raises(ValueError, match="Occlusion of tokens needs a `ViTClassifier`"):
        occlusion(whole, images)
    with pytest.raises(ValueError, match="`without` must be one of token, pixels"):
        occlusion(whole, images, without="patch")


# Heads and blocks. ----------------------------------------------------------------------------------------------------


def test_without_a_head_is_with_zeros_in_the_rows_of_its_projection(images):
    model = small_classifier()
    found = head_ablation(model, images, target=2)
    whole = to_numpy(model(images))[:, 2]
    for place, block in enumerate(model.backbone.transformer_blocks):
        kernel = block.attention.out_dense.kernel
        before = to_numpy(kernel)
        for head in range(2):
            changed = before.copy()
            changed[4 * head : 4 * head + 4] = 0
            kernel.assign(changed)
            assert_agree(found[:, place, head], whole - to_numpy(model(images))[:, 2], 1e-4)
        kernel.assign(before)


def test_the_lens_shows_a_model_with_fewer_blocks(images):
    model = small_classifier(head="token", num_prefix_tokens=1)
    shorter = ViTClassifier(
        ViTBackbone((8, 12, 3), 4, **{**SIZES, "num_layers": 1}, num_prefix_tokens=1), 4, "token", ()
    )
    for name in ("patch_encoder", "transformer_block_0", "encoder_norm"):
        shorter.backbone.get_layer(name).set_weights(model.backbone.get_layer(name).get_weights())
    shorter.get_layer("logits").set_weights(model.get_layer("logits").get_weights())
    found = logit_lens(model, images)
    assert_agree(found[:, 1], to_numpy(shorter(images)), 1e-5)
    assert_agree(found[:, 2], to_numpy(model(images)), 1e-5)


# Targets. -------------------------------------------------------------------------------------------------------------


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 4}, "`target` must be 0 to 3. Received: target=4"),
        ({"target": -1}, "`target` must be 0 to 3"),
        ({"target": 1.0}, "`target` must be an int, or one for each of 2 images"),
        ({"target": [1, 2, 3]}, "one for each of 2 images"),
        ({"target": 1, "against": [0, 1]}, "`against` must be another class than `target`. Received: class 1"),
    ],
)
def test_wrong_targets(arguments, message):
    with pytest.raises(ValueError, match=message):
        target_rows(np.zeros((2, 4)), **arguments)


@pytest.mark.any_backend
def test_a_backbone_has_no_classes(images):
    with pytest.raises(ValueError, match="Only a classifier has classes"):
        relevance(ViTBackbone((8, 12, 3), 4, **SIZES), images)


@pytest.mark.any_backend
def test_a_difference_of_two_logits(images):
    model = small_classifier()
    both = occlusion(model, images, target=2, against=0)
    assert_agree(both, occlusion(model, images, target=2) - occlusion(model, images, target=0), 1e-4)
