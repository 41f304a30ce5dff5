"""The rows of AdamW over whole models, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from console import format_ratio, format_seconds, format_table, three_digits

from .measure import Times
from .report import format_disturbance

OTHERS = ("class", "one array", "nearest", "torch fused", "torch foreach")


@dataclass(frozen=True)
class ModelRow:
    """A step over a model. `times` has "pyreg" and those of `OTHERS` that were measured."""

    model: str
    line: str
    tensors: int
    parameters: int
    threads: int
    bytes_moved: int
    times: dict[str, Times]

    def gb_per_s(self) -> float:
        return self.bytes_moved / self.times["pyreg"].median / 1e9

    def millions_per_s(self) -> float:
        return self.parameters / self.times["pyreg"].median / 1e6

    def ratio(self, other: str) -> float | None:
        """Return how many times as long the other takes; None if it was not measured."""
        return self.times[other].median / self.times["pyreg"].median if other in self.times else None

    def cells(self, others: Sequence[str]) -> list[str]:
        times = self.times["pyreg"]
        seconds = map(format_seconds, (times.median, times.mean, times.p90))
        speeds = three_digits(self.gb_per_s()), three_digits(self.millions_per_s())
        return [self.line, *seconds, *speeds, *(format_ratio(self.ratio(other)) for other in others)]

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "times": {name: times._asdict() for name, times in self.times.items()},
            "gb_per_s": self.gb_per_s(),
            "millions_per_s": self.millions_per_s(),
            "ratios": {other: self.ratio(other) for other in OTHERS},
        }


def format_model(rows: Sequence[ModelRow]) -> str:
    """Return the table of one model."""
    first = rows[0]
    title = f"{first.model}: {first.parameters:,} parameters in {first.tensors:,} tensors"
    others = [other for other in OTHERS if any(other in row.times for row in rows)]
    head = ("adamw_update", "time", "mean", "p90", "GB/s", "M/s", *others)
    return format_table(title, head, [row.cells(others) for row in rows])


def format_notes(rows: Sequence[ModelRow]) -> str:
    """Return what the columns mean."""
    notes = [
        "One step over all tensors: a single call over lists.",
        "master: parameters and moments in float32, gradients in bfloat16, and a copy of the parameters in bfloat16",
        "  is written. bfloat16: all arrays are. stochastic: they are, with stochastic rounding.",
        "clipped: global_norm and clip_coefficient before it, and grad_scale.",
        "time: the median of pyreg's steps; mean and p90 (the 90th percentile) of the same steps.",
        "GB/s: the bytes that the step must read and write, divided by the time. M/s: million parameters a second.",
        "class: how many times as long pyreg.AdamW(params).step(grads) takes; clipped: with max_norm.",
        "one array: how many times as long pyreg takes on one array of as many elements.",
        "nearest: how many times as long as stochastic rounding pyreg takes to round to nearest.",
        "torch fused, torch foreach: how many times as long as pyreg torch.optim.AdamW takes. clipped: with",
        "  clip_grad_norm_ before it. master: with torch._foreach_copy_ from bfloat16 gradients before it, and to",
        "  bfloat16 parameters after it.",
    ]
    # PyTorch's too: each tensor is shared among the threads by itself, and on a busy machine each waits.
    return "\n".join([*notes, format_disturbance(times for row in rows for times in row.times.values())])
