"""Bit-for-bit comparison of arrays."""

import numpy as np


def bits(array):
    """An array's bytes, with every NaN made the same: pyreg promises no particular payload."""
    array = np.array(array)
    with np.errstate(invalid="ignore"):  # ml_dtypes converts a NaN that signals
        array[np.isnan(array)] = np.nan
    return array.tobytes()


def have_same_bytes(one, other):
    """Whether two arrays of one dtype and shape have the same bytes. Contiguous ones are not copied."""
    integer = f"u{one.itemsize}"
    return np.array_equal(*(np.ascontiguousarray(array).view(integer) for array in (one, other)))


def assert_same_bits(actual, expected, context=""):
    """Works on arrays, numbers, None, and tuples and dicts of them."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys(), context
        for name, value in expected.items():
            assert_same_bits(actual[name], value, (name, context))
    elif isinstance(expected, tuple):
        assert len(actual) == len(expected), context
        for a, e in zip(actual, expected, strict=True):
            assert_same_bits(a, e, context)
    elif expected is None:
        assert actual is None, context
    else:
        actual, expected = np.asarray(actual), np.asarray(expected)
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), context
        if not have_same_bytes(actual, expected) and bits(actual) != bits(expected):
            differs = (actual != expected) & ~(np.isnan(actual) & np.isnan(expected))
            where = np.argwhere(differs | (np.signbit(actual) != np.signbit(expected)))
            raise AssertionError(f"{context}: {len(where)} elements differ, the first at {where[:1]}")
