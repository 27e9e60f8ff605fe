"""PortableDropout: the masks of `random.dropout_mask`, one after the other, on every backend, also after loading."""

import keras
import ml_dtypes
import numpy as np
import pytest
from keras import ops

from keras_vit_edu import random
from keras_vit_edu.layers import PortableDropout
from keras_vit_edu.parity.derivatives import output_and_gradients
from keras_vit_edu.parity.testing import assert_config_round_trip
from tests.support import compilers, fingerprint, revived, to_numpy

pytestmark = pytest.mark.quick

ONES = np.ones((4, 6), "float32")


def masks(layer, steps, x=ONES):
    """Which elements the next training calls of `layer` keep."""
    return [to_numpy(layer(x, training=True)) != 0 for _ in range(steps)]


def counter_of(layer):
    return int(ops.convert_to_numpy(layer.seed_generator.state)[1])


# What it does. --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_each_training_call_takes_the_next_mask_of_its_seed(rate):
    layer = PortableDropout(rate, seed=5)
    for counter in range(4):
        keep = random.dropout_mask(5, counter, (4, 6), rate)
        expected = np.where(keep, np.float32(1 / (1 - rate)), np.float32(0))
        np.testing.assert_array_equal(to_numpy(layer(ONES, training=True)), expected)
        assert counter_of(layer) == counter + 1


def test_inputs_that_are_kept_are_divided_by_the_share_that_is_kept(rng):
    x = rng.normal(size=(3, 5, 2)).astype("float32")
    keep = random.dropout_mask(1, 0, (3, 5, 2), 0.3)
    np.testing.assert_allclose(to_numpy(PortableDropout(0.3, seed=1)(x, training=True)), keep * (x / 0.7), rtol=2e-7)


# The same constants on every backend.
def test_outputs_are_equal_bits_on_every_backend():
    x = np.linspace(-1, 1, 60, dtype="float32").reshape(3, 4, 5)
    layer = PortableDropout(0.3, seed=11)
    outputs = np.stack([ops.convert_to_numpy(layer(x, training=True)) for _ in range(3)])
    assert fingerprint(outputs) == "d1ad5270d78eb753"


def test_outside_training_nothing_happens_and_no_mask_is_used_up():
    layer = PortableDropout(0.5, seed=5)
    np.testing.assert_array_equal(to_numpy(layer(ONES)), ONES)
    np.testing.assert_array_equal(to_numpy(layer(ONES, training=False)), ONES)
    assert counter_of(layer) == 0


def test_at_rate_zero_training_changes_nothing(rng):
    x = rng.normal(size=(3, 5)).astype("float32")
    np.testing.assert_array_equal(to_numpy(PortableDropout(0, seed=5)(x, training=True)), x)


@pytest.mark.parametrize("rate", [1 - 2**-20, 1 - 2**-53])
def test_near_rate_one_hardly_anything_is_left(rate):
    output = to_numpy(PortableDropout(rate, seed=5)(np.ones((100, 10), "float32"), training=True))
    np.testing.assert_array_equal(output, np.zeros((100, 10)))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_mean_is_kept(rate):
    output = to_numpy(PortableDropout(rate, seed=0)(np.ones((256, 256), "float32"), training=True))
    # An element is 1 / (1 - rate) or 0: mean 1, variance rate / (1 - rate). Five standard deviations of the mean.
    assert abs(output.mean() - 1) < 5 * np.sqrt(rate / (1 - rate)) / 256


def test_what_is_dropped_is_zero_whatever_it_was():
    x = np.full((4, 6), np.inf, "float32")
    x[::2] = np.nan
    keep = random.dropout_mask(5, 0, (4, 6), 0.5)
    output = to_numpy(PortableDropout(0.5, seed=5)(x, training=True))
    np.testing.assert_array_equal(output[~keep], 0)
    np.testing.assert_array_equal(output[keep], x[keep])


