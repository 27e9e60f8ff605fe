"""`MyMultiHeadAttention`: the equation, on two paths and every backend."""

import json
import sys
from functools import cache, partial

import keras
import numpy as np
import pytest
from keras import ops

import keras_vit_edu.layers.my_multi_head_attention as module
from keras_vit_edu import random
from keras_vit_edu.initializers import GlorotUniform, HeNormal
from keras_vit_edu.layers import MyMultiHeadAttention, attention_weights, fused_attention
from keras_vit_edu.parity import oracle, output_and_gradients
from keras_vit_edu.parity.testing import assert_config_round_trip
from tests.support import (
    BACKEND,
    assert_agree,
    compiled,
    compilers,
    copy_weights,
    on_one_backend,
    random_weights,
    relative_difference,
    revived,
    shapes,
    to_numpy,
    variable_shapes,
)

PATHS = ("fused", "explicit")

# Every size another number, so that no two can be mistaken for each other.
B, T, S = 2, 6, 5
DQ, DV, DK = 10, 7, 8
HEADS, HEAD_SIZE = 3, 4

_rng = np.random.default_rng(0)
QUERY = _rng.normal(size=(B, T, DQ)).astype("float32")
VALUE = _rng.normal(size=(B, S, DV)).astype("float32")
KEY = _rng.normal(size=(B, S, DK)).astype("float32")
INPUTS = (QUERY, VALUE, KEY)
COTANGENT = _rng.normal(size=(B, T, DQ)).astype("float32")


def _random_mask(*shape):
    return _rng.random(shape) < 0.6


def _sees_a_key(mask):
    """The mask with key 1 visible to every query."""
    return mask | (np.arange(mask.shape[-1]) == 1)


MASKS = {
    "attention_mask (T, S)": {"attention_mask": _sees_a_key(_random_mask(T, S))},
    "attention_mask (1, S)": {"attention_mask": np.array([[True, True, False, True, False]])},
    "attention_mask (B, T, S)": {"attention_mask": _sees_a_key(_random_mask(B, T, S))},
    "attention_mask (1, T, S)": {"attention_mask": _sees_a_key(_random_mask(1, T, S))},
    "attention_mask (B, h, T, S)": {"attention_mask": _sees_a_key(_random_mask(B, HEADS, T, S))},
    "attention_mask (B, 1, 1, S)": {"attention_mask": _sees_a_key(_random_mask(B, 1, 1, S))},
    "attention_mask (1, h, T, 1)": {"attention_mask": _random_mask(1, HEADS, T, 1)},  # hides every key from some
    "causal": {"use_causal_mask": True},
    "query_mask": {"query_mask": np.array([[1, 1, 0, 1, 1, 1], [1, 0, 1, 1, 1, 1]], bool)},  # the same
    "value_mask": {"value_mask": np.array([[1, 1, 0, 1, 1], [0, 1, 1, 1, 0]], bool)},
    "key_mask": {"key_mask": np.array([[0, 1, 1, 1, 1], [1, 1, 0, 1, 1]], bool)},
}
MASKS["all of them"] = {
    "attention_mask": _random_mask(1, HEADS, T, S) | _random_mask(1, 1, T, S),
    **MASKS["causal"],
    **MASKS["query_mask"],
    **MASKS["value_mask"],
    **MASKS["key_mask"],
}

# Gradients take longer, so these stand for the others.
GRADIENT_MASKS = ("attention_mask (T, S)", "attention_mask (1, h, T, 1)", "causal", "query_mask", "all of them")

with_every_mask = pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
on_both_paths = pytest.mark.parametrize("path", PATHS)


FUSED_IS_FASTER = MyMultiHeadAttention._fused_is_faster


@pytest.fixture(autouse=True)
def fused_wherever_possible(monkeypatch):
    """Both paths are tried on every backend, also where the layer would not choose the fused one."""
    monkeypatch.setattr(MyMultiHeadAttention, "_fused_is_faster", staticmethod(lambda: True))


@pytest.fixture
def taken(monkeypatch):
    """The paths that were taken, in order."""
    paths = []

    def watched(name, function):
        def call(*args):
            paths.append(name)
            return function(*args)

        return call

    monkeypatch.setattr(module, "fused_attention", watched("fused", fused_attention))
    monkeypatch.setattr(module, "attention_weights", watched("explicit", attention_weights))
    return paths


def attention_layer(shapes=((B, T, DQ), (B, S, DV), (B, S, DK)), **arguments):
    """A built layer with random weights and biases, without dropout unless asked for."""
    layer = MyMultiHeadAttention(**{"num_heads": HEADS, "key_dim": HEAD_SIZE, "dropout": 0.0, **arguments})
    layer.build(*shapes)
    random_weights(layer, scale=0.6)
    return layer


def on_path(path, layer, *inputs, **arguments):
    """The output by way of `path`: asking for scores makes it the explicit one."""
    if path == "fused":
        return layer(*inputs, **arguments)
    return layer(*inputs, **arguments, return_attention_scores=True)[0]


def weights_of(layer):
    """float64 weights by path inside of the layer."""
    return {w.path.removeprefix(f"{layer.name}/"): to_numpy(w) for w in layer.trainable_weights}


def by_equation(layer, *inputs, **arguments):
    """Output and scores by the oracle."""
    return oracle.multi_head_attention(weights_of(layer), *inputs, num_heads=layer.num_heads, **arguments)


def dtype_of(x):
    return keras.backend.standardize_dtype(x.dtype)


# The numbers. ---------------------------------------------------------------------------------------------------------


@pytest.mark.quick
@on_both_paths
def test_output_is_that_of_the_equation(path, taken):
    layer = attention_layer()
    assert_agree(to_numpy(on_path(path, layer, *INPUTS)), by_equation(layer, *INPUTS)[0], 2e-6)
    assert taken == [path]


