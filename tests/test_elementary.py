"""The kernels' own exponential and the curves built on it: error bounds in units in the last place."""

import numpy as np
import pytest
from bits import assert_same_bits

import pyreg
from pyreg import _core
from pyreg.reference import elementary


def exponential(impl, x):
    if impl is pyreg.reference:
        with np.errstate(all="ignore"):
            return elementary.exp(x)
    y = np.empty_like(x)
    _core.exponential(x, y)
    return y


def ulps(got, exact):
    """The error in units in the last place, which is that of `got`'s dtype at the exact value."""
    place = np.spacing(np.abs(exact).astype(got.dtype)).astype(exact.dtype)
    return np.abs(got.astype(exact.dtype) - exact) / place


def float32s(low, high, step=1):
    """Every `step`-th float32 from `low` to `high`, counted by bit patterns. Both have the same sign."""
    first, last = (int(np.float32(value).view(np.uint32)) for value in (low, high))
    for start in range(first, last + 1, step * 2**20):
        yield np.arange(start, min(start + step * 2**20, last + 1), step, dtype=np.uint32).view(np.float32)


# Nearer to 0 than 2**-25, exp is within half an ulp of 1; below -104, within half the smallest float32 of 0.
LEAST, MOST = -(2.0**-25), -104.0


def test_exp_is_within_an_ulp_of_the_exponential_at_every_float32():
    # Half an ulp for the last sum, a quarter for r, which is up to 0.35 and added to 1, and a little for the
    # polynomial and its terms: 0.81 at most. NumPy's float64 exponential is accurate to one ulp of float64.
    worst = max(ulps(exponential(pyreg, x), np.exp(x.astype(np.float64))).max() for x in float32s(LEAST, MOST))
    assert worst <= 0.85


def test_exp_is_the_same_at_every_level(impl, rng):
    # Every 1009th float32: 1009 is prime, so every bit of the significand varies. To -140 and -1100: the bits of the
    # power of two are those of 0 from -131.7 and -1063.3 on.
    for x in (*float32s(LEAST, -140.0, step=1009), rng.uniform(-1100, 0, 10**5)):
        assert_same_bits(exponential(impl, x), exponential(pyreg.reference, x))


def test_exp_in_float64_is_within_an_ulp(impl, rng):
    if np.finfo(np.longdouble).eps > 2.0**-60:
        pytest.skip("longdouble is no wider than float64")
    x = -np.concatenate([rng.uniform(0, 746, 10**6), np.exp(rng.uniform(-40, 6.6, 10**6))])
    assert ulps(exponential(impl, x), np.exp(x.astype(np.longdouble))).max() <= 0.85


def test_exp_of_special_values(impl, dtype):
    smallest = np.finfo(dtype).smallest_subnormal
    x = np.array([0.0, -0.0, -smallest, -np.inf, np.finfo(dtype).min, np.nan], dtype)
    assert_same_bits(exponential(impl, x), np.array([1, 1, 1, 0, 0, np.nan], dtype))
    quiet_nan_with_payload = np.full(1, np.nan, dtype)
    quiet_nan_with_payload.view(np.uint8)[0] = 1
    assert np.isnan(exponential(impl, quiet_nan_with_payload)).all()


def test_exp_of_known_values(impl):
    # OEIS A068985, A092553: exp(-1), exp(-2).
    expected = [0.36787944117144232, 0.13533528323661270]
    np.testing.assert_allclose(exponential(impl, np.array([-1.0, -2.0])), expected, rtol=2e-16, atol=0)


# From here on only the reference is tested. The compiled functions give the same bits (test_same_bits.py).


def test_exp_of_minus_infinity_is_no_product_that_underflows(dtype):
    # It would have the same bits, so the compiled function's time alone can tell: some hundred cycles.
    with np.errstate(under="raise"):
        assert elementary.exp(np.array([-np.inf, -2000], dtype)).tolist() == [0, 0]
    with np.errstate(under="raise"), pytest.raises(FloatingPointError):
        elementary.exp(np.array([-105 if dtype == np.float32 else -750], dtype))


# x, the normal distribution function at x, and exp(-x**2 / 2), to 20 digits: mpmath 1.3, computing with 40.
NORMAL = [
    (-37.0, 5.7255712225245768227e-300, 5.3140683644545394701e-298),
    (-20.3, 6.4292444676983463386e-92, 3.2793930825408464626e-90),
    (-8.25, 7.919726314642477341e-17, 1.6611770126997429724e-15),
    (-3.1, 0.00096760321321835660196, 0.0081887010143740778632),
    (-1.0, 0.15865525393145705141, 0.6065306597126334236),
    (-0.02, 0.49202168628309801881, 0.99980001999866673332),
    (0.4, 0.65542174161032417491, 0.92311634638663577471),
    (2.7, 0.99653302619695933336, 0.026121409853918221498),
]


def test_the_normal_distribution_keeps_its_digits_in_the_tail():
    x, below, density = map(np.array, zip(*NORMAL, strict=True))
    got = elementary.normal(x)
    # `density`: the error of exp, and the rounding of its `rest`. `below`: half an ulp each for 1 / (a + knot), for
    # the polynomial's argument and its last steps, and for the products; and the error of density.
    assert ulps(got[1], density).max() <= 1.5
    assert ulps(got[0], below).max() <= 6


def test_float32_functions_are_within_a_few_ulps_of_the_float64_ones():
    for sign in (1, -1):
        for x in float32s(2.0**-30, 14.0, step=1009):
            # normal: as above. sigmoid: 0.8 for exp, and half an ulp each for the sum, the quotient and a product.
            for function, bound in ((elementary.normal, 6), (elementary.sigmoid, 3)):
                for got, exact in zip(function(sign * x), function((sign * x).astype(np.float64)), strict=True):
                    large = exact >= np.finfo(np.float32).tiny
                    assert ulps(got, exact)[large].max() <= bound, function.__name__
                    np.testing.assert_allclose(got[~large], exact[~large], rtol=0, atol=3 * 2.0**-149)
