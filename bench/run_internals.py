"""What run.py measures of pyreg alone: its Python layer, its growth with the size, its levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import run_pyreg
from run_case import Call, Case, Shape
from run_measure import Effort, measure
from run_ops import OPS
from run_report import format_ratio, format_seconds, format_shape, format_table
from tqdm import tqdm

from pyreg import _core, num_threads

Table = tuple[str, list[dict[str, Any]]]  # as text, and its rows for JSON

SMALL, CACHED, LARGE = (8, 768), (512, 768), (8192, 768)
# Each 8 times the one before, from 24 KiB to 96 MiB an array.
SWEEP = tuple((rows, 768) for rows in (8, 64, 512, 4096, 32768))


def make_case(op: str, shape: Shape) -> Case:
    """Return an operation at a size in rows, which for the optimiser are as many parameters."""
    return OPS[op](shape if op != "adamw_update" else (math.prod(shape),))


def python_layer(ops: Sequence[str], effort: Effort) -> Table:
    """What Python costs: a call of the public function against what it calls of the core."""
    rows = []
    for op in ops:
        case = make_case(op, SMALL)
        calls = {"public": run_pyreg.public_call(case), "core": run_pyreg.core_call(case)}
        with num_threads(1):
            times = measure([calls], 1, effort)
        public, core = times["public"].median, times["core"].median
        rows.append({"op": op, "public": public, "core": core, "python_layer": public - core})
    head = ("", "public call", "call of the core", "Python layer")
    cells = [[r["op"], *(format_seconds(r[c]) for c in ("public", "core", "python_layer"))] for r in rows]
    return format_table(f"Python layer at {format_shape(SMALL)}, 1 thread", head, cells), rows


def sweep(ops: Sequence[str], threads: Sequence[int], quick: bool, effort: Effort, bar: tqdm) -> Table:
    """Time per element against the size: constant where the cost grows as the array does."""
    rows = []
    shapes = SWEEP[:3] if quick else SWEEP
    bar.reset(len(ops) * len(shapes) * len(threads))
    for op in ops:
        for shape in shapes:
            case = make_case(op, shape)
            call = run_pyreg.public_call(case)
            for n in threads:
                with num_threads(n):
                    seconds = measure([{"pyreg": call}], n, effort)["pyreg"].median
                rows.append({"op": op, "threads": n, "size": case.size, "ns": seconds / case.size * 1e9})
                bar.update()
    sizes = [math.prod(shape) for shape in shapes]
    cells = [
        [op, str(n), *(f"{r['ns']:.3f}" for r in rows if (r["op"], r["threads"]) == (op, n))]
        for op in ops
        for n in threads
    ]
    head = ("elements", "threads", *(f"{size:,}" for size in sizes))
    return format_table("Nanoseconds per element against the size, float32, out=", head, cells), rows


def isa(ops: Sequence[str], quick: bool, effort: Effort, bar: tqdm) -> Table:
    """Time at each instruction-set level of this machine, and the gain over the lowest."""
    levels, chosen = _core.isa_found(), _core.isa_chosen()
    rows = []
    shapes = (SMALL, CACHED) if quick else (CACHED, LARGE)
    bar.reset(len(ops) * len(shapes))
    for op in ops:
        for shape in shapes:
            case = make_case(op, shape)
            call = run_pyreg.public_call(case)
            calls = {level: at_level(level, call) for level in levels}
            try:
                with num_threads(1):
                    times = measure([calls], 1, effort)
            finally:
                _core.use_isa(chosen)
            seconds = {level: times[level].median for level in levels}
            rows.append({"op": op, "shape": case.shape, "seconds": seconds})
            bar.update()
    cells = []
    for row in rows:
        first, *others = row["seconds"].values()
        line = [row["op"], format_shape(row["shape"]), format_seconds(first)]
        cells.append(line + [f"{format_seconds(s)} {format_ratio(first / s):>5}" for s in others])
    head = ("", "size", *levels)
    return format_table(f"Instruction sets, 1 thread, gain over {levels[0]}", head, cells), rows


def at_level(level: str, call: Call) -> Call:
    """Return the call at an instruction-set level; to switch costs a fraction of a microsecond."""

    def at() -> Any:
        _core.use_isa(level)
        return call()

    return at