def test_scores_are_those_of_the_equation_and_sum_to_1():
    layer = attention_layer()
    scores = to_numpy(layer(*INPUTS, return_attention_scores=True)[1])
    assert scores.shape == (B, HEADS, T, S)
    assert_agree(scores, by_equation(layer, *INPUTS)[1], 2e-6)
    np.testing.assert_allclose(scores.sum(axis=-1), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("backend", "device", "path"),
    [
        ("tensorflow", "gpu", "explicit"),
        ("jax", "cpu", "explicit"),
        ("jax", "gpu", "fused"),
        ("jax", "tpu", "fused"),
        ("torch", "cpu", "fused"),
    ],
)
def test_the_fused_path_is_taken_where_it_is_one_operation(backend, device, path, taken, monkeypatch):
    if keras.backend.backend() != backend:
        pytest.skip(f"of {backend}")
    monkeypatch.setattr(MyMultiHeadAttention, "_fused_is_faster", staticmethod(FUSED_IS_FASTER))
    monkeypatch.setattr(sys.modules["keras_vit_edu.layers.fused_attention"], "_jax_device", lambda: device)
    attention_layer()(*INPUTS)
    assert taken == [path]


@pytest.mark.quick
@with_every_mask
def test_masked_output_is_that_of_the_equation_on_the_fused_path(masks, taken):
    layer = attention_layer()
    expected, _ = by_equation(layer, *INPUTS, **masks)
    assert relative_difference(expected, by_equation(layer, *INPUTS)[0]) > 1e-2, "this mask changes nothing"
    assert_agree(to_numpy(layer(*INPUTS, **masks)), expected, 2e-6)
    assert taken == ["fused"]


@pytest.mark.quick
@with_every_mask
def test_masked_output_and_scores_are_those_of_the_equation_on_the_explicit_path(masks, taken):
    layer = attention_layer()
    expected, expected_scores = by_equation(layer, *INPUTS, **masks)
    assert relative_difference(expected_scores, by_equation(layer, *INPUTS)[1]) > 1e-2, "this mask changes nothing"
    output, scores = layer(*INPUTS, **masks, return_attention_scores=True)
    assert_agree(to_numpy(output), expected, 2e-6)
    assert_agree(to_numpy(scores), expected_scores, 2e-6)
    assert taken == ["explicit"]


def test_a_mask_that_is_a_list_is_refused():
    with pytest.raises(ValueError, match=r"`attention_mask` must be an array or a tensor. Received: a list"):
        MyMultiHeadAttention(2, 3)(np.zeros((1, 2, 4)), np.zeros((1, 2, 4)), attention_mask=[[True, False]] * 2)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_a_mask_of_ones_and_zeros_is_a_boolean_one(dtype):
    layer = attention_layer()
    for name, mask in MASKS["all of them"].items():
        if name != "use_causal_mask":
            expected = layer(*INPUTS, **{name: mask})
            np.testing.assert_array_equal(
                to_numpy(layer(*INPUTS, **{name: mask.astype(dtype)})), to_numpy(expected), err_msg=name
            )


CONFIGURATIONS = {
    "one head": {"num_heads": 1},
    "heads wider than the tokens": {"key_dim": 16},
    "value_dim": {"value_dim": 5},
    "output_shape": {"output_shape": 9},
    "no bias": {"use_bias": False},
    "all at once": {"num_heads": 2, "key_dim": 3, "value_dim": 4, "output_shape": 5, "use_bias": False},
}


