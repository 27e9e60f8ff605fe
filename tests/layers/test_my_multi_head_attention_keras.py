"""`MyMultiHeadAttention` and `keras.layers.MultiHeadAttention`: weights both ways, the same numbers."""

import keras
import numpy as np
import pytest

from keras_vit_edu.initializers import GlorotUniform
from keras_vit_edu.layers import MyMultiHeadAttention
from keras_vit_edu.parity import output_and_gradients
from tests.support import assert_agree, on_one_backend, random_weights, relative_difference, to_numpy

B, T, S = 2, 6, 5
DQ, DV, DK = 10, 7, 8
HEADS, HEAD_SIZE = 3, 4

_rng = np.random.default_rng(0)
QUERY, VALUE, KEY, OTHERS = (
    _rng.normal(size=shape).astype("float32") for shape in ((B, T, DQ), (B, S, DV), (B, S, DK), (B, S, DQ))
)


def _mask(*shape):
    """Key 1 stays visible to every query: about rows that hide every key the two do not agree."""
    return (_rng.random(shape) < 0.6) | (np.arange(shape[-1]) == 1)


# Inputs, constructor arguments, call arguments.
CASES = {
    "self-attention": ((QUERY, QUERY), {}, {}),
    "cross-attention": ((QUERY, OTHERS), {}, {}),
    "value and key of their own": ((QUERY, VALUE, KEY), {}, {}),
    "mask (T, S)": ((QUERY, VALUE, KEY), {}, {"attention_mask": _mask(T, S)}),
    "mask (B, T, S)": ((QUERY, VALUE, KEY), {}, {"attention_mask": _mask(B, T, S)}),
    "mask (B, h, T, S)": ((QUERY, VALUE, KEY), {}, {"attention_mask": _mask(B, HEADS, T, S)}),
    "value and key mask": ((QUERY, VALUE, KEY), {}, {"value_mask": _mask(B, S), "key_mask": _mask(B, S)}),
    "causal": ((QUERY, QUERY), {}, {"use_causal_mask": True}),
    "causal cross-attention": ((QUERY, VALUE, KEY), {}, {"use_causal_mask": True}),
    "causal and a mask": (
        (QUERY, QUERY),
        {},
        {"use_causal_mask": True, "attention_mask": _mask(T, T) | np.eye(T, dtype=bool)},
    ),
    "no bias": ((QUERY, VALUE, KEY), {"use_bias": False}, {"attention_mask": _mask(T, S)}),
    "heads wider than the tokens": ((QUERY, VALUE), {"key_dim": 9}, {"attention_mask": _mask(T, S)}),
    # Keras's fused path fails on JAX if values are not of the size of keys. A dropout, asleep, keeps Keras off it.
    "value_dim": ((QUERY, VALUE, KEY), {"value_dim": 5, "dropout": 0.4}, {"attention_mask": _mask(T, S)}),
    "output_shape": ((QUERY, VALUE, KEY), {"output_shape": 9}, {"attention_mask": _mask(T, S)}),
}

FEW = ("cross-attention", "mask (B, h, T, S)", "causal and a mask", "value_dim", "output_shape")

in_every_case = pytest.mark.parametrize(("inputs", "arguments", "call_arguments"), CASES.values(), ids=CASES)
in_few_cases_on_each_backend = pytest.mark.parametrize(
    ("inputs", "arguments", "call_arguments"),
    [case if name in FEW else on_one_backend(case)[0] for name, case in CASES.items()],
    ids=CASES,
)
from_either_side = pytest.mark.parametrize("direction", ["from_keras", "to_keras"])


def pair(direction, inputs, **arguments):
    """Keras's layer and ours, one with random weights and the other made from it."""
    # Zeros, because drawing weights of every shape takes JAX seconds, and they are replaced anyway.
    defaults = {"num_heads": HEADS, "key_dim": HEAD_SIZE, "dropout": 0.0, "kernel_initializer": "zeros"}
    arguments = {**defaults, **arguments}
    cls = keras.layers.MultiHeadAttention if direction == "from_keras" else MyMultiHeadAttention
    source = cls(**arguments)
    source.build(*(x.shape for x in inputs))
    random_weights(source, scale=0.6)
    if direction == "from_keras":
        return source, MyMultiHeadAttention.from_keras(source)
    return source.to_keras(), source