def test_the_gradient_passes_where_the_input_did(rng):
    x, cotangent = (rng.normal(size=(4, 6)).astype("float32") for _ in range(2))
    layer = PortableDropout(0.4, seed=5)
    layer.build((4, 6))
    _, (gradient,), _ = output_and_gradients(layer, [x], cotangent, training=True)
    keep = random.dropout_mask(5, 0, (4, 6), 0.4)
    np.testing.assert_allclose(gradient, keep * (cotangent / 0.6), rtol=2e-7)


@pytest.mark.parametrize(
    ("noise_shape", "mask_shape"),
    [((4, 1, 3), (4, 1, 3)), ((None, 1, None), (4, 1, 3)), ([None, 2, 1], (4, 2, 1)), ((1, 1, 1), (1, 1, 1))],
)
def test_a_noise_shape_is_the_shape_of_the_mask(noise_shape, mask_shape):
    layer = PortableDropout(0.5, noise_shape=noise_shape, seed=3)
    keep = np.broadcast_to(random.dropout_mask(3, 0, mask_shape, 0.5), (4, 2, 3))
    np.testing.assert_array_equal(to_numpy(layer(np.ones((4, 2, 3), "float32"), training=True)), 2.0 * keep)


def test_layers_of_one_seed_drop_alike_and_others_do_not():
    first, same, other = (masks(PortableDropout(0.5, seed=seed), 1) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_layers_without_a_seed_drop_differently_and_keras_fixes_both():
    keras.utils.set_random_seed(4)
    first, second = masks(PortableDropout(0.5), 2), masks(PortableDropout(0.5), 2)
    assert not np.array_equal(first, second)
    keras.utils.set_random_seed(4)
    np.testing.assert_array_equal(first, masks(PortableDropout(0.5), 2))
    np.testing.assert_array_equal(second, masks(PortableDropout(0.5), 2))


# Compiled, in other dtypes, in fit. -----------------------------------------------------------------------------------


@pytest.mark.parametrize("compiler", compilers())
def test_compiled_it_drops_as_eagerly(compiler):
    layer = PortableDropout(0.5, seed=5)
    layer.build((4, 6))
    state = layer.seed_generator.state

    def step(seed_and_counter, x):
        # Stateless, as Keras's training steps on JAX are: the counter goes in and comes out.
        with keras.StatelessScope(state_mapping=[(state, seed_and_counter)]) as scope:
            output = layer(x, training=True)
        return output, scope.get_current_value(state)

    compiled_step = compilers()[compiler](step)
    value = ops.convert_to_tensor(state.value)
    for counter in range(3):
        output, value = compiled_step(value, ops.convert_to_tensor(ONES))
        np.testing.assert_array_equal(to_numpy(output), 2.0 * random.dropout_mask(5, counter, (4, 6), 0.5))


if keras.backend.backend() == "tensorflow":

    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_a_graph_of_unknown_batch_size_counts_its_steps(jit_compile):
        import tensorflow as tf

        layer = PortableDropout(0.5, noise_shape=(None, 1, None), seed=5)

        @tf.function(jit_compile=jit_compile, input_signature=[tf.TensorSpec((None, 3, 2))])
        def step(x):
            return layer(x, training=True)

        for counter, batch in enumerate((2, 7, 1)):
            keep = random.dropout_mask(5, counter, (batch, 1, 2), 0.5)
            expected = np.broadcast_to(2.0 * keep, (batch, 3, 2))
            np.testing.assert_array_equal(to_numpy(step(tf.ones((batch, 3, 2)))), expected)
        assert counter_of(layer) == 3


@pytest.mark.parametrize(("policy", "dtype"), [("mixed_float16", "float16"), ("mixed_bfloat16", ml_dtypes.bfloat16)])
def test_in_half_precision_the_mask_is_the_same(policy, dtype):
    layer = PortableDropout(0.3, seed=5, dtype=policy)
    symbolic = layer(keras.Input((6,)))
    output = layer(ONES, training=True)
    assert keras.backend.standardize_dtype(output.dtype) == np.dtype(dtype).name == symbolic.dtype
    expected = random.dropout_mask(5, 0, (4, 6), 0.3) * np.float32(1 / 0.7).astype(dtype).astype("float64")
    np.testing.assert_array_equal(to_numpy(output), expected)


@pytest.mark.parametrize("batch", [None, 1, 7])
@pytest.mark.parametrize("shape", [(6,), (None, 6), (2, 3, 4)])
def test_symbolic_shapes_are_the_inputs(batch, shape):
    output = PortableDropout(0.5)(keras.Input(shape, batch_size=batch), training=True)
    assert output.shape == (batch, *shape)


def test_a_mask_of_tokens_passes_through():
    embedding = keras.layers.Embedding(5, 3, mask_zero=True)
    average = keras.layers.GlobalAveragePooling1D()(PortableDropout(0.5)(embedding(np.array([[1, 0], [2, 3]]))))
    table = to_numpy(embedding.embeddings)
    np.testing.assert_allclose(to_numpy(average), [table[1], (table[2] + table[3]) / 2], rtol=1e-6)


def model_with_two_dropouts():
    inputs = keras.Input((6,))
    x = PortableDropout(0.25, seed=1, name="first")(inputs)
    x = keras.layers.Dense(3, name="dense")(x)
    outputs = PortableDropout(0.5, seed=2, name="second")(x)
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_takes_one_mask_per_step(jit_compile):
    model = model_with_two_dropouts()
    jit_compile = jit_compile and keras.backend.backend() != "torch"  # whose compiler takes half a minute for a model
    model.compile("sgd", "mse", jit_compile=jit_compile)
    # 10 examples in batches of 4: three steps, the last one with two examples. Validation takes no mask.
    x, y = np.ones((10, 6), "float32"), np.ones((10, 3), "float32")
    model.fit(x, y, batch_size=4, epochs=2, validation_data=(x, y), verbose=0)
    assert counter_of(model.get_layer("first")) == 6
    assert counter_of(model.get_layer("second")) == 6


# Saving. --------------------------------------------------------------------------------------------------------------


def test_a_saved_model_goes_on_with_the_next_mask(tmp_path):
    model = model_with_two_dropouts()
    for _ in range(4):
        model(ONES, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for step in range(4, 6):
        for name, seed, rate in (("first", 1, 0.25), ("second", 2, 0.5)):
            (mask,) = masks(loaded.get_layer(name), 1)
            np.testing.assert_array_equal(mask, random.dropout_mask(seed, step, (4, 6), rate))


def test_weights_put_a_fresh_model_where_the_saved_one_stopped(tmp_path):
    model, fresh = model_with_two_dropouts(), model_with_two_dropouts()
    for _ in range(4):
        model(ONES, training=True)
    model.save_weights(tmp_path / "model.weights.h5")
    fresh(ONES, training=True)
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(to_numpy(fresh(ONES, training=True)), to_numpy(model(ONES, training=True)))
    assert counter_of(fresh.get_layer("first")) == 5


def single(layer):
    return keras.Sequential([keras.Input((6,)), layer])


def test_a_layer_without_a_seed_gets_the_seed_of_the_saved_one_back(tmp_path):
    model, fresh = single(PortableDropout(0.5)), single(PortableDropout(0.5))
    model(ONES, training=True)
    model.save_weights(tmp_path / "model.weights.h5")
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(masks(fresh.layers[0], 3), masks(model.layers[0], 3))


def test_another_rate_goes_on_with_the_same_stream(tmp_path):
    model = single(PortableDropout(0.5, seed=1))
    masks(model.layers[0], 3)
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = single(PortableDropout(0.1, seed=2))
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(masks(fresh.layers[0], 1)[0], random.dropout_mask(1, 3, (4, 6), 0.1))


@pytest.mark.parametrize("saved_layer", [lambda: PortableDropout(0, seed=2), lambda: keras.layers.Dropout(0.5, seed=2)])
def test_a_file_without_a_counter_leaves_the_layer_where_it_is(tmp_path, saved_layer):
    single(saved_layer()).save_weights(tmp_path / "model.weights.h5")
    fresh = single(PortableDropout(0.5, seed=1))
    masks(fresh.layers[0], 2)
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(masks(fresh.layers[0], 1)[0], random.dropout_mask(1, 2, (4, 6), 0.5))


def test_a_file_with_a_counter_loads_into_a_layer_that_drops_nothing(tmp_path):
    single(PortableDropout(0.5, seed=1)).save_weights(tmp_path / "model.weights.h5")
    fresh = single(PortableDropout(0, seed=1))
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(to_numpy(fresh(ONES, training=True)), ONES)


def test_a_counter_past_the_backends_integers_is_saved_and_loaded(tmp_path):
    model = single(PortableDropout(0.5, seed=1))
    state = model.layers[0].seed_generator.state
    state.assign(np.array([1, 2**31 - 1]).astype(state.dtype))
    masks(model.layers[0], 2)  # an int32 goes round here
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = single(PortableDropout(0.5, seed=9))
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(masks(fresh.layers[0], 1)[0], random.dropout_mask(1, 2**31 + 1, (4, 6), 0.5))


@pytest.mark.parametrize("counter", [2**31 + 1, 2**32 - 1, -(2**31) + 1, -1])
def test_a_counter_saved_by_another_backend_is_loaded(counter):
    # TensorFlow writes 2**31 + 1 where torch, whose counter is an int32, writes -2**31 + 1.
    layer = PortableDropout(0.5, seed=9)
    layer.load_own_variables({"seed_and_counter": np.array([1, counter], "int64")})
    np.testing.assert_array_equal(masks(layer, 1)[0], random.dropout_mask(1, counter, (4, 6), 0.5))


# Configuration and errors. --------------------------------------------------------------------------------------------

ARGUMENTS = {
    "rate": 0.25,
    "noise_shape": (None, 1, 2),
    "seed": 7,
    "name": "other",
    "trainable": False,
    "dtype": "mixed_bfloat16",
}


def test_every_argument_survives_the_config():
    layer = PortableDropout(**ARGUMENTS)
    keras.config.set_dtype_policy("float64")
    again = revived(layer)
    assert type(again) is PortableDropout
    assert again.get_config() == layer.get_config()
    for argument, value in ARGUMENTS.items():
        actual = again.dtype_policy.name if argument == "dtype" else getattr(again, argument)
        assert actual == value, argument
    x = np.ones((3, 5, 2), "float32")
    np.testing.assert_array_equal(masks(again, 2, x), masks(layer, 2, x))


def test_every_argument_survives_its_configuration():
    assert_config_round_trip(PortableDropout, ARGUMENTS)


def test_it_is_a_keras_dropout_and_registered_under_the_package():
    assert isinstance(PortableDropout(0.5), keras.layers.Dropout)
    assert keras.saving.get_registered_name(PortableDropout) == "keras_vit_edu>PortableDropout"


@pytest.mark.parametrize("rate", [-0.1, 1, 1.0, 2, float("nan"), "0.5", None, True])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(ValueError, match=r"`rate` must be a number in \[0, 1\).*Received: rate="):
        PortableDropout(rate)


@pytest.mark.parametrize("seed", [-1, 2**31, 1.5, "1", True])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match=r"`seed` must be .*Received: seed="):
        PortableDropout(0.5, seed=seed)


@pytest.mark.parametrize("noise_shape", ["12", 3, (1.5, 2), (0, 2), (-1, 2)])
def test_a_noise_shape_that_is_none_is_refused(noise_shape):
    with pytest.raises(ValueError, match="noise_shape"):
        PortableDropout(0.5, noise_shape=noise_shape)


def test_a_noise_shape_of_another_rank_is_refused_and_both_are_named():
    layer = PortableDropout(0.5, noise_shape=(None, 1), seed=0)
    with pytest.raises(ValueError, match=r"as many dimensions.*noise_shape=\(None, 1\), inputs of shape \(2, 3, 4\)"):
        layer(np.ones((2, 3, 4), "float32"), training=True)
