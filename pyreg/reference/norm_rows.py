"""What LayerNorm and RMSNorm have in common."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pyreg._results import Float64Array, FloatArray
from pyreg.reference.lanes import row_sum
from pyreg.reference.results import wide, written

# In a sum over rows: the rows of a block, and those that are added up before their sum is added to the block's.
BLOCK_ROWS, INNER_ROWS = 64, 16


def as_rows(x: FloatArray, axis: int) -> FloatArray:
    """x as (rows, n), in the dtype that is computed in: a row has the axes from `axis` on."""
    return wide(x).reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def scale_for(x: FloatArray, spread: Float64Array, eps: float) -> Float64Array:
    """The factor of each row before it is normalised: 1, or a power of two that brings the row near 1 if its squares
    overflowed or underflowed in `spread` (or are NaN). (rows, 1).
    """
    tiny = 2.0**-100 if x.dtype == np.float32 else 2.0**-900
    sound = (spread + eps >= tiny) & (spread < np.inf)
    return np.where(sound, 1.0, scale_to_one(x, eps))


def scale_to_one(x: FloatArray, eps: float) -> Float64Array:
    """The power of two that brings each row's largest |x|, or sqrt(eps) if that is larger, into [1, 2), or as near
    as the dtype allows. (rows, 1).
    """
    limit = 126 if x.dtype == np.float32 else 1022
    largest = np.fmax.reduce(np.abs(x), axis=-1, keepdims=True, initial=0).astype(np.float64)
    largest = np.maximum(largest, np.sqrt(eps))
    exponent = np.where(np.isinf(largest), limit, np.frexp(largest)[1] - 1)
    exponent = np.where(largest == 0, -limit, exponent)
    scale: Float64Array = np.ldexp(1.0, np.clip(-exponent, -limit, limit))
    return scale


def inverse_deviation(spread: Float64Array, eps: float, scale: Float64Array) -> Float64Array:
    """``1 / sqrt(spread + eps)`` for rows multiplied by `scale`, which multiplies eps by ``scale**2``."""
    inverse: Float64Array = 1 / np.sqrt(spread + eps * scale * scale)
    return inverse


def factor(inverse: Float64Array, dtype: np.dtype[Any]) -> FloatArray:
    """`inverse` in the dtype, at most its maximum: if it is larger, all deviations are 0, and 0 * inf is NaN."""
    return np.minimum(inverse, np.finfo(dtype).max).astype(dtype)


def row_mean(x: FloatArray) -> FloatArray:
    """The mean of each row, rounded once. (rows, 1)."""
    return (row_sum(x) / np.float64(x.shape[-1])).astype(x.dtype)


def sum_rows(x: FloatArray) -> FloatArray:
    """The sum over the rows: over blocks of rows, by `add_up`, then over the blocks in double."""
    total = np.zeros(x.shape[-1], np.float64)
    for first in range(0, len(x), BLOCK_ROWS):
        block = x[first : first + BLOCK_ROWS]
        inner = [add_up(block[at : at + INNER_ROWS]) for at in range(0, len(block), INNER_ROWS)]
        total += add_up(inner).astype(np.float64)
    return total.astype(x.dtype)


def gradient_of(parameter: FloatArray, terms: FloatArray) -> FloatArray:
    """The sum of the terms over the rows, in the parameter's dtype and shape."""
    return written(sum_rows(terms), None, parameter.shape, parameter.dtype)


def add_up(rows: Any) -> Any:
    """The sum of at least one row, in order."""
    total = np.zeros_like(rows[0])
    for row in rows:
        total += row
    return total
