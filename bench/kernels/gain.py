"""What 16 bits gain over float32.

Where memory is the limit, twice as many rows of half the size should take the same time. But no more than float32's
where memory is no limit, with all arrays in the second-level cache: the arithmetic is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from console import format_table, three_digits
from tqdm import tqdm

import pyreg
from pyreg._cases import Shape

from .case import Case
from .compare import checked
from .internals import Table
from .measure import Call, Effort, Times, measure
from .operations import OPERATIONS, Operation
from .report import format_disturbance, format_percent, format_shape

SHAPES: tuple[Shape, ...] = ((512, 768), (8192, 768), (8192, 4096))
AT_ONCE = 16
CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")


@dataclass(frozen=True)
class GainRow:
    """An operation at a size: `times` of "float32", "in cache" and "low" (of 16 bits).

    "in cache": `AT_ONCE` calls of float32 on one thread, of `few` rows each.
    """

    op: str
    shape: Shape
    few: int
    threads: int
    times: dict[str, Times]

    def rate(self, name: str) -> float:
        """Return the rows per microsecond on all threads."""
        rows = self.threads * AT_ONCE * self.few if name == "in cache" else self.shape[0]
        return rows / self.times[name].median / 1e6

    def gain(self) -> float:
        return self.rate("low") / self.rate("float32")

    def percent_of_limit(self) -> float:
        return 100 * self.rate("low") / min(2 * self.rate("float32"), self.rate("in cache"))

    def cells(self) -> list[str]:
        numbers = map(three_digits, (*map(self.rate, self.times), self.gain()))
        return [self.op, format_shape(self.shape), *numbers, format_percent(self.percent_of_limit())]

    def as_json(self) -> dict[str, Any]:
        times = {name: times._asdict() for name, times in self.times.items()}
        return asdict(self) | {"times": times, "gain": self.gain(), "percent_of_limit": self.percent_of_limit()}


def second_level_cache() -> int:
    """Return the bytes of a CPU's second-level cache; if Linux does not tell, 512 KiB."""
    try:
        return int(CACHE.read_text().strip().removesuffix("K")) * 1024
    except (OSError, ValueError):
        return 512 * 1024


def rows_in_cache(operation: Operation, n: int) -> int:
    """Return how many rows of n floats fit in half of a CPU's second-level cache, with all arrays."""
    return max(1, second_level_cache() // 2 // (operation.arrays_moved * 4 * n))


def repeated(call: Call) -> Call:
    """Return `AT_ONCE` calls on one thread. As few rows as fit in a cache are too few to share among threads."""

    def calls() -> None:
        with pyreg.num_threads(1):
            for _ in range(AT_ONCE):
                call()

    return calls


def measure_row(op: str, shape: Shape, dtype: np.dtype[Any], threads: int, effort: Effort) -> GainRow:
    operation, n = OPERATIONS[op], shape[-1]
    few = rows_in_cache(operation, n)
    sizes = {"float32": (shape, np.float32), "in cache": ((few, n), np.float32), "low": (shape, dtype)}
    cases = {name: Case(operation, *size) for name, size in sizes.items()}
    with pyreg.num_threads(threads):
        calls = {name: checked(case, "pyreg", case.public_call) for name, case in cases.items()}
        calls["in cache"] = repeated(calls["in cache"])
        return GainRow(op, shape, few, threads, measure([calls], threads, effort))


def gain(ops: Sequence[str], dtype: np.dtype[Any], threads: int, quick: bool, effort: Effort, bar: tqdm) -> Table:
    """Return the dtype's rates beside float32's, as text and as rows for JSON."""
    shapes = SHAPES[: 2 if quick else None]
    bar.reset(len(ops) * len(shapes))
    rows = []
    for op in ops:
        for shape in shapes:
            bar.set_description(f"{op}, {format_shape(shape)}")
            rows.append(measure_row(op, shape, dtype, threads, effort))
            bar.update()
    head = ("rows per us", "size", "float32", "in cache", dtype.name, "gain", "of limit")
    notes = [
        "in cache: float32 on one thread, as many rows as fit, with all arrays, in half of the second-level cache of",
        f"  {second_level_cache() // 1024} KiB; times the number of threads. gain: {dtype} divided by float32.",
        "of limit: in percent of twice float32 or of float32 in cache, whichever is less.",
        format_disturbance(times for row in rows for times in row.times.values()),
    ]
    table = format_table("", head, [row.cells() for row in rows])
    return "\n".join([table, *notes]), [row.as_json() for row in rows]
