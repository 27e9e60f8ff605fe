"""PatchEncoder: projection plus position, prefix tokens first, on every backend the same start."""

import json

import keras
import numpy as np
import PIL.Image
import pytest
from keras import ops

from keras_vit_edu import initializers
from keras_vit_edu.layers import PatchEncoder
from keras_vit_edu.layers.patch_encoder import bicubic_matrix, resize_positions
from keras_vit_edu.parity.derivatives import output_and_gradients
from keras_vit_edu.parity.testing import assert_config_round_trip
from tests.support import (
    BACKEND,
    assert_agree,
    compilers,
    copy_weights,
    fingerprint,
    random_weights,
    revived,
    to_numpy,
    variable_shapes,
)

pytestmark = pytest.mark.quick

BATCH, PATCHES, LENGTH, WIDTH = 2, 6, 5, 4


def encoder(num_prefix_tokens=0, grid_size=None, build=True, **kwargs):
    layer = PatchEncoder(PATCHES, WIDTH, num_prefix_tokens, grid_size, **kwargs)
    if build:
        layer.build((None, PATCHES, LENGTH))
        random_weights(layer)
    return layer


def formula(layer, patches):
    """concatenate(prefix tokens, patches W + b) + positions, in float64."""
    kernel, bias = to_numpy(layer.projection.kernel), to_numpy(layer.projection.bias)
    tokens = np.asarray(patches, "float64") @ kernel + bias  # (B, N, D)
    if layer.num_prefix_tokens:
        prefix = to_numpy(layer.prefix_tokens)  # (number of prefix tokens, D)
        tokens = np.stack([np.concatenate([prefix, sequence]) for sequence in tokens])
    return tokens + to_numpy(layer.position_embedding)


@pytest.fixture
def patches(rng):
    return rng.normal(size=(BATCH, PATCHES, LENGTH)).astype("float32")


# Values. --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_prefix_tokens", [0, 1, 3])
def test_tokens_follow_the_formula(num_prefix_tokens, patches):
    layer = encoder(num_prefix_tokens)
    assert_agree(to_numpy(layer(patches)), formula(layer, patches), 2e-6)


def test_a_case_by_hand():
    layer = PatchEncoder(num_patches=2, projection_dim=1, num_prefix_tokens=1)
    layer.build((None, 2, 2))
    layer.projection.set_weights([np.array([[1.0], [10.0]]), np.array([100.0])])
    layer.prefix_tokens.assign([[7.0]])
    layer.position_embedding.assign([[0.1], [0.2], [0.3]])
    tokens = to_numpy(layer(np.array([[[1.0, 2.0], [3.0, 4.0]]])))
    np.testing.assert_allclose(tokens, [[[7.1], [121.2], [143.3]]], rtol=1e-6)


def test_prefix_tokens_come_first_and_do_not_depend_on_the_patches(patches):
    layer = encoder(2)
    tokens, others = to_numpy(layer(patches)), to_numpy(layer(patches + 1))
    np.testing.assert_array_equal(tokens[:, :2], others[:, :2])
    np.testing.assert_array_equal(tokens[0, :2], tokens[1, :2])
    assert not np.isclose(tokens[:, 2:], others[:, 2:]).any()


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float64", "float16"])
def test_any_real_dtype_is_encoded(dtype, rng):
    layer = encoder(1)
    patches = rng.integers(0, 200, (BATCH, PATCHES, LENGTH)).astype(dtype)
    tokens = layer(patches)
    symbolic = layer(keras.Input((PATCHES, LENGTH), dtype=dtype))
    assert keras.backend.standardize_dtype(tokens.dtype) == symbolic.dtype == "float32"
    assert_agree(to_numpy(tokens), formula(layer, patches), 2e-6)


