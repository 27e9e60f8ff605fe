"""`RelativePositionBias`: where two patches stand to each other, told to attention."""

import tracemalloc
import warnings

import keras
import numpy as np
import pytest

from keras_vit_edu._building import Budget, TooLarge, within
from keras_vit_edu.layers import MyMultiHeadAttention, RelativePositionBias, TransformerBlock
from keras_vit_edu.parity import oracle, output_and_gradients
from keras_vit_edu.parity.testing import assert_config_round_trip
from tests.support import BACKEND, assert_agree, compiled, random_weights, revived, shapes, to_numpy

pytestmark = pytest.mark.quick

_rng = np.random.default_rng(0)
TOKENS = _rng.normal(size=(2, 7, 4)).astype("float32")  # a class token and 2x3 patches
COTANGENT = _rng.normal(size=(1, 3, 7, 7)).astype("float32")


def position_bias(**arguments):
    bias = RelativePositionBias(**{"num_heads": 3, "grid_size": (2, 3), **arguments})
    bias.build((None, 7, 4))
    random_weights(bias, scale=1)
    return bias


def test_the_bias_is_that_of_the_equation_for_patches_and_0_for_prefix_tokens():
    bias = position_bias()
    expected = oracle.relative_position_bias(to_numpy(bias.table), (2, 3), 7)[None]
    tokens = keras.ops.convert_to_tensor(TOKENS)
    for output in (bias(TOKENS), compiled(bias)(tokens)):
        np.testing.assert_array_equal(to_numpy(output), expected.astype("float32"))
    assert (expected[0, :, 1:, 1:] != 0).all()
    assert shapes(bias(keras.KerasTensor((None, 7, 4)))) == [(1, 3, 7, 7)]


def test_gradients_are_those_of_the_equation():
    bias = position_bias()
    _, _, of_weights = output_and_gradients(bias, [TOKENS], COTANGENT)

    def loss(table):
        return (oracle.relative_position_bias(table, (2, 3), 7)[None] * COTANGENT).sum()

    assert_agree(of_weights[bias.table.path], oracle.gradient(loss, to_numpy(bias.table)), 1e-5)