@pytest.mark.parametrize("arguments", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_configurations_follow_the_equation(arguments, taken):
    layer = attention_layer(**arguments)
    mask = MASKS["attention_mask (B, T, S)"]
    expected, expected_scores = by_equation(layer, *INPUTS, **mask)
    assert_agree(to_numpy(layer(*INPUTS, **mask)), expected, 2e-6)
    # JAX's own attention wants values of the size of the keys.
    assert taken == ["explicit" if "value_dim" in arguments else "fused"]
    output, scores = layer(*INPUTS, **mask, return_attention_scores=True)
    assert_agree(to_numpy(output), expected, 2e-6)
    assert_agree(to_numpy(scores), expected_scores, 2e-6)


def test_the_weights_are_those_of_the_configuration():
    layer = attention_layer(num_heads=2, key_dim=3, value_dim=4, output_shape=5, name="attention")
    assert variable_shapes(layer) == {
        "attention/q_dense/kernel": (DQ, 6),
        "attention/q_dense/bias": (6,),
        "attention/k_dense/kernel": (DK, 6),
        "attention/k_dense/bias": (6,),
        "attention/v_dense/kernel": (DV, 8),
        "attention/v_dense/bias": (8,),
        "attention/out_dense/kernel": (8, 5),
        "attention/out_dense/bias": (5,),
    }
    without_bias = attention_layer(use_bias=False)
    assert [path.split("/")[-1] for path in variable_shapes(without_bias)] == ["kernel"] * 4


def test_keys_are_the_values_if_none_are_given():
    layer = attention_layer(((B, T, DQ), (B, S, DV)))
    assert_agree(to_numpy(layer(QUERY, VALUE)), by_equation(layer, QUERY, VALUE, VALUE)[0], 2e-6)


def test_arguments_may_be_given_by_name_only():
    layer = attention_layer()
    np.testing.assert_array_equal(to_numpy(layer(value=VALUE, key=KEY, query=QUERY)), to_numpy(layer(*INPUTS)))


def test_float64_arrays_become_the_layers_dtype():
    layer = attention_layer()
    output = layer(*(x.astype("float64") for x in INPUTS))
    assert dtype_of(output) == "float32"
    np.testing.assert_array_equal(to_numpy(output), to_numpy(layer(*INPUTS)))


def test_the_path_depends_on_what_is_needed(taken):
    layer = attention_layer(dropout=0.5)
    layer(*INPUTS)
    layer(*INPUTS, training=False)
    attention_layer()(*INPUTS, training=True)  # no dropout to act
    assert taken == ["fused"] * 3
    taken.clear()
    layer(*INPUTS, training=True)
    layer(*INPUTS, return_attention_scores=True)
    attention_layer(value_dim=5)(*INPUTS)
    assert taken == ["explicit"] * 3


@pytest.mark.quick
@with_every_mask
def test_both_paths_give_the_same_numbers(masks):
    layer = attention_layer()
    assert relative_difference(to_numpy(layer(*INPUTS, **masks)), to_numpy(layer(*INPUTS))) > 1e-2
    explicit, fused = (to_numpy(on_path(path, layer, *INPUTS, **masks)) for path in PATHS)
    assert_agree(explicit, fused, 1e-6)


# Gradients. -----------------------------------------------------------------------------------------------------------


def gradients_on_path(path, layer, masks, **arguments):
    """Gradients of `sum(output * COTANGENT)` by name: of the inputs and of every weight."""

    def call(layer, *inputs):
        return on_path(path, layer, *inputs, **masks, **arguments)

    _, of_inputs, of_weights = output_and_gradients(layer, INPUTS, COTANGENT, call)
    of_weights = {w_path.removeprefix(f"{layer.name}/"): gradient for w_path, gradient in of_weights.items()}
    return dict(zip(("query", "value", "key"), of_inputs, strict=True)) | of_weights


@cache
def gradients_by_differences(which_masks):
    """The same by central differences of the equation in float64, for `attention_layer()`."""
    return central_differences(attention_layer(), **({} if which_masks is None else MASKS[which_masks]))


def central_differences(layer, **arguments):
    given = dict(zip(("query", "value", "key"), INPUTS, strict=True)) | weights_of(layer)

    def loss(name, value):
        changed = {**given, name: value}
        inputs = (changed.pop("query"), changed.pop("value"), changed.pop("key"))
        output, _ = oracle.multi_head_attention(changed, *inputs, num_heads=layer.num_heads, **arguments)
        return (output * COTANGENT).sum()

    return {name: oracle.gradient(partial(loss, name), value) for name, value in given.items()}


def assert_gradients_agree(actual, expected, tolerance=1e-5):
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        if name == "k_dense/bias":  # adds the same to every score of a row, which the softmax takes off again: 0
            assert np.abs(actual[name]).max() < tolerance * np.abs(expected["k_dense/kernel"]).max()
        else:
            assert relative_difference(actual[name], gradient) <= tolerance, name


@pytest.mark.parametrize("which_masks", [None, *GRADIENT_MASKS])
@on_both_paths
def test_gradients_are_those_of_the_equation(path, which_masks, taken):
    masks = {} if which_masks is None else MASKS[which_masks]
    expected = gradients_by_differences(which_masks)
    if which_masks is not None:
        unmasked = gradients_by_differences(None)
        assert relative_difference(expected["q_dense/kernel"], unmasked["q_dense/kernel"]) > 1e-2
    assert_gradients_agree(gradients_on_path(path, attention_layer(), masks), expected)
    assert set(taken) == {path}


def test_gradients_through_dropout_are_those_of_the_equation():
    layer = attention_layer(dropout=0.3, seed=11)
    keep = random.dropout_mask(seed=11, counter=0, shape=(B, HEADS, T, S), rate=0.3)
    masks = MASKS["attention_mask (B, T, S)"]
    actual = gradients_on_path("fused", layer, masks, training=True)
    expected = central_differences(layer, **masks, keep=keep, rate=0.3)
    # Now a key's bias matters: what a row sums to depends on which scores were dropped, but the softmax does not.
    assert_gradients_agree(actual, expected)


@pytest.mark.parametrize("which_masks", GRADIENT_MASKS)
def test_both_paths_give_the_same_gradients(which_masks):
    layer, masks = attention_layer(), MASKS[which_masks]
    assert_gradients_agree(gradients_on_path("explicit", layer, masks), gradients_on_path("fused", layer, masks))


@pytest.mark.quick
@on_both_paths
def test_gradients_reach_every_trainable_weight(path):
    gradients = gradients_on_path(path, attention_layer(), {})
    for name in [f"{dense}_dense/{w}" for dense in ("q", "k", "v", "out") for w in ("kernel", "bias")]:
        if name != "k_dense/bias":  # see `assert_gradients_agree`
            assert np.abs(gradients[name]).max() > 1e-3, name


def test_gradients_flow_through_the_scores_too():
    layer = attention_layer()
    cotangent = np.random.default_rng(1).normal(size=(B, HEADS, T, S)).astype("float32")

    def scores(layer, *inputs):
        return layer(*inputs, return_attention_scores=True)[1]

    _, (actual, _, _), _ = output_and_gradients(layer, INPUTS, cotangent, scores)
    expected = oracle.gradient(lambda query: (by_equation(layer, query, VALUE, KEY)[1] * cotangent).sum(), QUERY)
    assert_agree(actual, expected, 1e-5)


# A row that hides every key. ------------------------------------------------------------------------------------------

HIDES_EVERYTHING_FROM_QUERY_1 = {"attention_mask": (np.arange(T) != 1)[:, None] & np.ones((T, S), bool)}
HIDES_EVERYTHING = {"value_mask": np.zeros((B, S), bool)}


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("masks", [HIDES_EVERYTHING_FROM_QUERY_1, HIDES_EVERYTHING], ids=["one row", "every row"])
@on_both_paths
def test_a_query_that_may_attend_to_nothing_spreads_its_attention_evenly(path, masks, policy):
    layer = attention_layer(dtype=policy)
    _, scores = layer(*INPUTS, **masks, return_attention_scores=True)
    np.testing.assert_allclose(to_numpy(scores)[:, :, 1], 1 / S, rtol=1e-6 if policy == "float32" else 5e-3)
    output = to_numpy(on_path(path, layer, *INPUTS, **masks))
    weights = weights_of(layer)
    values = oracle.dense(oracle.within(weights, "v_dense"), VALUE)
    mean_value = oracle.dense(oracle.within(weights, "out_dense"), values.mean(axis=1))
    assert_agree(output[:, 1], mean_value, 2e-6 if policy == "float32" else 2e-2)


@pytest.mark.parametrize("masks", [HIDES_EVERYTHING_FROM_QUERY_1, HIDES_EVERYTHING], ids=["one row", "every row"])
@on_both_paths
def test_gradients_of_a_query_that_may_attend_to_nothing_are_those_of_a_mean(path, masks):
    layer = attention_layer()
    gradients = gradients_on_path(path, layer, masks)
    expected = central_differences(layer, **masks)
    np.testing.assert_array_equal(gradients["query"][:, 1], np.zeros((B, DQ)))
    for name, gradient in expected.items():
        scale = np.abs(gradient).max()
        if scale < 1e-6:  # is 0 then, of some numbers the size of the largest
            scale = 0.1 * np.abs(expected["out_dense/bias"]).max()
        np.testing.assert_allclose(gradients[name], gradient, rtol=0, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize("policy", ["mixed_float16", *on_one_backend("mixed_bfloat16")])
@on_both_paths
def test_gradients_of_a_query_that_may_attend_to_nothing_are_finite_in_half_precision(path, policy):
    layer = attention_layer(dtype=policy)
    gradients = gradients_on_path(path, layer, HIDES_EVERYTHING_FROM_QUERY_1)
    for name, gradient in gradients.items():
        assert np.isfinite(gradient.astype("float32")).all(), name


# Keras's automatic masks. ---------------------------------------------------------------------------------------------

WORDS = np.array([[3, 1, 4, 0], [2, 0, 0, 0]])  # 0 is padding


def embedding(dtype="float32"):
    layer = keras.layers.Embedding(5, DQ, mask_zero=True, dtype=dtype)
    layer.build((None, T))
    random_weights(layer, scale=1.0, seed=5)
    return layer


@on_both_paths
def test_the_mask_of_the_inputs_hides_padding(path):
    layer = attention_layer(((B, T, DQ), (B, T, DQ)))
    tokens = embedding()(WORDS)
    plain = to_numpy(tokens)
    real = WORDS != 0
    masked_by_hand, _ = by_equation(layer, plain, plain, query_mask=real, value_mask=real)
    assert relative_difference(masked_by_hand[real], by_equation(layer, plain, plain)[0][real]) > 1e-2
    assert_agree(to_numpy(on_path(path, layer, tokens, tokens)), masked_by_hand, 2e-6)


def test_each_input_brings_its_own_mask():
    layer = attention_layer(((B, T, DQ), (B, T, DQ), (B, T, DQ)))
    embed = embedding()
    words = {"query": WORDS, "value": WORDS[:, ::-1], "key": np.array([[1, 0, 2, 3], [0, 4, 3, 2]])}
    tokens = {name: embed(w) for name, w in words.items()}
    plain = {name: to_numpy(x) for name, x in tokens.items()}
    masks = {f"{name}_mask": w != 0 for name, w in words.items()}
    expected, _ = by_equation(layer, **plain, **masks)
    assert_agree(to_numpy(layer(**tokens)), expected, 2e-6)


def test_a_mask_given_by_hand_goes_before_that_of_the_inputs():
    layer = attention_layer(((B, T, DQ), (B, T, DQ)))
    tokens = embedding()(WORDS)
    plain = to_numpy(tokens)
    by_hand = np.array([[1, 0, 1, 1], [0, 1, 1, 1]], bool)
    expected, _ = by_equation(layer, plain, plain, query_mask=WORDS != 0, value_mask=by_hand)
    assert_agree(to_numpy(layer(tokens, tokens, value_mask=by_hand)), expected, 2e-6)


def test_the_querys_mask_goes_on_to_the_next_layer():
    layer = attention_layer(((B, T, DQ), (B, S, DV)))
    mean = keras.layers.GlobalAveragePooling1D()  # of the tokens that its mask shows
    output = layer(embedding()(WORDS), VALUE)
    real = (WORDS != 0)[..., None]
    expected = (to_numpy(output) * real).sum(axis=1) / real.sum(axis=1)
    assert_agree(to_numpy(mean(output)), expected, 1e-6)
    output, scores = layer(embedding()(WORDS), VALUE, return_attention_scores=True)
    assert_agree(to_numpy(mean(output)), expected, 1e-6)
    assert getattr(scores, "_keras_mask", None) is None


def test_automatic_masks_in_a_functional_model_and_under_another_precision():
    embed, layer = embedding(), attention_layer(((B, T, DQ), (B, T, DQ)), dtype="mixed_bfloat16")
    words = keras.Input((None,), dtype="int32")
    tokens = embed(words)
    model = keras.Model(words, layer(tokens, tokens))
    plain, real = to_numpy(embed(WORDS)), WORDS != 0
    expected, _ = by_equation(layer, plain, plain, query_mask=real, value_mask=real)
    assert relative_difference(expected, by_equation(layer, plain, plain)[0]) > 0.1
    assert_agree(model.predict(WORDS, verbose=0).astype("float64"), expected, 2e-2)


# Shapes and dtypes. ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("batch", [None, 1, 7])
def test_symbolic_shapes_and_dtypes(batch, policy):
    layer = attention_layer(output_shape=9, dtype=policy)
    query, value, key = (keras.KerasTensor((batch, *x.shape[1:])) for x in INPUTS)
    output = layer(query, value, key)
    with_scores = layer(query, value, key, return_attention_scores=True)
    assert shapes([output, *with_scores]) == [(batch, T, 9), (batch, T, 9), (batch, HEADS, T, S)]
    assert {dtype_of(x) for x in (output, *with_scores)} == {policy.removeprefix("mixed_")}
    assert layer.compute_output_shape(query.shape, value.shape, key.shape) == (batch, T, 9)


@pytest.mark.parametrize(
    ("batch", "policy"),
    [(7, "mixed_bfloat16"), *on_one_backend((1, "float32"), (7, "float32"), (7, "mixed_float16"))],
)
def test_eager_and_compiled_shapes_and_dtypes_are_the_symbolic_ones(batch, policy):
    layer = attention_layer(output_shape=9, dtype=policy)
    rng = np.random.default_rng(0)
    inputs = [ops.convert_to_tensor(rng.normal(size=(batch, *x.shape[1:])).astype("float32")) for x in INPUTS]
    for function in (layer, compiled(layer)):
        assert shapes(function(*inputs)) == [(batch, T, 9)]

    def with_scores(*inputs):
        return layer(*inputs, return_attention_scores=True)

    for function in (with_scores, compiled(with_scores)):
        outputs = function(*inputs)
        assert shapes(outputs) == [(batch, T, 9), (batch, HEADS, T, S)]
        assert {dtype_of(x) for x in outputs} == {policy.removeprefix("mixed_")}


@pytest.mark.parametrize("compile_", compilers().values(), ids=compilers())
@on_both_paths
def test_compiled_numbers_are_those_of_the_equation(path, compile_):
    layer = attention_layer()
    masks = MASKS["all of them"]
    output = compile_(lambda *inputs: on_path(path, layer, *inputs, **masks))(*map(ops.convert_to_tensor, INPUTS))
    assert_agree(to_numpy(output), by_equation(layer, *INPUTS, **masks)[0], 2e-6)


@pytest.mark.parametrize("return_scores", [False, True])
def test_unknown_lengths(return_scores):
    layer = attention_layer()
    query, value, key = (keras.Input((None, x.shape[-1])) for x in INPUTS)
    mask = keras.Input((None, None), dtype="bool")
    outputs = layer(query, value, key, attention_mask=mask, use_causal_mask=True, return_attention_scores=return_scores)
    assert shapes(outputs) == [(None, None, DQ), (None, HEADS, None, None)][: 1 + return_scores]
    model = keras.Model([query, value, key, mask], outputs)
    rng = np.random.default_rng(0)
    for batch, rows, columns in ((2, 4, 5), (3, 7, 3)):
        lengths = (rows, columns, columns)
        arrays = [
            rng.normal(size=(batch, length, x.shape[-1])).astype("float32")
            for length, x in zip(lengths, INPUTS, strict=True)
        ]
        visible = _sees_a_key(rng.random((batch, rows, columns)) < 0.6)
        actual = model.predict([*arrays, visible], verbose=0)
        expected = by_equation(layer, *arrays, attention_mask=visible, use_causal_mask=True)
        for x, y in zip(actual if return_scores else [actual], expected, strict=False):
            assert_agree(x, y, 2e-6)


@pytest.mark.quick
@on_both_paths
def test_fit_with_a_ragged_last_batch(path):
    layer = attention_layer(dropout=0.1)
    query, value = keras.Input((None, DQ)), keras.Input((None, DK))
    layer = MyMultiHeadAttention(HEADS, HEAD_SIZE, name="attention")
    model = keras.Model([query, value], on_path(path, layer, query, value, use_causal_mask=True))
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(7, 4, DQ)), rng.normal(size=(7, 5, DK))]
    before = layer.get_weights()
    history = model.fit(x, rng.normal(size=(7, 4, DQ)), batch_size=4, epochs=2, verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"]).all()
    assert history.history["loss"][1] < history.history["loss"][0]
    changed = [np.abs(new - old).max() > 0 for new, old in zip(layer.get_weights(), before, strict=True)]
    assert sum(changed) >= 7  # all but, perhaps, the bias of the keys


def test_build_alone_creates_the_variables_of_a_call():
    for arguments in ({}, {"value_dim": 5, "output_shape": 9, "use_bias": False}):
        built, called = (MyMultiHeadAttention(HEADS, HEAD_SIZE, **arguments, name="attention") for _ in range(2))
        built.build((None, None, DQ), (None, None, DV), (None, None, DK))
        called(*INPUTS)
        assert weight_shapes(built) == weight_shapes(called)
        assert built.built


def test_building_from_the_build_config_creates_the_same_variables():
    layer = attention_layer(name="attention")
    again = MyMultiHeadAttention.from_config(layer.get_config())
    again.build_from_config(layer.get_build_config())
    assert weight_shapes(again) == weight_shapes(layer)


def weight_shapes(layer):
    """Shape by path of every weight: all variables but the state of the dropout's seed generator."""
    return {w.path: tuple(w.shape) for w in layer.weights}


class TwoAttentions(keras.Model):
    """A subclassed model: from tokens to themselves, then to others."""

    def __init__(self):
        super().__init__(name="two")
        self.own = MyMultiHeadAttention(HEADS, HEAD_SIZE, name="own")
        self.cross = MyMultiHeadAttention(HEADS, HEAD_SIZE, name="cross")

    def call(self, inputs, training=None):
        query, value = inputs
        return self.cross(self.own(query, query, training=training), value, training=training)


def test_inside_a_subclassed_model(tmp_path):
    model, again = TwoAttentions(), TwoAttentions()
    output = model((QUERY, VALUE))
    assert next(w.path for w in model.weights) == "two/own/q_dense/kernel"
    model.save_weights(tmp_path / "model.weights.h5")
    again((QUERY, VALUE))
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(to_numpy(again((QUERY, VALUE))), to_numpy(output))


# Precision. -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
@on_both_paths
def test_half_precision_is_close_to_the_equation(path, policy):
    layer = attention_layer(dtype=policy)
    for masks in ({}, MASKS["all of them"]):
        expected, expected_scores = by_equation(layer, *INPUTS, **masks)
        output = on_path(path, layer, *INPUTS, **masks)
        scores = layer(*INPUTS, **masks, return_attention_scores=True)[1]
        assert dtype_of(output) == dtype_of(scores) == policy.removeprefix("mixed_")
        assert_agree(to_numpy(output), expected, 2e-2)
        assert_agree(to_numpy(scores), expected_scores, 2e-2)


@pytest.mark.parametrize("policy", ["mixed_float16", *on_one_backend("mixed_bfloat16")])
@on_both_paths
def test_gradients_in_half_precision_are_close_to_the_equations(path, policy):
    layer = attention_layer(dtype=policy)
    masks = MASKS["attention_mask (B, T, S)"]
    actual, expected = gradients_on_path(path, layer, masks), central_differences(layer, **masks)
    for name, gradient in expected.items():
        if name != "k_dense/bias":
            assert relative_difference(actual[name].astype("float64"), gradient) <= 5e-2, name


@on_both_paths
def test_float64_is_computed_in_as_far_as_keras_does(path):
    layer = attention_layer(dtype="float64")
    inputs = [x.astype("float64") + 1e-9 for x in INPUTS]
    masks = MASKS["all of them"]
    output = ops.convert_to_numpy(on_path(path, layer, *inputs, **masks))
    weights = {w.path.removeprefix(f"{layer.name}/"): ops.convert_to_numpy(w).astype("float64") for w in layer.weights}
    expected, _ = oracle.multi_head_attention(weights, *inputs, num_heads=HEADS, **masks)
    # JAX has no float64 unless it is switched on; on torch Keras multiplies matrices in float32 all the same.
    assert output.dtype == ("float32" if BACKEND == "jax" else "float64")
    assert_agree(output, expected, 1e-12 if BACKEND == "tensorflow" else 2e-6)


@on_both_paths
def test_large_activations_do_not_overflow_float16(path):
    """Queries and keys of 40s: their products are 64 * 40 * 40 > 65504, divided by sqrt(64) before they are 12800."""
    layer = MyMultiHeadAttention(
        1, 64, dropout=0.0, use_bias=False, dtype="mixed_float16", kernel_initializer=keras.initializers.Identity()
    )
    query = np.full((1, 2, 64), 40, "float32")
    query[:, 1] = -40
    output = to_numpy(on_path(path, layer, query, query))
    np.testing.assert_array_equal(output, query)  # each attends to itself alone


@pytest.mark.quick
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_softmax_is_taken_in_float32(dtype):
    rng = np.random.default_rng(0)
    query, key = (ops.cast(rng.normal(size=(1, 2, n, 4)).astype("float32"), dtype) for n in (3, 3000))
    weights = attention_weights(query, key)
    assert dtype_of(weights) == "float32"
    np.testing.assert_allclose(to_numpy(weights).sum(axis=-1), 1, rtol=0, atol=1e-5)


# The functions beneath. -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask_shape", [None, (), (T, S), (1, 1, 1, S), (B, HEADS, T, S)])
def test_attention_weights_is_the_equation_for_any_mask_that_broadcasts(mask_shape):
    rng = np.random.default_rng(0)
    query, key = (rng.normal(size=(B, HEADS, n, 8)).astype("float32") for n in (T, S))
    mask = None if mask_shape is None else np.asarray(rng.random(mask_shape) < 0.5)
    assert_agree(to_numpy(attention_weights(query, key, mask)), oracle.attention_weights(query, key, mask), 2e-6)


@pytest.mark.parametrize("mask_shape", [None, (1, 1, T, S), (1, 1, 1, S), (B, 1, T, 1), (B, HEADS, T, S)])
def test_fused_attention_is_the_equation_with_heads_third(mask_shape):
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(B, n, HEADS, 8)).astype("float32") for n in (T, S, S))
    mask = None if mask_shape is None else rng.random(mask_shape) < 0.5
    output = to_numpy(fused_attention(*(ops.convert_to_tensor(x) for x in (query, key, value)), mask))
    weights = oracle.attention_weights(query.swapaxes(1, 2), key.swapaxes(1, 2), mask)
    assert_agree(output, (weights @ value.swapaxes(1, 2)).swapaxes(1, 2), 2e-6)


