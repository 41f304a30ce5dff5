"""What run.py reports: the machine, tables in plain text, the bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from run_case import Shape
from run_measure import Times

from pyreg._speed import busy_note

# What the peers do that a table cannot show; those that run are printed.
NOTES = {
    "numpy": "numpy works on one thread always; into buffers (out=) but for dropout.",
    "torch": "torch returns new arrays (adamw_update: in place, torch.optim.AdamW with fused=True).",
    "compile": "compile is torch.compile (adamw_update: of an optimiser that is not fused).",
    "jax": "jax is jit-compiled, returns new arrays, and uses all CPUs: shown only where pyreg does too.",
    "numba": "numba is @njit(parallel=True) on plain loops, without fastmath, into buffers.",
}


@dataclass(frozen=True)
class Row:
    """One operation at one size and thread count, and what it was timed against.

    `times` has "pyreg", "copy", "nontemporal copy", for adamw_update "update_loop", and the peers.
    """

    op: str
    shape: Shape
    threads: int
    result: str  # "out=": in arrays that were there before; "new": in an array of its own
    bytes_moved: int
    times: dict[str, Times]

    def gb_per_s(self, name: str) -> float:
        return self.bytes_moved / self.times[name].median / 1e9

    def copy_gb_per_s(self) -> float:
        return max(self.gb_per_s("copy"), self.gb_per_s("nontemporal copy"))

    def percent_of_copy(self) -> float:
        return 100 * self.gb_per_s("pyreg") / self.copy_gb_per_s()

    def percent_of_loop(self) -> float | None:
        """In percent of the update loop, which only AdamW is timed against."""
        if "update_loop" not in self.times:
            return None
        return 100 * self.gb_per_s("pyreg") / self.gb_per_s("update_loop")

    def ratio(self, peer: str) -> float | None:
        """How many times as long the peer takes; None where it did not run."""
        return self.times[peer].median / self.times["pyreg"].median if peer in self.times else None

    def as_json(self, peers: Iterable[str]) -> dict[str, Any]:
        return asdict(self) | {
            "times": {name: times._asdict() for name, times in self.times.items()},
            "gb_per_s": self.gb_per_s("pyreg"),
            "percent_of_copy": self.percent_of_copy(),
            "percent_of_loop": self.percent_of_loop(),
            "ratios": {peer: self.ratio(peer) for peer in peers},
        }


# --- cells


def format_shape(shape: Shape) -> str:
    return " x ".join(str(n) for n in shape) if len(shape) > 1 else f"{shape[0]:,}"


def three_digits(x: float) -> str:
    return f"{x:.2f}" if x < 9.995 else f"{x:.1f}" if x < 99.95 else f"{x:.0f}"


def format_seconds(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{three_digits(seconds * 1e6)} us"
    return f"{three_digits(seconds * 1e3)} ms" if seconds < 1 else f"{three_digits(seconds)} s"


def format_percent(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.0f}%"


def format_ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{three_digits(ratio)}x"


# --- tables


def format_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align the columns: the first to the left, the others to the right."""
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    lines = [title]
    for first, *others in (head, *rows):
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines) + "\n"


def format_comparison(rows: Sequence[Row], peers: Iterable[str]) -> str:
    """Return the table of one operation."""
    # Each column: its head, and how its cell is made from a row.
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


def format_notes(peers: Iterable[str], *, with_loop: bool) -> str:
    """Return what the columns mean."""
    notes = [
        "time: pyreg, float32, the median; beside it the mean and the 90th percentile of the same samples.",
        "GB/s: of the bytes that the operation must read and write, at the median.",
        'result: "out=" is written to an array that is there already, "new" to one the call allocates.',
        "of copy: 100% is a copy that moves as many bytes on as many threads, with ordinary or nontemporal",
        "  stores, whichever is faster.",
    ]
    if with_loop:
        notes += [
            "of loop: 100% is a loop with adamw_update's traffic, on the same arrays, that does one",
            "  addition for each element it writes.",
        ]
    notes.append(f"{', '.join(peers)}: how many times as long as pyreg they take.")
    notes += [
        "  In a backward pass with dropout they read the mask, and the softmax or the activation's input, as",
        "  their forward pass would have stored them; pyreg stores none of these and makes them again.",
    ]
    notes += [f"  {NOTES[peer]}" for peer in peers]
    return "\n".join(notes)


def format_disturbance(times: Iterable[Times]) -> str:
    """Say that the machine was busy, where it shows; else nothing."""
    note = busy_note([t.disturbed() for t in times])
    return f"\n{note}\n" if note else ""


# --- the machine


def format_machine(machine: Mapping[str, Any], missing: Sequence[str]) -> str:
    """Return the head of the report; `missing` are peers that cannot be imported."""
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
