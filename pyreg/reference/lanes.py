"""The order in which a row is summed."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pyreg._results import Float64Array, FloatArray

# Elements of a row that are summed in its dtype, before the sums are added in double.
SUM_BLOCK = 4096


def row_sum(x: FloatArray) -> Float64Array:
    """The sum over the last axis, (..., 1): in x's dtype over blocks, then over the blocks in double."""
    total = np.zeros(x.shape[:-1], np.float64)
    for first in range(0, x.shape[-1], SUM_BLOCK):
        total += lane_sum(x[..., first : first + SUM_BLOCK])
    return total[..., None]


def lane_count(dtype: npt.DTypeLike) -> int:
    """How many lanes a row of this dtype is summed in: a group of them has 128 bytes."""
    return 128 // np.dtype(dtype).itemsize


def lane_sum(x: FloatArray) -> Any:
    """The sum over the last axis, in x's dtype.

    Element i belongs to lane i mod L. Each lane is summed in order, then the upper half of the lanes is
    added to the lower until one is left.
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
