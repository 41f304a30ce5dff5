"""Whether trainings that should be the same have the same losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from console import WrongAnswer

from .operations import Array
from .turns import Turn

# For losses in float64: far above their rounding, even after 100 steps have amplified it a hundred times, and far
# below the effect of a wrong term.
FLOAT64_BOUND = 1e-10

Turns = Mapping[str, Sequence[Turn]]  # by the way to train


class Losses(NamedTuple):
    """The largest differences of losses over all steps; None if PyTorch cannot be imported."""

    float32: float  # pyreg's from pyreg's in float64: what rounding to float32 does
    torch: float | None
    torch_float64: float | None
    bound: float


def float32_bound(float32: Array, float64: Array) -> float:
    """Return how far apart two losses in float32 may be, given pyreg's losses over the steps in either dtype.

    Rounding moves pyreg's losses away from those in float64: the rounding of the loss itself, and what training makes
    of all roundings before it. PyTorch rounds elsewhere, because its sums run in another order. Training amplifies
    either, by an amount that is a matter of luck: in one run, PyTorch's losses moved 12 times as far as pyreg's.
    A hundred times is allowed. Whether the two compute the same, and not nearly the same, is decided in float64.
    """
    moved = max(np.abs(float32 - float64).max(), np.finfo(np.float32).eps * np.abs(float64).max())
    return float(100 * moved)


def check(turns: Turns, same_bits: bool) -> Losses:
    """Raise WrongAnswer if losses are farther apart than they may be."""
    losses = {way: np.ravel([turn.losses for turn in taken]) for way, taken in turns.items()}
    if not (same_bits and losses["fused"].tobytes() == losses["unfused"].tobytes()):
        raise WrongAnswer("fused and separate functions do not train to the same bits")

    def largest(way: str, other: str) -> float | None:
        if way not in losses:
            return None
        difference = float(np.abs(losses[way] - losses[other]).max())
        allowed = FLOAT64_BOUND if other == "float64" else bound
        if not difference <= allowed:  # written this way so that NaN fails
            raise WrongAnswer(f"losses of {way} and {other} differ by {difference:.1e}, allowed is {allowed:.1e}")
        return difference

    bound = float32_bound(losses["fused"], losses["float64"])
    float32 = float(np.abs(losses["fused"] - losses["float64"]).max())
    return Losses(float32, largest("masks given", "fused"), largest("PyTorch float64", "float64"), bound)
