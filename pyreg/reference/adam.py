"""Adam with coupled or decoupled weight decay."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pyreg._results import FloatArray


def power(base: float, exponent: int) -> float:
    """base**exponent by repeated squaring. It only multiplies, so it is the same on every machine."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        exponent >>= 1
        base *= base
    return result


def adamw_update(*arguments: Any) -> None:
    update(True, *arguments)


def adam_update(*arguments: Any) -> None:
    update(False, *arguments)


def update(
    decoupled: bool,
    param: FloatArray,
    grad: FloatArray,
    exp_avg: FloatArray,
    exp_avg_sq: FloatArray,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    max_exp_avg_sq: FloatArray | None,
    maximize: bool,
) -> None:
    # Scalars are computed in double, then rounded to the dtype once.
    scalar, (beta1, beta2) = param.dtype.type, betas
    sqrt_bias_correction2 = math.sqrt(1 - power(beta2, step))
    step_size = scalar(lr / (1 - power(beta1, step)) * sqrt_bias_correction2)
    eps_hat = scalar(eps * sqrt_bias_correction2)
    if eps_hat == 0 and eps != 0:
        eps_hat = np.finfo(scalar).smallest_subnormal
    g = -grad if maximize else grad
    if weight_decay != 0 and not decoupled:
        g = g + scalar(weight_decay) * param
    # Interpolate from the nearer end: with beta1 = 0, m is exactly g.
    from_m = exp_avg + scalar(1 - beta1) * (g - exp_avg)
    from_g = g - scalar(beta1) * (g - exp_avg)
    m = from_m if scalar(beta1) >= 0.5 else from_g
    v = scalar(beta2) * exp_avg_sq + scalar(1 - beta2) * g * g
    exp_avg[...], exp_avg_sq[...] = m, v
    if max_exp_avg_sq is not None:
        old = max_exp_avg_sq
        v = np.where((old >= v) | np.isnan(old), old, v)  # the larger, or NaN if either is NaN
        max_exp_avg_sq[...] = v
    # m / (sqrt(v) / c + eps) = c * m / (sqrt(v) + c * eps), with c = sqrt_bias_correction2
    change = step_size * m / (np.sqrt(v) + eps_hat)
    if weight_decay != 0 and decoupled:
        change = change + scalar(lr * weight_decay) * param
    param[...] = param - change
