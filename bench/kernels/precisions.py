"""The precisions in which AdamW is measured, and AdamW in float64, which they are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import pyreg
from pyreg._cases import sixteen_bit_dtypes

from .case import Array

KEY = 0x5EED  # of stochastic rounding


@dataclass(frozen=True)
class Precision:
    """The dtypes of a model's arrays, and how they are rounded.

    `out`: of the copy of the parameters that the step writes.
    """

    name: str
    param: Any
    grad: Any
    state: Any
    out: Any = None
    rounding: str = "nearest"

    def rounding_of(self, step: int) -> dict[str, Any]:
        """Return the arguments that make a step round like this."""
        return {} if self.rounding == "nearest" else {"rounding": self.rounding, "key": pyreg.fold_in(KEY, step)}

    def bytes_held(self) -> int:
        """Return the bytes of all arrays, per parameter."""
        return sum(np.dtype(t).itemsize for t in (self.param, self.grad, self.state, self.state, self.out) if t)

    def bytes_moved(self, clipped: bool) -> int:
        """Return what a step must read and write, per parameter. Clipping reads the gradients once more."""
        written = np.dtype(self.param).itemsize + 2 * np.dtype(self.state).itemsize
        return self.bytes_held() + written + clipped * np.dtype(self.grad).itemsize


FLOAT32 = Precision("float32", *[np.float32] * 3)
PRECISIONS = [FLOAT32]
for bfloat16 in sixteen_bit_dtypes()[1:]:  # if ml_dtypes is installed
    PRECISIONS.append(Precision("master", np.float32, bfloat16, np.float32, bfloat16))
    PRECISIONS.append(Precision("bfloat16", *[bfloat16] * 3))
    PRECISIONS.append(Precision("stochastic", *[bfloat16] * 3, rounding="stochastic"))


def adamw_in_float64(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float,
) -> tuple[Array, Array, Array]:
    """Return the parameters and moments after a step of AdamW (Loshchilov & Hutter, 2019, algorithm 2)."""
    param, grad, exp_avg, exp_avg_sq = (a.astype(np.float64) for a in (param, grad, exp_avg, exp_avg_sq))
    beta1, beta2 = betas
    exp_avg = beta1 * exp_avg + (1 - beta1) * grad
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * grad**2
    mean, mean_sq = exp_avg / (1 - beta1**step), exp_avg_sq / (1 - beta2**step)
    return param - lr * (mean / (np.sqrt(mean_sq) + eps) + weight_decay * param), exp_avg, exp_avg_sq
