"""What train_step.py checks and prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from console import WrongAnswer, format_ratio, format_seconds, format_table

from .layers import Config
from .operations import Array
from .run import BATCH_SIZE
from .steps import Problem
from .turns import PARTS, PYREG_WAYS, Turn

# For losses in float64: far above their rounding, even after 100 steps have made a hundred times more of it, and far
# below what any wrong term would do.
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


def format_times(title: str, problem: Problem, threads: int, turns: Turns) -> str:
    """Return the table of the times, without those of float64."""
    shown = {way: taken for way, taken in turns.items() if "float64" not in way}
    step = {way: float(np.median([turn.seconds for turn in taken])) for way, taken in shown.items()}

    def part(way: str, name: str) -> float:
        return float(np.median([turn.parts.get(name, 0.0) for turn in shown[way]]))

    def row(name: str, cells: Mapping[str, str]) -> list[str]:
        return [name, *(cells.get(way, "") for way in shown)]

    ours = [way for way in shown if way in PYREG_WAYS]
    sums = {way: sum(part(way, name) for name in PARTS) for way in ours}
    rows = [
        row("a training step", {way: format_seconds(seconds) for way, seconds in step.items()}),
        *(row(f"  {name}", {way: format_seconds(part(way, name)) for way in ours}) for name in PARTS),
        row("share of the step", {way: f"{sums[way] / step[way]:.0%}" for way in ours}),
        row("compared with fused", {way: format_ratio(seconds / step["fused"]) for way, seconds in step.items()}),
    ]
    size = f"{Config.num_layers} blocks of {problem.d_model} features, {problem.norm_position.capitalize()}-LN"
    line = f"{title}: {size}; {BATCH_SIZE} images of {problem.num_tokens} tokens; threads: {threads}"
    return format_table(line, row("", {way: "PyTorch, " * (way == "masks given") + way for way in shown}), rows)


def format_losses(problem: Problem, losses: Losses) -> str:
    rows = [
        ["  fused and unfused", "0, and the parameters' bits are equal"],
        ["  float32 and float64, fused", f"{losses.float32:.1e}"],
    ]
    if losses.torch is not None:
        rows += [
            ["  PyTorch, masks given, and fused", f"{losses.torch:.1e}, allowed: {losses.bound:.1e}"],
            ["  the same in float64", f"{losses.torch_float64:.1e}, allowed: {FLOAT64_BOUND:.1e}"],
        ]
    else:
        rows.append(["  PyTorch cannot be imported", ""])
    title = f"largest difference of a loss over {problem.steps} steps:"
    return "\n".join([title, *(f"{name:<36}{value}".rstrip() for name, value in rows)]) + "\n"
