"""Inverted dropout, with every element's 32-bit number computed in full.

Element i of the random stream has a number U below 2**32, and p has the threshold ``T = round(p * 2**32)``. The
element is kept if U >= T, which has the probability ``1 - T / 2**32``. Kept elements are multiplied by the inverse of
this probability, so that the expectation is x, up to rounding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pyreg._results import FloatArray
from pyreg.reference.philox import philox_bytes
from pyreg.reference.results import wide, written

DROPOUT_DOMAIN = 0
CHUNK = 2**16  # elements processed at once, to limit memory


def threshold_of(p: float) -> int:
    return round(p * 2**32)


def kept(size: int, threshold: int, key: int, offset: int) -> npt.NDArray[np.bool_]:
    """Which of `size` elements from position `offset` on are kept: those with U >= threshold.

    U has one byte from each of four strings, the most significant first. The compiled kernel computes the
    first byte, and the others only if the first equals that of the threshold.
    """
    if threshold in (0, 2**32):
        return np.full(size, threshold == 0)
    result = np.empty(size, np.bool_)
    for first in range(0, size, CHUNK):
        part = result[first : first + CHUNK]
        index = np.arange(part.size, dtype=np.uint64) + np.uint64(offset + first)
        number = np.zeros(part.size, np.uint64)
        for digit in range(4):
            byte = philox_bytes(index, digit, DROPOUT_DOMAIN, key)
            number = number * np.uint64(256) + byte
        part[:] = number >= np.uint64(threshold)
    return result


def dropped(x: FloatArray, mask: Any, threshold: int) -> FloatArray:
    """x scaled where `mask` is True, else +0. A selection, not a product, so NaN and infinities are dropped too."""
    scale = 1.0 if threshold == 2**32 else 2**32 / (2**32 - threshold)
    result: FloatArray = np.where(mask, x * x.dtype.type(scale), x.dtype.type(0))
    return result


def after_dropout(x: FloatArray, p: float, key: int, offset: int, training: bool = True) -> FloatArray:
    """The result, not yet rounded to x's dtype."""
    threshold = threshold_of(p) if training else 0
    mask = kept(x.size, threshold, key, offset).reshape(x.shape)
    return dropped(wide(x), mask, threshold)


def dropout(x: FloatArray, p: float, key: int, offset: int, training: bool, out: FloatArray | None) -> FloatArray:
    copied = not training or threshold_of(p) == 0  # with the bits of each NaN
    y = x if copied else after_dropout(x, p, key, offset, training)
    return written(y, out, x.shape, x.dtype)


def dropout_mask(shape: tuple[int, ...], p: float, key: int, offset: int) -> npt.NDArray[np.bool_]:
    return kept(math.prod(shape), threshold_of(p), key, offset).reshape(shape)
