"""Masks, and the byte strings they are made from, are random. The keys are fixed, so the result is always the same.

Every statistic has a known distribution if the stream is random, and its assertion then fails with a probability of
1e-7. No test has ten assertions, over all its parameters, so each has a false-alarm probability below 1e-6.
"""

import math
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
import random_bytes
from random_bytes import numbers, string

import pyreg
from pyreg.reference.philox import philox_bytes

KEY = 0x0123456789ABCDEF


def assert_likely(chance, tests=1):
    """Fail with a probability of at most 1e-7. `chance` is that of the least likely of `tests` statistics."""
    assert chance * tests > 1e-7  # Bonferroni's inequality


def chance_of_count(count, size, p):
    """Chernoff's bound on the chance of a binomial count so far from size * p: 2 exp(-size KL(count/size, p))."""
    pairs = ((count / size, p), (1 - count / size, 1 - p))
    return 2 * math.exp(-size * sum(f * math.log(f / q) for f, q in pairs if f))


def chance_of_counts(counts, expected):
    """The same for Pearson's chi-square with k degrees of freedom, r times its mean: 2 exp(-k/2 (r - 1 - log r))."""
    k = len(counts) - 1
    ratio = np.sum((counts - expected) ** 2 / expected) / k
    return 2 * math.exp(-k / 2 * (ratio - 1 - math.log(ratio)))


def chance_of_normal(z):
    """The chance that a standard normal variable is so far from 0."""
    return math.erfc(abs(z) / math.sqrt(2))


def centred(size, p, dtype=np.float64, **stream):
    """A mask, shifted and scaled to the mean 0 and the variance 1."""
    return (pyreg.dropout_mask(size, p, **stream) - dtype(1 - p)) / dtype(math.sqrt(p * (1 - p)))


@pytest.mark.parametrize("p", [1e-3, 1 / 3, 0.5, 0.9, 2**-8 + 2**-20])
def test_the_dropped_fraction_is_p(p):
    size, part = 2**26, 2**23
    dropped = sum(
        part - np.count_nonzero(pyreg.dropout_mask(part, p, key=KEY, offset=first)) for first in range(0, size, part)
    )
    assert_likely(chance_of_count(dropped, size, p))  # binomial


def test_the_later_digits_of_p_drop_as_many_more():
    size = 2**25
    few, more = (pyreg.dropout_mask(size, p, key=KEY) for p in (2**-8, 2**-8 + 2**-20))
    assert_likely(chance_of_count(np.count_nonzero(few ^ more), size, 2**-20))  # binomial


@pytest.mark.parametrize("p", [0.5, 1 / 3, 0.1])
def test_gaps_between_drops_are_geometric(p):
    # A fixed number of gaps, 10% fewer than expected. All the gaps of a mask would be biased: the last is cut off.
    size = 2**23
    number = int(0.9 * size * p)
    gaps = np.diff(np.flatnonzero(~pyreg.dropout_mask(size, p, key=KEY)), prepend=-1)[:number]
    assert len(gaps) == number
    # A run of kept elements is a gap above 1.
    assert_likely(chance_of_count(np.count_nonzero(gaps > 1), number, 1 - p))  # binomial
    longest = int(math.log(100 / number) / math.log(1 - p))  # at least 100 longer gaps are expected
    lengths = np.bincount(np.minimum(gaps, longest + 1), minlength=longest + 2)[1:]
    chances = np.append(p * (1 - p) ** np.arange(longest), (1 - p) ** longest)
    assert_likely(chance_of_counts(lengths, number * chances))  # chi-square, `longest` degrees of freedom


@pytest.mark.parametrize("p", [0.5, 0.1])
def test_masks_have_no_autocorrelation_at_any_lag_and_no_period(p):
    """Every lag below 2**20, so also neighbours, the generator's blocks and the rows of a matrix."""
    size = 2**21
    power = np.abs(np.fft.rfft(centred(size, p, key=KEY))) ** 2 / size
    # A sum of `size` products with mean 0 and variance 1, uncorrelated with each other, over sqrt(size): normal.
    lags = np.fft.irfft(power)[1 : size // 2] * math.sqrt(size)
    assert_likely(chance_of_normal(np.abs(lags).max()), tests=lags.size)
    # The squares of two normal variables, the real and the imaginary part: exponential with mean 1.
    assert_likely(math.exp(-power[1:-1].max()), tests=power.size)


def test_masks_of_other_keys_and_offsets_are_independent():
    """All pairs of streams. Without correlation, the XOR of two masks has the density 2p(1-p)."""
    size, p = 2**16, 1 / 3
    streams = [{"key": key} for key in range(64)]
    streams += [{"key": KEY ^ 1 << bit} for bit in range(64)]
    streams += [{"key": KEY, "offset": offset} for offset in (0, 1, 16, 2**32, 2**36, 2**63)]
    masks = np.stack([centred(size, p, np.float32, **stream) for stream in streams])
    correlations = (masks @ masks.T)[np.triu_indices(len(masks), 1)] / math.sqrt(size)
    # Sums of uncorrelated products, as above, also for one stream from two offsets: normal.
    assert_likely(chance_of_normal(np.abs(correlations).max()), tests=correlations.size)


def test_bytes_are_uniform_and_independent_between_digits_domains_and_keys():
    """The strings of three domains, for two keys that differ in one bit, and the XOR of every two strings."""
    names = [(digit, domain, key) for digit in range(5) for domain in range(3) for key in (KEY, KEY ^ 1)]
    size = 2**18
    strings = [string(0, size // 16, *name) for name in names]
    strings += [one ^ other for one, other in combinations(strings, 2)]
    # Chi-square, 255 degrees of freedom.
    chances = [chance_of_counts(np.bincount(made, minlength=256), size / 256) for made in strings]
    assert_likely(min(chances), tests=len(chances))


def test_the_bytes_for_batteries_are_the_references():
    places = np.arange(64, dtype=np.uint64) + np.uint64(2**40)
    strings = [philox_bytes(places, digit, 0, KEY) for digit in range(4)]
    for digit, expected in enumerate(strings):
        assert string(2**36, 4, digit, 0, KEY).tolist() == expected.tolist()
    assert numbers(2**36, 4, KEY).tolist() == np.stack(strings[::-1], axis=-1).ravel().tolist()


@pytest.mark.parametrize(
    ("options", "expected"), [([], numbers(0, 9, 18)), (["--digit", "2", "--domain", "1"], string(0, 9, 2, 1, 18))]
)
def test_the_command_writes_the_bytes(options, expected):
    command = [sys.executable, random_bytes.__file__, "--key", "0x12", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(9 * 16) == expected.tobytes()[: 9 * 16]
        process.stdout.close()
        assert process.stderr.read() == b""  # no traceback for the closed pipe