@pytest.mark.parametrize(
    ("num_heads", "neighbours"),
    [
        (1, [(-1, 0)]),
        (4, [(-1, 0), (0, -1), (0, 1), (1, 0)]),
        (8, [(-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]),
        (12, [(-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1), (-2, 0), (0, -2), (0, 2), (2, 0)]),
    ],
)
def test_at_first_each_head_looks_at_another_of_the_nearest_neighbours(num_heads, neighbours):
    bias = RelativePositionBias(num_heads, (5, 7), locality=1.5)
    first = to_numpy(bias(np.zeros((1, 35, 2), "float32")))[0]
    query_row, query_column = 2, 3  # the middle
    for head, (row, column) in enumerate(neighbours):
        of_the_middle = first[head, query_row * 7 + query_column].reshape(5, 7)
        places = np.unravel_index(of_the_middle.argmax(), (5, 7))
        assert (places[0] - query_row, places[1] - query_column) == (row, column)
        assert of_the_middle.max() == 0
        assert of_the_middle.min() == -8
        assert of_the_middle[query_row, query_column] == max(-1.5 * (row**2 + column**2), -8)  # the patch itself


def test_without_locality_all_begin_alike():
    bias = RelativePositionBias(2, (2, 3))
    np.testing.assert_array_equal(to_numpy(bias(np.zeros((1, 6, 2), "float32"))), np.zeros((1, 2, 6, 6)))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("wants_scores", [False, True])
def test_attention_adds_a_bias_to_its_scores(policy, wants_scores):
    tolerance = 2e-6 if policy == "float32" else 2e-2
    attention = MyMultiHeadAttention(num_heads=3, key_dim=4, dropout=0, dtype=policy)
    attention.build((None, 7, 4), (None, 7, 4))
    random_weights(attention)
    weights = {w.path.removeprefix(f"{attention.name}/"): to_numpy(w) for w in attention.trainable_weights}
    bias = _rng.normal(size=(1, 3, 7, 7)).astype("float32")
    some_hide_all = np.tri(7, k=-2, dtype=bool)  # the first two queries see nothing
    real = np.array([[1, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]], bool)
    for options in ({}, {"attention_mask": some_hide_all}, {"query_mask": real, "value_mask": real}):
        expected, expected_scores = oracle.multi_head_attention(
            weights, TOKENS, TOKENS, num_heads=3, attention_bias=bias, **options
        )
        without, _ = oracle.multi_head_attention(weights, TOKENS, TOKENS, num_heads=3, **options)
        assert np.abs(expected - without).max() > 0.05
        found = attention(TOKENS, TOKENS, attention_bias=bias, return_attention_scores=wants_scores, **options)
        if wants_scores:
            found, scores = found
            assert_agree(to_numpy(scores), expected_scores, tolerance)
        assert_agree(to_numpy(found), expected, tolerance)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("low", [-1e9, -np.inf])
def test_a_low_bias_is_no_mask_and_a_mask_outdoes_it(policy, low):
    attention = MyMultiHeadAttention(num_heads=1, key_dim=4, dropout=0, dtype=policy)
    bias = np.zeros((1, 1, 7, 7), "float32")
    bias[..., 1, :] = low  # everywhere
    bias[..., 2, 3:] = low  # on what the mask leaves
    mask = np.ones((7, 7), bool)
    mask[2, :3] = False
    _, scores = attention(TOKENS, TOKENS, attention_bias=bias, attention_mask=mask, return_attention_scores=True)
    scores = to_numpy(scores)[:, 0]
    np.testing.assert_allclose(scores[:, 1], np.full((2, 7), 1 / 7), rtol=1e-2)  # uniform
    np.testing.assert_allclose(scores[:, 2], np.array([[0, 0, 0, 1 / 4, 1 / 4, 1 / 4, 1 / 4]] * 2), rtol=1e-2)


def test_a_bias_that_does_not_fit_the_scores_is_an_error():
    attention = MyMultiHeadAttention(num_heads=3, key_dim=4)
    complaint = r"`attention_bias` must broadcast to \(2, 3, 7, 7\). Received: attention_bias of shape \(1, 2, 7, 7\)"
    with pytest.raises(ValueError, match=complaint):
        attention(TOKENS, TOKENS, attention_bias=np.zeros((1, 2, 7, 7), "float32"))


def test_a_bias_that_is_an_input_of_a_model():
    tokens, bias = keras.Input((7, 4)), keras.Input((3, 7, 7))
    attention = MyMultiHeadAttention(num_heads=3, key_dim=4, dropout=0)
    model = keras.Model([tokens, bias], attention(tokens, tokens, attention_bias=bias))
    values = _rng.normal(size=(2, 3, 7, 7)).astype("float32")
    expected = attention(TOKENS, TOKENS, attention_bias=values)
    assert_agree(model.predict([TOKENS, values], verbose=0), to_numpy(expected), 1e-6)


def test_a_block_with_a_grid_follows_the_equations_and_its_table_learns():
    bias = RelativePositionBias(None, (2, 3), 1.0)
    block = TransformerBlock(3, 4, 5, dropout=0, attention_dropout=0, position_bias=bias)
    block.build((None, 7, 4))
    random_weights(block)
    weights = {w.path.removeprefix(f"{block.name}/"): to_numpy(w) for w in block.trainable_weights}
    cotangent = _rng.normal(size=TOKENS.shape).astype("float32")

    def output(table):
        return oracle.transformer_block(
            {**weights, "position_bias/table": table}, TOKENS, num_heads=3, grid_size=(2, 3)
        )[0]

    found, _, gradients = output_and_gradients(block, [TOKENS], cotangent)
    table = weights["position_bias/table"]
    assert_agree(found, output(table), 2e-6)
    expected = oracle.gradient(lambda table: (output(table) * cotangent).sum(), table)
    assert np.abs(expected).max() > 1e-3
    assert_agree(gradients[f"{block.name}/position_bias/table"], expected, 1e-5)


@pytest.mark.any_backend
def test_blocks_share_what_they_look_up():
    tokens = np.zeros((1, 576, 1), "float32")
    tracemalloc.start()
    try:
        layers = [RelativePositionBias(1, (24, 24)) for _ in range(8)]
        for layer in layers:
            layer(tokens)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2 * 4 * 576**2  # bytes; one array of int32 is 4 * 576**2


@pytest.mark.any_backend
def test_nothing_is_computed_for_a_table_beyond_the_budget():
    layer = RelativePositionBias(1, (60, 60))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge), within(Budget(elements=100, variables=9, layers=9)):
            layer.build((None, 3600, 1))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000  # bytes; the indices have 4 * 3600**2, the numbers of a table 4 * 119**2 and more


