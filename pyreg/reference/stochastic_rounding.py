"""Stochastic rounding to 16 bits, with random numbers from domain 1 of the random stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyreg._results import FloatArray
from pyreg.reference.philox import philox_bytes

DOMAIN = 1
DIGITS = {"param": 0, "exp_avg": 1, "momentum_buffer": 1, "exp_avg_sq": 2, "ema": 3, "param_out": 4}
Numbers = npt.NDArray[np.uint32]  # each holds 16 bits


def random_numbers(places: npt.NDArray[np.uint64], name: str, key: int) -> Numbers:
    """The 16-bit numbers of the elements at these places of the stream, for the array of this name."""
    # Two bytes each, so a block of 16 bytes has eight.
    low, high = (philox_bytes(places, DIGITS[name], DOMAIN, key, width=2, part=part) for part in (0, 1))
    return low.astype(np.uint32) + (high.astype(np.uint32) << 8)


def rounded_randomly(value: FloatArray, numbers: Numbers, dtype: np.dtype[Any]) -> FloatArray:
    """float32 values as float16 or bfloat16: the bits that are cut off plus a random number are carried, or not."""
    bits = np.ascontiguousarray(value).view(np.uint32).reshape(value.shape)
    sign, magnitude = bits & 0x80000000, bits & 0x7FFFFFFF
    if dtype == np.float16:
        # As many of the number's high bits as are cut off: 13 of a normal value, at most 16 of a subnormal one.
        normal = (magnitude - (112 << 23) + (numbers >> 3)) >> 13
        is_small = magnitude < 113 << 23
        below = np.where(is_small, magnitude, 0).astype(np.uint32).view(np.float32) * np.float32(2.0**40)
        subnormal = (below.astype(np.uint32) + numbers) >> 16
        half = np.where(is_small, subnormal, np.minimum(normal, 0x7BFF))
    else:
        half = np.minimum((magnitude + numbers) >> 16, 0x7F7F)
    rounded: FloatArray = (half | sign >> 16).astype(np.uint16).view(dtype)
    return np.where(magnitude < 255 << 23, rounded, value.astype(dtype))
