"""Portable initializers: Keras's distributions and configurations, the same numbers on every backend."""

import inspect
import json
import math

import keras
import ml_dtypes
import numpy as np
import pytest

from keras_vit_edu import initializers, random
from tests.support import fingerprint, to_numpy

NAMES = (
    "RandomUniform",
    "RandomNormal",
    "TruncatedNormal",
    "VarianceScaling",
    "GlorotUniform",
    "GlorotNormal",
    "HeUniform",
    "HeNormal",
    "LecunUniform",
    "LecunNormal",
)
SNAKE_NAMES = (
    "random_uniform",
    "random_normal",
    "truncated_normal",
    "variance_scaling",
    "glorot_uniform",
    "glorot_normal",
    "he_uniform",
    "he_normal",
    "lecun_uniform",
    "lecun_normal",
)
# Every argument at a value that is not its default.
ARGUMENTS = {
    "RandomUniform": {"minval": -0.5, "maxval": 1.5, "seed": 3},
    "RandomNormal": {"mean": 1.0, "stddev": 0.25, "seed": 3},
    "TruncatedNormal": {"mean": 1.0, "stddev": 0.25, "seed": 3},
    "VarianceScaling": {
        "scale": 0.5,
        "mode": "fan_out",
        "distribution": "uniform",
        "seed": 3,
        "input_axes": [0, 1],
        "output_axes": [2],
    },
} | {name: {"seed": 3, "input_axes": [0, 1], "output_axes": [2]} for name in NAMES[4:]}


def portable(name, **arguments):
    return getattr(initializers, name)(**arguments)


def kerass_own(name, **arguments):
    return getattr(keras.initializers, name)(**arguments)


def draw(initializer, shape=(4, 5), dtype="float32"):
    return to_numpy(initializer(shape, dtype=dtype))


# The distributions. ---------------------------------------------------------------------------------------------------

# Standard deviation and largest absolute value by the papers, from fan-in m and fan-out n. Cutting a normal
# distribution at two standard deviations leaves 0.8796 of its standard deviation.
CUT = 0.8796256610342398
THEORY = {
    "RandomUniform": lambda m, n: (0.1 / math.sqrt(12), 0.05),
    "RandomNormal": lambda m, n: (0.05, math.inf),
    "TruncatedNormal": lambda m, n: (0.05 * CUT, 0.1),
    "VarianceScaling": lambda m, n: (math.sqrt(1 / m), 2 / CUT * math.sqrt(1 / m)),
    "GlorotUniform": lambda m, n: (math.sqrt(2 / (m + n)), math.sqrt(6 / (m + n))),
    "GlorotNormal": lambda m, n: (math.sqrt(2 / (m + n)), 2 / CUT * math.sqrt(2 / (m + n))),
    "HeUniform": lambda m, n: (math.sqrt(2 / m), math.sqrt(6 / m)),
    "HeNormal": lambda m, n: (math.sqrt(2 / m), 2 / CUT * math.sqrt(2 / m)),
    "LecunUniform": lambda m, n: (math.sqrt(1 / m), math.sqrt(3 / m)),
    "LecunNormal": lambda m, n: (math.sqrt(1 / m), 2 / CUT * math.sqrt(1 / m)),
}
KERNELS = {"dense": ((150, 200), 150, 200), "convolution": ((3, 5, 20, 100), 300, 1500)}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", NAMES)
def test_draws_have_the_mean_deviation_and_range_of_their_distribution(name, kernel):
    shape, fan_in, fan_out = KERNELS[kernel]
    stddev, largest = THEORY[name](fan_in, fan_out)
    x = draw(portable(name, seed=1), shape)
    assert abs(x.mean()) < 5 * stddev / math.sqrt(x.size)
    assert abs(x.std() / stddev - 1) < 5 / math.sqrt(2 * x.size)
    assert np.abs(x).max() <= largest * (1 + 1e-7)
    if largest < math.inf:
        assert np.abs(x).max() > 0.99 * largest  # the range is filled


