"""The explicit L2 penalty."""

from __future__ import annotations

from pyreg._results import FloatArray
from pyreg.reference.global_norm import block_squares


def l2_penalty(params: list[FloatArray], weight_decay: float) -> float:
    total = 0.0
    for array in params:
        squares = 0.0
        for square in block_squares(array):
            squares += square
        total += squares
    return weight_decay / 2 * total + 0.0  # + 0.0: no -0 for a decay of -0
