"""What train_step.py checks and prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from run_case import WrongAnswer
from train_run import BATCH_SIZE
from train_step_run import PARTS, PYREG_WAYS, Problem, Turn
from transformer_layers import Config
from transformer_ops import Array

# For losses in float64: far above their rounding, also when 100 steps have made a hundred times more of it, and far
# below what any wrong term would do.
FLOAT64_BOUND = 1e-10


class Losses(NamedTuple):
    """The largest differences of losses over all steps, None where PyTorch cannot be imported."""

    float32: float  # pyreg's to pyreg's in float64: what rounding to float32 does
    torch: float | None
    torch_float64: float | None
    bound: float


def float32_bound(float32: Array, float64: Array) -> float:
    """Return how far two losses in float32 may be apart, from pyreg's over the steps in either dtype.

    Rounding moves pyreg's away from those in float64: by the rounding of the loss itself, and by what training makes
    of all the roundings before. PyTorch, whose sums run in another order, is moved about as far, elsewhere; so there
    is twice as much between the two, and four times that is allowed, for the largest of such moves is a matter of
    luck. That the two compute the same, and not nearly the same, float64 tells.
    """
    moved = max(np.abs(float32 - float64).max(), np.finfo(np.float32).eps * np.abs(float64).max())
    return float(8 * moved)


def check(turns: Mapping[str, Sequence[Turn]], same_bits: bool) -> Losses:
    """Raise WrongAnswer where losses are farther apart than they may be."""
    losses = {way: np.ravel([turn.losses for turn in taken]) for way, taken in turns.items()}
    if not (same_bits and losses["fused"].tobytes() == losses["unfused"].tobytes()):
        raise WrongAnswer("fused and separate functions do not train to the same bits")

    def largest(way: str, other: str) -> float | None:
        if way not in losses:
            return None
        difference = float(np.abs(losses[way] - losses[other]).max())
        allowed = FLOAT64_BOUND if other == "float64" else bound
        if not difference <= allowed:  # true for NaN
            raise WrongAnswer(f"losses of {way} and {other} differ by {difference:.1e}, allowed is {allowed:.1e}")
        return difference

    bound = float32_bound(losses["fused"], losses["float64"])
    float32 = float(np.abs(losses["fused"] - losses["float64"]).max())
    return Losses(float32, largest("masks given", "fused"), largest("PyTorch float64", "float64"), bound)


def format_seconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def format_times(title: str, problem: Problem, threads: int, turns: Mapping[str, Sequence[Turn]]) -> str:
    """Return the table of the times, those of float64 left out."""
    shown = [way for way in turns if "float64" not in way]
    titles = {way: f"{'PyTorch, ' * (way == 'masks given')}{way}" for way in shown}
    widths = {way: max(len(name), len("0.0000 ms")) for way, name in titles.items()}

    def line(name: str, cells: Mapping[str, str]) -> str:
        return (f"{name:<24}" + "".join(f"   {cells.get(way, ''):>{widths[way]}}" for way in shown)).rstrip()

    step = {way: float(np.median([turn.seconds for turn in turns[way]])) for way in shown}
    parts = {
        way: {part: float(np.median([turn.parts.get(part, 0.0) for turn in turns[way]])) for part in PARTS}
        for way in shown
        if way in PYREG_WAYS
    }
    # A row's cells, one for each way that has a number there.
    rows = {"a training step": {way: format_seconds(seconds) for way, seconds in step.items()}}
    for part in PARTS:
        rows[f"  {part}"] = {way: format_seconds(seconds[part]) for way, seconds in parts.items()}
    rows["these, of the step"] = {way: f"{sum(seconds.values()) / step[way]:.0%}" for way, seconds in parts.items()}
    rows["as long as fused"] = {way: f"{seconds / step['fused']:.2f}x" for way, seconds in step.items()}
    size = f"{Config.num_layers} blocks of {problem.d_model} features, {problem.norm_position.capitalize()}-LN"
    lines = [
        f"{title}: {size}; {BATCH_SIZE} images of {problem.num_tokens} tokens; threads: {threads}",
        line("", titles),
        *(line(name, cells) for name, cells in rows.items()),
    ]
    return "\n".join(lines)


def format_losses(problem: Problem, losses: Losses) -> str:
    lines = [
        f"largest difference of a loss over {problem.steps} steps:",
        f"  {'fused to unfused':<42}0, and the parameters' bits are equal",
        f"  {'float32 to float64, fused':<42}{losses.float32:.1e}",
    ]
    if losses.torch is not None:
        lines += [
            f"  {'PyTorch, masks given, to fused':<42}{losses.torch:.1e}, allowed: {losses.bound:.1e}",
            f"  {'the same in float64':<42}{losses.torch_float64:.1e}, allowed: {FLOAT64_BOUND:.1e}",
        ]
    else:
        lines.append("  PyTorch cannot be imported")
    return "\n".join(lines) + "\n"
