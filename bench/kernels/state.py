"""AdamW from a state that training left, in each precision, against float64.

Numbers that are drawn are all of one size. Real second moments differ by tens of orders of magnitude, and a step of
less than half a unit in the last place leaves a bfloat16 parameter where it is.
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from console import format_table

import pyreg

from .case import Array
from .internals import Table
from .precisions import PRECISIONS, Precision, adamw_in_float64

WEIGHT_DECAY = 0.01
UPDATES = (1, 100)
DRAWN = {
    "param": "The file has no parameters: they are drawn as 0.05 * N(0, 1).",
    "grad": "The file has no gradients: they are drawn as sqrt(exp_avg_sq) * N(0, 1).",
}


@dataclass(frozen=True)
class State:
    """An optimiser's arrays, each of all tensors together, after update number `step`."""

    param: Array
    grad: Array
    exp_avg: Array
    exp_avg_sq: Array
    step: int
    lr: float
    drawn: list[str]  # what the file does not have

    def numbers(self, update: int) -> dict[str, Any]:
        """Return the arguments of an update from here, the first of which is 1."""
        return {"step": self.step + update, "lr": self.lr, "weight_decay": WEIGHT_DECAY}


def joined(file: Mapping[str, Array], kind: str) -> Array:
    """Return the tensors of a kind in one array: those named `kind`_000, `kind`_001 and so on."""
    names = sorted(name for name in file if name.rpartition("_")[0] == kind)
    return np.concatenate([file[name] for name in names], axis=None, dtype=np.float32)


def state_of(file: Mapping[str, Array]) -> State:
    """Return the state in a file. Parameters and gradients that it does not have are drawn."""
    exp_avg, exp_avg_sq = joined(file, "exp_avg"), joined(file, "exp_avg_sq")
    rng = np.random.default_rng(0)
    made = {
        "param": np.float32(0.05) * rng.standard_normal(exp_avg.shape, np.float32),
        "grad": np.sqrt(exp_avg_sq) * rng.standard_normal(exp_avg.shape, np.float32),
    }
    drawn = [kind for kind in made if f"{kind}_000" not in file]
    made |= {kind: joined(file, kind) for kind in made if kind not in drawn}
    if len({array.shape for array in (exp_avg, exp_avg_sq, *made.values())}) > 1:
        raise ValueError("arrays of several sizes")
    step, lr = int(file["step"].max()), float(file["lr"])  # a file may have the steps of several groups
    return State(**made, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq, step=step, lr=lr, drawn=drawn)


def read_state(path: str) -> State:
    """Read a state: an argparse type."""
    try:
        with Path(path).open("rb") as opened, np.load(opened) as file:
            return state_of(file)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {path!r}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, EOFError, zipfile.BadZipFile):
        raise argparse.ArgumentTypeError(
            f"{path!r} is not an npz file of step, lr, exp_avg_000 and exp_avg_sq_000, and as many more as there are"
        ) from None


def changes_in_float64(state: State, updates: int) -> Array:
    """Return how far so many updates move the parameters."""
    param, exp_avg, exp_avg_sq = state.param, state.exp_avg, state.exp_avg_sq
    for update in range(1, updates + 1):
        numbers = state.numbers(update)
        param, exp_avg, exp_avg_sq = adamw_in_float64(param, state.grad, exp_avg, exp_avg_sq, **numbers)
    return param - state.param


def changes(state: State, precision: Precision, updates: int) -> Array:
    """Return the same by pyreg in a precision, in which it starts from rounded arrays."""
    param, grad = state.param.astype(precision.param), state.grad.astype(precision.grad)
    exp_avg, exp_avg_sq = (array.astype(precision.state) for array in (state.exp_avg, state.exp_avg_sq))
    before = param.astype(np.float64)
    for update in range(1, updates + 1):
        numbers = state.numbers(update)
        pyreg.adamw_update(param, grad, exp_avg, exp_avg_sq, **numbers, **precision.rounding_of(numbers["step"]))
    return param.astype(np.float64) - before


def errors(change: Array, exact: Array) -> dict[str, float]:
    """Return the relative errors of the changes, how large they are on average, and the fraction that is wrongly 0.

    On average: of the changes in the direction of the exact ones, relative to these.
    """
    moved = exact != 0
    change, exact = change[moved], exact[moved]
    relative = np.abs(change - exact) / np.abs(exact)
    median, percentile99, largest = np.quantile(relative, [0.5, 0.99, 1]).tolist()
    average = float(np.sum(change * np.sign(exact)) / np.sum(np.abs(exact)))
    unchanged = float(np.mean(change == 0))
    return {
        "median": median,
        "percentile99": percentile99,
        "largest": largest,
        "average": average,
        "unchanged": unchanged,
    }


def from_state(state: State) -> Table:
    """Return how far the changes in each precision are from those in float64, as text and as rows for JSON."""
    exact = {updates: changes_in_float64(state, updates) for updates in UPDATES}
    rows = [
        {"precision": precision.name, "updates": n, **errors(changes(state, precision, n), exact[n])}
        for precision in PRECISIONS
        for n in UPDATES
    ]
    kinds = ("median", "percentile99", "largest")
    cells = [
        [
            row["precision"],
            str(row["updates"]),
            *(f"{row[kind]:.1e}" for kind in kinds),
            *(f"{row[kind]:.1%}" for kind in ("average", "unchanged")),
        ]
        for row in rows
    ]
    title = f"{state.param.size:,} parameters after update {state.step:,}, lr {state.lr:.2g}"
    head = ("adamw_update", "updates", "median", "99%", "largest", "average", "unchanged")
    notes = [
        "median, 99%, largest: of the relative errors of the parameters' changes, against float64. The largest are",
        "  those of changes that are almost 0. average: how far the parameters move in float64's direction, relative",
        "  to how far float64 moves them. unchanged: the parameters that only float64 changes.",
        f"updates: all with the same gradients; weight decay {WEIGHT_DECAY}.",
        "master: gradients in bfloat16. bfloat16: all arrays, each rounded to nearest. stochastic: all arrays in",
        "  bfloat16, with stochastic rounding.",
        *(DRAWN[kind] for kind in state.drawn),
        "",
    ]
    return "\n".join([format_table(title, head, cells), *notes]), rows
