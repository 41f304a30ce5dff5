"""What train_step.py prints."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from console import format_ratio, format_seconds, format_table

from .layers import Config
from .losses import FLOAT64_BOUND, Losses, Turns
from .runs import BATCH_SIZE
from .steps import Problem
from .turns import PARTS, PYREG_WAYS


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