def kolmogorov_smirnov(x, y):
    """The largest distance between the distribution functions of two samples of one size, in units of its spread."""
    both = np.sort(np.concatenate([x, y]))
    below_x, below_y = (np.searchsorted(np.sort(sample), both, side="right") / len(sample) for sample in (x, y))
    return np.abs(below_x - below_y).max() * math.sqrt(len(x) / 2)


@pytest.mark.any_backend
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", NAMES)
def test_draws_follow_the_distribution_of_kerass_own(name, kernel):
    shape, _, _ = KERNELS[kernel]
    ours, theirs = (draw(make(name, seed=1), shape).ravel() for make in (portable, kerass_own))
    # Two samples of one distribution exceed 2.2 once in 8000 times (Smirnov 1948); a scale off by a tenth gives 3 to 5.
    assert kolmogorov_smirnov(ours, theirs) < 2.2
    assert kolmogorov_smirnov(ours * 1.1, theirs) > 2.2


@pytest.mark.parametrize(
    ("shape", "fan_in", "fan_out"),
    [
        ((), 1, 1),
        ((6,), 6, 6),
        ((6, 10), 6, 10),
        ((5, 6, 10), 30, 50),
        ((2, 3, 4, 5), 24, 30),
        ((2, 3, 4, 5, 6), 120, 144),
    ],
)
@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_variance_is_the_scale_by_the_fan(shape, fan_in, fan_out, mode, scale):
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
    scaling = {"scale": scale, "mode": mode, "seed": 2}
    standard = draw(initializers.RandomNormal(0.0, 1.0, seed=2), shape)
    cut = draw(initializers.TruncatedNormal(0.0, 1.0, seed=2), shape)
    flat = draw(initializers.RandomUniform(-math.sqrt(3), math.sqrt(3), seed=2), shape)
    for distribution, unit in (("untruncated_normal", standard), ("normal", cut / CUT), ("uniform", flat)):
        actual = draw(initializers.VarianceScaling(distribution=distribution, **scaling), shape)
        np.testing.assert_allclose(actual, unit * math.sqrt(scale / fan), rtol=3e-7)


@pytest.mark.parametrize(
    ("input_axes", "output_axes", "fan_in", "fan_out"),
    [([0, 1], [2], 6, 4), ((2,), (0, 1), 4, 6), ([0], [1, 2], 2, 12), ([-1], [-2], 4, 3)],
)
def test_the_axes_of_inputs_and_outputs_can_be_told(input_axes, output_axes, fan_in, fan_out):
    axes = {"input_axes": input_axes, "output_axes": output_axes}
    he = draw(initializers.HeUniform(seed=2, **axes), (2, 3, 4))
    glorot = draw(initializers.GlorotUniform(seed=2, **axes), (2, 3, 4))
    unit = draw(initializers.RandomUniform(-1.0, 1.0, seed=2), (2, 3, 4))
    np.testing.assert_allclose(he, unit * math.sqrt(6 / fan_in), rtol=3e-7)
    np.testing.assert_allclose(glorot, unit * math.sqrt(6 / (fan_in + fan_out)), rtol=3e-7)


# The numbers. ---------------------------------------------------------------------------------------------------------


def test_a_uniform_initializer_stretches_the_portable_uniform_numbers():
    expected = (-2 + 5 * random.uniform(9, (0,), (3, 4))).astype("float32")
    np.testing.assert_array_equal(draw(initializers.RandomUniform(-2, 3, seed=9), (3, 4)), expected)


def test_a_normal_initializer_stretches_the_portable_normal_numbers():
    expected = (-2 + 3 * random.normal(9, (0,), (3, 4))).astype("float32")
    np.testing.assert_array_equal(draw(initializers.RandomNormal(-2, 3, seed=9), (3, 4)), expected)