def test_a_hidden_key_gets_nothing_however_small_the_scores_of_the_others():
    query = ops.convert_to_tensor(np.full((1, 1, 1, 1), 1000, "float32"))
    key = ops.convert_to_tensor(np.array([-1000, 1000], "float32").reshape(1, 2, 1, 1))  # (B, S, h, d)
    value = ops.convert_to_tensor(np.array([3, 5], "float32").reshape(1, 2, 1, 1))
    mask = np.array([[[[True, False]]]])
    assert to_numpy(attention_weights(query, ops.swapaxes(key, 1, 2), mask)).tolist() == [[[[1, 0]]]]
    assert to_numpy(fused_attention(query, key, value, mask)).tolist() == [[[[3]]]]


# Configuration. -------------------------------------------------------------------------------------------------------

# Every argument, none at its default.
NON_DEFAULT = {
    "num_heads": 2,
    "key_dim": 3,
    "value_dim": 5,
    "dropout": 0.25,
    "use_bias": False,
    "output_shape": 9,
    "kernel_initializer": HeNormal(seed=3),
    "bias_initializer": keras.initializers.Constant(0.5),
    "kernel_regularizer": keras.regularizers.L2(0.25),
    "bias_regularizer": keras.regularizers.L1(0.5),
    "activity_regularizer": keras.regularizers.L1L2(0.5, 0.25),
    "kernel_constraint": keras.constraints.MaxNorm(3.0),
    "bias_constraint": keras.constraints.NonNeg(),
    "seed": 7,
    "name": "mine",
    "trainable": False,
    "dtype": keras.DTypePolicy("mixed_bfloat16"),
}


