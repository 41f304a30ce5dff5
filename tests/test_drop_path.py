"""DropPath: whole samples of the stream of dropout."""

import numpy as np
import pytest
from bits import assert_same_bits

import pyreg


@pytest.mark.parametrize("shape", [(1000,), (1000, 7), (50, 3, 41), (7, 200_001)])
@pytest.mark.parametrize("p", [0.1, 0.5, 1 / 3])
def test_a_sample_is_one_element_of_the_stream(impl, dtype, rng, shape, p):
    x = rng.normal(size=shape).astype(dtype)
    factors = impl.dropout(np.ones(shape[0], dtype), p, key=5, offset=3)
    y = impl.drop_path(x, p, key=5, offset=3)
    assert_same_bits(y, x * factors.reshape(-1, *(1,) * (x.ndim - 1)) + dtype(0))


def test_a_dropped_sample_is_positive_zero_whatever_it_was(impl, dtype):
    x = np.full((200, 3), [np.nan, -np.inf, -1.0], dtype)
    mask = impl.dropout_mask(200, 0.5, key=1)
    y = impl.drop_path(x, 0.5, key=1)
    assert_same_bits(y[~mask], np.zeros((np.count_nonzero(~mask), 3), dtype))
    assert_same_bits(y[mask], x[mask] * dtype(2))


def test_p_of_0_and_1_and_inference(impl, dtype, rng):
    x = rng.normal(size=(20, 9)).astype(dtype)
    assert_same_bits(impl.drop_path(x, 0, key=1), x)
    assert_same_bits(impl.drop_path(x, 1, key=1), np.zeros_like(x))
    assert_same_bits(impl.drop_path(x, 0.5, key=1, training=False), x)


def test_a_part_of_the_samples_with_its_offset_is_the_part_of_the_whole(impl, dtype, rng):
    x = rng.normal(size=(300, 11)).astype(dtype)
    whole = impl.drop_path(x, 0.3, key=9, offset=4)
    assert_same_bits(impl.drop_path(x[17:200], 0.3, key=9, offset=21), whole[17:200])


def test_the_factors_are_the_row_scale_of_the_fused_functions(impl, dtype, rng):
    x, residual = rng.normal(size=(2, 6, 4, 10)).astype(dtype)
    factors = impl.dropout(np.ones(6, dtype), 0.5, key=3)
    row_scale = np.repeat(factors, 4).reshape(6, 4)
    _, z, _, _ = impl.dropout_add_layer_norm_forward(x, residual, p=0, key=0, row_scale=row_scale)
    assert_same_bits(z, impl.drop_path(x, 0.5, key=3) + residual)


def test_out_is_written_and_returned_and_may_be_the_input(impl, dtype, rng):
    x = rng.normal(size=(30, 40)).astype(dtype)
    expected = impl.drop_path(x, 0.4, key=2)
    out = np.empty_like(x)
    assert impl.drop_path(x, 0.4, key=2, out=out) is out
    assert_same_bits(out, expected)
    assert_same_bits(impl.drop_path(x, 0.4, key=2, out=x), expected)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
def test_arrays_without_elements_give_arrays_without_elements(impl, dtype, shape):
    assert impl.drop_path(np.empty(shape, dtype), 0.5, key=1).shape == shape


def test_large_samples_past_the_caches_have_the_same_bits(level, rng):
    x = rng.standard_normal((12, 1_000_001), np.float32)
    in_place = x.copy()
    expected = pyreg.drop_path(in_place, 0.5, key=1, out=in_place)
    assert_same_bits(pyreg.drop_path(x, 0.5, key=1), expected)


@pytest.mark.parametrize("bad", [1.5, "1", None, np.nan])
def test_arguments_that_are_refused(bad):
    x = np.ones((4, 3), np.float32)
    for impl in (pyreg, pyreg.reference):
        with pytest.raises((TypeError, ValueError), match="p must"):
            impl.drop_path(x, bad, key=1)
        with pytest.raises((TypeError, ValueError), match="key"):
            impl.drop_path(x, 0.5, key=bad)
        with pytest.raises((TypeError, ValueError), match="offset"):
            impl.drop_path(x, 0.5, key=1, offset=bad)
        with pytest.raises(TypeError, match="training"):
            impl.drop_path(x, 0.5, key=1, training=bad)
        with pytest.raises(ValueError, match="x must have an axis"):
            impl.drop_path(np.float32(1), 0.5, key=1)
        with pytest.raises(ValueError, match=r"offset must be in \[0, 18446744073709551612\]"):
            impl.drop_path(x, 0.5, key=1, offset=2**64 - 3)
        with pytest.raises(ValueError, match="out must not overlap x"):
            impl.drop_path(x[:3], 0.5, key=1, out=x[1:])
