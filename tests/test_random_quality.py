"""The portable random numbers behave as random numbers do.

Each statistic below looks at a generator in one way and gives z-scores: numbers that are standard normal if the bits
are random. A generator passes if none of the n scores of a statistic lies outside what n scores reach once in a million
times. All seeds are fixed, so a test that passes passes always. What each statistic is worth is shown by generators
with a planted fault, each of which it must reject.
"""

import itertools
import math
from statistics import NormalDist

import keras
import numpy as np
import pytest
from keras import ops

from keras_vit_edu import initializers, random
from keras_vit_edu.layers import PortableDropout
from tests.support import to_numpy, vit_classifier

FALSE_ALARMS = 1e-6
LAST_SEED, LAST_COUNTER = 2**31 - 1, 2**32 - 1


def limit(count):
    """What the largest of `count` standard normal numbers exceeds with probability `FALSE_ALARMS`, at most."""
    return NormalDist().inv_cdf(1 - FALSE_ALARMS / 2 / count)


def is_random(scores):
    scores = np.concatenate([np.ravel(own) for own in scores])
    return bool(np.abs(scores).max() < limit(scores.size))  # False for NaN


# Scores. --------------------------------------------------------------------------------------------------------------


def share_score(ones, count):
    """Of so many ones among `count` fair bits."""
    return (ones - count / 2) / math.sqrt(count / 4)


def chi_square_score(observed):
    """Of counts that ought to be equal: chi-square, whose cube root is nearly normal (Wilson and Hilferty 1931)."""
    expected, freedom = observed.sum() / observed.size, observed.size - 1
    chi_square = ((observed - expected) ** 2).sum() / expected
    variance = 2 / (9 * freedom)
    return ((chi_square / freedom) ** (1 / 3) - (1 - variance)) / math.sqrt(variance)


def ones_per_bit(words):
    """How many of the words have each of the 32 bits set, lowest bit first."""
    octets = words.astype("<u4").view(np.uint8).reshape(-1, 4)
    counts = [np.bincount(octets[:, i], minlength=256) for i in range(4)]
    values = np.arange(256)
    return np.array([(counts[i] * (values >> bit & 1)).sum() for i in range(4) for bit in range(8)])


def pair_scores(first, second):
    """Whether two arrays of words know of each other: bit by bit, in their upper and lower nibbles, and in value."""
    upper = np.bincount((first >> 28) * 16 + (second >> 28), minlength=256)
    lower = np.bincount((first & 15) * 16 + (second & 15), minlength=256)
    x, y = (words / 2.0**32 - 0.5 for words in (first, second))
    correlation = 12 * (x * y).sum() / math.sqrt(x.size)
    return [
        share_score(ones_per_bit(first ^ second), first.size),
        [chi_square_score(upper), chi_square_score(lower), correlation],
    ]


# Statistics of a generator: a function of seed, counter and how many that gives uint32. -------------------------------

STREAMS = [(0, 0), (0, 1), (1, 0), (7, 3), (LAST_SEED, 0), (LAST_SEED, LAST_COUNTER)]
# Steps from one seed or counter to another: the next ones, and each bit.
STEPS = [1, 2, 3, 5, 7, 100, *(2**k for k in range(3, 31))]
# Distances in a mask: the next elements, powers of two, rows of Program P (16 keys, 64 and 128 wide), primes.
LAGS = [*range(1, 18), 31, 32, 63, 64, 65, 127, 128, 129, 196, 197, 256, *(2**k for k in range(9, 16)), 2048 + 1, 40009]


def bit_balance(bits):
    """Each bit is set half the time."""
    for seed, counter in STREAMS:
        yield share_score(ones_per_bit(bits(seed, counter, 2**18)), 2**18)


def uniformity(bits):
    """Words fall evenly on the cells of a partition: each byte, the upper and lower 12 bits, remainders."""
    for seed, counter in STREAMS:
        words = bits(seed, counter, 2**18)
        cells = [words >> 24, words >> 16 & 255, words >> 8 & 255, words & 255]
        yield [chi_square_score(np.bincount(cell, minlength=256)) for cell in cells]
        yield [chi_square_score(np.bincount(cell, minlength=4096)) for cell in (words >> 20, words & 4095)]
        yield [chi_square_score(np.bincount(words % divisor, minlength=divisor)) for divisor in (97, 1000, 4093)]


