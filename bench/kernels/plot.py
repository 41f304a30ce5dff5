"""The picture: how fast each library moves the bytes, and how fast a copy does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from console import three_digits
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from .report import Row, format_shape

# Okabe & Ito's colours, which the colour-blind can tell apart.
COLORS = {
    "pyreg": "#0072B2",
    "numpy": "#999999",
    "torch": "#D55E00",
    "compile": "#E69F00",
    "jax": "#009E73",
    "numba": "#CC79A7",
}


def plot(path: Path, rows: Sequence[Row], title: str, dtype: str = "float32") -> None:
    """Draw bars of GB/s: a panel for each operation, a group of bars for each size.

    Of `rows`, those on the most threads with out= are drawn. `title` says what the machine is.
    """
    threads = max(row.threads for row in rows)
    rows = [row for row in rows if row.threads == threads and row.result == "out="]
    ops = list(dict.fromkeys(row.op for row in rows))
    names = [name for name in COLORS if any(name in row.times for row in rows)]
    columns = min(len(ops), 3)
    lines = -(-len(ops) // columns)
    size = (5 * columns, 1 + lines * (0.8 + 0.2 * len(names) * 5))
    figure, axes = plt.subplots(lines, columns, figsize=size, layout="constrained", squeeze=False)
    for axis, op in zip(axes.flat, ops, strict=False):
        draw_panel(axis, [row for row in rows if row.op == op], names)
        axis.set_title(op)
    for axis in axes.flat[len(ops) :]:
        axis.axis("off")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    place = {"loc": "outside lower center", "ncols": 4 if columns == 1 else 7, "frameon": False}
    figure.legend(unique.values(), unique.keys(), **place)
    plural = "s" if threads > 1 else ""
    figure.suptitle(f"{title}, {threads} thread{plural}\n{dtype}, out= given, more is better", fontsize=12)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_panel(axis: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    """Draw one operation: a group of bars for each size, and in it a line where the copy is."""
    height = 0.8 / len(names)
    for group, row in enumerate(rows):
        for i, name in enumerate(n for n in names if n in row.times):
            speed = row.gb_per_s(name)
            y = group - 0.4 + (i + 0.5) * height
            axis.barh(y, speed, height * 0.9, color=COLORS[name], label=name)
            text = {"textcoords": "offset points", "va": "center", "fontsize": 8}
            # On top of the copy's line, which may cross it.
            text |= {"zorder": 5, "bbox": {"fc": "white", "ec": "none", "pad": 0.5}}
            axis.annotate(three_digits(speed), (speed, y), (4, 0), **text)
        copy = row.copy_gb_per_s()
        axis.plot([copy, copy], [group - 0.45, group + 0.45], "k--", lw=1.2, label="copy")
    axis.set_yticks(range(len(rows)), [format_shape(row.shape) for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)  # the first on top
    axis.margins(x=0.12)
    axis.set_xlim(left=0)
    axis.set_xlabel("GB/s that the operation must move")
    axis.spines[["top", "right"]].set_visible(False)
