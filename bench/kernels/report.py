"""The rows of a comparison, as text and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from console import format_ratio, format_seconds, format_table, three_digits

from pyreg._cases import Shape
from pyreg._speed import busy_note

from .measure import Times

Peers = Mapping[str, ModuleType]  # by the name in the tables


@dataclass(frozen=True)
class Row:
    """One operation at one size and thread count.

    `times` has "pyreg", "copy", "nontemporal copy", the peers, and "update loop" for adamw_update.
    """

    op: str
    shape: Shape
    threads: int
    result: str  # "out=": written to arrays that exist already; "new": to new arrays
    bytes_moved: int
    times: dict[str, Times]

    def gb_per_s(self, name: str) -> float:
        return self.bytes_moved / self.times[name].median / 1e9

    def copy_gb_per_s(self) -> float:
        return max(self.gb_per_s("copy"), self.gb_per_s("nontemporal copy"))

    def percent_of_copy(self) -> float:
        return 100 * self.gb_per_s("pyreg") / self.copy_gb_per_s()

    def percent_of_loop(self) -> float | None:
        """Return the speed in percent of the update loop's, which is timed for adamw_update alone."""
        if "update loop" not in self.times:
            return None
        return 100 * self.gb_per_s("pyreg") / self.gb_per_s("update loop")

    def ratio(self, peer: str) -> float | None:
        """Return how many times as long the peer takes; None if it did not run."""
        return self.times[peer].median / self.times["pyreg"].median if peer in self.times else None

    def as_json(self, peers: Iterable[str]) -> dict[str, Any]:
        return asdict(self) | {
            "times": {name: times._asdict() for name, times in self.times.items()},
            "gb_per_s": self.gb_per_s("pyreg"),
            "percent_of_copy": self.percent_of_copy(),
            "percent_of_loop": self.percent_of_loop(),
            "ratios": {peer: self.ratio(peer) for peer in peers},
        }


def format_shape(shape: Shape) -> str:
    return " x ".join(str(n) for n in shape) if len(shape) > 1 else f"{shape[0]:,}"


def format_percent(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.0f}%"


def format_comparison(rows: Sequence[Row], peers: Iterable[str]) -> str:
    """Return the table of one operation."""
    # Each column: its head, and how a row makes its cell.
    columns: dict[str, Callable[[Row], str]] = {
        "size": lambda row: format_shape(row.shape),
        "threads": lambda row: str(row.threads),
        "result": lambda row: row.result,
        "time": lambda row: format_seconds(row.times["pyreg"].median),
        "mean": lambda row: format_seconds(row.times["pyreg"].mean),
        "p90": lambda row: format_seconds(row.times["pyreg"].p90),
        "GB/s": lambda row: three_digits(row.gb_per_s("pyreg")),
        "of copy": lambda row: format_percent(row.percent_of_copy()),
        "of loop": lambda row: format_percent(row.percent_of_loop()),
    }
    if rows[0].percent_of_loop() is None:
        del columns["of loop"]
    for peer in peers:
        columns[peer] = lambda row, peer=peer: format_ratio(row.ratio(peer))
    cells = [[cell(row) for cell in columns.values()] for row in rows]
    return format_table(rows[0].op, list(columns), cells)


def format_notes(peers: Peers, dtype: str, *, with_loop: bool) -> str:
    """Return what the columns mean."""
    notes = [
        f"time: the median of pyreg's calls, {dtype}; mean and p90 (the 90th percentile) of the same calls.",
        "result: out= writes to a result of an earlier call, new to an array that the call allocates.",
        "GB/s: the bytes that the operation must read and write, divided by the time.",
        "of copy: that speed in percent of a copy's that moves as many bytes on as many threads, with",
        "  ordinary or nontemporal stores, whichever is faster.",
    ]
    if with_loop:
        notes += [
            "of loop: in percent of a loop that reads and writes the same arrays as adamw_update and does",
            "  one addition for each element it writes.",
        ]
    if dtype != "float32":
        notes += [
            "The optimiser, numpy, jax and numba are measured in float32 alone. torch adds up dweight and dbias of",
            f"  LayerNorm in {dtype}: they are not checked, because they would not pass.",
        ]
    if not peers:
        return "\n".join(notes)
    notes += [
        f"{', '.join(peers)}: how many times as long as pyreg they take.",
        "  In a backward pass with dropout, they read what their forward pass would have stored: the mask, and",
        "  the softmax or the activation's input. pyreg stores none of these and recomputes them.",
        "  From y: each of them reads y, and no mask.",
    ]
    return "\n".join([*notes, *(f"  {peer.NOTE}" for peer in peers.values())])


def format_disturbance(times: Iterable[Times]) -> str:
    """Return a note if the machine was busy, else nothing."""
    note = busy_note([t.disturbed() for t in times])
    return f"\n{note}\n" if note else ""


def format_machine(machine: Mapping[str, Any], missing: Sequence[str]) -> str:
    """Return the head of the report; `missing` are the peers that cannot be imported."""
    versions, isa = machine["versions"], machine["isa"]
    lines = [
        f"{machine['machine']['cpu']}, instruction set {isa['chosen']} of {', '.join(isa['found'])}",
        f"threads: {', '.join(map(str, machine['measured_threads']))}",
        f"pyreg {versions['pyreg']} (compiler {versions['compiler']}), Python {versions['python']}",
        ", ".join(f"{name} {version}" for name, version in machine["peers"].items()),
    ]
    if missing:
        lines.append(f"cannot be imported: {', '.join(missing)}")
    return "\n".join([*filter(None, lines), ""])