# The same constants on every backend.
FINGERPRINTS = {
    "RandomUniform": "2145d893eb2c0e61",
    "RandomNormal": "ed776300cc38de5a",
    "TruncatedNormal": "2bba8ace2cd7527f",
    "VarianceScaling": "ac4c3e308ea6883f",
    "GlorotUniform": "18b84bb10534c4e0",
    "GlorotNormal": "d72719072a523da2",
    "HeUniform": "81ba61bf70468a5d",
    "HeNormal": "0458d05aba053b60",
    "LecunUniform": "827159f6bfe0a580",
    "LecunNormal": "ac4c3e308ea6883f",
}


@pytest.mark.parametrize("name", NAMES)
def test_draws_are_equal_bits_on_every_backend(name):
    kernel = keras.ops.convert_to_numpy(portable(name, seed=7)((12, 5), dtype="float32"))
    assert kernel.dtype == np.float32
    assert fingerprint(kernel) == FINGERPRINTS[name]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_narrow_dtypes_round_the_float32_draws_to_nearest(name, dtype):
    rounded = (
        draw(portable(name, seed=7), (12, 5))
        .astype("float32")
        .astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    )
    kernel = portable(name, seed=7)((12, 5), dtype=dtype)
    assert keras.backend.standardize_dtype(kernel.dtype) == dtype
    np.testing.assert_array_equal(to_numpy(kernel), rounded.astype("float64"))


def test_narrow_dtypes_round_twice_on_every_backend():
    # JAX has no float64, so the way from there leads over float32 everywhere. Straight to float16 a few would differ.
    double = -0.05 + 0.1 * random.uniform(7, (0,), (300, 300))
    twice, once = double.astype("float32").astype("float16"), double.astype("float16")
    assert (twice != once).any()
    np.testing.assert_array_equal(draw(initializers.RandomUniform(seed=7), (300, 300), "float16"), twice)


def test_without_a_dtype_the_draws_have_kerass_float_type():
    keras.config.set_floatx("float16")
    try:
        kernel = initializers.GlorotUniform(seed=0)((2, 3))
    finally:
        keras.config.set_floatx("float32")
    assert keras.backend.standardize_dtype(kernel.dtype) == "float16"


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (2, 3), [2, 3]])
@pytest.mark.parametrize("name", NAMES)
def test_draws_have_the_shape_asked_for(name, shape):
    assert tuple(portable(name, seed=0)(shape).shape) == tuple(shape)


# Seeds. ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_an_int_seed_gives_the_same_numbers_at_every_call(name):
    initializer = portable(name, seed=5)
    np.testing.assert_array_equal(draw(initializer), draw(initializer))
    assert not np.array_equal(draw(initializer), draw(portable(name, seed=6)))


@pytest.mark.parametrize("name", NAMES)
def test_two_without_a_seed_differ_and_keras_fixes_both(name):
    keras.utils.set_random_seed(0)
    first, second = draw(portable(name)), draw(portable(name))
    assert not np.array_equal(first, second)
    keras.utils.set_random_seed(0)
    np.testing.assert_array_equal(first, draw(portable(name)))
    np.testing.assert_array_equal(second, draw(portable(name)))
    keras.utils.set_random_seed(1)
    assert not np.array_equal(first, draw(portable(name)))


def test_keras_fixes_the_same_numbers_on_every_backend():
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(5, kernel_initializer=initializers.get("glorot_uniform"))
    dense.build((None, 12))
    assert fingerprint(keras.ops.convert_to_numpy(dense.kernel)) == "636caaa5fc7bed2a"


def test_a_seed_generator_gives_the_next_numbers_at_every_call():
    initializer = initializers.RandomUniform(0.0, 1.0, seed=keras.random.SeedGenerator(5))
    for counter in range(3):
        expected = random.uniform(5, (counter,), (4, 5)).astype("float32")
        np.testing.assert_array_equal(draw(initializer), expected)


def test_initializers_that_share_a_seed_generator_take_turns():
    generator = keras.random.SeedGenerator(5)
    first, second = (initializers.RandomUniform(0.0, 1.0, seed=generator) for _ in range(2))
    drawn = [draw(first), draw(second), draw(first)]
    for counter, actual in enumerate(drawn):
        np.testing.assert_array_equal(actual, random.uniform(5, (counter,), (4, 5)).astype("float32"))


