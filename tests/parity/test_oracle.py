"""The float64 oracle, against cases worked out by hand: it is what everything else is measured by."""

import math
import os
import subprocess
import sys
from statistics import NormalDist

import numpy as np
import pytest

from keras_vit_edu.parity import oracle

pytestmark = pytest.mark.any_backend

LOG_3 = math.log(3)
FOLDER = os.path.dirname(oracle.__file__)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-14)
    assert np.asarray(actual).dtype == np.float64


def test_it_knows_neither_keras_nor_our_layers():
    # Packages that are empty but for their folders, so that only the oracle's own imports are followed.
    code = (
        "import sys, types\n"
        "for name, folder in (('keras_vit_edu', '..'), ('keras_vit_edu.parity', '.')):\n"
        f"    sys.modules[name] = types.ModuleType(name); sys.modules[name].__path__ = [{FOLDER!r} + '/' + folder]\n"
        "import keras_vit_edu.parity.oracle\n"
        "print(*sys.modules)"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in modules
    assert not {"keras", "tensorflow", "torch", "jax"} & set(modules)
    ours = {name for name in modules if name.startswith("keras_vit_edu.") and name != "keras_vit_edu.parity"}
    assert ours == {"keras_vit_edu.parity.oracle", "keras_vit_edu.parity.oracle_pieces"}


def test_within_gives_a_child_its_weights_by_the_paths_inside_of_it():
    weights = {"attention/q_dense/kernel": 1, "attention/q_dense/bias": 2, "attention_norm/gamma": 3}
    assert oracle.within(weights, "attention") == {"q_dense/kernel": 1, "q_dense/bias": 2}


def test_dense():
    weights = {"kernel": np.array([[1, 2, 3], [4, 5, 6]]), "bias": np.array([10, 20, 30])}
    close(oracle.dense(weights, np.array([[1, 1], [0, 2]])), [[15, 27, 39], [18, 30, 42]])
    close(oracle.dense({"kernel": weights["kernel"]}, np.array([1, 1])), [5, 7, 9])


def test_float32_arguments_are_computed_with_in_float64():
    third = np.float32(1) / np.float32(3)
    close(oracle.dense({"kernel": np.array([[third]])}, np.array([[third]])), [[float(third) ** 2]])


def test_layer_norm():
    weights = {"gamma": np.array([1.0, 2.0]), "beta": np.array([0.0, 5.0])}
    # mean 2, variance 4; epsilon 5 makes the denominator 3
    close(oracle.layer_norm(weights, np.array([[0.0, 4.0]]), epsilon=5), [[-2 / 3, 4 / 3 + 5]])


@pytest.mark.parametrize("x", [-3.0, -1.0, 0.0, 0.5, 2.0])
def test_gelu_is_x_times_the_normal_distribution_function(x):
    close(oracle.gelu(np.array([x])), [x * NormalDist().cdf(x)])


def test_softmax():
    close(oracle.softmax(np.array([[0, LOG_3], [5, 5]])), [[0.25, 0.75], [0.5, 0.5]])
    close(oracle.softmax(np.array([1000.0, 1000.0 + LOG_3])).round(12), [0.25, 0.75])


def test_the_activations_that_have_names():
    x = np.array([-1.0, 2.0])
    close(oracle.ACTIVATIONS[None](x), x)
    close(oracle.ACTIVATIONS["linear"](x), x)
    close(oracle.ACTIVATIONS["relu"](x), [0, 2])
    close(oracle.ACTIVATIONS["tanh"](x), [math.tanh(-1), math.tanh(2)])
    assert oracle.ACTIVATIONS["gelu"] is oracle.gelu


def test_dropout_scales_what_it_keeps():
    close(oracle.dropout(np.array([3.0, 6.0]), np.array([True, False]), rate=0.25), [4, 0])


# Attention. -----------------------------------------------------------------------------------------------------------

QUERY = np.array([[[[2 * LOG_3, 0, 0, 0]]]])  # (1, 1, 1, 4): divided by sqrt(4), its products with the keys are
KEY = np.array([[[[0, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0]]]])  # 0, log 3 and 2 log 3, whose exponentials are 1, 3, 9


def test_attention_weights_divide_by_the_root_of_the_heads_size():
    close(oracle.attention_weights(QUERY, KEY), [[[[1 / 13, 3 / 13, 9 / 13]]]])


def test_a_hidden_key_gets_nothing_and_the_others_share():
    close(oracle.attention_weights(QUERY, KEY, np.array([True, True, False])), [[[[1 / 4, 3 / 4, 0]]]])


def test_a_query_that_may_attend_to_nothing_spreads_evenly():
    close(oracle.attention_weights(QUERY, KEY, np.array([False, False, False])), [[[[1 / 3, 1 / 3, 1 / 3]]]])


def test_all_masks_must_hold_together():
    one_hidden = np.array([[True, True, False]])
    mask = oracle.combined_mask(
        (1, 2, 3, 3),
        query_mask=one_hidden,  # hides row 2
        value_mask=np.array([[False, True, True]]),  # hides column 0
        key_mask=np.array([[1, 1, 1]]),
        attention_mask=np.array([[[1, 1, 1], [1, 0, 1], [1, 1, 1]]]),  # hides (1, 1)
        use_causal_mask=True,  # hides (0, 1), (0, 2), (1, 2)
    )
    assert not mask.any()
    mask = oracle.combined_mask((1, 2, 3, 3), query_mask=one_hidden, use_causal_mask=True)
    assert mask.tolist() == [[[[True, False, False], [True, True, False], [False, False, False]]] * 2]


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3), (4, 2, 3), (4, 1, 2, 3), (4, 5, 2, 3), (1, 5, 1, 1)])
def test_an_attention_mask_of_rank_3_has_a_batch_and_one_of_rank_4_heads_too(shape):
    given = np.arange(math.prod(shape)).reshape(shape) % 3 == 0
    mask = oracle.combined_mask((4, 5, 2, 3), attention_mask=given)
    for b, h, t, s in np.ndindex(4, 5, 2, 3):
        index = {2: (t, s), 3: (b, t, s), 4: (b, h, t, s)}[len(shape)]
        within_shape = tuple(min(i, size - 1) for i, size in zip(index, shape, strict=True))
        assert mask[b, h, t, s] == given[within_shape]


