"""The order in which a row is summed."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pyreg._check import FloatArray


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
