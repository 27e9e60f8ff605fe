"""Portable random numbers: NumPy and `keras.ops` give the same bits, and the bits are those of the published hashes."""

import itertools
import math
import zlib
from statistics import NormalDist

import keras
import numpy as np
import pytest
from keras import ops

from keras_vit_edu import random
from tests.support import compilers, fingerprint, to_numpy

pytestmark = pytest.mark.quick

LAST_SEED = 2**31 - 1
STREAMS = [(0, 0), (0, 1), (1, 0), (LAST_SEED, 0), (LAST_SEED, 2**31), (5, 2**31 - 1), (5, 2**32 - 1), (123456789, 77)]
SHAPES = [(), (0,), (1,), (7,), (3, 5), (2, 0, 3), (2, 3, 1, 5)]
WORD = 2**32


# The hash again, in Python's unlimited integers. ----------------------------------------------------------------------


def hashed(x, key_0=0, key_1=0):
    """Wellons' triple32, with one word of the key added before its first round and one before its second."""
    x = (x + key_0) % WORD
    x = (x ^ x // 2**17) * 0xED5AD4BB % WORD
    x = ((x ^ x // 2**11) + key_1) % WORD
    x = x * 0xAC4C1B51 % WORD
    x = (x ^ x // 2**15) * 0x31848BAB % WORD
    return x ^ x // 2**14


def key_of(seed, counter):
    """Seed and counter, each salted and hashed, then mixed into each other and hashed again."""
    salt_0, salt_1 = 0x6A09E667, 0x3C6EF372  # sqrt(2) and sqrt(5), 32 bits after the point
    first, second = hashed((seed + salt_0) % WORD), hashed((counter + salt_1) % WORD)
    return hashed((first + second * salt_0) % WORD), hashed((second + first * salt_1) % WORD)


def expected_bits(seed, counter, count):
    return [hashed(position, *key_of(seed, counter)) for position in range(count)]


def unhashed(x):
    """What `hashed` made `x` of, under the key (0, 0)."""
    for shift, multiplier in ((14, 0x31848BAB), (15, 0xAC4C1B51), (11, 0xED5AD4BB), (17, 1)):
        x = x ^ x >> shift ^ (x >> 2 * shift if 2 * shift < 32 else 0)
        x = x * pow(multiplier, -1, WORD) % WORD
    return x


def philox(key, counter):
    """Philox 4x64-10 of Salmon et al. (2011), section 3.3: one block of four 64-bit words."""
    c, k, word = list(counter), list(key), 2**64
    for _ in range(10):
        product_0, product_2 = c[0] * 0xD2E7470EE14C6C93, c[2] * 0xCA5A826395121157
        c = [product_2 // word ^ c[1] ^ k[0], product_2 % word, product_0 // word ^ c[3] ^ k[1], product_0 % word]
        k = [(k[0] + 0x9E3779B97F4A7C15) % word, (k[1] + 0xBB67AE8584CAA73B) % word]
    return c


def state_of(seed, counter):
    """The state of a Keras seed generator, in whichever integers the backend keeps it."""
    state = keras.random.SeedGenerator(seed).state
    state.assign(np.array([seed, counter]).astype(state.dtype))
    return state.value


def as_uint32(x):
    return ops.convert_to_numpy(x).view(np.uint32)


# Bits and masks. ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "counter"), STREAMS)
def test_bits_are_the_keyed_triple32_of_the_position(seed, counter):
    actual = random.bits(seed, counter, (9,))
    assert actual.dtype == np.uint32
    assert actual.tolist() == expected_bits(seed, counter, 9)


def test_salt_is_the_square_roots_of_two_and_five():
    expected = [math.isqrt(2 * WORD**2) % WORD, math.isqrt(5 * WORD**2) % WORD]
    assert list(random.KEY_SALT) == expected


def test_every_seed_and_counter_has_a_key_of_its_own():
    # The key is undone step by step; only a key that lost nothing gives seed and counter back.
    salt_0, salt_1 = random.KEY_SALT
    unmix = pow(1 - salt_0 * salt_1, -1, WORD)  # exists only if the determinant is odd
    for seed, counter in STREAMS:
        a, b = (unhashed(int(word)) for word in random.stream_key(seed, counter))
        first, second = (a - b * salt_0) * unmix % WORD, (b - a * salt_1) * unmix % WORD
        assert (unhashed(first) - salt_0) % WORD == seed
        assert (unhashed(second) - salt_1) % WORD == counter


def test_a_counter_goes_round_at_two_to_the_32():
    np.testing.assert_array_equal(random.bits(3, 2**32 + 5, (4,)), random.bits(3, 5, (4,)))
    np.testing.assert_array_equal(random.bits(3, -1, (4,)), random.bits(3, 2**32 - 1, (4,)))


def test_a_reshape_changes_no_bit():
    np.testing.assert_array_equal(random.bits(1, 2, (3, 4)), random.bits(1, 2, (12,)).reshape(3, 4))


@pytest.mark.parametrize(("seed", "counter"), STREAMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_twin_gives_the_bits_of_numpy(seed, counter, shape):
    twin = random.bits_in_graph(state_of(seed, counter), shape)
    assert keras.backend.standardize_dtype(twin.dtype) == "int32"
    assert tuple(twin.shape) == shape
    np.testing.assert_array_equal(as_uint32(twin), random.bits(seed, counter, shape))


@pytest.mark.parametrize("compiler", compilers())
def test_the_twin_compiled_gives_the_bits_of_numpy(compiler):
    function = compilers()[compiler](lambda state: random.bits_in_graph(state, (3, 5)))
    for seed, counter in STREAMS:
        np.testing.assert_array_equal(as_uint32(function(state_of(seed, counter))), random.bits(seed, counter, (3, 5)))


@pytest.mark.parametrize("compiler", compilers())
def test_one_compiled_function_serves_every_batch_size(compiler):
    function = compilers()[compiler](lambda state, x: random.bits_in_graph(state, ops.shape(x)))
    for batch in (1, 7, 3):
        actual = function(state_of(4, 9), ops.zeros((batch, 3)))
        np.testing.assert_array_equal(as_uint32(actual), random.bits(4, 9, (batch, 3)))


if keras.backend.backend() == "tensorflow":  # only its graphs have an unknown batch size

    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_the_twin_serves_a_graph_of_unknown_batch_size(jit_compile):
        import tensorflow as tf

        @tf.function(jit_compile=jit_compile, input_signature=[tf.TensorSpec((None, 3))])
        def function(x):
            assert x.shape[0] is None
            return random.bits_in_graph(tf.constant([4, 9], "int64"), ops.shape(x))

        for batch in (0, 1, 7):
            np.testing.assert_array_equal(as_uint32(function(tf.zeros((batch, 3)))), random.bits(4, 9, (batch, 3)))


def test_the_twin_follows_the_seed_generator_round_the_end_of_its_counter():
    generator = keras.random.SeedGenerator(6)
    generator.state.assign(np.array([6, 2**32 - 1]).astype(generator.state.dtype))
    for counter in (2**32 - 1, 0, 1):
        actual = random.bits_in_graph(generator.next(), (5,))
        np.testing.assert_array_equal(as_uint32(actual), random.bits(6, counter, (5,)))


@pytest.mark.parametrize("rate", [0, 2.0**-32, 0.1, 0.5, 0.9, 1 - 2.0**-32, 1 - 2.0**-53])
def test_a_mask_keeps_the_elements_whose_signed_bits_reach_the_share_that_is_dropped(rate):
    signed = [word - WORD if word >= WORD // 2 else word for word in expected_bits(8, 2, 200)]
    dropped = min(round(rate * WORD), WORD - 1)
    expected = [word + WORD // 2 >= dropped for word in signed]
    assert random.dropout_mask(8, 2, (200,), rate).tolist() == expected
    assert to_numpy(random.dropout_mask_in_graph(state_of(8, 2), (200,), rate)).tolist() == expected


def test_an_element_whose_bits_equal_the_share_is_kept():
    share = (expected_bits(8, 2, 1)[0] + WORD // 2) % WORD  # of all int32, those below the first element's
    for rate, kept in ((share / WORD, True), ((share + 1) / WORD, False)):
        assert random.dropout_mask(8, 2, (1,), rate).tolist() == [kept]
        assert to_numpy(random.dropout_mask_in_graph(state_of(8, 2), (1,), rate)).tolist() == [kept]


def test_masks_of_rising_rates_drop_ever_more():
    masks = [random.dropout_mask(1, 1, (1000,), rate) for rate in (0, 0.2, 0.7, 0.99)]
    assert masks[0].all()
    for lower, higher in itertools.pairwise(masks):
        assert not (higher & ~lower).any()
        assert higher.sum() < lower.sum()


# Draws on the host. ---------------------------------------------------------------------------------------------------


def test_philox_of_this_test_gives_the_published_answer():
    # Random123's known answers, `philox4x64 10`, with key and counter zero.
    expected = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox([0, 0], [0, 0, 0, 0]) == expected


@pytest.mark.parametrize("counter", [(), (5,), (5, 6), (2**64 - 1, 6, 7)])
@pytest.mark.parametrize("seed", [0, 42, LAST_SEED])
def test_words_are_philox_blocks_counted_up_in_the_lowest_word(seed, counter):
    stream = [0] * (3 - len(counter)) + list(counter)
    expected = [word for block in (1, 2, 3) for word in philox([seed, 0], [block, *stream])]
    assert random.words(seed, counter, 10).tolist() == expected[:10]


def test_uniform_numbers_are_the_upper_53_bits_of_the_words():
    expected = [int(word) // 2**11 / 2**53 for word in random.words(3, (1, 2), 6)]
    assert random.uniform(3, (1, 2), (2, 3)).tolist() == [expected[:3], expected[3:]]


def test_normal_numbers_are_quantiles_of_the_words():
    steps = [(int(word) // 2**12 * 2 + 1) / 2**53 for word in random.words(3, (1,), 4000)]
    expected = [NormalDist().inv_cdf(p) for p in steps]
    np.testing.assert_allclose(random.normal(3, (1,), (4000,)), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("limit", [0.5, 2, 3])
def test_truncated_normal_numbers_are_quantiles_between_the_limits(limit):
    normal = NormalDist()
    low, high = normal.cdf(-limit), normal.cdf(limit)
    steps = [(int(word) // 2**12 * 2 + 1) / 2**53 for word in random.words(3, (1,), 4000)]
    expected = [normal.inv_cdf(low + step * (high - low)) for step in steps]
    actual = random.normal(3, (1,), (4000,), limit)
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-13)
    assert np.abs(actual).max() <= limit


def test_the_outermost_words_give_numbers_inside_the_range(monkeypatch):
    outermost = np.array([0, 2**64 - 1, 2**63 - 1, 2**63], dtype=np.uint64)
    monkeypatch.setattr(random, "words", lambda seed, counter, count: outermost[:count])
    assert random.uniform(0, (), (4,)).tolist() == [0.0, 1 - 2**-53, 0.5 - 2**-53, 0.5]
    lowest, highest, below, above = random.normal(0, (), (4,))
    assert lowest == pytest.approx(NormalDist().inv_cdf(2**-53), rel=1e-13)
    assert highest == -lowest
    assert below == -above
    assert -1e-15 < below < 0
    assert np.abs(random.normal(0, (), (4,), limit=2)).max() <= 2


def test_a_permutation_sorts_the_words():
    drawn = random.words(9, (4,), 50).tolist()
    actual = random.permutation(9, (4,), 50)
    assert actual.dtype == np.int64
    assert actual.tolist() == sorted(range(50), key=lambda i: drawn[i])


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1,)])
def test_draws_have_the_shape_asked_for(shape):
    assert random.uniform(0, (), shape).shape == shape
    assert random.normal(0, (), shape).shape == shape
    assert random.dropout_mask(0, 0, shape, 0.5).shape == shape


# A change of NumPy or of this file that changes a number is seen here. Nothing outside computes these: they were drawn
# once, after the tests above held.
@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (lambda: random.bits(11, 3, (64,)), "2feedf58d8df2b48"),
        (lambda: random.dropout_mask(11, 3, (64,), 0.3), "b3b2a78c195ea4c0"),
        (lambda: random.words(11, (3, 4), 64), "e60e6c89ed6c37f4"),
        (lambda: random.uniform(11, (3, 4), (8, 8)), "d9a59044ed022f43"),
        # Rounded, because the last bit of a float64 logarithm depends on the processor.
        (lambda: random.normal(11, (3, 4), (8, 8)).astype("float32"), "a000c31fd9075153"),
        (lambda: random.normal(11, (3, 4), (8, 8), limit=2).astype("float32"), "f379f4a64b5b5608"),
        (lambda: random.permutation(11, (3, 4), 64), "9bd0a20c7c1fa228"),
    ],
    ids=["bits", "dropout_mask", "words", "uniform", "normal", "truncated_normal", "permutation"],
)
def test_draws_stay_what_they_were(draw, expected):
    assert fingerprint(draw()) == expected


# Statistics. Each bound is five standard deviations of what is measured, under the hypothesis that the bits are random.

SAMPLES = 2**16


def ones(words):
    """How many of the 32 bits of each word are set, as an array of 0 and 1 with one column per bit."""
    return (words[:, None] >> np.arange(32, dtype=np.uint32)) & 1


@pytest.mark.parametrize(("seed", "counter"), [(0, 0), (1, 0), (LAST_SEED, 2**32 - 1)])
def test_every_bit_is_set_half_the_time(seed, counter):
    share = ones(random.bits(seed, counter, (SAMPLES,))).mean(axis=0)
    assert np.abs(share - 0.5).max() < 5 * 0.5 / math.sqrt(SAMPLES)


@pytest.mark.parametrize(
    "other",
    [
        lambda: random.bits(1, 0, (SAMPLES,)),
        lambda: random.bits(0, 1, (SAMPLES,)),
        lambda: random.bits(1, 1, (SAMPLES,)),
        lambda: random.bits(random.derive_seed(0, "query"), 0, (SAMPLES,)),
        lambda: random.bits(0, 0, (SAMPLES + 1,))[1:],
    ],
    ids=["next seed", "next counter", "both", "child", "next position"],
)
def test_neighbouring_streams_are_uncorrelated(other):
    differing = ones(random.bits(0, 0, (SAMPLES,)) ^ other()).mean(axis=0)
    assert np.abs(differing - 0.5).max() < 5 * 0.5 / math.sqrt(SAMPLES)


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_a_mask_drops_the_share_asked_for(rate):
    dropped = 1 - random.dropout_mask(0, 0, (SAMPLES,), rate).mean()
    assert abs(dropped - rate) < 5 * math.sqrt(rate * (1 - rate) / SAMPLES)


def test_uniform_numbers_have_the_mean_and_variance_of_the_uniform_distribution():
    x = random.uniform(0, (), (SAMPLES,))
    assert abs(x.mean() - 1 / 2) < 5 * math.sqrt(1 / 12 / SAMPLES)
    assert abs(x.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / SAMPLES)


def test_normal_numbers_have_the_mean_and_variance_of_the_normal_distribution():
    x = random.normal(0, (), (SAMPLES,))
    assert abs(x.mean()) < 5 / math.sqrt(SAMPLES)
    assert abs(x.var() - 1) < 5 * math.sqrt(2 / SAMPLES)


def test_a_number_stands_anywhere_in_a_permutation():
    # The place of the number 0 in 2000 permutations of 10: uniform, variance (10**2 - 1) / 12.
    places = [random.permutation(0, (i,), 10).tolist().index(0) for i in range(2000)]
    assert abs(np.mean(places) - 4.5) < 5 * math.sqrt(99 / 12 / 2000)
    assert set(places) == set(range(10))


# Seeds. ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, LAST_SEED, np.int64(7), np.uint8(7), None])
def test_a_seed_below_two_to_the_31_is_taken(seed):
    checked = random.check_seed(seed)
    assert checked == seed
    assert checked is None or type(checked) is int


@pytest.mark.parametrize("seed", [-1, 2**31, 2**32, 2**64, 1.0, "1", True, [1], np.float32(1)])
def test_another_seed_is_refused_and_repeated(seed):
    with pytest.raises(ValueError, match=r"`dropout_seed` must be .*Received: dropout_seed="):
        random.check_seed(seed, name="dropout_seed")


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed: random.bits(seed, 0, (2,)),
        lambda seed: random.stream_key(seed, 0),
        lambda seed: random.dropout_mask(seed, 0, (2,), 0.5),
        lambda seed: random.words(seed, (), 2),
        lambda seed: random.uniform(seed, (), (2,)),
        lambda seed: random.normal(seed, (), (2,)),
        lambda seed: random.permutation(seed, (), 2),
    ],
)
@pytest.mark.parametrize("seed", [-1, 2**31, 0.5, None])
def test_every_draw_refuses_a_seed_out_of_range(draw, seed):
    with pytest.raises(ValueError, match="`seed` must be"):
        draw(seed)


def test_a_counter_of_four_ints_is_refused():
    with pytest.raises(ValueError, match=r"at most three ints.*\(1, 2, 3, 4\)"):
        random.words(0, (1, 2, 3, 4), 1)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, math.nan, "0.5", True])
def test_a_mask_refuses_a_rate_outside_its_range(rate):
    with pytest.raises(ValueError, match=r"`rate` must be a number in \[0, 1\)"):
        random.dropout_mask(0, 0, (2,), rate)
    with pytest.raises(ValueError, match=r"`rate` must be a number in \[0, 1\)"):
        random.dropout_mask_in_graph(state_of(0, 0), (2,), rate)


@pytest.mark.parametrize("seed", [0, 1, LAST_SEED])
@pytest.mark.parametrize("child", ["query", "key", "", "bloco é"])
def test_the_seed_of_a_child_is_a_hash_of_the_parents_seed_and_its_name(seed, child):
    actual = random.derive_seed(seed, child)
    assert actual == expected_bits(seed, zlib.crc32(child.encode()), 1)[0] // 2
    assert 0 <= actual < 2**31


def test_children_of_no_seed_have_none():
    assert random.derive_seed(None, "query") is None


@pytest.mark.parametrize("seed", [-1, 2**31, 0.5, True])
def test_no_child_of_a_seed_out_of_range(seed):
    with pytest.raises(ValueError, match="`seed` must be"):
        random.derive_seed(seed, "query")
