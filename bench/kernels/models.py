"""AdamW over whole models: one step over all parameters, beside PyTorch's fused and foreach AdamW.

A model is many tensors, most of them small. With clipping, the step begins with the norm of all gradients.
"""

from __future__ import annotations

import itertools
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

LINES = list(itertools.product(PRECISIONS, (False, True)))  # whether the gradients are clipped
MEMORY = Path("/proc/meminfo")


def memory_available() -> float:
    """Return how many bytes of memory are left; infinity if Linux does not tell."""
    try:
        return int(re.findall(r"MemAvailable: +(\d+) kB", MEMORY.read_text())[0]) * 1024
    except (OSError, IndexError):
        return math.inf


def memory_needed(shapes: Sequence[Shape], precision: Precision) -> int:
    """Return the bytes that a precision's lines take at most.

    Per parameter: the arrays and the right answer, twice if one array is measured too; and what PyTorch allocates,
    which is float32 gradients or what foreach computes with.
    """
    copies = 2 if precision is FLOAT32 else 1
    return sum(map(math.prod, shapes)) * (copies * (precision.bytes_held() + 4) + 12)


def checked_calls(case: ModelCase, peers: Peers) -> list[dict[str, Call]]:
    """Return groups of calls, pyreg's and PyTorch's, whose answers are right."""
    groups = [{"pyreg": case.checked("pyreg", case.public_call)}]
    if "torch" in peers:
        from .model_torch import steps

        groups.append({name: case.checked(name, make) for name, make in steps(case).items()})
    return groups


def measure_case(case: ModelCase, threads: int, peers: Peers, effort: Effort) -> Iterator[ModelRow]:
    """Yield the row of a case; for float32 without clipping, also that of one array of as many elements."""
    groups = checked_calls(case, peers)
    if case.is_plain:
        alone = ModelCase(f"{case.model} in one array", [(case.parameters,)], case.precision, case.clipped)
        groups[0]["one array"] = alone.checked("pyreg", alone.public_call)
    times = measure(groups, threads, effort)
    numbers = case.parameters, threads, case.bytes_moved
    yield ModelRow(case.model, case.line, len(case.param), *numbers, times)
    if "one array" in times:
        yield ModelRow(case.model, f"{case.line}, one array", 1, *numbers, {"pyreg": times["one array"]})


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