def test_every_argument_survives_its_configuration():
    assert_config_round_trip(MyMultiHeadAttention, NON_DEFAULT)


@pytest.mark.parametrize("revive", [revived, lambda layer: type(layer).from_config(layer.get_config())])
def test_every_argument_survives_its_config(revive):
    layer = MyMultiHeadAttention(**NON_DEFAULT)
    keras.config.set_dtype_policy("mixed_float16")
    keras.config.set_image_data_format("channels_first")
    copy = revive(layer)
    assert copy.get_config() == layer.get_config()
    for argument in ("num_heads", "key_dim", "value_dim", "dropout", "use_bias", "seed", "name", "trainable"):
        assert getattr(copy, argument) == NON_DEFAULT[argument], argument
    for argument in ("kernel_initializer", "bias_initializer", "kernel_regularizer", "bias_regularizer",
                     "kernel_constraint", "bias_constraint"):  # fmt: skip
        kept, given = getattr(copy, argument), NON_DEFAULT[argument]
        assert type(kept) is type(given), argument
        assert kept.get_config() == given.get_config(), argument
    assert copy.get_config()["activity_regularizer"]["config"] == {"l1": 0.5, "l2": 0.25}
    assert copy.get_config()["output_shape"] == 9
    assert copy.dtype_policy.name == copy.q_dense.dtype_policy.name == "mixed_bfloat16"


