"""Inputs, weights and policies of other dtypes: outputs and dtypes are those of Keras's own layers."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_vit_edu import layers
from keras_vit_edu.layers.layer_normalization import LayerNormalization
from keras_vit_edu.models import ViTClassifier
from tests.support import BACKEND, assert_agree, random_weights, to_numpy, vit_classifier

SHAPE = (2, 4, 8)
POLICIES = ["float32", "mixed_float16", "float64"]
INPUTS = ["float32", "float64", "float16"]


def dense(policy, **arguments):
    ours, theirs = layers.TokenDense(3, dtype=policy, **arguments), keras.layers.Dense(3, dtype=policy, **arguments)
    return ours, theirs, lambda layer, x: layer(x)


def normalization(policy, **arguments):
    theirs = keras.layers.LayerNormalization(dtype=policy, **arguments)
    return LayerNormalization(dtype=policy, **arguments), theirs, lambda layer, x: layer(x)


def attention(policy, **arguments):
    ours = layers.MyMultiHeadAttention(2, 4, dropout=0.0, dtype=policy, **arguments)
    ours.build(SHAPE, SHAPE)
    random_weights(ours)
    theirs = ours.to_keras()
    return ours, theirs, lambda layer, x: layer(x, ops.cast(x, "float32"))  # queries of one dtype, values of another


def dropout(policy, **arguments):
    ours, theirs = layers.PortableDropout(0.5, dtype=policy), keras.layers.Dropout(0.5, dtype=policy)
    return ours, theirs, lambda layer, x: layer(x, training=True) * 0  # masks differ, dtypes do not


def pair(make, policy, **arguments):
    ours, theirs, call = make(policy, **arguments)
    if not ours.built:
        for layer in (ours, theirs):
            layer.build(SHAPE)
        if ours.weights and make is not dropout:
            random_weights(ours)
            theirs.set_weights(ours.get_weights())
    return ours, theirs, call


def assert_as_keras(ours, theirs, call, x):
    found, expected = call(ours, x), call(theirs, x)
    assert keras.backend.standardize_dtype(found.dtype) == keras.backend.standardize_dtype(expected.dtype)
    if np.any(to_numpy(expected)):
        assert_agree(to_numpy(found), to_numpy(expected), 1e-2 if "16" in str(found.dtype) else 1e-5)


def some(dtype):
    return ops.convert_to_tensor(np.random.default_rng(0).normal(size=SHAPE).astype(dtype))


@pytest.mark.parametrize("dtype", INPUTS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("make", [dense, normalization, attention, dropout])
def test_a_layer_computes_as_keras_own(make, policy, dtype):
    assert_as_keras(*pair(make, policy), some(dtype))


@pytest.mark.parametrize("dtype", INPUTS)
@pytest.mark.parametrize("policy", POLICIES)
def test_without_autocast_dense_promotes_as_keras_own(policy, dtype):
    assert_as_keras(*pair(dense, policy, autocast=False), some(dtype))


@pytest.mark.parametrize("make", [dense, dropout])
def test_whole_numbers_are_taken_as_by_keras_own(make):
    ours, theirs, call = pair(dense, "float32")
    assert_as_keras(ours, theirs, call, ops.convert_to_tensor(np.arange(64).reshape(SHAPE)))


def test_a_map_of_policies_reaches_each_part():
    policies = keras.dtype_policies.DTypePolicyMap()
    policies["block/mlp_hidden"] = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    block = layers.TransformerBlock(2, 4, 16, dtype=policies, name="block")
    assert to_numpy(block(some("float32"))).shape == SHAPE
    assert block.mlp_hidden.compute_dtype == "bfloat16"
    assert block.mlp_output.compute_dtype == "float32"
    assert block.attention.q_dense.compute_dtype == "float32"


def test_a_model_takes_a_map_of_policies_and_keeps_it():
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="mixed_bfloat16")
    model = vit_classifier(3, (8, 8, 1), 4, 8, 1, 2, 4, 8, head_units=(), dtype=policies)
    block = model.backbone.transformer_blocks[0]
    assert block.mlp_hidden.compute_dtype == "bfloat16"
    assert model.outputs[0].dtype == "float32"
    copy = ViTClassifier.from_config(model.get_config())
    assert copy.backbone.transformer_blocks[0].mlp_hidden.compute_dtype == "bfloat16"


if BACKEND == "torch":

    @pytest.mark.parametrize("conversion", ["half", "double", "bfloat16"])
    @pytest.mark.parametrize("dtype", INPUTS)
    @pytest.mark.parametrize("make", [dense, normalization])
    def test_weights_that_torch_converts_are_taken_as_by_keras_own(make, dtype, conversion):
        ours, theirs, call = pair(make, "float32")
        for layer in (ours, theirs):
            getattr(layer, conversion)()
        assert_as_keras(ours, theirs, call, some(dtype))

    @pytest.mark.parametrize("conversion", ["half", "double", "bfloat16"])
    @pytest.mark.parametrize("dtype", INPUTS)
    @pytest.mark.parametrize("scores", [False, True])
    def test_attention_that_torch_converts_computes_as_before(scores, dtype, conversion):
        ours, _, _ = pair(attention, "float32")
        x = some(dtype)
        expected = keras.tree.flatten(ours(x, x, return_attention_scores=scores))
        getattr(ours, conversion)()
        for found, before in zip(keras.tree.flatten(ours(x, x, return_attention_scores=scores)), expected, strict=True):
            assert_agree(to_numpy(found), to_numpy(before), 1e-5 if conversion == "double" else 1e-2)

    @pytest.mark.parametrize("conversion", ["half", "double", "bfloat16"])
    @pytest.mark.parametrize("training", [False, True])
    def test_models_that_torch_converts_compute(conversion, training):
        model = vit_classifier(3, (8, 8, 1), 4, 8, 1, 2, 4, 8, head_units=(), locality=1.0, num_prefix_tokens=1)
        images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
        expected = to_numpy(model(images))
        getattr(model, conversion)()
        found = to_numpy(model(images, training=training))
        assert np.isfinite(found).all()
        if not training:
            assert_agree(found, expected, 3e-2)
