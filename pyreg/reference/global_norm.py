"""The norm of all elements of several arrays: sums of squares of blocks in double, added without rounding."""

from __future__ import annotations

import math

import numpy as np

from pyreg._results import Float64Array, FloatArray
from pyreg.reference.lanes import lane_sum

BLOCK = 2**14  # elements per sum
BEYOND_SCALE = 2.0**-520  # for elements whose squares add up to more than a double can hold
UNIT = 1074  # every double is a multiple of 2**-UNIT


def block_squares(array: FloatArray, scale: float = 1.0) -> list[float]:
    """The sum of squares of each block of the array times `scale`."""
    flat = array.reshape(-1).astype(np.float64) * scale
    blocks = [flat[first : first + BLOCK] for first in range(0, flat.size, BLOCK)]
    return [float(lane_sum(block * block)) for block in blocks]


def norm_partial(arrays: list[FloatArray]) -> Float64Array:
    partials = []
    for array in arrays:
        for square, smaller in zip(block_squares(array), block_squares(array, BEYOND_SCALE), strict=True):
            beyond = math.isinf(square) and math.isfinite(smaller)
            partials.append(-smaller if beyond else square)
    return np.array(partials, np.float64)


def norm_combine(partials: list[Float64Array]) -> float:
    numbers = [float(number) for array in partials for number in array.reshape(-1)]
    special = [abs(number) for number in numbers if not math.isfinite(number)]
    if special:
        return sum(special)
    # The sum in units of 2**-UNIT.
    total = 0
    for number in numbers:
        numerator, denominator = abs(number).as_integer_ratio()
        total += numerator * 2**UNIT // denominator * (2**1040 if number < 0 else 1)
    # A power of 4 that leaves 64 or 65 bits. The quotient is rounded to a double, then its root is.
    power = (total.bit_length() - 64) // 2 * 2
    quotient = total / 2**power if power >= 0 else float(total * 2**-power)
    return float(np.ldexp(math.sqrt(quotient), (power - UNIT) // 2))


def global_norm(arrays: list[FloatArray]) -> float:
    return norm_combine([norm_partial(arrays)])