def test_numpys_numbers_are_as_good_as_pythons():
    layer = MyMultiHeadAttention(
        np.int64(2),
        np.int32(3),
        value_dim=np.uint8(5),
        dropout=np.float32(0.25),
        output_shape=np.int64(9),
        seed=np.int64(7),
    )
    config = json.loads(json.dumps(layer.get_config()))
    plain = MyMultiHeadAttention(2, 3, value_dim=5, dropout=0.25, output_shape=9, seed=7, name=layer.name)
    assert config == json.loads(json.dumps(plain.get_config()))


@pytest.mark.any_backend
def test_a_revived_layer_with_copied_weights_gives_identical_outputs():
    for arguments in ({**NON_DEFAULT, "dtype": "float32"}, NON_DEFAULT, {"num_heads": 2, "key_dim": 3}):
        layer = MyMultiHeadAttention(**arguments)
        output, scores = layer(*INPUTS, return_attention_scores=True)
        keras.config.set_dtype_policy("mixed_float16")
        copy = revived(layer)  # built, as the layer is
        copy_weights(layer, copy)
        again, scores_again = copy(*INPUTS, return_attention_scores=True)
        keras.config.set_dtype_policy("float32")
        assert dtype_of(again) == dtype_of(output)
        np.testing.assert_array_equal(to_numpy(again), to_numpy(output))
        np.testing.assert_array_equal(to_numpy(scores_again), to_numpy(scores))


def test_arguments_reach_the_projections():
    layer = MyMultiHeadAttention(**{**NON_DEFAULT, "use_bias": True})
    layer.build(*(x.shape for x in INPUTS))
    for dense in (layer.q_dense, layer.k_dense, layer.v_dense, layer.out_dense):
        assert isinstance(dense.kernel_initializer, HeNormal)
        assert isinstance(dense.bias_initializer, keras.initializers.Constant)
        assert dense.kernel_regularizer is layer.kernel_regularizer
        assert dense.bias_regularizer is layer.bias_regularizer
        assert dense.activity_regularizer is NON_DEFAULT["activity_regularizer"]
        assert dense.kernel_constraint is layer.kernel_constraint
        assert dense.bias_constraint is layer.bias_constraint
        assert dense.dtype_policy.name == "mixed_bfloat16"
    assert not layer.trainable_weights