@pytest.mark.parametrize("seed", [-1, 2**31, 1.5, "1", True])
@pytest.mark.parametrize("name", NAMES)
def test_a_seed_out_of_range_is_refused(name, seed):
    with pytest.raises(ValueError, match=r"`seed` must be .*Received: seed="):
        portable(name, seed=seed)


# Configurations. ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_arguments_and_defaults_are_kerass_own(name):
    ours, theirs = (
        [(p.name, p.default) for p in inspect.signature(getattr(module, name)).parameters.values()]
        for module in (initializers, keras.initializers)
    )
    assert ours == theirs


@pytest.mark.parametrize("name", NAMES)
def test_arguments_can_be_given_by_position(name):
    by_position = portable(name).__class__(*ARGUMENTS[name].values())
    assert by_position.get_config() == portable(name, **ARGUMENTS[name]).get_config()


@pytest.mark.parametrize("name", NAMES)
def test_the_config_is_kerass_own_and_names_the_constructors_arguments(name):
    config = portable(name, **ARGUMENTS[name]).get_config()
    assert config == kerass_own(name, **ARGUMENTS[name]).get_config()
    assert config == ARGUMENTS[name]
    assert set(config) == set(inspect.signature(getattr(initializers, name)).parameters)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_an_instance_of_kerass_own(name):
    assert isinstance(portable(name), getattr(keras.initializers, name))


ROUND_TRIPS = {
    "from_config": lambda x: type(x).from_config(x.get_config()),
    "clone": lambda x: x.clone(),
    "keras.saving": lambda x: keras.saving.deserialize_keras_object(
        json.loads(json.dumps(keras.saving.serialize_keras_object(x)))
    ),
    "keras.initializers": lambda x: keras.initializers.deserialize(
        json.loads(json.dumps(keras.initializers.serialize(x)))
    ),
    "initializers.get": lambda x: initializers.get(json.loads(json.dumps(keras.saving.serialize_keras_object(x)))),
}


@pytest.mark.parametrize("round_trip", ROUND_TRIPS)
@pytest.mark.parametrize("name", NAMES)
def test_a_revived_initializer_draws_the_same_numbers(name, round_trip):
    original = portable(name, **ARGUMENTS[name])
    revived = ROUND_TRIPS[round_trip](original)
    assert type(revived) is type(original)
    assert revived.get_config() == original.get_config()
    np.testing.assert_array_equal(draw(revived, (2, 3, 4)), draw(original, (2, 3, 4)))


@pytest.mark.parametrize("round_trip", ROUND_TRIPS)
def test_a_revived_seed_generator_starts_at_its_first_numbers(round_trip):
    original = initializers.RandomUniform(0.0, 1.0, seed=keras.random.SeedGenerator(5))
    draw(original)
    revived = ROUND_TRIPS[round_trip](ROUND_TRIPS[round_trip](original))
    for counter in range(2):
        expected = random.uniform(5, (counter,), (4, 5)).astype("float32")
        np.testing.assert_array_equal(draw(revived), expected)


@pytest.mark.parametrize("name", NAMES)
def test_no_seed_stays_no_seed_in_the_config(name):
    assert portable(name).get_config()["seed"] is None


def test_a_layer_with_a_portable_initializer_is_revived_without_custom_objects():
    layer = keras.layers.Dense(3, kernel_initializer=initializers.HeNormal(seed=1))
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    assert config["config"]["kernel_initializer"]["registered_name"] == "keras_vit_edu>HeNormal"
    revived = keras.saving.deserialize_keras_object(config)
    for dense in (layer, revived):
        dense.build((None, 4))
    np.testing.assert_array_equal(to_numpy(layer.kernel), to_numpy(revived.kernel))