def denses(layer):
    if isinstance(layer, MyMultiHeadAttention):
        return layer.q_dense, layer.k_dense, layer.v_dense, layer.out_dense
    return layer.query_dense, layer.key_dense, layer.value_dense, layer.output_dense


def flat_gradients(layer, inputs, call_arguments, cotangent, **more):
    """Gradients of the inputs, then of kernel and bias of query, key, value and output, each flattened."""

    def call(layer, *inputs):
        return layer(*inputs, **call_arguments, **more)

    _, of_inputs, of_weights = output_and_gradients(layer, inputs, cotangent, call)
    paths = [w.path for dense in denses(layer) for w in (dense.kernel, dense.bias) if w is not None]
    return [gradient.flatten() for gradient in (*of_inputs, *(of_weights[path] for path in paths))]


def matters(layer, inputs, call_arguments):
    """Whether the masks change the result."""
    if not call_arguments:
        return True
    return relative_difference(to_numpy(layer(*inputs, **call_arguments)), to_numpy(layer(*inputs))) > 1e-2


# The same numbers. ----------------------------------------------------------------------------------------------------


@from_either_side
@in_every_case
def test_outputs_and_scores_are_equal(direction, inputs, arguments, call_arguments):
    theirs, ours = pair(direction, inputs, **arguments)
    assert matters(theirs, inputs, call_arguments)
    expected = to_numpy(theirs(*inputs, **call_arguments))
    assert_agree(to_numpy(ours(*inputs, **call_arguments)), expected, 2e-6)
    outputs = (layer(*inputs, **call_arguments, return_attention_scores=True) for layer in (ours, theirs))
    (output, scores), (expected_output, expected_scores) = outputs
    assert_agree(to_numpy(output), to_numpy(expected_output), 2e-6)
    assert_agree(to_numpy(scores), to_numpy(expected_scores), 2e-6)


@pytest.mark.parametrize("direction", ["from_keras", *on_one_backend("to_keras")])
@in_few_cases_on_each_backend
def test_gradients_are_equal(direction, inputs, arguments, call_arguments):
    theirs, ours = pair(direction, inputs, **arguments)
    shape = (B, T, arguments.get("output_shape", DQ))
    cotangent = np.random.default_rng(1).normal(size=shape).astype("float32")
    expected = flat_gradients(theirs, inputs, call_arguments, cotangent)
    actual = flat_gradients(ours, inputs, call_arguments, cotangent)
    largest = max(np.abs(gradient).max() for gradient in expected)
    assert len(expected) == len(inputs) + (4 if arguments.get("use_bias") is False else 8)
    for gradient, expected_gradient in zip(actual, expected, strict=True):
        if np.abs(expected_gradient).max() < 1e-5 * largest:  # the bias of the keys, which has none: 0
            assert np.abs(gradient).max() < 1e-5 * largest
        else:
            assert_agree(gradient, expected_gradient, 1e-5)


@from_either_side
@pytest.mark.parametrize("return_scores", [False, True])
def test_with_a_dropout_that_sleeps_the_numbers_are_equal_too(direction, return_scores):
    """With dropout in its configuration Keras leaves its fused path, also when nothing is dropped; ours does not."""
    inputs, mask = (QUERY, VALUE, KEY), {"attention_mask": _mask(T, S)}
    theirs, ours = pair(direction, inputs, dropout=0.4)
    assert theirs.dropout == ours.dropout == 0.4
    arguments = {**mask, "return_attention_scores": return_scores}
    actual, expected = ours(*inputs, **arguments), theirs(*inputs, **arguments)
    if return_scores:
        assert_agree(to_numpy(actual[1]), to_numpy(expected[1]), 2e-6)
        actual, expected = actual[0], expected[0]
    assert_agree(to_numpy(actual), to_numpy(expected), 2e-6)
    if not return_scores:
        gradients = zip(*(flat_gradients(layer, inputs, mask, None) for layer in (ours, theirs)), strict=True)
        for i, (gradient, expected_gradient) in enumerate(gradients):
            if i != 6:  # the bias of the keys, which has none
                assert_agree(gradient, expected_gradient, 1e-5)


