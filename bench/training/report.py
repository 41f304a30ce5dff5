"""What train.py reports: a table, a comparison in words, the curves, the raw numbers."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from console import format_table
from scipy.special import stdtrit

from .operations import Array
from .runs import CONFIGURATIONS, MEASURES, History, Settings

# (configuration, key): its run
Results = Mapping[tuple[str, int], History]

CONFIDENCE = 0.95


def collect(results: Results, name: str, keys: range, measure: str) -> Array:
    """Return one measure of one configuration over time: (keys, epochs)."""
    column = MEASURES.index(measure)
    return np.array([results[name, key].values[:, column] for key in keys])


# The columns of the table: the measure, its unit, how many digits.
COLUMNS = {
    "train loss": ("train_loss", 1, 3),
    "test loss": ("test_loss", 1, 3),
    "train acc. %": ("train_accuracy", 100, 1),
    "test acc. %": ("test_accuracy", 100, 1),
    "weight norm": ("weight_norm", 1, 1),
}


def format_measures(results: Results, keys: range) -> str:
    """Return the measures after the last epoch, mean and standard deviation over the keys."""

    def cell(name: str, measure: str, factor: int, digits: int) -> str:
        last = factor * collect(results, name, keys, measure)[:, -1]
        return f"{last.mean():.{digits}f} ± {last.std(ddof=1):.{digits}f}"

    rows = [[name, *(cell(name, *column) for column in COLUMNS.values())] for name in CONFIGURATIONS]
    return format_table("", ["configuration", *COLUMNS], rows).rstrip("\n")


def verdict(differences: Array, lower_is_better: bool) -> tuple[float, float, str]:
    """Return mean, half-width of the confidence interval, and a verdict in words.

    `differences` (keys,) are a configuration's results less those of "none", each with the same key. A difference is
    clear if Student's t interval over the keys leaves out zero. With few keys that is strict: for three of them, the
    half-width is 4.3 standard errors.
    """
    n = len(differences)
    mean = float(differences.mean())
    t = stdtrit(n - 1, (1 + CONFIDENCE) / 2)
    half_width = float(t * differences.std(ddof=1) / np.sqrt(n))
    if not np.isfinite(half_width):
        return mean, half_width, "cannot tell: a run diverged"
    if abs(mean) <= half_width:
        return mean, half_width, "no clear difference"
    return mean, half_width, "helps" if (mean < 0) == lower_is_better else "hurts"


def format_comparison(results: Results, keys: range) -> str:
    """Return what each regulariser did on the test set, compared with "none"."""
    head = (
        f'Difference to "none" on the test set, paired by key, with the {CONFIDENCE:.0%} interval\n'
        f"of Student's t over {len(keys)} keys; clear if the interval leaves out 0:"
    )
    lines = [head]
    for name in list(CONFIGURATIONS)[1:]:
        for measure, unit, factor in (("test_loss", "", 1), ("test_accuracy", " points", 100)):
            run, none = (collect(results, n, keys, measure)[:, -1] for n in (name, "none"))
            mean, half_width, word = verdict(factor * (run - none), measure == "test_loss")
            digits = 3 if factor == 1 else 1
            label = measure.replace("_", " ")
            # + 0.0 turns the -0.0 that rounding may leave into 0.0.
            difference = f"{round(mean, digits) + 0.0:+.{digits}f} ± {half_width:.{digits}f}{unit}"
            lines.append(f"  {name:<13} {label:<14} {difference}: {word}")
    return "\n".join(lines)


def format_setting(s: Settings) -> str:
    """Return what was trained, in a line for a title."""
    return (
        f"{s.norm_position.capitalize()}-LN Transformer, {s.num_layers} blocks of "
        f"{s.d_model} features, {s.train_size} digits to train on, {s.epochs} epochs"
    )


def format_report(results: Results, keys: range, s: Settings) -> str:
    """Return all of the report that is text."""
    head = (
        f"{format_setting(s)}\n"
        f"lr {s.lr:g}; when on: weight decay {s.weight_decay:g}, dropout {s.dropout:g}\n"
        f"After the last epoch, mean ± standard deviation over keys 0 to {keys[-1]}:"
    )
    return "\n\n".join([head, format_measures(results, keys), format_comparison(results, keys)])


def write_csv(path: Path, results: Results) -> None:
    """Write every measure of every run at every evaluation."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["configuration", "key", "epoch", *MEASURES])
        for (name, key), history in results.items():
            for epoch, values in zip(history.epochs, history.values, strict=True):
                writer.writerow([name, key, epoch, *values])


def plot_curves(path: Path, results: Results, keys: range, title: str) -> None:
    """Draw train and test loss against the epoch: a line for the mean, a band for the range."""
    # Imported here: the training processes import this file too, and draw nothing.
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    # Okabe & Ito's colours, which the colour-blind can tell apart, and different line styles.
    styles = [
        ("#000000", "-"),
        ("#E69F00", "--"),
        ("#56B4E9", "-."),
        ("#009E73", ":"),
        ("#D55E00", "-"),
    ]
    figure, axes = plt.subplots(1, 2, figsize=(11, 5.5), layout="constrained")
    for axis, measure, label in zip(axes, ("train_loss", "test_loss"), ("training set", "test set"), strict=True):
        for name, (color, line) in zip(CONFIGURATIONS, styles, strict=True):
            runs = collect(results, name, keys, measure)
            epochs = results[name, keys[0]].epochs
            axis.plot(epochs, runs.mean(axis=0), line, color=color, lw=2, label=name)
            axis.fill_between(epochs, runs.min(axis=0), runs.max(axis=0), color=color, alpha=0.15)
        axis.set(title=label, xlabel="epoch", ylabel="cross-entropy (nats per image)")
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(ticker.NullFormatter())
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(f"{title}\nline: mean, band: smallest to largest of {len(keys)} keys")
    figure.savefig(path, dpi=120)
    plt.close(figure)