@pytest.mark.parametrize(
    "initializer", [GlorotUniform(seed=0), keras.initializers.GlorotUniform(seed=0), GlorotUniform(), "he_normal"]
)
def test_one_initializer_gives_the_four_kernels_different_values(initializer):
    layer = MyMultiHeadAttention(2, 3, kernel_initializer=initializer)
    layer.build((None, T, 6), (None, T, 6))
    kernels = [to_numpy(dense.kernel) for dense in (layer.q_dense, layer.k_dense, layer.v_dense, layer.out_dense)]
    assert all(kernel.shape == (6, 6) for kernel in kernels)
    for i in range(4):
        for j in range(i):
            assert np.mean(kernels[i] == kernels[j]) < 0.1


def test_a_seeded_initializer_gives_the_same_kernels_every_time():
    first, second = (attention_kernels(GlorotUniform(seed=0)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.mean(first == attention_kernels(GlorotUniform(seed=1))) < 0.1


def attention_kernels(initializer):
    layer = MyMultiHeadAttention(2, 3, kernel_initializer=initializer)
    layer.build((None, T, 6), (None, T, 6))
    return np.stack([to_numpy(dense.kernel) for dense in (layer.q_dense, layer.k_dense, layer.v_dense)])


def test_constraints_act_in_training():
    layer = MyMultiHeadAttention(2, 3, dropout=0.0, kernel_constraint=keras.constraints.MaxNorm(0.1))
    query = keras.Input((T, DQ))
    model = keras.Model(query, layer(query, query))
    model.compile("sgd", "mse")
    model.fit(QUERY, QUERY, verbose=0)
    for dense in (layer.q_dense, layer.k_dense, layer.v_dense, layer.out_dense):
        assert np.linalg.norm(to_numpy(dense.kernel), axis=0).max() <= 0.1 + 1e-6


# Dropout. -------------------------------------------------------------------------------------------------------------


def test_dropout_acts_in_training_only():
    layer = attention_layer(dropout=0.3, seed=5)
    expected, _ = by_equation(layer, *INPUTS)
    for training in (None, False):
        assert_agree(to_numpy(layer(*INPUTS, training=training)), expected, 2e-6)
    assert_agree(to_numpy(on_path("explicit", layer, *INPUTS)), expected, 2e-6)
    assert relative_difference(to_numpy(layer(*INPUTS, training=True)), expected) > 1e-2


def test_dropout_drops_the_scores_that_the_hash_says_and_others_on_the_next_step():
    layer = attention_layer(dropout=0.3, seed=5)
    for step in range(3):
        keep = random.dropout_mask(seed=5, counter=step, shape=(B, HEADS, T, S), rate=0.3)
        expected, expected_scores = by_equation(layer, *INPUTS, keep=keep, rate=0.3)
        output, scores = layer(*INPUTS, training=True, return_attention_scores=True)
        assert_agree(to_numpy(output), expected, 2e-6)
        assert_agree(to_numpy(scores), expected_scores, 2e-6)  # as they were before dropout


def test_dropout_keeps_the_mean():
    layer = attention_layer(dropout=0.4, seed=5)
    copies = 4000
    many = [np.repeat(x[:1], copies, axis=0) for x in INPUTS]
    draws = to_numpy(layer(*many, training=True))  # (copies, T, DQ)
    expected, _ = by_equation(layer, *(x[:1] for x in INPUTS))
    standard_error = draws.std(axis=0) / np.sqrt(copies)
    assert (standard_error > 0).all()
    assert np.abs((draws.mean(axis=0) - expected[0]) / standard_error).max() < 5


def test_training_comes_from_the_model_around():
    layer = attention_layer(dropout=0.3, seed=5)
    query, value, key = (keras.Input(x.shape[1:]) for x in INPUTS)
    model = keras.Model([query, value, key], layer(query, value, key))
    keep = random.dropout_mask(seed=5, counter=0, shape=(B, HEADS, T, S), rate=0.3)
    assert_agree(to_numpy(model(INPUTS, training=True)), by_equation(layer, *INPUTS, keep=keep, rate=0.3)[0], 2e-6)
    assert_agree(to_numpy(model(INPUTS)), by_equation(layer, *INPUTS)[0], 2e-6)


@pytest.mark.parametrize("file", ["model.keras", "model.weights.h5"])
def test_dropout_goes_on_after_saving_and_loading(file, tmp_path):
    query, value, key = (keras.Input(x.shape[1:]) for x in INPUTS)
    model = keras.Model([query, value, key], MyMultiHeadAttention(HEADS, HEAD_SIZE, dropout=0.3)(query, value, key))
    for _ in range(2):
        model(INPUTS, training=True)
    if file == "model.keras":
        model.save(tmp_path / file)
        again = keras.saving.load_model(tmp_path / file)
    else:
        model.save_weights(tmp_path / file)
        again = keras.models.clone_model(model)
        again.load_weights(tmp_path / file)
    third = to_numpy(model(INPUTS, training=True))
    np.testing.assert_array_equal(to_numpy(again(INPUTS, training=True)), third)
    assert relative_difference(to_numpy(again(INPUTS, training=True)), third) > 1e-2


# LoRA and int8 run through the projections. ---------------------------------------------------------------------------


def self_attention_model():
    query = keras.Input((T, DQ))
    layer = attention_layer(((None, T, DQ), (None, T, DQ)), name="attention")
    return keras.Model(query, layer(query, query)), layer


def test_lora_trains_and_reloads_merged(tmp_path):
    model, layer = self_attention_model()
    kernel = to_numpy(layer.q_dense.kernel)
    layer.q_dense.enable_lora(2)
    assert "attention/q_dense/lora_kernel_a" in variable_shapes(layer)
    before = model.predict(QUERY, verbose=0)
    model.compile("sgd", "mse")
    model.fit(QUERY, COTANGENT, epochs=3, verbose=0)
    frozen = next(w for w in layer.non_trainable_weights if w.path == "attention/q_dense/kernel")
    np.testing.assert_array_equal(to_numpy(frozen), kernel)
    after = model.predict(QUERY, verbose=0)
    assert relative_difference(after, before) > 1e-3
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert_agree(again.predict(QUERY, verbose=0), after, 1e-6)
    assert not any("lora" in path for path in variable_shapes(again))
    assert len(again.trainable_weights) == 8
    merged = to_numpy(again.get_layer("attention").q_dense.kernel)
    assert_agree(merged, to_numpy(layer.q_dense.kernel), 1e-6)
    assert relative_difference(merged, kernel) > 1e-4


def test_int8_runs_and_stays_near():
    model, layer = self_attention_model()
    before = model.predict(QUERY, verbose=0)
    model.quantize("int8")
    kernels = [dense.kernel for dense in (layer.q_dense, layer.k_dense, layer.v_dense, layer.out_dense)]
    assert {dtype_of(kernel) for kernel in kernels} == {"int8"}
    difference = relative_difference(model.predict(QUERY, verbose=0), before)
    assert 0 < difference < 5e-2
    output, scores = layer(QUERY, QUERY, return_attention_scores=True)
    assert_agree(to_numpy(output), before, 5e-2)
    np.testing.assert_allclose(to_numpy(scores).sum(axis=-1), 1, atol=1e-5)


def test_an_int8_model_does_not_reload_as_it_is(tmp_path):
    model, _ = self_attention_model()
    model.quantize("int8")
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="could not be loaded"):
        keras.saving.load_model(tmp_path / "model.keras")


def test_int8_weights_load_into_a_model_that_was_quantized_first(tmp_path):
    model, _ = self_attention_model()
    again = keras.models.clone_model(model)
    model.quantize("int8")
    model.save_weights(tmp_path / "model.weights.h5")
    again.quantize("int8")
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(again.predict(QUERY, verbose=0), model.predict(QUERY, verbose=0))


# Errors. --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, 2.0, 2.5, True, "2", None])
@pytest.mark.parametrize("argument", ["num_heads", "key_dim", "value_dim", "output_shape"])
def test_sizes_must_be_positive_ints(argument, value):
    if value is None and argument in ("value_dim", "output_shape"):
        return  # the default
    with pytest.raises(ValueError, match=rf"`{argument}` must be .* Received: {argument}={value!r}"):
        MyMultiHeadAttention(**{"num_heads": 2, "key_dim": 3, argument: value})


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, float("nan"), "0.1", None])
def test_dropout_must_be_in_0_to_1(value):
    with pytest.raises(ValueError, match=r"`dropout` must be a number in \[0, 1\)"):
        MyMultiHeadAttention(2, 3, dropout=value)