@pytest.mark.parametrize("num_prefix_tokens", [0, 2])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_half_precision_stays_close_to_the_formula(policy, num_prefix_tokens, patches):
    layer = encoder(num_prefix_tokens, dtype=policy)
    tokens = layer(patches)
    symbolic = layer(keras.Input((PATCHES, LENGTH)))
    assert keras.backend.standardize_dtype(tokens.dtype) == symbolic.dtype == policy.removeprefix("mixed_")
    assert_agree(to_numpy(tokens), formula(layer, patches), 2e-2)


def test_the_policy_reaches_the_projection():
    layer = encoder(1, build=False, dtype="mixed_bfloat16")
    layer.build((None, PATCHES, LENGTH))
    assert layer.projection.dtype_policy.name == "mixed_bfloat16"
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in layer.weights} == {"float32"}


def test_gradients_reach_every_weight_as_the_formula_says(patches, rng):
    layer = encoder(2)
    cotangent = rng.normal(size=(BATCH, 2 + PATCHES, WIDTH)).astype("float32")
    _, (by_input,), by_path = output_and_gradients(layer, [patches], cotangent)
    from_tokens, x = cotangent[:, 2:].astype("float64"), patches.astype("float64")
    expected = {
        "projection/kernel": np.einsum("bnp,bnd->pd", x, from_tokens),
        "projection/bias": from_tokens.sum(axis=(0, 1)),
        "prefix_tokens": cotangent[:, :2].astype("float64").sum(axis=0),
        "position_embedding": cotangent.astype("float64").sum(axis=0),
    }
    assert set(by_path) == {f"{layer.name}/{path}" for path in expected}
    for path, gradient in expected.items():
        assert_agree(by_path[f"{layer.name}/{path}"], gradient, 1e-5)
    assert_agree(by_input, from_tokens @ to_numpy(layer.projection.kernel).T, 1e-5)


# Weights. -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_prefix_tokens", [0, 2])
def test_build_alone_makes_the_variables_of_a_call(num_prefix_tokens, patches):
    expected = {
        "projection/kernel": (LENGTH, WIDTH),
        "projection/bias": (WIDTH,),
        "position_embedding": (num_prefix_tokens + PATCHES, WIDTH),
    } | ({"prefix_tokens": (num_prefix_tokens, WIDTH)} if num_prefix_tokens else {})
    expected = {f"encoder/{path}": shape for path, shape in expected.items()}
    built, called, symbolic = (encoder(num_prefix_tokens, build=False, name="encoder") for _ in range(3))
    built.build((None, PATCHES, LENGTH))
    called(patches)
    symbolic(keras.Input((PATCHES, LENGTH)))
    for layer in (built, called, symbolic):
        assert variable_shapes(layer) == expected
        assert len(layer.trainable_variables) == len(expected)


# The same constants on every backend.
def test_the_first_weights_are_equal_bits_on_every_backend():
    keras.utils.set_random_seed(0)
    layer = PatchEncoder(16, 8, num_prefix_tokens=2)
    layer.build((None, 16, 12))
    actual = {w.path.split("/", 1)[1]: fingerprint(ops.convert_to_numpy(w)) for w in layer.variables}
    assert actual == {
        "projection/kernel": "9fcc6d6c134e4773",
        "projection/bias": "2c17ac6fea103d41",
        "prefix_tokens": "ef80a2881acd6d77",
        "position_embedding": "14c335f8e1ae0af7",
    }


def test_the_first_weights_are_those_of_kerass_dense_and_embedding():
    layer = PatchEncoder(200, 100, num_prefix_tokens=50)
    layer.build((None, 200, 150))
    limit = np.sqrt(6 / (150 + 100))  # Glorot and Bengio
    for weight, largest in (
        (layer.projection.kernel, limit),
        (layer.prefix_tokens, 0.05),
        (layer.position_embedding, 0.05),
    ):
        values = to_numpy(weight)
        assert 0.99 * largest < np.abs(values).max() <= largest * (1 + 1e-7)
        assert abs(values.std() / (largest / np.sqrt(3)) - 1) < 5 / np.sqrt(2 * values.size)
    np.testing.assert_array_equal(to_numpy(layer.projection.bias), 0)
    assert type(layer.projection.kernel_initializer) is initializers.GlorotUniform


