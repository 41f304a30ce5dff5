"""The order in which a row is summed."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pyreg._results import Float64Array, FloatArray

# Elements of a row per block. A block is summed in the row's dtype, the blocks in double.
SUM_BLOCK = 4096


def row_sum(x: FloatArray) -> Float64Array:
    """The sum over the last axis, (..., 1): in x's dtype over blocks, then over the blocks in double."""
    *leading, n = x.shape
    rows = x.reshape(math.prod(leading), n)
    total = np.zeros(len(rows), np.float64)
    for first in range(0, n if rows.size else 0, SUM_BLOCK):
        total += lane_sum(rows[:, first : first + SUM_BLOCK])
    return total.reshape(*leading, 1)


def lane_count(dtype: npt.DTypeLike) -> int:
    """The number of lanes in which a row of this dtype is summed: one element of each makes 128 bytes."""
    return 128 // np.dtype(dtype).itemsize


def lane_sum(x: FloatArray) -> Any:
    """The sum over the last axis, in x's dtype.

    Element i belongs to lane ``i % lanes``. Each lane is summed in order. Then the upper half of the lanes
    is added to the lower half, until one lane is left.
    """
    lanes = lane_count(x.dtype)
    *leading, n = x.shape
    groups = -(-n // lanes)
    padded = np.zeros((*leading, groups * lanes), x.dtype)
    padded[..., :n] = x
    padded = padded.reshape(*leading, groups, lanes)

    total = np.zeros((*leading, lanes), x.dtype)
    for group in range(groups):
        total += padded[..., group, :]
    while lanes > 1:
        lanes //= 2
        total = total[..., :lanes] + total[..., lanes:]
    return total[..., 0]
