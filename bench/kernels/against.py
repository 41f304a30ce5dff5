"""Compare two runs of run.py: which of pyreg's calls have become slower.

The runs took place at different times, perhaps on different machines, so their seconds are not compared, but pyreg's
time relative to a yardstick's in the same run: that of the faster copy, and in company that of NumPy. In company, the
mean counts as well as the median, because it shows the long waits.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from console import format_table, three_digits

from .report import format_shape

Run = Mapping[str, Any]  # as --json writes it
# A row has changed if the quartile ranges do not overlap and the medians differ by more than this factor.
FACTOR = 1.1
# The mean of a row in company has changed if it differs by more than this factor: it has no quartiles.
MEAN_FACTOR = 1.5


class Relative(NamedTuple):
    """pyreg's time, as a multiple of the yardstick's: the quartiles of the calls, or their mean alone."""

    quartile1: float
    median: float
    quartile3: float

    def is_slower_than(self, other: Relative) -> bool:
        if self.quartile1 == self.quartile3:
            return self.median > MEAN_FACTOR * other.median
        return self.median > FACTOR * other.median and self.quartile1 > other.quartile3


Key = tuple[str, ...]  # operation, size, threads, and the result or the situation


def relative(times: Mapping[str, float], yardstick: float) -> Relative:
    return Relative(*(times[name] / yardstick for name in Relative._fields))


def rows_of(run: Run) -> Iterator[tuple[Key, Relative]]:
    """Yield the rows of a run, each with pyreg's relative time."""
    for row in run.get("rows", ()):
        copy = min(row["times"][name]["median"] for name in ("copy", "nontemporal copy"))
        key = row["op"], format_shape(row["shape"]), str(row["threads"]), row["result"]
        yield key, relative(row["times"]["pyreg"], copy)
    for row in [*run.get("company", ()), *run.get("busy", ())]:
        key = row["op"], format_shape(row["shape"]), str(row["threads"])
        times, numpy = row["times"]["pyreg"], row["times"]["numpy"]
        yield (*key, row["situation"]), relative(times, numpy["median"])
        yield (*key, f"{row['situation']}, mean"), Relative(*[times["mean"] / numpy["mean"]] * 3)


def read_run(path: str) -> Run:
    """Read what --json wrote: an argparse type."""
    try:
        run: Run = json.loads(Path(path).read_text())
        rows = dict(rows_of(run))
        machine_of(run)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {path!r}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise argparse.ArgumentTypeError(f"{path!r} is not a file that --json wrote") from None
    if not rows:
        raise argparse.ArgumentTypeError(
            f"{path} has no rows to compare: --sweep, --isa, --gain, --models and --state make none"
        )
    return run


def machine_of(run: Run) -> str:
    machine = run["machine"]
    return f"pyreg {machine['versions']['pyreg']}, {machine['machine']['cpu']}, {machine['isa']['chosen']}"


def format_against(old: Run, new: Run) -> str:
    """Return which rows are slower and which are faster, and a summary of each operation."""
    before, now = dict(rows_of(old)), dict(rows_of(new))
    both = [key for key in now if key in before]
    ratios = {key: now[key].median / before[key].median for key in both}
    slower = [key for key in both if now[key].is_slower_than(before[key])]
    faster = [key for key in both if before[key].is_slower_than(now[key])]
    if not both:
        return "nothing can be compared: the two runs have no row in common"
    lost, added = len(before) - len(both), len(now) - len(both)
    lines = [
        f"before: {machine_of(old)}",
        f"now:    {machine_of(new)}",
        f"{len(both)} rows are in both runs, {lost} only in the old one, {added} only in the new one",
        "",
    ]
    cells = []
    for op in dict.fromkeys(key[0] for key in both):
        keys = [key for key in both if key[0] == op]
        counts = [str(len([key for key in keys if key in group])) for group in (slower, faster)]
        cells.append([op, str(len(keys)), f"{np.median([ratios[key] for key in keys]):.2f}", *counts])
    lines.append(format_table("", ("", "rows", "now/before", "slower", "faster"), cells))
    head = ("", "size", "threads", "where", "before", "now", "now/before")
    for title, keys in (("slower", slower), ("faster", faster)):
        changed = [
            [*key, *(three_digits(run[key].median) for run in (before, now)), f"{ratios[key]:.2f}"] for key in keys
        ]
        lines.append(format_table(title, head, changed) if keys else f"{title}: none\n")
    lines += [
        "before, now: pyreg's median time, divided by the faster copy's in the same run; in company, by NumPy's.",
        f"slower, faster: by more than {FACTOR - 1:.0%}, and the quartile ranges of the two runs do not overlap;",
        f"  a mean, which is compared in company only, by more than {MEAN_FACTOR - 1:.0%}.",
    ]
    return "\n".join(lines)