@pytest.mark.parametrize("value", [-1, 2**31, 0.5])
def test_seeds_are_those_that_every_backend_can_hold(value):
    with pytest.raises(ValueError, match="`seed` must be"):
        MyMultiHeadAttention(2, 3, seed=value)


def test_output_shape_may_be_a_tuple_of_one():
    assert MyMultiHeadAttention(2, 3, output_shape=(9,)).get_config()["output_shape"] == 9
    with pytest.raises(ValueError, match="`output_shape` must be"):
        MyMultiHeadAttention(2, 3, output_shape=(9, 9))


WRONG_SHAPES = {
    "query of rank 2": (((T, DQ), (B, S, DV)), "must have 3 dimensions"),
    "value of rank 4": (((B, T, DQ), (B, S, 1, DV)), "must have 3 dimensions"),
    "key of rank 2": (((B, T, DQ), (B, S, DV), (S, DK)), "must have 3 dimensions"),
    "more keys than values": (((B, T, DQ), (B, S, DV), (B, S + 1, DK)), "as many keys as values"),
    "two batch sizes": (((B, T, DQ), (B + 1, S, DV)), "one batch size"),
}


@pytest.mark.parametrize(("wrong", "message"), WRONG_SHAPES.values(), ids=WRONG_SHAPES)
def test_inputs_that_do_not_fit_together(wrong, message):
    named = [f"{name} of shape {shape}" for name, shape in zip(("query", "value", "key"), wrong, strict=False)]

    def check(function, *inputs):
        with pytest.raises(ValueError, match=message) as error:
            function(*inputs)
        assert all(part in str(error.value) for part in ["Received: ", *named])

    arrays = [np.zeros(shape, "float32") for shape in wrong]
    symbolic = [keras.KerasTensor(shape) for shape in wrong]
    check(MyMultiHeadAttention(2, 3).build, *wrong)
    check(MyMultiHeadAttention(2, 3).compute_output_shape, *wrong)
    check(MyMultiHeadAttention(2, 3), *arrays)
    check(MyMultiHeadAttention(2, 3), *symbolic)
    if all(len(shape) == 3 for shape in wrong):  # otherwise a Dense complains first
        check(attention_layer(((None, None, DQ), (None, None, DV), (None, None, wrong[-1][-1]))), *arrays)


WRONG_MASKS = {
    "attention_mask": [(T,), (S, T), (T, S + 1), (B + 1, T, S), (B, HEADS - 1, T, S), (B, HEADS, T, S, 1)],
    "query_mask": [(T,), (B, S), (B, T, 1), (B + 1, T)],
    "value_mask": [(S,), (B, T), (B, 1, S), (B + 1, S)],
    "key_mask": [(S,), (B, T), (B, 1, S), (B + 1, S)],
}
BROADCAST_TO = {
    "attention_mask": [(T, S), (B, T, S), (B, HEADS, T, S)],
    "query_mask": [(B, T)],
    "value_mask": [(B, S)],
    "key_mask": [(B, S)],
}


@pytest.mark.parametrize(
    ("name", "shape"), [(name, shape) for name, wrong_shapes in WRONG_MASKS.items() for shape in wrong_shapes]
)
def test_a_mask_that_does_not_broadcast(name, shape):
    layer = attention_layer()
    symbolic = [keras.KerasTensor(x.shape) for x in INPUTS]
    for inputs, mask in ((INPUTS, np.ones(shape, bool)), (symbolic, keras.KerasTensor(shape, dtype="bool"))):
        with pytest.raises(ValueError, match=f"`{name}` must broadcast to") as error:
            layer(*inputs, **{name: mask})
        message = str(error.value)
        assert f"Received: {name} of shape {shape}" in message
        assert all(str(allowed) in message for allowed in BROADCAST_TO[name])