# Names. ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "snake_name"), zip(NAMES, SNAKE_NAMES, strict=True))
def test_a_name_gives_the_portable_initializer(name, snake_name):
    for spelling in (name, snake_name):
        assert type(initializers.get(spelling)) is getattr(initializers, name)
        assert type(keras.initializers.get(spelling)) is getattr(keras.initializers, name)


@pytest.mark.parametrize(("alias", "name"), [("uniform", "RandomUniform"), ("normal", "RandomNormal")])
def test_kerass_short_names_are_known(alias, name):
    assert type(keras.initializers.get(alias)) is getattr(keras.initializers, name)
    assert type(initializers.get(alias)) is getattr(initializers, name)


def test_each_name_gives_a_new_initializer():
    assert initializers.get("he_normal").seed != initializers.get("he_normal").seed


def test_names_of_initializers_that_draw_nothing_give_kerass_own():
    assert type(initializers.get("zeros")) is keras.initializers.Zeros
    assert type(initializers.get("Ones")) is keras.initializers.Ones
    assert initializers.get(None) is None


def test_a_passed_initializer_is_taken_as_it_is():
    def constant(shape, dtype=None):
        return keras.ops.ones(shape, dtype)

    for passed in (kerass_own("GlorotUniform", seed=1), initializers.HeNormal(), constant):
        assert initializers.get(passed) is passed
    assert type(initializers.get(keras.initializers.HeNormal)) is keras.initializers.HeNormal
    assert type(initializers.get(initializers.HeNormal)) is initializers.HeNormal


def test_the_config_of_kerass_own_asks_for_kerass_draws():
    config = keras.initializers.serialize(kerass_own("GlorotUniform", seed=1))
    initializer = initializers.get(config)
    assert type(initializer) is keras.initializers.GlorotUniform
    np.testing.assert_array_equal(draw(initializer), draw(kerass_own("GlorotUniform", seed=1)))


@pytest.mark.parametrize("identifier", ["glorot_unifrom", 3])
def test_an_unknown_name_is_refused_and_repeated(identifier):
    with pytest.raises(ValueError, match=f"initializer identifier: {identifier}"):
        initializers.get(identifier)


# Children. ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [portable, kerass_own])
@pytest.mark.parametrize("name", NAMES)
def test_children_of_one_seed_draw_different_numbers_and_keep_everything_else(name, make):
    parent = make(name, **ARGUMENTS[name])
    query, key = (initializers.for_child(parent, child) for child in ("query", "key"))
    assert type(query) is type(key) is type(parent)
    assert not np.array_equal(draw(query, (2, 3, 4)), draw(key, (2, 3, 4)))
    for child, copy in (("query", query), ("key", key)):
        assert copy.get_config() == {**ARGUMENTS[name], "seed": random.derive_seed(3, child)}
    assert parent.get_config() == ARGUMENTS[name]


def test_a_child_of_one_name_always_draws_the_same_numbers():
    first, second = (initializers.for_child(initializers.HeNormal(seed=3), "query") for _ in range(2))
    np.testing.assert_array_equal(draw(first), draw(second))


@pytest.mark.parametrize("make", [portable, kerass_own])
def test_children_of_no_seed_draw_different_numbers(make):
    parent = make("HeNormal")
    query, key = (initializers.for_child(parent, child) for child in ("query", "key"))
    assert query.get_config()["seed"] is None
    assert len({parent.seed, query.seed, key.seed}) == 3


def test_children_share_a_seed_generator():
    parent = initializers.HeNormal(seed=keras.random.SeedGenerator(3))
    assert initializers.for_child(parent, "query") is parent


def test_children_share_what_knows_no_seed():
    class Diagonal(keras.initializers.Initializer):  # has no get_config, so it could not be copied
        def __init__(self, value):
            self.value = value

    for initializer in (keras.initializers.Zeros(), Diagonal(2), keras.ops.ones, None):
        assert initializers.for_child(initializer, "query") is initializer


def test_a_child_of_a_seed_out_of_range_is_refused():
    with pytest.raises(ValueError, match="`seed` must be"):
        initializers.for_child(keras.initializers.Orthogonal(seed=-1), "query")
