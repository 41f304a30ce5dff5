"""Dropout: its stream and its values. test_randomness.py has the statistics of the masks."""

from pathlib import Path

import numpy as np
import pytest
from bits import assert_same_bits
from cases import compute_type, every_dtype

import pyreg

FROZEN = [
    line.split()
    for line in (Path(__file__).parent / "data/dropout_mask_v1.txt").read_text().splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize(("key", "offset", "p", "mask"), FROZEN)
def test_masks_of_version_1_never_change(impl, key, offset, p, mask):
    kept = impl.dropout_mask(len(mask), float.fromhex(p), key=int(key), offset=int(offset))
    assert "".join("01"[int(k)] for k in kept) == mask


@every_dtype
def test_a_kept_element_is_scaled_and_a_dropped_one_is_positive_zero(impl, dtype, rng):
    x = rng.normal(size=1000).astype(dtype)
    x[::7] = [np.nan, np.inf, -np.inf, -0.0, 1e-40] * 28 + [0, 1, 2]
    mask = impl.dropout_mask(1000, 0.3, key=3)
    with np.errstate(over="ignore"):
        scaled = x.astype(compute_type(dtype)) * compute_type(dtype)(2**32 / (2**32 - round(0.3 * 2**32)))
        expected = np.where(mask, scaled.astype(dtype), dtype(0))
    y = impl.dropout(x, 0.3, key=3)
    assert_same_bits(y, expected)
    assert not np.signbit(y[~mask]).any()


def test_the_scale_makes_the_expectation_x_exactly(impl):
    # p is rounded to a multiple of 2**-32. The scale matches the rounded p, even if float32 cannot hold it.
    threshold = round(1 / 3 * 2**32)
    y = impl.dropout(np.ones(100), 1 / 3, key=1)
    assert set(y) == {0.0, 2**32 / (2**32 - threshold)}


@every_dtype
@pytest.mark.parametrize("p", [0.5, 0.1, 1 / 3, 1e-3, 255 / 256, 3 / 256 + 2**-20])
@pytest.mark.parametrize("a", [0, 1, 15, 16, 17, 4095, 4096, 5000])
def test_a_slice_with_its_offset_equals_the_slice_of_the_whole(impl, dtype, rng, p, a):
    x = rng.normal(size=(90, 100)).astype(dtype)
    whole = impl.dropout(x, p, key=99, offset=7).ravel()
    for b in (a, a + 1, a + 63, 9000):
        part = impl.dropout(x.ravel()[a:b], p, key=99, offset=7 + a)
        assert_same_bits(part, whole[a:b])
        assert_same_bits(impl.dropout_mask(b - a, p, key=99, offset=7 + a), part != 0)


@every_dtype
@pytest.mark.parametrize("p", [0.0, 2**-34])
def test_p_0_is_an_exact_copy(impl, dtype, p):
    x = np.array([1, -0.0, np.inf, np.nan, 3], dtype)
    payload = x.view(f"u{x.itemsize}")
    payload[3] += 5  # the NaN's payload is copied too
    y = impl.dropout(x, p, key=1)
    assert y.tobytes() == x.tobytes()
    assert not np.shares_memory(x, y)
    assert impl.dropout_mask(5, p, key=1).all()


@every_dtype
def test_p_1_drops_everything(impl, dtype):
    x = np.array([1, -1, np.inf, np.nan], dtype)
    assert_same_bits(impl.dropout(x, 1.0, key=1), np.zeros(4, dtype))
    assert_same_bits(impl.dropout(x, 1, key=1), np.zeros(4, dtype))
    assert not impl.dropout_mask(4, 1.0, key=1).any()


def test_the_backward_pass_is_dropout_of_the_gradient(impl, rng):
    x, dy = rng.normal(size=(2, 200))
    dx = impl.dropout(dy, 0.4, key=5, offset=3)
    # dropout is linear: <dropout(x), dy> = <x, dropout(dy)>.
    assert np.isclose((impl.dropout(x, 0.4, key=5, offset=3) * dy).sum(), (x * dx).sum(), rtol=1e-13)


@pytest.mark.parametrize("p", [1e-9, 2**-32, 2**-24, 1 / 256, 0.1, 1 - 2**-24, 1 - 2**-32])
@pytest.mark.parametrize("offset", [0, 2**36 - 100, 2**64 - 20000])
def test_lazy_digits_decide_as_all_four_bytes_would(level, p, offset):
    # Of 20,000 elements, about 80 tie in the first byte, and for some p and offsets one or two in the second.
    mask = pyreg.dropout_mask(20000, p, key=2**64 - 1, offset=offset)
    assert_same_bits(mask, pyreg.reference.dropout_mask(20000, p, key=2**64 - 1, offset=offset))


def test_a_tie_in_all_four_bytes_keeps_the_element(level):
    """U == T is kept, U == T - 1 is dropped: p is set exactly to the number of each element in turn."""
    from pyreg.reference.philox import philox_bytes

    index = np.arange(64, dtype=np.uint64)
    digits = [philox_bytes(index, digit, 0, 77).astype(int) for digit in range(4)]
    numbers = ((digits[0] * 256 + digits[1]) * 256 + digits[2]) * 256 + digits[3]
    for i, number in enumerate(numbers.tolist()):
        assert pyreg.dropout_mask(64, number / 2**32, key=77)[i]
        assert not pyreg.dropout_mask(64, (number + 1) / 2**32, key=77)[i]


@every_dtype
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (2, 3, 4)])
def test_any_shape_is_taken(impl, dtype, shape):
    x = np.ones(shape, dtype)
    y = impl.dropout(x, 0.5, key=4)
    assert (type(y), y.shape, y.dtype) == (np.ndarray, shape, np.dtype(dtype))
    assert_same_bits(impl.dropout_mask(shape, 0.5, key=4), y != 0)
    assert impl.dropout_mask(5, 0.5, key=4).shape == (5,)