def attention_by_hand(**arguments):
    """Two heads of size 1 on tokens of width 2, everything the identity but the query, which is multiplied by log 3."""
    eye = np.eye(2)
    weights = {f"{name}_dense/kernel": eye for name in ("k", "v", "out")} | {"q_dense/kernel": LOG_3 * eye}
    tokens = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    return oracle.multi_head_attention(weights, tokens, tokens, num_heads=2, **arguments)


def test_each_head_attends_with_its_own_slice():
    output, scores = attention_by_hand()
    # Head 0 sees queries, keys and values 1, 0; head 1 sees 0, 1. A product of log 3 is worth 3 to 1, one of 0 1 to 1.
    close(scores, [[[[3 / 4, 1 / 4], [1 / 2, 1 / 2]], [[1 / 2, 1 / 2], [1 / 4, 3 / 4]]]])
    close(output, [[[3 / 4, 1 / 2], [1 / 2, 3 / 4]]])


def test_masks_reach_attention():
    output, _ = attention_by_hand(use_causal_mask=True)
    close(output, [[[1, 0], [1 / 2, 3 / 4]]])


def test_dropped_scores_carry_no_value_and_are_returned_as_they_were():
    keep = np.array([[[[True, False], [True, True]], [[False, False], [True, True]]]])
    output, scores = attention_by_hand(keep=keep, rate=0.5)
    close(output, [[[3 / 2, 0], [1, 3 / 2]]])
    close(scores, attention_by_hand()[1])


def test_keys_may_differ_from_values():
    weights = {f"{name}_dense/kernel": np.eye(1) for name in ("q", "k", "v", "out")}
    output, _ = oracle.multi_head_attention(
        weights, np.array([[[LOG_3]]]), np.array([[[8.0], [4.0]]]), np.array([[[0.0], [1.0]]]), num_heads=1
    )
    close(output, [[[8 / 4 + 4 * 3 / 4]]])


# Block and model. -----------------------------------------------------------------------------------------------------


def test_the_mlp_applies_one_activation_or_two():
    weights = {"mlp_hidden/kernel": np.array([[1.0, -1.0]]), "mlp_output/kernel": np.array([[1.0], [-4.0]])}
    x = np.array([[2.0], [-3.0]])
    close(oracle.mlp(weights, x, "relu"), [[2], [-12]])
    close(oracle.mlp(weights, x, "relu", "relu"), [[2], [0]])


def block_weights(width):
    """Attention and MLP that give only their biases, 0.5 and 0.25."""
    kernels = {f"attention/{name}_dense/kernel": np.zeros((width, width)) for name in ("q", "k", "v", "out")}
    kernels |= {f"mlp_{name}/kernel": np.zeros((width, width)) for name in ("hidden", "output")}
    norms = {
        f"{norm}_norm/{weight}": np.full(width, value)
        for norm in ("attention", "mlp")
        for weight, value in (("gamma", 1.0), ("beta", 0.0))
    }
    return kernels | norms | {"attention/out_dense/bias": np.full(width, 0.5), "mlp_output/bias": np.full(width, 0.25)}


