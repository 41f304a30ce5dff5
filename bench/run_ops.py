"""The operations that run.py measures: their inputs, the bytes they must move, their right answers.

A case is one operation at one size. It holds float32 arrays that every library works on where it can,
and checks an answer against a float64 computation that is as plain as the formula.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import run_ops_activation_dropout
import run_ops_dropout_add_norm
import run_ops_norm
import run_ops_softmax_dropout
from run_case import FLOAT, Case, Shape, check_close, check_dropped, slices


class Dropout(Case):
    """``y = x / (1 - p)`` where kept, 0 with probability p."""

    name = "dropout"
    arguments = "x, p, key=key"
    also_new = True
    moved_per_element = 2 * FLOAT  # read x, write y
    p = 0.1

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
        self.out = np.empty_like(self.x)

    def check(self, answer: Any) -> None:
        check_dropped("y", answer, self.x, self.p, tolerance=1e-6)


class DropoutHalf(Dropout):
    """The one p of common use that a single random byte decides."""

    p = 0.5


class DropPath(Dropout):
    """``y = x / (1 - p)`` for the samples that are kept, 0 for the others: a tenth of x need not be read."""

    name = "drop_path"
    also_new = False

    def check(self, answer: Any) -> None:
        y = np.asarray(answer)
        kept = (y != 0).any(axis=1, keepdims=True)
        for part in slices(self.shape[0], 256):
            check_close("y", y[part], kept[part] * (self.x[part] / (1 - self.p)) + 0.0, tolerance=1e-6)

    def offset_of_row(self, row: int) -> int:
        return row


class AdamWUpdate(Case):
    """AdamW, in place: `param`, `exp_avg` and `exp_avg_sq` are updated from `grad`."""

    name = "adamw_update"
    arguments = "param, grad, exp_avg, exp_avg_sq, step=step, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay"
    outputs = ""
    moved_per_element = 7 * FLOAT  # read four arrays, write three
    sizes = ((1_000,), (100_000,), (1_000_000,), (25_000_000,))
    step, lr, betas, eps, weight_decay = 10, 1e-3, (0.9, 0.999), 1e-8, 1e-2
    beta1, beta2 = betas
    state = ("param", "exp_avg", "exp_avg_sq")

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        rng = np.random.default_rng(1)
        self.param, self.grad, self.exp_avg, self.exp_avg_sq = (
            # Above 0: update_loop adds grad to everything, and exp_avg_sq must stay positive.
            rng.random(shape, dtype=np.float32) + np.float32(0.5)
            for _ in range(4)
        )
        self.before = {name: getattr(self, name).copy() for name in self.state}
        self.after = {name: np.empty_like(self.param) for name in self.state}
        bc1, bc2 = 1 - self.beta1**self.step, 1 - self.beta2**self.step
        for part in slices(self.size, 2**20):
            param, m, v = (self.before[name][part].astype(np.float64) for name in self.state)
            g = self.grad[part].astype(np.float64)
            m += (1 - self.beta1) * (g - m)
            v = self.beta2 * v + (1 - self.beta2) * g * g
            param -= self.lr * (m / bc1 / (np.sqrt(v / bc2) + self.eps) + self.weight_decay * param)
            for name, value in zip(self.state, (param, m, v), strict=True):
                self.after[name][part] = value

    def restore(self) -> None:
        for name, value in self.before.items():
            getattr(self, name)[...] = value

    def check(self, answer: tuple[Any, Any, Any] | None) -> None:
        """Check the arrays that a library returns; what returns none has updated the case's own."""
        updated = answer or tuple(getattr(self, name) for name in self.state)
        for name, got in zip(self.state, updated, strict=True):
            # A few float32 roundings; without its decay, a parameter would be off by 1e-5.
            check_close(name, got, self.after[name], tolerance=2e-6)

    def check_bits(self, answer: None) -> None:
        """Nothing more: no row stands for itself here."""


# By the title of their tables.
OPS: dict[str, type[Case]] = {
    **run_ops_norm.OPS,
    "dropout p=0.1": Dropout,
    "dropout p=0.5": DropoutHalf,
    "drop_path p=0.1": DropPath,
    **run_ops_dropout_add_norm.OPS,
    **run_ops_softmax_dropout.OPS,
    **run_ops_activation_dropout.OPS,
    "adamw_update": AdamWUpdate,
}