def test_automatic_masks_are_equal():
    words = np.array([[3, 1, 4, 2, 0, 0], [2, 1, 0, 0, 0, 0]])
    embed = keras.layers.Embedding(5, DQ, mask_zero=True)
    embed.build((None, T))
    random_weights(embed, scale=1.0)
    theirs, ours = pair("from_keras", (QUERY, QUERY))
    tokens = embed(words)
    actual, unmasked = ours(tokens, tokens), ours(to_numpy(tokens), to_numpy(tokens))
    expected = theirs(tokens, tokens)  # comes last: it takes the masks off its inputs
    real = words != 0  # queries that are padding may attend to nothing, about which the two do not agree
    assert relative_difference(to_numpy(unmasked)[real], to_numpy(expected)[real]) > 1e-2
    assert_agree(to_numpy(actual)[real], to_numpy(expected)[real], 2e-6)
    mean = keras.layers.GlobalAveragePooling1D()  # of the tokens that the mask shows, if it went on
    assert_agree(to_numpy(mean(actual)), to_numpy(mean(expected)), 2e-6)


@from_either_side
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_dtype_policies_go_along(direction, policy):
    inputs, mask = (QUERY, VALUE, KEY), {"attention_mask": _mask(B, T, S)}
    theirs, ours = pair(direction, inputs, dtype=policy)
    assert theirs.dtype_policy == ours.dtype_policy == keras.DTypePolicy(policy)
    for our_dense, their_dense in zip(denses(ours), denses(theirs), strict=True):
        np.testing.assert_array_equal(to_numpy(our_dense.kernel).flatten(), to_numpy(their_dense.kernel).flatten())
    actual, expected = ours(*inputs, **mask), theirs(*inputs, **mask)
    assert actual.dtype == expected.dtype
    assert_agree(to_numpy(actual), to_numpy(expected), 2e-6 if policy == "float64" else 2e-2)


@pytest.mark.parametrize("regularizer", ["kernel_regularizer", "bias_regularizer", "activity_regularizer"])
def test_regularization_losses_are_equal(regularizer):
    theirs, ours = pair("from_keras", (QUERY, VALUE, KEY), **{regularizer: keras.regularizers.L1L2(0.1, 0.01)})
    theirs(QUERY, VALUE, KEY)
    ours(QUERY, VALUE, KEY)
    expected = [float(to_numpy(loss)) for loss in theirs.losses]
    assert len(ours.losses) == len(expected) == 4
    assert min(expected) > 1e-3
    np.testing.assert_allclose(sorted(float(to_numpy(loss)) for loss in ours.losses), sorted(expected), rtol=1e-5)


# The same configuration. ----------------------------------------------------------------------------------------------

EVERYTHING = {
    "num_heads": 2,
    "key_dim": 3,
    "value_dim": 5,
    "dropout": 0.25,
    "use_bias": False,
    "output_shape": 9,
    "kernel_initializer": keras.initializers.Constant(0.25),
    "bias_initializer": keras.initializers.Constant(0.5),
    "kernel_regularizer": keras.regularizers.L2(0.25),
    "bias_regularizer": keras.regularizers.L1(0.5),
    "activity_regularizer": keras.regularizers.L2(0.75),
    "kernel_constraint": keras.constraints.MaxNorm(3.0),
    "bias_constraint": keras.constraints.NonNeg(),
    "seed": 7,
    "name": "mine",
    "trainable": False,
}


@from_either_side
def test_the_configuration_goes_along(direction):
    theirs, ours = pair(direction, (QUERY, VALUE, KEY), **EVERYTHING)
    our_config, their_config = ours.get_config(), theirs.get_config()
    only_theirs = {"attention_axes", "use_gate", "sliding_window"}
    assert set(our_config) == set(their_config) - only_theirs
    for argument, value in our_config.items():
        expected = their_config[argument]
        assert (value,) == expected if argument == "output_shape" else value == expected, argument