def test_a_block_adds_attention_and_mlp_to_the_tokens():
    tokens = np.array([[[1.0, 3.0], [7.0, 5.0]]])
    output, scores = oracle.transformer_block(block_weights(2), tokens, num_heads=1)
    close(output, tokens + 0.75)
    close(scores, [[[[0.5, 0.5], [0.5, 0.5]]]])


def test_a_block_normalises_before_attention_and_before_the_mlp():
    weights = block_weights(2)
    for name in ("attention/v_dense", "attention/out_dense", "mlp_hidden", "mlp_output"):
        weights[f"{name}/kernel"] = np.eye(2)
    # The norm of (1, 3) is (-1, 1). Attention, of one token to itself, gives it on, plus 0.5: (1.5 - 1, 3.5 + 1).
    # The norm of (0.5, 4.5) is (-1, 1) again, of which relu leaves (0, 1), plus 0.25.
    output, _ = oracle.transformer_block(
        weights, np.array([[[1.0, 3.0]]]), num_heads=1, activation="relu", epsilon=0, use_causal_mask=True
    )
    close(output, [[[0.5 + 0.25, 4.5 + 1 + 0.25]]])


def test_patches_come_in_reading_order():
    images = np.arange(12).reshape(1, 2, 3, 2)  # pixels (0, 1) (2, 3) (4, 5) / (6, 7) (8, 9) (10, 11)
    assert oracle.patches(images, (2, 1)).tolist() == [[[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]]
    assert oracle.patches(images, (1, 3)).tolist() == [[[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]]
    assert oracle.patches(images, 1).tolist() == [[[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]]


def test_the_patch_encoder_puts_prefix_tokens_first_and_adds_positions():
    weights = {
        "projection/kernel": np.array([[2.0]]),
        "projection/bias": np.array([1.0]),
        "position_embedding": np.array([[100.0], [200.0], [300.0]]),
    }
    patches = np.array([[[1.0], [2.0]], [[3.0], [4.0]]])
    close(oracle.patch_encoder(weights | {"prefix_tokens": np.array([[7.0]])}, patches),
          [[[107], [203], [305]], [[107], [207], [309]]])  # fmt: skip
    weights["position_embedding"] = np.array([[10.0], [20.0]])
    close(oracle.patch_encoder(weights, patches), [[[13], [25]], [[17], [29]]])


def test_shifted_patches_see_the_image_and_its_four_moves():
    image = np.arange(1.0, 17.0).reshape(1, 4, 4, 1)
    top_left = oracle.shifted_patches(image, 2)[0, 0].reshape(2, 2, 5)  # moves of one pixel, half a patch
    close(top_left[..., 0], [[1, 2], [5, 6]])
    close(top_left[..., 1], [[6, 7], [10, 11]])  # up and left
    close(top_left[..., 2], [[0, 5], [0, 9]])  # up and right
    close(top_left[..., 3], [[0, 0], [2, 3]])  # down and left
    close(top_left[..., 4], [[0, 0], [0, 1]])  # down and right


def test_the_bias_depends_on_the_offset_of_key_and_query():
    table = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])  # a key one place before the query, the query, one after
    close(oracle.relative_position_bias(table, (1, 2), 2), [[[2, 3], [1, 2]], [[5, 6], [4, 5]]])
    close(oracle.relative_position_bias(table, (2, 1), 3)[0], [[0, 0, 0], [0, 2, 3], [0, 1, 2]])  # a class token first
    above, before = np.zeros((1, 9)), np.zeros((1, 9))
    above[0, 1], before[0, 3] = 1, 1  # of 3x3 offsets in reading order
    bottom_right = (0, 3)
    close(oracle.relative_position_bias(above, (2, 2), 4)[bottom_right], [0, 1, 0, 0])
    close(oracle.relative_position_bias(before, (2, 2), 4)[bottom_right], [0, 0, 1, 0])


def test_a_bias_is_added_before_the_softmax():
    zeros = np.zeros((1, 1, 1, 2))
    close(oracle.attention_weights(zeros, np.zeros((1, 1, 2, 2)), bias=np.log([1.0, 3.0])), [[[[0.25, 0.75]]]])


CONFIG = {
    "patch_size": 1,
    "num_layers": 2,
    "num_heads": 1,
    "activation": "gelu",
    "output_activation": None,
    "layer_norm_epsilon": 0.0,
    "data_format": "channels_last",
    "num_prefix_tokens": 1,
}
HEAD = {"backbone": {"config": CONFIG}, "head_units": (), "head_activation": "relu"}


def model_weights():
    """A class token (0, 2), a patch (1, 3) for pixel 0 and one (5, 1) for pixel 1; blocks that change no direction."""
    blocks = {f"transformer_block_{i}/{path}": w for i in range(2) for path, w in block_weights(2).items()}
    return blocks | {
        "patch_encoder/projection/kernel": np.array([[1.0, -1.0]]),
        "patch_encoder/prefix_tokens": np.array([[0.0, 0.0]]),
        "patch_encoder/position_embedding": np.array([[0.0, 2.0], [1.0, 3.0], [4.0, 2.0]]),
        "encoder_norm/gamma": np.array([1.0, 3.0]),
        "encoder_norm/beta": np.array([0.0, 0.0]),
    }


IMAGE = np.array([[[[0.0], [1.0]]]])  # one row of two pixels
# Each block adds 0.75 to every number, which the last norm takes away again: (0, 2), (1, 3), (5, 1) become
TOKENS = [[[-1, 3], [-1, 3], [1, -3]]]


def test_the_backbone_is_patches_encoder_blocks_and_a_norm():
    close(oracle.vit_backbone(model_weights(), IMAGE, CONFIG), TOKENS)


def test_every_block_is_applied():
    weights = model_weights()
    weights["transformer_block_1/mlp_output/bias"] = np.array([4.0, 0.0])
    close(oracle.vit_backbone(weights, IMAGE, CONFIG), [[[1, -3], [1, -3], [1, -3]]])


def test_channels_first():
    config = {**CONFIG, "data_format": "channels_first"}
    close(oracle.vit_backbone(model_weights(), IMAGE.transpose(0, 3, 1, 2), config), TOKENS)


@pytest.mark.parametrize(
    ("head", "kernel", "logits"),
    [
        ("flatten", [[1], [10], [100], [1000], [10000], [100000]], -1 + 30 - 100 + 3000 + 10000 - 300000),
        ("token", [[1], [10]], -1 + 30),
        ("mean", [[1], [10]], 0),
    ],
)
def test_heads(head, kernel, logits):
    weights = model_weights() | {"logits/kernel": np.array(kernel), "logits/bias": np.array([0.5])}
    close(oracle.vit_classifier(weights, IMAGE, {**HEAD, "head": head}), [[logits + 0.5]])


def test_the_mean_leaves_prefix_tokens_out():
    weights = model_weights() | {"logits/kernel": np.array([[1], [10]])}
    weights["patch_encoder/position_embedding"] = np.array([[0.0, 2.0], [3.0, 1.0], [4.0, 2.0]])
    close(oracle.vit_classifier(weights, IMAGE, {**HEAD, "head": "mean"}), [[1 - 30]])


def test_dense_layers_before_the_logits():
    weights = model_weights() | {
        "head_dense_0/kernel": np.array([[1.0, -1.0], [0.0, 0.0]]),
        "head_dense_1/kernel": np.array([[-1.0, 2.0], [2.0, -1.0]]),
        "logits/kernel": np.array([[1.0], [10.0]]),
    }
    # (-1, 3) to relu(-1, 1) = (0, 1), to relu(2, -1) = (2, 0), to 2
    close(oracle.vit_classifier(weights, IMAGE, {**HEAD, "head": "token", "head_units": (2, 2)}), [[2]])


# Gradients. -----------------------------------------------------------------------------------------------------------


def test_gradient_of_a_quadratic_form():
    matrix = np.array([[2.0, 1.0], [0.0, 3.0]])
    x = np.array([1.0, -2.0])
    gradient = oracle.gradient(lambda x: x @ matrix @ x, x)
    np.testing.assert_allclose(gradient, (matrix + matrix.T) @ x, atol=1e-9)


def test_attention_is_smooth_enough_to_differentiate_by_differences():
    rng = np.random.default_rng(0)
    weights = {f"{name}_dense/kernel": rng.normal(size=(4, 4)) for name in ("q", "k", "v", "out")}
    tokens, cotangent = rng.normal(size=(1, 3, 4)), rng.normal(size=(1, 3, 4))

    def loss(tokens):
        return (oracle.multi_head_attention(weights, tokens, tokens, num_heads=2)[0] * cotangent).sum()

    fine, coarse = (oracle.gradient(loss, tokens, step) for step in (1e-5, 1e-4))
    np.testing.assert_allclose(fine, coarse, rtol=0, atol=1e-6 * np.abs(fine).max())
