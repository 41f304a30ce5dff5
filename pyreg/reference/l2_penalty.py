"""The explicit L2 penalty."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from pyreg._l2_penalty import checked_arguments
from pyreg.reference.lanes import lane_sum

BLOCK = 2**14  # elements summed together, before the sums are added in order


def l2_penalty(params: npt.NDArray[np.floating[Any]] | Iterable[npt.ArrayLike], weight_decay: float) -> float:
    """`pyreg.l2_penalty`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> pyreg.reference.l2_penalty([np.array([3.0, 4.0]), np.array([1.0])], 0.1)
    1.3
    """
    arrays, weight_decay = checked_arguments(params, weight_decay)
    total = 0.0
    with np.errstate(all="ignore"):
        for array in arrays:
            flat = array.reshape(-1).astype(np.float64)
            squares = 0.0
            for first in range(0, flat.size, BLOCK):
                block = flat[first : first + BLOCK]
                squares += float(lane_sum(block * block))
            total += squares
    return weight_decay / 2 * total
