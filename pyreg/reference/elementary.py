"""The exponential, and two functions computed from it: the logistic and the normal distribution function.

libm's versions differ from machine to machine, and NumPy's between instruction sets. These use only ``+ - * /`` in a
fixed order, and powers of two assembled from their bits. tests/test_elementary.py has their error bounds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pyreg._results import FloatArray


class Constants(NamedTuple):
    """The constants for a dtype. Polynomial coefficients are listed from the lowest power up.

    csrc/kernels/elementary.h says how the coefficients were found.
    """

    integer: type[np.signedinteger[Any]]
    significand_bits: int  # without the leading one
    bias: int  # of the exponent
    ln2_high: float  # ends in enough zero bits for its products with exponents to be exact
    ln2_low: float
    lowest: float  # from here on, exp is a product with 0
    small: float  # below this, the power of two is applied in two steps
    low_bits: int  # cleared to make a square exact
    exp: tuple[float, ...]  # (exp(r) - 1 - r) / r**2, for |r| <= log(2) / 2
    far: float  # the tail of the normal distribution beyond this rounds to 0
    knot: float  # see normal
    mills: tuple[float, ...]  # see normal


FLOAT32 = Constants(
    integer=np.int32,
    significand_bits=23,
    bias=127,
    ln2_high=0.693359375,
    ln2_low=-2.12194440054690583e-4,
    lowest=-131.7,
    small=-80.0,
    low_bits=12,
    exp=(0.4999999344959784, 0.16666520661175288, 0.041668387753408115, 0.00836871332491591, 0.0013814602915224747),
    far=16.3,
    knot=3.0,
    mills=(
        0.7290836907008341,
        -0.5093319893987576,
        0.23001767738406945,
        -0.047262748695582855,
        -0.010462291852050493,
        0.0069698359021068135,
        0.0010241368772241106,
        -0.0010342788589033651,
        -0.0002446061924931603,
        0.00013317308395859755,
        5.5386575368302916e-05,
    ),
)

FLOAT64 = Constants(
    integer=np.int64,
    significand_bits=52,
    bias=1023,
    ln2_high=6.93147180369123816490e-01,
    ln2_low=1.90821492927058770002e-10,
    lowest=-1063.3,
    small=-690.0,
    low_bits=27,
    exp=(
        0.5000000000000011,
        0.16666666666666413,
        0.04166666666653021,
        0.008333333333494399,
        0.001388888894361363,
        0.00019841269506671647,
        2.480149311779016e-05,
        2.755758632882884e-06,
        2.7630241076570435e-07,
        2.500006370244427e-08,
    ),
    far=46.2,
    knot=5.0,
    mills=(
        0.769193049750063,
        -0.6653825028900568,
        0.4953056159699761,
        -0.31353315667128745,
        0.16502036617040713,
        -0.06911863870687814,
        0.020795066799260343,
        -0.002993376761868743,
        -0.0007978693892958589,
        0.0005448989927584027,
        -5.9375807358891235e-05,
        -4.976245616870157e-05,
        1.6681639595174005e-05,
        3.97980489932909e-06,
        -2.7707204135122383e-06,
        -3.345738518771817e-07,
        4.362925568222539e-07,
        4.0177962891473734e-08,
        -7.014220631960926e-08,
        -8.555696628254633e-09,
        1.0797345335746256e-08,
        2.220848621773149e-09,
        -1.160886448380309e-09,
        -3.81618035300424e-10,
    ),
)


def constants_of(dtype: np.dtype[Any]) -> Constants:
    return FLOAT32 if dtype == np.float32 else FLOAT64


def polynomial(coefficients: tuple[float, ...], x: FloatArray) -> Any:
    """Horner's scheme."""
    value = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * x + x.dtype.type(c)
    return value


def exp(x: FloatArray, rest: FloatArray | None = None) -> Any:
    """The exponential of ``x + rest``, for x <= 0 and a rest much smaller than 1.

    With ``x = k * log(2) + r``, ``exp(x) = 2**k * exp(r)``: Cody and Waite, "Software Manual for the Elementary
    Functions", 1980, chapter 6.
    """
    f, t = constants_of(x.dtype), x.dtype.type
    small = x < t(f.small)
    x = np.where(x < t(f.lowest), t(f.lowest), x)
    # Adding this leaves the nearest integer in the last bits of the sum.
    magic = t(1.5 * 2**f.significand_bits)
    shifted = x * t(1.4426950408889634) + magic
    k = shifted - magic
    r = (x - k * t(f.ln2_high)) - k * t(f.ln2_low)
    if rest is not None:
        r = r + rest
    # 1 + r; its rounding error is added below.
    sum_ = r + t(1)
    value = sum_ + ((r * r) * polynomial(f.exp, r) + (r - (sum_ - t(1))))
    # Times 2**k. If the result may be subnormal: times 2**(k + half), then 2**-half, which rounds once.
    half = f.bias // 2
    power = (shifted.view(f.integer) << f.significand_bits) + (f.integer(f.bias) << f.significand_bits)
    power = power + np.where(small, f.integer(half) << f.significand_bits, f.integer(0))
    value = value * power.view(t)
    return np.where(small, value * t(2.0**-half), value)


def sigmoid(x: FloatArray) -> tuple[Any, Any]:
    """``1 / (1 + exp(-x))``, and one minus it. Neither is computed from the other: both are accurate at both ends."""
    one = x.dtype.type(1)
    e = exp(-np.abs(x))
    inverse = one / (one + e)
    far = e * inverse
    below = x < 0
    return np.where(below, far, inverse), np.where(below, inverse, far)


def normal(x: FloatArray) -> tuple[Any, Any]:
    """The standard normal distribution function, ``(1 + erf(x / sqrt(2))) / 2``, and its density times sqrt(2 pi).

    The tail beyond ``a = |x|`` is ``exp(-a**2 / 2) * M``, where M is Mills' ratio over sqrt(2 pi). ``(a + knot) * M``
    is approximated by a polynomial in ``(a - knot) / (a + knot)``: Shepherd and Laframboise, "Chebyshev
    approximation of (1 + 2x) exp(x**2) erfc x in 0 <= x < infinity", Mathematics of Computation 36, 1981.
    """
    f, t = constants_of(x.dtype), x.dtype.type
    a = np.abs(x)
    a = np.where(a > t(f.far), t(f.far), a)
    # a**2 / 2 in two parts, the first exact: exp would multiply a relative rounding error of it by a**2 / 2.
    mask = f.integer(-(1 << f.low_bits))
    high = (a.view(f.integer) & mask).view(t)
    density = exp((high * high) * t(-0.5), ((a - high) * (a + high)) * t(-0.5))
    inverse = t(1) / (a + t(f.knot))
    y = (a - t(f.knot)) * inverse
    tail = density * (polynomial(f.mills, y) * inverse)
    return np.where(x < 0, tail, t(1) - tail), density
