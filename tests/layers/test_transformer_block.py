"""`TransformerBlock`: attention, then an MLP, each around a skip connection."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_vit_edu import random
from keras_vit_edu.initializers import GlorotUniform, HeNormal
from keras_vit_edu.layers import RelativePositionBias, TransformerBlock
from keras_vit_edu.parity import oracle, output_and_gradients
from keras_vit_edu.parity.testing import assert_config_round_trip
from tests.support import (
    assert_agree,
    compiled,
    copy_weights,
    on_one_backend,
    random_weights,
    relative_difference,
    revived,
    shapes,
    to_numpy,
)

B, N, D = 2, 5, 6
HEADS, HEAD_SIZE, MLP_DIM = 3, 4, 7

_rng = np.random.default_rng(0)
TOKENS = _rng.normal(size=(B, N, D)).astype("float32")
COTANGENT = _rng.normal(size=(B, N, D)).astype("float32")
MASK = (_rng.random((B, N, N)) < 0.6) | np.eye(N, dtype=bool)

# The published ViT's MLP, and the course's.
MLPS = {"gelu once": {}, "gelu twice": {"output_activation": "gelu"}}
in_both_forms = pytest.mark.parametrize("mlp", MLPS.values(), ids=MLPS)


def transformer_block(**arguments):
    """A built block with random weights, norms and biases, without dropout unless asked for."""
    sizes = {"num_heads": HEADS, "key_dim": HEAD_SIZE, "mlp_dim": MLP_DIM}
    block = TransformerBlock(**{**sizes, "dropout": 0.0, "attention_dropout": 0.0, **arguments})
    block.build((None, None, D))
    random_weights(block, scale=0.6)
    return block


def weights_of(block):
    return {w.path.removeprefix(f"{block.name}/"): to_numpy(w) for w in block.trainable_weights}


def by_equation(block, tokens, mask=None, **arguments):
    """Tokens and scores by the oracle."""
    return oracle.transformer_block(
        weights_of(block), tokens, num_heads=block.num_heads, attention_mask=mask, **arguments
    )


def dtype_of(x):
    return keras.backend.standardize_dtype(x.dtype)


# The numbers. ---------------------------------------------------------------------------------------------------------


@pytest.mark.quick
@in_both_forms
@pytest.mark.parametrize("mask", [None, MASK], ids=["unmasked", "masked"])
def test_tokens_and_scores_are_those_of_the_equations(mask, mlp):
    block = transformer_block(**mlp)
    expected, expected_scores = by_equation(block, TOKENS, mask, **mlp)
    assert_agree(to_numpy(block(TOKENS, attention_mask=mask)), expected, 2e-6)
    tokens, scores = block(TOKENS, attention_mask=mask, return_attention_scores=True)
    assert_agree(to_numpy(tokens), expected, 2e-6)
    assert_agree(to_numpy(scores), expected_scores, 2e-6)


def test_the_two_mlps_and_the_mask_make_a_difference():
    block = transformer_block()
    expected = by_equation(block, TOKENS)[0]
    assert relative_difference(by_equation(block, TOKENS, output_activation="gelu")[0], expected) > 1e-2
    assert relative_difference(by_equation(block, TOKENS, MASK)[0], expected) > 1e-2


@pytest.mark.parametrize(
    ("arguments", "of_the_oracle"),
    [
        ({"activation": "relu", "output_activation": "tanh"}, {"activation": "relu", "output_activation": "tanh"}),
        ({"layer_norm_epsilon": 0.1}, {"epsilon": 0.1}),
        ({"num_heads": 1, "key_dim": 2, "mlp_dim": 1, "use_bias": False}, {}),
    ],
)
def test_other_configurations_follow_the_equations(arguments, of_the_oracle):
    block = transformer_block(**arguments)
    expected, _ = by_equation(block, TOKENS, **of_the_oracle)
    assert_agree(to_numpy(block(TOKENS)), expected, 2e-6)


def test_the_scores_are_those_of_the_attention_on_the_normalised_tokens():
    block = transformer_block()
    _, scores = block(TOKENS, attention_mask=MASK, return_attention_scores=True)
    normalised = block.attention_norm(TOKENS)
    _, expected = block.attention(normalised, normalised, attention_mask=MASK, return_attention_scores=True)
    np.testing.assert_array_equal(to_numpy(scores), to_numpy(expected))


@pytest.mark.quick
@in_both_forms
def test_gradients_are_those_of_the_equations_and_reach_every_weight(mlp):
    block = transformer_block(**mlp)

    def call(block, tokens):
        return block(tokens, attention_mask=MASK)

    _, (of_tokens,), of_weights = output_and_gradients(block, [TOKENS], COTANGENT, call)
    actual = {"tokens": of_tokens} | {path.removeprefix(f"{block.name}/"): g for path, g in of_weights.items()}
    given = {"tokens": TOKENS, **weights_of(block)}
    assert actual.keys() == given.keys()
    for name, value in given.items():

        def loss(value, name=name):
            weights = {**given, name: value}
            tokens = weights.pop("tokens")
            output, _ = oracle.transformer_block(weights, tokens, num_heads=HEADS, attention_mask=MASK, **mlp)
            return (output * COTANGENT).sum()

        expected = oracle.gradient(loss, value)
        if name == "attention/k_dense/bias":  # adds the same to every score of a row, which the softmax takes off: 0
            assert np.abs(actual[name]).max() < 1e-5
        else:
            assert np.abs(expected).max() > 1e-3, name
            assert relative_difference(actual[name], expected) <= 1e-5, name


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_close_to_the_equations(policy):
    block = transformer_block(dtype=policy)
    expected, expected_scores = by_equation(block, TOKENS, MASK)
    tokens, scores = block(TOKENS, attention_mask=MASK, return_attention_scores=True)
    assert dtype_of(tokens) == dtype_of(scores) == policy.removeprefix("mixed_")
    assert_agree(to_numpy(tokens), expected, 2e-2)
    assert_agree(to_numpy(scores), expected_scores, 2e-2)
    assert_agree(to_numpy(block(TOKENS, attention_mask=MASK)), expected, 2e-2)
    assert {dtype_of(w) for w in block.weights} == {"float32"}


# Shapes. --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("batch", [None, 1, 7])
@pytest.mark.parametrize("length", [None, N])
def test_symbolic_shapes_and_dtypes(length, batch, policy):
    block = transformer_block(dtype=policy)
    symbolic = keras.KerasTensor((batch, length, D))
    tokens = block(symbolic)
    with_scores = block(symbolic, return_attention_scores=True)
    expected = [(batch, length, D), (batch, HEADS, length, length)]
    assert shapes([tokens, *with_scores]) == [expected[0], *expected]
    assert {dtype_of(x) for x in (tokens, *with_scores)} == {policy.removeprefix("mixed_")}
    assert block.compute_output_shape((batch, length, D)) == (batch, length, D)


@pytest.mark.parametrize(
    ("batch", "policy"),
    [(7, "mixed_bfloat16"), *on_one_backend((1, "float32"), (7, "float32"), (7, "mixed_float16"))],
)
def test_eager_and_compiled_shapes_and_dtypes_are_the_symbolic_ones(batch, policy):
    block = transformer_block(dtype=policy)
    tokens = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(batch, N, D)).astype("float32"))

    def with_scores(tokens):
        return block(tokens, return_attention_scores=True)

    for function, expected in ((block, [(batch, N, D)]), (with_scores, [(batch, N, D), (batch, HEADS, N, N)])):
        for run in (function, compiled(function)):
            outputs = run(tokens)
            assert shapes(outputs) == expected
            outputs = outputs if len(expected) == 2 else [outputs]
            assert {dtype_of(x) for x in outputs} == {policy.removeprefix("mixed_")}


def test_an_unknown_number_of_tokens():
    block = transformer_block()
    tokens = keras.Input((None, D))
    model = keras.Model(tokens, block(tokens, return_attention_scores=True))
    rng = np.random.default_rng(0)
    for batch, length in ((2, 5), (3, 8)):
        array = rng.normal(size=(batch, length, D)).astype("float32")
        for actual, expected in zip(model.predict(array, verbose=0), by_equation(block, array), strict=True):
            assert_agree(actual, expected, 2e-6)


def test_fit_with_a_ragged_last_batch_in_a_sequential_model():
    blocks = [TransformerBlock(HEADS, HEAD_SIZE, MLP_DIM, name=f"block_{i}") for i in range(2)]
    model = keras.Sequential([keras.Input((None, D)), *blocks])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(7, N, D))
    before = model.get_weights()
    losses = model.fit(x, 0 * x, batch_size=4, epochs=2, verbose=0, shuffle=False).history["loss"]
    assert losses[1] < losses[0]
    changed = [np.abs(new - old).max() > 0 for new, old in zip(model.get_weights(), before, strict=True)]
    assert len(changed) == 32
    assert sum(changed) >= 30  # all but, perhaps, the biases of the keys


DENSES = (
    "attention/q_dense",
    "attention/k_dense",
    "attention/v_dense",
    "attention/out_dense",
    "mlp_hidden",
    "mlp_output",
)
PATHS = {f"{norm}/{weight}" for norm in ("attention_norm", "mlp_norm") for weight in ("gamma", "beta")}
PATHS |= {f"{dense}/{weight}" for dense in DENSES for weight in ("kernel", "bias")}


def test_build_alone_creates_the_weights_of_a_call_under_their_paths():
    built, called = (TransformerBlock(HEADS, HEAD_SIZE, MLP_DIM, name="block") for _ in range(2))
    built.build((None, None, D))
    called(TOKENS)
    assert {w.path for w in built.weights} == {f"block/{path}" for path in PATHS}
    assert {w.path: tuple(w.shape) for w in built.weights} == {w.path: tuple(w.shape) for w in called.weights}
    assert len(built.variables) == len(called.variables) == 16 + 3  # and a counter for each dropout


def test_use_bias_is_about_attention_alone():
    paths = {w.path for w in transformer_block(use_bias=False, name="block").weights}
    assert paths == {f"block/{path}" for path in PATHS if not (path.startswith("attention/") and path.endswith("bias"))}


# Masks. ---------------------------------------------------------------------------------------------------------------


def test_the_mask_of_the_tokens_hides_padding_and_goes_on():
    words = np.array([[3, 1, 4, 0, 0], [2, 1, 0, 0, 0]])
    embed = keras.layers.Embedding(5, D, mask_zero=True)
    embed.build((None, N))
    random_weights(embed, scale=1.0)
    block, real = transformer_block(), words != 0
    tokens = embed(words)
    plain = to_numpy(tokens)
    expected, _ = oracle.transformer_block(weights_of(block), plain, num_heads=HEADS, query_mask=real, value_mask=real)
    assert relative_difference(expected, by_equation(block, plain)[0]) > 1e-2
    output = block(tokens)
    assert_agree(to_numpy(output), expected, 2e-6)
    mean = expected * real[..., None]
    assert_agree(
        to_numpy(keras.layers.GlobalAveragePooling1D()(output)), mean.sum(axis=1) / real.sum(axis=1)[:, None], 2e-6
    )


# Configuration. -------------------------------------------------------------------------------------------------------

NON_DEFAULT = {
    "num_heads": 2,
    "key_dim": 3,
    "mlp_dim": 9,
    "dropout": 0.25,
    "attention_dropout": 0.5,
    "activation": "relu",
    "output_activation": "tanh",
    "use_bias": False,
    "layer_norm_epsilon": 1e-3,
    "kernel_initializer": HeNormal(seed=3),
    "stochastic_depth": 0.2,
    "hidden_dropout": 0.1,
    "projection_dropout": 0.3,
    "seed": 7,
    "position_bias": RelativePositionBias(grid_size=(1, 2), locality=0.5),
    "name": "mine",
    "trainable": False,
    "dtype": keras.DTypePolicy("mixed_bfloat16"),
}


def test_a_configuration_of_before_has_a_grid_and_a_locality():
    config = TransformerBlock(**NON_DEFAULT).get_config()
    del config["position_bias"]
    block = TransformerBlock.from_config({**config, "grid_size": (1, 2), "locality": 0.5})
    assert block.get_config() == TransformerBlock(**NON_DEFAULT).get_config()
    assert TransformerBlock.from_config({**config, "grid_size": None, "locality": 0.0}).position_bias is None


def test_every_argument_survives_its_configuration():
    assert_config_round_trip(TransformerBlock, NON_DEFAULT)


@pytest.mark.parametrize("revive", [revived, lambda block: type(block).from_config(block.get_config())])
def test_every_argument_survives_its_config(revive):
    block = TransformerBlock(**NON_DEFAULT)
    keras.config.set_dtype_policy("mixed_float16")
    keras.config.set_image_data_format("channels_first")
    copy = revive(block)
    assert copy.get_config() == block.get_config()
    for argument, value in NON_DEFAULT.items():
        if argument in ("activation", "output_activation"):
            assert getattr(copy, argument) is keras.activations.get(value)
        elif argument == "kernel_initializer":
            assert isinstance(copy.kernel_initializer, HeNormal)
            assert copy.kernel_initializer.seed == 3
        elif argument == "dtype":
            assert copy.dtype_policy == value
        elif argument == "position_bias":
            assert (copy.position_bias.grid_size, copy.position_bias.locality) == ((1, 2), 0.5)
        else:
            assert getattr(copy, argument) == value, argument


def test_arguments_reach_the_sublayers():
    block = TransformerBlock(**NON_DEFAULT)
    block.build((None, None, D))
    assert (block.attention.num_heads, block.attention.key_dim) == (2, 3)
    assert (block.attention.dropout, block.attention.use_bias) == (0.5, False)
    assert (block.mlp_hidden_dropout.rate, block.mlp_output_dropout.rate) == (0.1, 0.25)
    assert block.attention_output_dropout.rate == 0.3
    assert block.attention_branch.rate == block.mlp_branch.rate == 0.2
    assert (block.mlp_hidden.units, block.mlp_output.units) == (9, D)
    assert block.attention_norm.epsilon == block.mlp_norm.epsilon == 1e-3
    for layer in (block.attention_norm, block.attention, block.attention.q_dense, *dropouts(block), block.mlp_norm,
                  block.mlp_hidden, block.mlp_output):  # fmt: skip
        assert layer.dtype_policy.name == "mixed_bfloat16", layer.path


def test_a_revived_block_with_copied_weights_gives_identical_outputs():
    for arguments in ({**NON_DEFAULT, "dtype": "float32"}, NON_DEFAULT):
        block = TransformerBlock(**arguments)
        outputs = block(TOKENS, return_attention_scores=True)
        keras.config.set_dtype_policy("mixed_float16")
        copy = revived(block)
        copy_weights(block, copy)
        again = copy(TOKENS, return_attention_scores=True)
        keras.config.set_dtype_policy("float32")
        for x, y in zip(again, outputs, strict=True):
            assert dtype_of(x) == dtype_of(y)
            np.testing.assert_array_equal(to_numpy(x), to_numpy(y))


def test_one_seeded_initializer_gives_every_kernel_values_of_its_own():
    block = TransformerBlock(2, 3, mlp_dim=6, kernel_initializer=GlorotUniform(seed=0))
    block.build((None, None, 6))
    kernels = [to_numpy(w) for w in block.weights if w.path.endswith("kernel")]
    assert [kernel.shape for kernel in kernels] == [(6, 6)] * 6
    for i in range(6):
        for j in range(i):
            assert np.mean(kernels[i] == kernels[j]) < 0.1
    again = TransformerBlock(2, 3, mlp_dim=6, kernel_initializer=GlorotUniform(seed=0))
    again.build((None, None, 6))
    for kernel, weight in zip(kernels, (w for w in again.weights if w.path.endswith("kernel")), strict=True):
        np.testing.assert_array_equal(kernel, to_numpy(weight))


# Dropout. -------------------------------------------------------------------------------------------------------------


def dropouts(block):
    return [
        block.attention.score_dropout,
        block.attention_output_dropout,
        block.mlp_hidden_dropout,
        block.mlp_output_dropout,
    ]


def branches(block):
    return [block.attention_branch, block.mlp_branch]


@pytest.mark.parametrize("seed", [None, 7])
def test_every_dropout_has_a_stream_of_its_own(seed):
    rates = {"dropout": 0.5, "attention_dropout": 0.5, "projection_dropout": 0.5, "stochastic_depth": 0.5}
    block = transformer_block(**rates, seed=seed)
    seeds = [int(to_numpy(dropout.seed_generator.state)[0]) for dropout in dropouts(block) + branches(block)]
    assert len(set(seeds)) == 6


@pytest.mark.quick
def test_a_seed_fixes_the_dropouts():
    blocks = [transformer_block(dropout=0.5, attention_dropout=0.5, seed=seed) for seed in (7, 7, 8)]
    first, second, other = (to_numpy(block(TOKENS, training=True)) for block in blocks)
    np.testing.assert_array_equal(first, second)
    assert relative_difference(other, first) > 1e-2


@pytest.mark.parametrize(
    ("more", "projection_rate", "hidden_rate"),
    [
        ({}, 0.0, 0.25),
        ({"projection_dropout": 0.4}, 0.4, 0.25),
        ({"hidden_dropout": 0.1}, 0.0, 0.1),
        ({"hidden_dropout": 0.0}, 0.0, 0.0),
    ],
)
def test_each_dropout_drops_where_its_stream_says_and_in_training_only(more, projection_rate, hidden_rate):
    block = transformer_block(dropout=0.25, attention_dropout=0.5, seed=7, **more)
    weights = weights_of(block)
    score_seed, projection_seed, hidden_seed, output_seed = (dropout.seed for dropout in dropouts(block))
    for step in range(2):
        normalised = oracle.layer_norm(oracle.within(weights, "attention_norm"), TOKENS)
        attended, _ = oracle.multi_head_attention(
            oracle.within(weights, "attention"),
            normalised,
            normalised,
            num_heads=HEADS,
            keep=random.dropout_mask(score_seed, step, (B, HEADS, N, N), 0.5),
            rate=0.5,
        )
        mask = random.dropout_mask(projection_seed, step, (B, N, D), projection_rate)
        tokens = TOKENS + oracle.dropout(attended, mask, projection_rate)
        hidden = oracle.gelu(
            oracle.dense(
                oracle.within(weights, "mlp_hidden"), oracle.layer_norm(oracle.within(weights, "mlp_norm"), tokens)
            )
        )
        mask = random.dropout_mask(hidden_seed, step, (B, N, MLP_DIM), hidden_rate)
        hidden = oracle.dropout(hidden, mask, hidden_rate)
        output = oracle.dense(oracle.within(weights, "mlp_output"), hidden)
        output = oracle.dropout(output, random.dropout_mask(output_seed, step, (B, N, D), 0.25), 0.25)
        assert_agree(to_numpy(block(TOKENS, training=True)), tokens + output, 2e-6)
        for training in (None, False):
            assert_agree(to_numpy(block(TOKENS, training=training)), by_equation(block, TOKENS)[0], 2e-6)


def test_stochastic_depth_skips_branches_image_by_image_in_training_only():
    block = transformer_block(stochastic_depth=0.5, seed=7)
    images = 8
    tokens = np.tile(TOKENS[:1], (images, 1, 1))
    for step in range(2):
        keep = [random.dropout_mask(branch.seed, step, (images, 1, 1), 0.5) for branch in branches(block)]
        assert {(bool(a), bool(b)) for a, b in zip(*(mask.ravel() for mask in keep), strict=True)} > {(True, False)}
        expected, _ = by_equation(block, tokens, keep_branches=keep, stochastic_depth=0.5)
        assert_agree(to_numpy(block(tokens, training=True)), expected, 2e-6)
        assert_agree(to_numpy(block(tokens)), by_equation(block, tokens)[0], 2e-6)


def test_a_block_without_them_draws_what_it_drew_before_there_were_any():
    block = transformer_block(dropout=0.5, attention_dropout=0.5)
    of_later_versions = [*branches(block), block.attention_output_dropout]
    assert [hasattr(dropout, "seed_generator") for dropout in of_later_versions] == [False] * 3
    assert len(block.non_trainable_variables) == 3  # seed and counter of three dropouts


def test_dropout_goes_on_after_saving_and_loading(tmp_path):
    tokens = keras.Input((N, D))
    block = TransformerBlock(HEADS, HEAD_SIZE, MLP_DIM, dropout=0.3, attention_dropout=0.3, stochastic_depth=0.4)
    model = keras.Model(tokens, block(tokens))
    for _ in range(2):
        model(TOKENS, training=True)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(again(TOKENS)), to_numpy(model(TOKENS)))
    third = to_numpy(model(TOKENS, training=True))
    np.testing.assert_array_equal(to_numpy(again(TOKENS, training=True)), third)
    assert relative_difference(to_numpy(again(TOKENS, training=True)), third) > 1e-2


# Errors. --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, 2.0, True, None])
@pytest.mark.parametrize("argument", ["num_heads", "key_dim", "mlp_dim"])
def test_sizes_must_be_positive_ints(argument, value):
    with pytest.raises(ValueError, match=rf"`{argument}` must be .* Received: {argument}={value!r}"):
        TransformerBlock(**{"num_heads": 2, "key_dim": 3, "mlp_dim": 4, argument: value})


@pytest.mark.parametrize("value", [-0.1, 1, "0.1"])
@pytest.mark.parametrize("argument", ["dropout", "attention_dropout", "hidden_dropout", "projection_dropout"])
def test_dropout_must_be_in_0_to_1(argument, value):
    with pytest.raises(ValueError, match=rf"`{argument}` must be a number in \[0, 1\)"):
        TransformerBlock(2, 3, 4, **{argument: value})


@pytest.mark.parametrize("value", [-1, 2**31, 0.5])
def test_seeds_are_those_that_every_backend_can_hold(value):
    with pytest.raises(ValueError, match="`seed` must be"):
        TransformerBlock(2, 3, 4, seed=value)


@pytest.mark.parametrize("shape", [(N, D), (B, 2, N, D)])
def test_tokens_must_be_of_rank_3(shape):
    block = TransformerBlock(2, 3, 4)
    for function in (block, block.build, block.compute_output_shape):
        argument = np.zeros(shape, "float32") if function is block else shape
        with pytest.raises(ValueError, match=r"must have 3 dimensions, \(B, N, D\)") as error:
            function(argument)
        assert f"Received: tokens of shape {shape}" in str(error.value)
    for block in (TransformerBlock(2, 3, 4), transformer_block()):  # not built, built
        for tokens in (np.zeros(shape, "float32"), keras.KerasTensor(shape)):
            with pytest.raises(ValueError, match=r"Tokens must have 3 dimensions, \(B, N, D\)"):
                block(tokens)


def test_a_mask_that_does_not_broadcast_is_refused_symbolically_and_eagerly():
    block = transformer_block()
    wrong = (B, N, N + 1)
    for tokens, mask in (
        (TOKENS, np.ones(wrong, bool)),
        (keras.KerasTensor(TOKENS.shape), keras.KerasTensor(wrong, "bool")),
    ):
        with pytest.raises(ValueError, match="`attention_mask` must broadcast to") as error:
            block(tokens, attention_mask=mask)
        assert f"(2, 3, 5, 5). Received: attention_mask of shape {wrong}" in str(error.value)
