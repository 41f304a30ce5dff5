"""Comparison of arrays bit for bit."""

import numpy as np


def bits(array):
    """The bytes of an array's elements, all NaNs made alike: their payloads are no promise."""
    array = np.array(array)
    array[np.isnan(array)] = np.nan
    return array.tobytes()


def assert_same_bits(actual, expected, context=""):
    """For arrays, None, and tuples of them."""
    if isinstance(expected, tuple):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            assert_same_bits(a, e, context)
    elif expected is None:
        assert actual is None, context
    else:
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), context
        if bits(actual) != bits(expected):
            differs = (actual != expected) & ~(np.isnan(actual) & np.isnan(expected))
            where = np.argwhere(differs | (np.signbit(actual) != np.signbit(expected)))
            raise AssertionError(f"{context}: {len(where)} elements differ, the first at {where[:1]}")