def test_prefix_tokens_and_positions_start_differently():
    layer = PatchEncoder(2, 8, num_prefix_tokens=2)
    layer.build((None, 2, 3))
    assert not np.isclose(to_numpy(layer.prefix_tokens), to_numpy(layer.position_embedding)[:2]).any()


# Symbolic, eager and compiled. ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_prefix_tokens", [0, 2])
@pytest.mark.parametrize("batch", [None, 1, 7])
def test_symbolic_eager_and_model_shapes_agree(batch, num_prefix_tokens):
    layer = encoder(num_prefix_tokens)
    inputs = keras.Input((PATCHES, LENGTH), batch_size=batch)
    outputs = layer(inputs)
    assert outputs.shape == (batch, num_prefix_tokens + PATCHES, WIDTH)
    assert layer.compute_output_shape((batch, PATCHES, LENGTH)) == outputs.shape
    actual = keras.Model(inputs, outputs)(np.zeros((batch or 5, PATCHES, LENGTH)))
    assert tuple(actual.shape) == (batch or 5, num_prefix_tokens + PATCHES, WIDTH)


def test_an_unknown_number_of_patches_is_taken_to_be_the_right_one(patches):
    layer = encoder(1)
    inputs = keras.Input((None, LENGTH))
    outputs = layer(inputs)
    assert outputs.shape == (None, 1 + PATCHES, WIDTH)
    assert_agree(to_numpy(keras.Model(inputs, outputs)(patches)), formula(layer, patches), 2e-6)


@pytest.mark.parametrize("compiler", compilers())
def test_compiled_it_encodes_as_eagerly(compiler, patches):
    layer = encoder(2)
    tokens = compilers()[compiler](lambda x: layer(x))(ops.convert_to_tensor(patches))
    assert_agree(to_numpy(tokens), formula(layer, patches), 2e-6)


if BACKEND == "tensorflow":

    @pytest.mark.parametrize("num_prefix_tokens", [0, 1])
    @pytest.mark.parametrize("length", [LENGTH, None])
    def test_a_graph_of_unknown_sizes_encodes(num_prefix_tokens, length, patches):
        import tensorflow as tf

        layer = encoder(num_prefix_tokens)
        graph = tf.function(lambda x: layer(x), input_signature=[tf.TensorSpec((None, None, length))])
        for x in (patches, patches[:1]):
            assert_agree(to_numpy(graph(x)), formula(layer, x), 2e-6)

    # One patch, or one position, would be broadcast if nothing looked.
    @pytest.mark.parametrize(("num_patches", "given"), [(6, 1), (6, 5), (1, 6), (1, 2)])
    def test_a_graph_of_unknown_sizes_refuses_another_number_of_patches(num_patches, given):
        import tensorflow as tf

        layer = PatchEncoder(num_patches, WIDTH)
        layer.build((None, num_patches, LENGTH))
        graph = tf.function(lambda x: layer(x), input_signature=[tf.TensorSpec((None, None, LENGTH))])
        with pytest.raises(tf.errors.InvalidArgumentError):
            graph(np.zeros((BATCH, given, LENGTH), "float32"))


# Another grid. --------------------------------------------------------------------------------------------------------

GRIDS = [((3, 2), (5, 7)), ((4, 6), (2, 3)), ((7, 5), (3, 9)), ((5, 5), (5, 8)), ((1, 4), (3, 4)), ((14, 14), (6, 9))]


def resized_by_pillow(table, new_grid):
    """A grid of vectors `(rows, columns, D)`, each of its D channels resized as an image."""
    rows, columns = new_grid
    channels = [
        np.asarray(PIL.Image.fromarray(channel.astype("float32")).resize((columns, rows), PIL.Image.Resampling.BICUBIC))
        for channel in np.moveaxis(table, -1, 0)
    ]
    return np.stack(channels, axis=-1)


