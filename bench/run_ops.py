"""The operations that run.py measures: their inputs, the bytes they must move, their right answers.

A case is one operation at one size. It holds float32 arrays that every library works on where it can,
and checks an answer against a float64 computation that is as plain as the formula.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import run_ops_activation_dropout
import run_ops_softmax_dropout
from run_case import FLOAT, KEY, Array, Call, Case, Shape, WrongAnswer, check_close, check_same_bits, ends, slices
from run_ops_fused import (
    DropoutAddLayerNormBackward,
    DropoutAddLayerNormForward,
    DropoutAddRmsNormBackward,
    DropoutAddRmsNormForward,
)
from run_ops_norm import RmsNormBackward, RmsNormForward

import pyreg

__all__ = [
    "KEY",
    "OPS",
    "AdamWUpdate",
    "Array",
    "Call",
    "Case",
    "DropPath",
    "Dropout",
    "DropoutHalf",
    "LayerNormBackward",
    "LayerNormForward",
    "Shape",
    "WrongAnswer",
]


class LayerNormForward(Case):
    """``y = (x - mean) * rstd * weight + bias`` with the statistics of each row of x (rows, n)."""

    name = "layer_norm_forward"
    moved_per_element = 2 * FLOAT  # read x, write y
    eps = 1e-5

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        rng = np.random.default_rng(1)
        rows, n = shape
        self.x = rng.standard_normal(shape, dtype=np.float32)
        self.weight = 1 + rng.standard_normal(n, dtype=np.float32) / 4
        self.bias = rng.standard_normal(n, dtype=np.float32)
        self.out = np.empty_like(self.x)
        self.y = np.empty_like(self.x)
        # float64, as pyreg's forward returns it; the other libraries take it in float32.
        self.mean = np.empty(rows)
        self.rstd = np.empty(rows, np.float32)
        for part in slices(rows, 256):
            x = self.x[part].astype(np.float64)
            self.mean[part] = x.mean(axis=1)
            self.rstd[part] = 1 / np.sqrt(x.var(axis=1) + self.eps)
            xhat = (x - self.mean[part, None]) * self.rstd[part, None]
            self.y[part] = xhat * self.weight + self.bias

    def check(self, answer: tuple[Any, Any, Any]) -> None:
        for name, got in zip(("y", "mean", "rstd"), answer, strict=True):
            # A float32 sum over a row of 4096, one element after the other, is off by about 4e-6.
            check_close(name, got, getattr(self, name), tolerance=2e-5)


class LayerNormBackward(LayerNormForward):
    """The gradients for x, weight and bias."""

    name = "layer_norm_backward"
    moved_per_element = 3 * FLOAT  # read dy and x, write dx

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        rows, n = shape
        self.dy = np.random.default_rng(2).standard_normal(shape, dtype=np.float32)
        self.dx = self.y  # which the backward pass has no use for
        self.dweight, self.dbias = np.zeros(n), np.zeros(n)
        for part in slices(rows, 256):
            rstd = self.rstd[part, None]
            dy = self.dy[part].astype(np.float64)
            xhat = (self.x[part] - self.mean[part, None]) * rstd
            self.dweight += (dy * xhat).sum(axis=0)
            self.dbias += dy.sum(axis=0)
            g = dy * self.weight
            projected = xhat * (g * xhat).mean(axis=1, keepdims=True)
            self.dx[part] = (g - g.mean(axis=1, keepdims=True) - projected) * rstd

    def check(self, answer: tuple[Any, Any, Any]) -> None:
        for name, got in zip(("dx", "dweight", "dbias"), answer, strict=True):
            check_close(name, got, getattr(self, name), tolerance=2e-5)


class Dropout(Case):
    """``y = x / (1 - p)`` where kept, 0 with probability p."""

    name = "dropout"
    moved_per_element = 2 * FLOAT  # read x, write y
    p = 0.1

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
        self.out = np.empty_like(self.x)

    def check(self, answer: Any) -> None:
        """Check by value; each library draws another mask, of which only the fraction kept is known."""
        y, x = np.asarray(answer).ravel(), self.x.ravel()
        kept = np.empty(y.size, bool)
        for part in slices(y.size, 2**20):
            kept[part] = y[part] != 0
            check_close("y", y[part], kept[part] * (x[part] / (1 - self.p)), tolerance=1e-6)
        fraction, deviation = kept.mean(), math.sqrt(self.p * (1 - self.p) / y.size)
        if abs(fraction - (1 - self.p)) > 6 * deviation:
            raise WrongAnswer(f"{fraction:.2%} were kept instead of {1 - self.p:.2%}")

    def check_bits(self, answer: Any) -> None:
        y, x = np.asarray(answer).ravel(), self.x.ravel()
        for part in ends(y.size, 1):
            check_same_bits("y", y[part], pyreg.reference.dropout(x[part], self.p, key=KEY, offset=part.start))


class DropoutHalf(Dropout):
    """The one p of common use that a single random byte decides."""

    p = 0.5


class DropPath(Case):
    """``y = x / (1 - p)`` for the samples that are kept, 0 for the others."""

    name = "drop_path"
    moved_per_element = 2 * FLOAT  # write y; read x, of which a tenth could be spared
    p = 0.1

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
        self.out = np.empty_like(self.x)

    def check(self, answer: Any) -> None:
        y = np.asarray(answer)
        kept = (y != 0).any(axis=1, keepdims=True)
        for part in slices(self.shape[0], 256):
            check_close("y", y[part], kept[part] * (self.x[part] / (1 - self.p)) + 0.0, tolerance=1e-6)


class AdamWUpdate(Case):
    """AdamW, in place: `param`, `exp_avg` and `exp_avg_sq` are updated from `grad`."""

    name = "adamw_update"
    moved_per_element = 7 * FLOAT  # read four arrays, write three
    sizes = ((1_000,), (100_000,), (1_000_000,), (25_000_000,))
    step, lr, beta1, beta2, eps, weight_decay = 10, 1e-3, 0.9, 0.999, 1e-8, 1e-2
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

    def check(self, answer: tuple[Any, Any, Any]) -> None:
        for name, got in zip(self.state, answer, strict=True):
            # A few float32 roundings; without its decay, a parameter would be off by 1e-5.
            check_close(name, got, self.after[name], tolerance=2e-6)


# By the title of their tables.
OPS: dict[str, type[Case]] = {
    "layer_norm_forward": LayerNormForward,
    "layer_norm_backward": LayerNormBackward,
    "rms_norm_forward": RmsNormForward,
    "rms_norm_backward": RmsNormBackward,
    "dropout p=0.1": Dropout,
    "dropout p=0.5": DropoutHalf,
    "drop_path p=0.1": DropPath,
    "dropout_add_layer_norm_forward p=0.1": DropoutAddLayerNormForward,
    "dropout_add_layer_norm_backward p=0.1": DropoutAddLayerNormBackward,
    "dropout_add_rms_norm_forward p=0.1": DropoutAddRmsNormForward,
    "dropout_add_rms_norm_backward p=0.1": DropoutAddRmsNormBackward,
    **run_ops_softmax_dropout.OPS,
    **run_ops_activation_dropout.OPS,
    "adamw_update": AdamWUpdate,
}
