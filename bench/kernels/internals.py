"""Of pyreg alone: the time of its Python layer, the time against the size, the gain of each instruction set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from console import format_ratio, format_seconds, format_table
from tqdm import tqdm

import pyreg
from pyreg import _core
from pyreg._cases import Shape

from .case import Case
from .measure import Call, Effort, measure
from .operations import OPERATIONS
from .report import format_shape

Table = tuple[str, list[dict[str, Any]]]  # as text, and its rows for JSON

SMALL, CACHED, LARGE = (8, 768), (512, 768), (8192, 768)
# Each 8 times the one before, from 24 KiB to 96 MiB an array.
SWEEP = tuple((rows, 768) for rows in (8, 64, 512, 4096, 32768))


def make_case(op: str, shape: Shape, dtype: np.dtype[Any]) -> Case:
    """Return an operation at a size in rows; the optimiser has as many parameters."""
    return Case(OPERATIONS[op], (math.prod(shape),) if op == "adamw_update" else shape, dtype)


def make_cases(
    ops: Sequence[str], shapes: Sequence[Shape], dtype: np.dtype[Any], bar: tqdm
) -> Iterator[tuple[str, Case]]:
    bar.reset(len(ops) * len(shapes))
    for op in ops:
        for shape in shapes:
            yield op, make_case(op, shape, dtype)
            bar.update()


class Recorder:
    """The core, recording its calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __getattr__(self, name: str) -> Any:
        function = getattr(_core, name)

        def record(*arguments: Any) -> Any:
            self.calls.append(partial(function, *arguments))
            return function(*arguments)

        return record


def core_call(case: Case) -> Call:
    """Return the call of the core that the public function makes."""
    recorder = Recorder()
    function = getattr(pyreg, case.name)
    pyreg.reference._with_core(function, recorder)(**case.arguments | case.outs)
    return recorder.calls[-1]


def python_layer(ops: Sequence[str], dtype: np.dtype[Any], effort: Effort, bar: tqdm) -> Table:
    """Return what Python costs: a public call less the call that it makes of the core."""
    rows = []
    for op, case in make_cases(ops, [SMALL], dtype, bar):
        with pyreg.num_threads(1):
            times = measure([{"public": case.public_call(), "core": core_call(case)}], 1, effort)
        public, core = times["public"].median, times["core"].median
        rows.append({"op": op, "public": public, "core": core, "python_layer": public - core})
    head = ("", "public call", "call of the core", "Python layer")
    cells = [[r["op"], *(format_seconds(r[c]) for c in ("public", "core", "python_layer"))] for r in rows]
    return format_table(f"Python layer at {format_shape(SMALL)}, 1 thread", head, cells), rows


def sweep(
    ops: Sequence[str], dtype: np.dtype[Any], threads: Sequence[int], quick: bool, effort: Effort, bar: tqdm
) -> Table:
    """Return the time per element against the size: constant if the time grows as the array does."""
    rows = []
    shapes = SWEEP[:3] if quick else SWEEP
    for op, case in make_cases(ops, shapes, dtype, bar):
        for n in threads:
            with pyreg.num_threads(n):
                seconds = measure([{"pyreg": case.public_call()}], n, effort)["pyreg"].median
            rows.append({"op": op, "threads": n, "size": case.size, "ns": seconds / case.size * 1e9})
    cells = [
        [op, str(n), *(f"{r['ns']:.3f}" for r in rows if (r["op"], r["threads"]) == (op, n))]
        for op in ops
        for n in threads
    ]
    head = ("elements", "threads", *(f"{math.prod(shape):,}" for shape in shapes))
    return format_table(f"Nanoseconds per element against the size, {dtype}, out=", head, cells), rows


def isa(ops: Sequence[str], dtype: np.dtype[Any], quick: bool, effort: Effort, bar: tqdm) -> Table:
    """Return the time at each instruction-set level of this machine, and the gain over the lowest."""
    levels, chosen = _core.isa_found(), _core.isa_chosen()
    rows = []
    for op, case in make_cases(ops, (SMALL, CACHED) if quick else (CACHED, LARGE), dtype, bar):
        calls = {level: at_level(level, case.public_call()) for level in levels}
        try:
            with pyreg.num_threads(1):
                times = measure([calls], 1, effort)
        finally:
            _core.use_isa(chosen)
        rows.append({"op": op, "shape": case.shape, "seconds": {level: times[level].median for level in levels}})
    cells = []
    for row in rows:
        first, *others = row["seconds"].values()
        line = [row["op"], format_shape(row["shape"]), format_seconds(first)]
        cells.append(line + [f"{format_seconds(s)} {format_ratio(first / s):>5}" for s in others])
    head = ("", "size", *levels)
    return format_table(f"Instruction sets, {dtype}, 1 thread, gain over {levels[0]}", head, cells), rows


def at_level(level: str, call: Call) -> Call:
    """Return the call at an instruction-set level; switching takes a fraction of a microsecond."""

    def at() -> Any:
        _core.use_isa(level)
        return call()

    return at
