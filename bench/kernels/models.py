"""AdamW over whole models: one step over all parameters, beside PyTorch's fused and foreach AdamW.

A model is many tensors, most of them small. With clipping, the step begins with the norm of all gradients.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

import pyreg
from pyreg._cases import Shape

from .internals import Table
from .measure import Call, Effort, measure
from .model_case import ModelCase
from .model_report import ModelRow, format_model, format_notes
from .model_shapes import MODELS
from .precisions import FLOAT32, PRECISIONS, Precision
from .report import Peers

LINES = [  # with whether the gradients are clipped, which costs the same whatever the rounding
    (precision, clipped)
    for precision in PRECISIONS
    for clipped in (False, True)
    if not clipped or precision.rounding == "nearest"
]
MEMORY = Path("/proc/meminfo")


def memory_available() -> float:
    """Return how many bytes of memory are left; infinity if Linux does not tell."""
    try:
        return int(re.findall(r"MemAvailable: +(\d+) kB", MEMORY.read_text())[0]) * 1024
    except (OSError, IndexError):
        return math.inf


def memory_needed(shapes: Sequence[Shape], precision: Precision) -> int:
    """Return the bytes that a precision's lines take at most.

    Per parameter: the arrays and the right answer, twice if one array is measured too; the moments of pyreg.AdamW, if
    it is measured; and what PyTorch allocates, which is float32 gradients or what foreach computes with.
    """
    arrays = precision.bytes_held() + 4
    return sum(map(math.prod, shapes)) * ((2 * arrays + 8 if precision is FLOAT32 else arrays) + 12)


def own_calls(case: ModelCase) -> dict[str, Call]:
    """Return pyreg's calls, whose answers are right: to the bit, where another one has the same."""
    calls = {"pyreg": case.checked("pyreg", case.public_call, case.check_bits)}
    if case.precision is FLOAT32:
        digest = case.digest()
        calls["class"] = case.checked("pyreg.AdamW", case.class_call, lambda: case.check_digest(digest))
    if case.is_plain:
        alone = ModelCase(f"{case.model} in one array", [(case.parameters,)], case.precision, case.clipped)
        calls["one array"] = alone.checked("pyreg", alone.public_call, alone.check_bits)
    if case.precision.rounding == "stochastic":
        calls["nearest"] = case.checked("pyreg", case.nearest_call)
    return calls


def checked_calls(case: ModelCase, peers: Peers) -> list[dict[str, Call]]:
    """Return groups of calls, pyreg's and PyTorch's, whose answers are right."""
    groups = [own_calls(case)]
    if "torch" in peers and case.precision.rounding == "nearest":  # PyTorch has no other
        from .model_torch import steps

        groups.append({name: case.checked(name, make) for name, make in steps(case).items()})
    return groups


def measure_case(case: ModelCase, threads: int, peers: Peers, effort: Effort) -> Iterator[ModelRow]:
    """Yield the row of a case, and those of the class and of one array where they are measured."""
    times = measure(checked_calls(case, peers), threads, effort)
    numbers = case.parameters, threads, case.bytes_moved
    yield ModelRow(case.model, case.line, len(case.param), *numbers, times)
    for other, tensors in {"class": len(case.param), "one array": 1}.items():
        if other in times:
            yield ModelRow(case.model, f"{case.line}, {other}", tensors, *numbers, {"pyreg": times[other]})


def measure_model(model: str, threads: int, peers: Peers, effort: Effort, bar: tqdm) -> list[ModelRow]:
    """Measure a model and print its table."""
    shapes, rows, left_out = MODELS[model], [], {}
    for precision, clipped in LINES:
        bar.set_description(f"{model}, {precision.name}")
        if (needed := memory_needed(shapes, precision)) > memory_available():
            left_out[precision.name] = needed
        else:
            rows += measure_case(ModelCase(model, shapes, precision, clipped), threads, peers, effort)
        bar.update()
    if rows:
        bar.write(format_model(rows))
    for name, needed in left_out.items():
        bar.write(f"{model} in {name} is left out: it needs {needed / 1e9:.1f} GB of memory.\n")
    return rows


def models(threads: int, quick: bool, peers: Peers, effort: Effort, bar: tqdm) -> Table:
    """Print a table of each model; return what the columns mean, and the rows for JSON."""
    names = list(MODELS)[1 if quick else 0 :]  # the first is large
    bar.reset(len(names) * len(LINES))
    for peer in peers.values():
        peer.set_num_threads(threads)
    with pyreg.num_threads(threads):
        rows = [row for name in names for row in measure_model(name, threads, peers, effort, bar)]
    return format_notes(rows), [row.as_json() for row in rows]
