"""`SequencePooling`: the mean of the tokens, weighted by attention."""

import keras
import numpy as np
import pytest

from keras_vit_edu.initializers import HeNormal
from keras_vit_edu.layers import SequencePooling
from keras_vit_edu.parity import oracle, output_and_gradients
from tests.support import assert_agree, compiled, constructor_arguments, random_weights, revived, to_numpy

pytestmark = pytest.mark.quick

_rng = np.random.default_rng(0)
TOKENS = _rng.normal(size=(2, 5, 3)).astype("float32")
COTANGENT = _rng.normal(size=(2, 3)).astype("float32")


def sequence_pooling(**arguments):
    pooling = SequencePooling(**arguments)
    pooling.build((None, None, 3))
    random_weights(pooling, scale=1)
    return pooling


def weights_of(pooling):
    return {w.path.removeprefix(f"{pooling.name}/"): to_numpy(w) for w in pooling.weights}


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("float32", 2e-6), ("mixed_bfloat16", 2e-2), ("mixed_float16", 2e-2)]
)
def test_pooled_and_scores_are_those_of_the_equations(policy, tolerance):
    pooling = sequence_pooling(dtype=policy)
    expected, expected_scores = oracle.sequence_pooling(weights_of(pooling), TOKENS)
    pooled, scores = pooling(TOKENS, return_attention_scores=True)
    assert_agree(to_numpy(pooled), expected, tolerance)
    assert_agree(to_numpy(scores), expected_scores, tolerance)
    assert keras.backend.standardize_dtype(scores.dtype) == "float32"
    assert keras.backend.standardize_dtype(pooled.dtype) == pooling.compute_dtype
    tokens = keras.ops.convert_to_tensor(TOKENS)
    for output in (pooling(tokens), compiled(pooling)(tokens)):
        assert_agree(to_numpy(output), expected, tolerance)


def test_tokens_of_whole_numbers():
    tokens = np.arange(24).reshape(2, 4, 3)
    pooling = sequence_pooling()
    expected, _ = oracle.sequence_pooling(weights_of(pooling), tokens.astype("float32"))
    assert_agree(to_numpy(pooling(tokens)), expected, 2e-6)


def test_gradients_are_those_of_the_equations():
    pooling = sequence_pooling()
    _, (of_tokens,), of_weights = output_and_gradients(pooling, [TOKENS], COTANGENT)
    weights = weights_of(pooling)

    def loss(tokens=TOKENS, weights=weights):
        return (oracle.sequence_pooling(weights, tokens)[0] * COTANGENT).sum()

    assert_agree(of_tokens, oracle.gradient(loss, TOKENS), 1e-5)
    (name,) = weights
    of_kernel = oracle.gradient(lambda kernel: loss(weights={name: kernel}), weights[name])
    assert_agree(of_weights[f"{pooling.name}/{name}"], of_kernel, 1e-5)


def test_without_preference_it_is_the_mean():
    pooling = SequencePooling(kernel_initializer="zeros")
    assert_agree(to_numpy(pooling(TOKENS)), TOKENS.mean(axis=1), 1e-6)


def test_symbolic_shapes():
    pooled, scores = SequencePooling()(keras.KerasTensor((None, 7, 4)), return_attention_scores=True)
    assert (pooled.shape, scores.shape) == ((None, 4), (None, 7))


def test_the_config_is_whole():
    pooling = SequencePooling(HeNormal(seed=3), name="mine", dtype="mixed_bfloat16", trainable=False)
    assert set(pooling.get_config()) == constructor_arguments(SequencePooling)
    copy = revived(pooling)
    assert copy.get_config() == pooling.get_config()
    assert (copy.kernel_initializer.seed, copy.name, copy.trainable) == (3, "mine", False)


def test_a_saved_one_computes_the_same(tmp_path):
    model = keras.Sequential([keras.Input((5, 3)), sequence_pooling()])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(loaded(TOKENS)), to_numpy(model(TOKENS)))


def test_tokens_must_be_of_rank_3():
    with pytest.raises(ValueError, match=r"3 dimensions, \(B, N, D\). Received: tokens of shape \(2, 3\)"):
        SequencePooling()(np.zeros((2, 3), "float32"))
