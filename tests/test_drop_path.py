"""DropPath: each sample is one element of dropout's stream."""

import numpy as np
import pytest
from bits import assert_same_bits
from cases import every_dtype


@pytest.mark.parametrize("shape", [(1000,), (1000, 7), (50, 3, 41), (7, 200_001)])
@pytest.mark.parametrize("p", [0.1, 0.5, 1 / 3])
def test_a_sample_is_one_element_of_the_stream(impl, dtype, rng, shape, p):
    x = rng.normal(size=shape).astype(dtype)
    factors = impl.dropout(np.ones(shape[0], dtype), p, key=5, offset=3)
    y = impl.drop_path(x, p, key=5, offset=3)
    assert_same_bits(y, x * factors.reshape(-1, *(1,) * (x.ndim - 1)) + dtype(0))


@every_dtype
def test_a_dropped_sample_is_positive_zero_whatever_it_was(impl, dtype):
    x = np.full((200, 3), [np.nan, -np.inf, -1.0], dtype)
    mask = impl.dropout_mask(200, 0.5, key=1)
    y = impl.drop_path(x, 0.5, key=1)
    assert_same_bits(y[~mask], np.zeros((np.count_nonzero(~mask), 3), dtype))
    assert_same_bits(y[mask], x[mask] + x[mask])


@every_dtype
def test_p_of_0_and_1_and_inference(impl, dtype, rng):
    x = rng.normal(size=(20, 9)).astype(dtype)
    assert_same_bits(impl.drop_path(x, 0, key=1), x)
    assert_same_bits(impl.drop_path(x, 1, key=1), np.zeros_like(x))
    assert_same_bits(impl.drop_path(x, 0.5, key=1, training=False), x)


def test_the_factors_are_the_row_scale_of_the_fused_functions(impl, dtype, rng):
    x, residual = rng.normal(size=(2, 6, 4, 10)).astype(dtype)
    factors = impl.dropout(np.ones(6, dtype), 0.5, key=3)
    row_scale = np.repeat(factors, 4).reshape(6, 4)
    _, z, _, _ = impl.dropout_add_layer_norm_forward(x, residual, row_scale=row_scale)
    assert_same_bits(z, impl.drop_path(x, 0.5, key=3) + residual)