@pytest.mark.parametrize(("grid", "new_grid"), GRIDS)
def test_positions_are_resized_as_pillow_resizes_an_image(grid, new_grid, rng):
    table = rng.normal(size=(*grid, 3))
    actual = resize_positions(table.reshape(-1, 3), grid, new_grid)
    assert actual.dtype == np.float64
    assert_agree(actual.reshape(*new_grid, 3), resized_by_pillow(table, new_grid), 1e-6)


def test_resizing_by_hand():
    # Two points to four. Keys' kernel at distance 1/4, 3/4, 5/4 and 7/4 is 111, 29, -9 and -3 parts of 128, and the
    # two that fall outside are left out: the new points lie at -1/4, 1/4, 3/4 and 5/4.
    outer = np.array([111, -9]) / 102
    inner = np.array([111, 29]) / 140
    np.testing.assert_allclose(bicubic_matrix(2, 4), [outer, inner, inner[::-1], outer[::-1]], atol=1e-15)


@pytest.mark.parametrize(("old", "new"), [(4, 4), (3, 8), (8, 3), (1, 5), (5, 1), (16, 15)])
def test_equal_positions_stay_equal(old, new):
    np.testing.assert_allclose(bicubic_matrix(old, new).sum(axis=1), 1, atol=1e-14)


def test_a_resized_encoder_outlives_the_original_in_a_model():
    # Keras on JAX gives the memory of a model's weights to the next step.
    old = encoder(num_prefix_tokens=1, grid_size=(3, 2))
    before = old.get_weights()
    new = old.resized((3, 2))
    patches = np.ones((BATCH, PATCHES, LENGTH), "float32")
    x = keras.Input((PATCHES, LENGTH))
    for layer in (old, new, old):
        keras.Model(x, layer(x)).predict_on_batch(patches)
    for layer in (old, new):
        for actual, expected in zip(layer.get_weights(), before, strict=True):
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("num_prefix_tokens", [0, 1, 3])
@pytest.mark.parametrize("new_grid", [(4, 5), (2, 1), (6, 2)])
def test_a_resized_encoder_has_the_weights_and_interpolated_positions(num_prefix_tokens, new_grid):
    old = encoder(num_prefix_tokens, grid_size=(3, 2))
    before = old.get_weights()
    new = old.resized(new_grid)
    assert (new.num_patches, new.grid_size) == (new_grid[0] * new_grid[1], new_grid)
    for actual, expected in zip(new.projection.get_weights(), old.projection.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)
    old_positions, positions = to_numpy(old.position_embedding), to_numpy(new.position_embedding)
    np.testing.assert_array_equal(positions[:num_prefix_tokens], old_positions[:num_prefix_tokens])
    if num_prefix_tokens:
        np.testing.assert_array_equal(to_numpy(new.prefix_tokens), to_numpy(old.prefix_tokens))
    expected = resized_by_pillow(old_positions[num_prefix_tokens:].reshape(3, 2, WIDTH), new_grid)
    assert_agree(positions[num_prefix_tokens:].reshape(*new_grid, WIDTH), expected, 1e-6)
    for weight, unchanged in zip(old.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, unchanged)


def test_a_resized_encoder_encodes_images_of_its_size(rng):
    new = encoder(1, grid_size=(3, 2)).resized((2, 4))
    patches = rng.normal(size=(BATCH, 8, LENGTH)).astype("float32")
    assert_agree(to_numpy(new(patches)), formula(new, patches), 2e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "bfloat16"])
def test_resizing_to_the_same_grid_changes_nothing(policy, patches):
    old = encoder(1, grid_size=(3, 2), dtype=policy)
    new = old.resized((3, 2))
    assert new.dtype_policy.name == policy
    np.testing.assert_array_equal(to_numpy(new(patches)), to_numpy(old(patches)))