def test_there_and_back_is_where_it_started():
    ours = pair("to_keras", (QUERY, VALUE, KEY), **EVERYTHING)[1]
    again = MyMultiHeadAttention.from_keras(ours.to_keras())
    assert again.get_config() == ours.get_config()
    for ours_weight, again_weight in zip(ours.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(again_weight, ours_weight)


def test_our_own_initializers_go_along():
    layer = MyMultiHeadAttention(2, 3, kernel_initializer=GlorotUniform(seed=0))
    layer.build(QUERY.shape, QUERY.shape)
    again = MyMultiHeadAttention.from_keras(layer.to_keras())
    assert type(again.kernel_initializer) is GlorotUniform


def test_the_copy_is_a_copy():
    theirs, ours = pair("from_keras", (QUERY, VALUE, KEY))
    expected = to_numpy(ours(QUERY, VALUE, KEY))
    random_weights(theirs, seed=9)
    np.testing.assert_array_equal(to_numpy(ours(QUERY, VALUE, KEY)), expected)


@from_either_side
def test_the_copy_outlives_the_original_in_a_model(direction):
    # Keras on JAX gives the memory of a model's weights to the next step.
    theirs, ours = pair(direction, (QUERY, QUERY))
    x = keras.Input(QUERY.shape[1:])
    before = to_numpy(theirs(QUERY, QUERY))
    for layer in (theirs, ours, theirs):
        keras.Model(x, layer(x, x)).predict_on_batch(QUERY)
    np.testing.assert_array_equal(to_numpy(theirs(QUERY, QUERY)), before)


@from_either_side
def test_lora_arrives_merged(direction):
    theirs, ours = pair(direction, (QUERY, VALUE, KEY))
    source = theirs if direction == "from_keras" else ours
    before = to_numpy(source(QUERY, VALUE, KEY))
    for dense in denses(source):
        dense.enable_lora(2)
        rng = np.random.default_rng(0)
        dense.lora_kernel_b.assign(rng.normal(size=dense.lora_kernel_b.shape))
    target = MyMultiHeadAttention.from_keras(source) if direction == "from_keras" else source.to_keras()
    expected = to_numpy(source(QUERY, VALUE, KEY))
    assert relative_difference(expected, before) > 0.1
    assert_agree(to_numpy(target(QUERY, VALUE, KEY)), expected, 5e-6)
    assert not any("lora" in w.path for w in target.weights)


# Errors. --------------------------------------------------------------------------------------------------------------


@from_either_side
def test_quantized_layers_are_refused(direction):
    theirs, ours = pair(direction, (QUERY, VALUE, KEY))
    for dense in denses(theirs if direction == "from_keras" else ours):
        dense.quantize("int8")
    with pytest.raises(ValueError, match=r"Cannot copy weights of a quantized layer.* quantized to int8"):
        MyMultiHeadAttention.from_keras(theirs) if direction == "from_keras" else ours.to_keras()


@pytest.mark.parametrize(
    ("argument", "value"),
    [("use_gate", True), ("sliding_window", 2), ("attention_axes", (1, 2)), ("output_shape", (3, 4))],
)
def test_what_ours_does_not_have_is_refused(argument, value):
    theirs = keras.layers.MultiHeadAttention(2, 3, **{argument: value}, kernel_initializer="zeros", name="theirs")
    shape = (B, 3, 4, DQ) if argument == "attention_axes" else QUERY.shape
    theirs.build(shape, shape)
    with pytest.raises(ValueError, match=rf"this `{argument}`: .* Received: theirs with {argument}="):
        MyMultiHeadAttention.from_keras(theirs)


def test_attention_axes_that_mean_the_same_are_not():
    theirs, ours = pair("from_keras", (QUERY, QUERY), attention_axes=(1,))
    assert_agree(to_numpy(ours(QUERY, QUERY)), to_numpy(theirs(QUERY, QUERY)), 2e-6)


def test_inputs_of_rank_4_are_refused():
    theirs = keras.layers.MultiHeadAttention(2, 3, kernel_initializer="zeros")
    theirs.build((B, 3, 4, DQ), (B, 3, 4, DQ))
    with pytest.raises(ValueError, match="attention_axes"):
        MyMultiHeadAttention.from_keras(theirs)


def test_layers_without_weights_are_refused():
    with pytest.raises(ValueError, match="build or call it first"):
        MyMultiHeadAttention.from_keras(keras.layers.MultiHeadAttention(2, 3))
    with pytest.raises(ValueError, match="build or call it first"):
        MyMultiHeadAttention(2, 3).to_keras()


def test_other_layers_are_refused():
    with pytest.raises(ValueError, match=r"Expected a `keras.layers.MultiHeadAttention`"):
        MyMultiHeadAttention.from_keras(keras.layers.Dense(3))