def avalanche(bits):
    """Flip one bit of the seed, the counter or the position: each bit of the word flips half the time."""
    starts, count = [(seed * 0x1F3D5B79 % 2**31, seed * 0x9E3779B9 % 2**32) for seed in range(8)], 2048
    before = [bits(seed, counter, count) for seed, counter in starts]
    for bit in range(31):
        after = [bits(seed ^ 1 << bit, counter, count) for seed, counter in starts]
        yield share_score(ones_per_bit(np.concatenate(before) ^ np.concatenate(after)), 8 * count)
    for bit in range(32):
        after = [bits(seed, counter ^ 1 << bit, count) for seed, counter in starts]
        yield share_score(ones_per_bit(np.concatenate(before) ^ np.concatenate(after)), 8 * count)
    words = bits(3, 1, 2**16)
    for bit in range(16):
        without, with_bit = np.moveaxis(words.reshape(-1, 2, 2**bit), 1, 0)  # neighbours differ in this bit alone
        yield share_score(ones_per_bit((without ^ with_bit).ravel()), 2**15)


def positions(bits):
    """A word says nothing about another of its stream, next to it, a row away or a power of two away."""
    words = bits(5, 2, 2**17)
    for lag in LAGS:
        yield from pair_scores(words[:-lag], words[lag:])


def counters(bits):
    """A word says nothing about the one at its place in another step of the same layer."""
    for step in STEPS:
        yield from pair_scores(bits(5, 9, 2**14), bits(5, 9 + step, 2**14))


def seeds(bits):
    """A word says nothing about the one at its place under another seed."""
    for step in STEPS:
        yield from pair_scores(bits(9, 0, 2**14), bits(9 + step, 0, 2**14))


def seeds_and_counters(bits):
    """Nor do seed and counter make up for each other: one step later is not the next seed."""
    for seed, counter in itertools.product(range(4), range(1, 5)):
        for step in (1, 2, 3):
            first, second = bits(seed + step, counter, 2**14), bits(seed, counter + step, 2**14)
            yield from pair_scores(first, second)


def shared_words(bits):
    """Neighbouring streams have as many words in common as chance gives them, at any distance: about Poisson."""
    streams = [bits(seed, counter, 2**14) for seed in range(8) for counter in range(8)]
    _, times = np.unique(np.concatenate(streams), return_counts=True)
    within = sum((np.unique(stream, return_counts=True)[1] ** 2 - 1).sum() for stream in streams)
    shared = ((times**2).sum() - times.sum() - within) / 2
    expected = math.comb(len(streams), 2) * 2**28 / 2**32  # 126
    yield [(shared - expected) / math.sqrt(expected)]


def crowds(bits):
    """How many of 256 elements a rate of 0.1 drops is binomial: along rows, and across 256 seeds and 256 counters."""
    crowd, rate = 256, 0.1
    sets = [
        bits(2, 6, 2**18).reshape(-1, crowd),  # a row is a crowd
        np.stack([bits(seed, 0, 2**10) for seed in range(crowd)], axis=1),
        np.stack([bits(0, counter, 2**10) for counter in range(crowd)], axis=1),
    ]
    for words in sets:
        dropped = (words < rate * 2**32).sum(axis=1)
        z = (dropped - crowd * rate) / math.sqrt(crowd * rate * (1 - rate))
        kurtosis = 3 + (1 - 6 * rate * (1 - rate)) / (crowd * rate * (1 - rate))  # of the binomial distribution
        yield [z.mean() * math.sqrt(z.size), (np.mean(z**2) - 1) * math.sqrt(z.size / (kurtosis - 1))]


STATISTICS = [
    bit_balance,
    uniformity,
    avalanche,
    positions,
    counters,
    seeds,
    seeds_and_counters,
    shared_words,
    crowds,
]


# The generators that are used. ----------------------------------------------------------------------------------------


def mask_bits(seed, counter, count):
    """What dropout masks are made of."""
    return random.bits(seed, counter, (count,))


def initial_weight_bits(seed, counter, count):
    """What the initial weights of a parent's child are made of; the counter says which child."""
    seed_of_child = random.derive_seed(seed, f"child_{counter}")
    return (random.words(seed_of_child, (0,), count) >> np.uint64(32)).astype(np.uint32)


@pytest.mark.any_backend
@pytest.mark.parametrize("bits", [mask_bits, initial_weight_bits])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_it_passes_for_random(statistic, bits):
    assert is_random(statistic(bits))


# Generators with a fault, and who must see it. ------------------------------------------------------------------------


def mixed(x, multipliers=((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB)), last=14):
    x = x.astype(np.uint32)
    for shift, multiplier in multipliers:
        x = (x ^ x >> np.uint32(shift)) * np.uint32(multiplier)
    return x ^ x >> np.uint32(last)


def the_counter_is_ignored(seed, counter, count):
    return mask_bits(seed, 0, count)


def the_upper_half_of_the_seed_is_lost(seed, counter, count):
    return mask_bits(seed % 2**16, counter, count)


def seed_and_counter_are_added(seed, counter, count):
    """As Keras's dropout on torch does: the next step of a layer is this step of the layer with the next seed."""
    return mask_bits((seed + counter) % 2**31, 0, count)