def test_only_an_encoder_that_knows_its_grid_is_resized():
    with pytest.raises(ValueError, match=r"`grid_size=\(rows, columns\)` is known: 6 patches may stand in several"):
        encoder().resized((4, 4))


def test_only_an_encoder_with_weights_is_resized():
    with pytest.raises(ValueError, match="build or call it first"):
        encoder(grid_size=(3, 2), build=False).resized((4, 4))


@pytest.mark.parametrize("new_grid", [(0, 4), (4, 2.5), (4,), None])
def test_a_grid_that_is_none_is_refused(new_grid):
    with pytest.raises(ValueError, match=r"`new_grid` must be .*Received: new_grid="):
        encoder(grid_size=(3, 2)).resized(new_grid)


# LoRA and int8. -------------------------------------------------------------------------------------------------------


def with_lora(num_prefix_tokens=1):
    layer = encoder(num_prefix_tokens, grid_size=(3, 2))
    layer.projection.enable_lora(2)
    layer.projection.lora_kernel_b.assign(np.linspace(-1, 1, 2 * WIDTH, dtype="float32").reshape(2, WIDTH))
    return layer


def test_lora_runs_on_the_projection(patches):
    layer = encoder(1)
    frozen = to_numpy(layer.projection.kernel)
    layer.projection.enable_lora(2)
    np.testing.assert_array_equal(to_numpy(layer.projection.kernel), frozen)  # its update starts at zero
    update = np.linspace(-1, 1, 2 * WIDTH, dtype="float32").reshape(2, WIDTH)
    layer.projection.lora_kernel_b.assign(update)
    merged = frozen + to_numpy(layer.projection.lora_kernel_a) @ update
    assert_agree(to_numpy(layer.projection.kernel), merged, 1e-6)
    assert_agree(to_numpy(layer(patches)), formula(layer, patches), 2e-6)
    _, _, gradients = output_and_gradients(layer, [patches])
    assert {path.rsplit("/", 1)[1] for path in gradients} == {
        "bias",
        "lora_kernel_a",
        "lora_kernel_b",
        "position_embedding",
        "prefix_tokens",
    }
    assert all(np.abs(gradient).max() > 0 for gradient in gradients.values())


def test_resizing_merges_lora():
    old = with_lora()
    new = old.resized((3, 2))
    np.testing.assert_array_equal(to_numpy(new.projection.kernel), to_numpy(old.projection.kernel))
    assert not new.projection.lora_enabled


