"""The explicit L2 penalty."""

from __future__ import annotations

import numpy as np

from pyreg._results import FloatArray
from pyreg.reference.lanes import lane_sum

BLOCK = 2**14  # elements per partial sum; the partial sums are added in order


def l2_penalty(params: list[FloatArray], weight_decay: float) -> float:
    total = 0.0
    for array in params:
        flat = array.reshape(-1).astype(np.float64)
        squares = 0.0
        for first in range(0, flat.size, BLOCK):
            block = flat[first : first + BLOCK]
            squares += float(lane_sum(block * block))
        total += squares
    return weight_decay / 2 * total + 0.0  # + 0.0: no -0 for a decay of -0
