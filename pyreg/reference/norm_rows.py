"""What the normalisations of a row have in common."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pyreg._results import Float64Array, FloatArray
from pyreg.reference.lanes import row_sum

# Rows whose sums of dweight and dbias make one block.
BLOCK_ROWS = 64


def as_rows(x: FloatArray, axis: int) -> FloatArray:
    """(rows, n): n of what stands from this axis on."""
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def scale_for(x: FloatArray, spread: Float64Array, eps: float) -> Float64Array:
    """What each row is multiplied by before it is normalised: 1, or, where squares overflowed or underflowed in
    `spread` (or are NaN), what brings the row near 1. (rows, 1).
    """
    tiny = 2.0**-100 if x.dtype == np.float32 else 2.0**-900
    sound = (spread + eps >= tiny) & (spread < np.inf)
    return np.where(sound, 1.0, scale_to_one(x, eps))


def scale_to_one(x: FloatArray, eps: float) -> Float64Array:
    """The power of two that brings each row's largest |x|, or the root of eps where that is larger, into
    [1, 2), as near as the dtype allows. (rows, 1).
    """
    limit = 126 if x.dtype == np.float32 else 1022
    largest = np.fmax.reduce(np.abs(x), axis=-1, keepdims=True, initial=0).astype(np.float64)
    largest = np.maximum(largest, np.sqrt(eps))
    exponent = np.where(np.isinf(largest), limit, np.frexp(largest)[1] - 1)
    exponent = np.where(largest == 0, -limit, exponent)
    scale: Float64Array = np.ldexp(1.0, np.clip(-exponent, -limit, limit))
    return scale


def inverse_deviation(spread: Float64Array, eps: float, scale: Float64Array) -> Float64Array:
    """``1 / sqrt(spread + eps)``, the spread being that of `scale` times the rows."""
    inverse: Float64Array = 1 / np.sqrt(spread + eps * scale * scale)
    return inverse


def factor(inverse: Float64Array, dtype: np.dtype[Any]) -> FloatArray:
    """In the dtype. Beyond its range all deviations are 0, and are to stay 0 when multiplied."""
    return np.minimum(inverse, np.finfo(dtype).max).astype(dtype)


def row_mean(x: FloatArray) -> FloatArray:
    """The mean of each row, rounded once. (rows, 1)."""
    return (row_sum(x) / np.float64(x.shape[-1])).astype(x.dtype)


def sum_rows(x: FloatArray) -> FloatArray:
    """The sum over the rows: in order over each block of rows, then over the blocks in double."""
    total = np.zeros(x.shape[-1], np.float64)
    for first in range(0, len(x), BLOCK_ROWS):
        block: Any = np.zeros(x.shape[-1], x.dtype)
        for row in x[first : first + BLOCK_ROWS]:
            block += row
        total += block.astype(np.float64)
    return total.astype(x.dtype)
