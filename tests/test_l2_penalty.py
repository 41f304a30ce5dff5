"""The explicit penalty: its value and its gradient."""

import math

import numpy as np
import pytest
from cases import every_dtype

import pyreg


@every_dtype
def test_the_value_is_half_the_coefficient_times_the_sum_of_squares(impl, dtype):
    params = [np.array([[3, 4]], dtype), np.array([], dtype), np.array(2, dtype)]
    assert impl.l2_penalty(params, 0.5) == 0.25 * (9 + 16 + 4)
    assert impl.l2_penalty(iter(params), 0.5) == 0.25 * (9 + 16 + 4)
    assert impl.l2_penalty({"w": params[0]}.values(), 0.5) == 0.25 * 25
    assert impl.l2_penalty(params[0], 0.5) == 0.25 * 25
    assert impl.l2_penalty([], 0.5) == 0.0
    assert type(impl.l2_penalty(params, 0)) is float
    assert math.copysign(1, impl.l2_penalty(params, -0.0)) == 1


@every_dtype
def test_a_list_has_the_same_bits_at_every_level(level, dtype, rng):
    params = [rng.normal(size=size).astype(dtype) for size in (100_003, 7, 0, 16_385)]
    assert pyreg.l2_penalty(params, 0.1) == pyreg.reference.l2_penalty(params, 0.1)


@every_dtype
@pytest.mark.parametrize("size", [1, 15, 16, 17, 1000, 2**14, 2**14 + 1, 100_000])
def test_the_sum_is_accurate_to_double_precision(impl, dtype, rng, size):
    x = rng.normal(size=size).astype(dtype)
    exact = math.fsum(float(v) ** 2 for v in x)
    # A block has 16 lanes of at most 1024 elements, so far fewer roundings add up than there are elements.
    assert math.isclose(impl.l2_penalty(x, 2.0), exact, rel_tol=1e-14)


def test_large_float32_parameters_do_not_overflow(impl):
    assert impl.l2_penalty(np.full(4, 1e30, np.float32), 2.0) == pytest.approx(4e60, rel=1e-6)


def test_its_gradient_is_the_coupled_decay_of_sgd(impl, rng):
    params, weight_decay, h = rng.normal(size=6), 0.3, 1e-6
    decayed = params.copy()
    impl.sgd_update(decayed, np.zeros(6), step=1, lr=1.0, weight_decay=weight_decay)
    for i in range(6):
        above, below = params.copy(), params.copy()
        above[i] += h
        below[i] -= h
        slope = (impl.l2_penalty(above, weight_decay) - impl.l2_penalty(below, weight_decay)) / (2 * h)
        assert math.isclose(slope, params[i] - decayed[i], abs_tol=1e-8)