def test_saving_merges_lora(tmp_path, patches):
    layer = with_lora()
    inputs = keras.Input((PATCHES, LENGTH))
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_agree(to_numpy(loaded(patches)), to_numpy(layer(patches)), 2e-6)
    assert not loaded.get_layer(layer.name).projection.lora_enabled


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize` method")
def test_int8_runs_on_the_projection_and_is_not_resized(patches):
    layer = encoder(1, grid_size=(3, 2))
    inputs = keras.Input((PATCHES, LENGTH))
    model = keras.Model(inputs, layer(inputs))
    expected = formula(layer, patches)
    model.quantize("int8")
    assert layer.projection.quantization_mode == "int8"
    assert_agree(to_numpy(model(patches)), expected, 2e-2)
    with pytest.raises(ValueError, match="resize it first, then quantize"):
        layer.resized((4, 4))


# Configuration. -------------------------------------------------------------------------------------------------------

ARGUMENTS = {
    "num_patches": 6,
    "projection_dim": 4,
    "num_prefix_tokens": 2,
    "grid_size": (3, 2),
    "name": "other",
    "trainable": False,
    "dtype": "mixed_bfloat16",
}


def test_every_argument_survives_the_config_under_other_global_settings(patches):
    layer = PatchEncoder(**ARGUMENTS)
    keras.config.set_image_data_format("channels_first")
    keras.config.set_dtype_policy("float64")
    again = revived(layer)
    assert type(again) is PatchEncoder
    assert again.get_config() == layer.get_config()
    for argument, value in ARGUMENTS.items():
        actual = again.dtype_policy.name if argument == "dtype" else getattr(again, argument)
        assert actual == value, argument
    for each in (layer, again):
        each.build((None, PATCHES, LENGTH))
    copy_weights(layer, again)
    np.testing.assert_array_equal(to_numpy(again(patches)), to_numpy(layer(patches)))


def test_the_config_is_json():
    config = json.loads(json.dumps(PatchEncoder(**ARGUMENTS).get_config()))
    assert PatchEncoder.from_config(config).grid_size == (3, 2)


def test_every_argument_survives_its_configuration():
    assert_config_round_trip(PatchEncoder, ARGUMENTS)


def test_it_is_registered_under_the_package():
    assert keras.saving.get_registered_name(PatchEncoder) == "keras_vit_edu>PatchEncoder"


def test_a_saved_model_gives_the_same_tokens(tmp_path, patches):
    layer = encoder(2, grid_size=(3, 2))
    inputs = keras.Input((PATCHES, LENGTH))
    keras.Model(inputs, layer(inputs)).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(loaded(patches)), to_numpy(layer(patches)))


# Errors. --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, 2.0, "2", None, True])
@pytest.mark.parametrize("argument", ["num_patches", "projection_dim"])
def test_a_size_that_is_none_is_refused(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be .*Received: {argument}={value!r}"):
        PatchEncoder(**{"num_patches": 6, "projection_dim": 4, argument: value})


@pytest.mark.parametrize("value", [-1, 1.0, None, True])
def test_a_number_of_prefix_tokens_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match=f"`num_prefix_tokens` must be .*Received: num_prefix_tokens={value!r}"):
        PatchEncoder(6, 4, num_prefix_tokens=value)


@pytest.mark.parametrize("grid_size", [(2, 2), (6, 2), 2, (1, 5)])
def test_a_grid_of_another_number_of_patches_is_refused(grid_size):
    with pytest.raises(ValueError, match=r"rows \* columns = num_patches. Received: grid_size=.*, num_patches=6"):
        PatchEncoder(6, 4, grid_size=grid_size)


@pytest.mark.parametrize("grid_size", [(6,), (0, 6), (2.0, 3), "32"])
def test_a_grid_that_is_no_pair_is_refused(grid_size):
    with pytest.raises(ValueError, match=r"`grid_size` must be .*Received: grid_size="):
        PatchEncoder(6, 4, grid_size=grid_size)


WAYS_IN = {
    "call": lambda layer, shape: layer(np.zeros(shape)),
    "symbolic call": lambda layer, shape: layer(keras.Input(shape[1:])),
    "build": lambda layer, shape: layer.build(shape),
    "compute_output_shape": lambda layer, shape: layer.compute_output_shape(shape),
}


@pytest.mark.parametrize("way_in", WAYS_IN)
@pytest.mark.parametrize("built", [False, True])
def test_another_number_of_patches_is_refused_and_both_named(built, way_in):
    with pytest.raises(
        ValueError, match=r"num_patches=6 patches, not for 7; .*Received: patches of shape \(\w+, 7, 5\)"
    ):
        WAYS_IN[way_in](encoder(build=built), (1, 7, 5))


@pytest.mark.parametrize("way_in", WAYS_IN)
@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 5, 1)])
def test_another_rank_is_refused(shape, way_in):
    with pytest.raises(ValueError, match=r"Patches must have 3 dimensions, \(B, N, P\)\. Received: patches of shape"):
        WAYS_IN[way_in](encoder(build=False), shape)


def test_patches_of_unknown_length_are_refused():
    with pytest.raises(ValueError, match=r"length of a patch, P, must be known.*Received: patches of shape"):
        encoder(build=False)(keras.Input((PATCHES, None)))