def seed_and_counter_move_the_position(seed, counter, count):
    """One long stream for all, entered at different places."""
    start = (seed * 1009 + counter * 4001) % 2**32
    return mixed(np.arange(count, dtype=np.uint32) + np.uint32(start))


def the_key_is_put_on_at_the_end(seed, counter, count):
    """Two streams differ by one constant word."""
    key = random.stream_key(seed, counter)
    return mixed(np.arange(count, dtype=np.uint32)) ^ key[0]


def one_round_is_left_of_three(seed, counter, count):
    position = np.arange(count, dtype=np.uint32)
    return mixed(position + random.stream_key(seed, counter)[0], multipliers=((17, 0xED5AD4BB),))


def every_row_is_the_same(seed, counter, count):
    return np.resize(mask_bits(seed, counter, 4096), count)


def words_are_evenly_spaced(seed, counter, count):
    """Too even to be random."""
    words = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9)
    return words + random.stream_key(seed, counter)[0]


def one_bit_is_set_too_often(seed, counter, count):
    words = mask_bits(seed, counter, count)
    return words | (words >> np.uint32(1) & words >> np.uint32(7) & words >> np.uint32(13) & np.uint32(1 << 5))


def neighbours_are_alike(seed, counter, count):
    """One element in eight takes after the one before it."""
    words = mask_bits(seed, counter, count)
    return np.where(words % 8 == 0, np.roll(words, 1), words)


FAULTS = {
    the_counter_is_ignored: {avalanche, counters, shared_words, crowds},
    the_upper_half_of_the_seed_is_lost: {avalanche, seeds},
    seed_and_counter_are_added: {seeds_and_counters, shared_words},
    seed_and_counter_move_the_position: {shared_words},
    the_key_is_put_on_at_the_end: {avalanche, counters, seeds, seeds_and_counters},
    one_round_is_left_of_three: {uniformity, avalanche, positions, crowds},
    every_row_is_the_same: {uniformity, positions, crowds},
    words_are_evenly_spaced: {uniformity, positions, crowds},
    one_bit_is_set_too_often: {bit_balance, uniformity},
    neighbours_are_alike: {positions},
}


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("fault", "statistic"), [(fault, seen) for fault, those in FAULTS.items() for seen in STATISTICS if seen in those]
)
def test_a_planted_fault_is_seen(fault, statistic):
    assert not is_random(statistic(fault))


def test_every_statistic_sees_a_fault():
    assert set().union(*FAULTS.values()) == set(STATISTICS)


# Layers: what is drawn in the end. ------------------------------------------------------------------------------------


def correlations(arrays):
    """A score for each pair of arrays: their correlation, times the square root of how many elements they have."""
    coefficients = np.corrcoef([np.ravel(array) for array in arrays])
    return [coefficients[np.triu_indices(len(arrays), 1)] * math.sqrt(np.size(arrays[0]))]


def masks(layers, steps=3):
    ones = ops.ones((64, 256))
    return [to_numpy(layer(ones, training=True)) != 0 for layer in layers for _ in range(steps)]


def test_the_masks_of_a_models_layers_are_uncorrelated():
    keras.utils.set_random_seed(0)
    model = vit_classifier(projection_dim=8, key_dim=4, mlp_dim=8, head_units=(8, 8))
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, PortableDropout) and layer.rate > 0]
    assert len(layers) == 15  # three in each of four blocks, three in the head
    assert is_random(correlations(masks(layers)))


def test_the_masks_of_neighbouring_seeds_are_uncorrelated():
    assert is_random(correlations(masks([PortableDropout(0.5, seed=seed) for seed in range(12)])))


@pytest.mark.any_backend
def test_layers_that_share_a_stream_are_seen():
    one_stream = masks([PortableDropout(0.5, seed=0)], steps=14)
    layers_one_step_apart = [one_stream[seed + step] for seed in range(12) for step in range(3)]
    assert not is_random(correlations(layers_one_step_apart))
    other_rates = masks([*(PortableDropout(0.1, seed=seed) for seed in range(12)), PortableDropout(0.5, seed=0)])
    assert not is_random(correlations(other_rates))


CHILDREN = ("query", "key", "value", "output")


def test_the_kernels_of_children_are_uncorrelated():
    parents = [initializers.GlorotUniform(seed=seed) for seed in range(8)]
    kernels = [initializers.for_child(parent, child)((64, 64)) for parent in parents for child in CHILDREN]
    assert is_random(correlations([to_numpy(kernel) for kernel in kernels]))


def test_children_that_share_a_seed_are_seen():
    parents = [initializers.GlorotUniform(seed=seed) for seed in range(8)]
    assert not is_random(correlations([to_numpy(parent((64, 64))) for parent in parents for _ in CHILDREN]))