def test_the_config_is_whole():
    assert_config_round_trip(
        RelativePositionBias,
        {
            "num_heads": 3,
            "grid_size": (2, 3),
            "locality": 0.5,
            "name": "mine",
            "trainable": False,
            "dtype": keras.DTypePolicy("mixed_bfloat16"),
        },
    )
    block = TransformerBlock(3, 4, 5, position_bias=RelativePositionBias(None, [2, 3], 1))
    assert revived(block).get_config() == block.get_config()
    assert revived(block).position_bias.get_config() == block.position_bias.get_config()


def test_a_saved_one_computes_the_same(tmp_path):
    block = TransformerBlock(3, 4, 5, position_bias=RelativePositionBias(None, (2, 3), 1.0), seed=0)
    model = keras.Sequential([keras.Input((7, 4)), block])
    random_weights(block)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(loaded(TOKENS)), to_numpy(model(TOKENS)))


@pytest.mark.parametrize("locality", [-1, np.inf, np.nan, True, "1", None])
def test_a_locality_is_a_number_of_at_least_0(locality):
    with pytest.raises(ValueError, match=r"`locality` must be a finite number, 0 or more. Received: locality="):
        RelativePositionBias(4, (2, 3), locality=locality)


def test_sizes_must_be_known_when_it_is_built():
    block = TransformerBlock(3, 4, 5, position_bias=RelativePositionBias(locality=1.0))
    with pytest.raises(ValueError, match=r"Give `num_heads` and `grid_size`.* Received: num_heads=3, grid_size=None"):
        block(TOKENS)
    with pytest.raises(ValueError, match=r"`num_heads` of RelativePositionBias must be the model's, 3.*num_heads=2"):
        TransformerBlock(3, 4, 5, position_bias=RelativePositionBias(2, (2, 3)))


@pytest.mark.parametrize("shape", [(2, 5, 4), (2, 6)])
def test_tokens_must_be_the_patches_and_what_comes_before(shape):
    with pytest.raises(ValueError, match=r"with at least 2 \* 3 tokens, the patches of the grid. Received: tokens of"):
        RelativePositionBias(4, (2, 3))(keras.KerasTensor(shape))


def test_a_block_complains_about_tokens_that_do_not_fit_its_grid():
    block = TransformerBlock(3, 4, 5, position_bias=RelativePositionBias(None, (2, 3)))
    for tokens in (np.zeros((2, 5, 4), "float32"), keras.KerasTensor((None, 5, 4))):
        with pytest.raises(ValueError, match=r"with at least 2 \* 3 tokens"):
            block(tokens)


def test_a_number_of_tokens_that_is_not_known_before(recwarn):
    tokens = keras.Input((None, 4), dtype="float32")
    bias = RelativePositionBias(None, (2, 3), 1.0)
    block = TransformerBlock(3, 4, 5, dropout=0, attention_dropout=0, position_bias=bias)
    model = keras.Model(tokens, block(tokens))
    assert_agree(model.predict(TOKENS, verbose=0), to_numpy(block(TOKENS)), 1e-5)
    if BACKEND == "tensorflow":
        import tensorflow

        graph = tensorflow.function(block, input_signature=[tensorflow.TensorSpec((None, None, 4))])
        assert_agree(to_numpy(graph(TOKENS)), to_numpy(block(TOKENS)), 1e-5)


def test_a_mask_of_the_tokens_goes_past_the_bias():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embedding = keras.layers.Embedding(5, 4, mask_zero=True)
        bias = RelativePositionBias(None, (2, 3), 1.0)
        block = TransformerBlock(3, 4, 5, dropout=0, attention_dropout=0, position_bias=bias)
        numbers = np.array([[1, 2, 3, 4, 1, 0], [1, 2, 0, 0, 0, 0]])
        output = block(embedding(numbers))
    real = numbers != 0
    expected = block(to_numpy(embedding(numbers)).astype("float32"), attention_mask=real[:, None] & real[:, :, None])
    np.testing.assert_array_equal(to_numpy(output), to_numpy(expected))
