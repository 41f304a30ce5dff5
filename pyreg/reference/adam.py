"""Adam with coupled or decoupled weight decay."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pyreg._dtypes import compute_dtype
from pyreg.reference.results import wide
from pyreg.reference.update import all_finite, each_parameter, lerp, scaled_gradient


def power(base: float, exponent: int) -> float:
    """base**exponent by repeated squaring. It only multiplies, so it is the same on every machine."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        exponent >>= 1
        base *= base
    return result


def adamw_update(*arguments: Any) -> bool:
    return update(True, *arguments)


def adam_update(*arguments: Any) -> bool:
    return update(False, *arguments)


def update(
    decoupled: bool,
    params: Any,
    grads: Any,
    exp_avgs: Any,
    exp_avg_sqs: Any,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    max_exp_avg_sqs: Any,
    maximize: bool,
    bias_correction: bool,
    grad_scale: float,
    skip_nonfinite: bool,
    emas: Any,
    ema_decay: float,
    params_out: Any,
    rows: Any,
    rounding: Any,
    key: int | None,
    offset: int,
) -> bool:
    if skip_nonfinite and not all_finite(grads, grad_scale):
        return False
    beta1, beta2 = betas
    bias_correction1 = 1 - power(beta1, step) if bias_correction else 1.0
    sqrt_bias_correction2 = math.sqrt(1 - power(beta2, step)) if bias_correction else 1.0
    arrays = {"param": params, "grad": grads, "exp_avg": exp_avgs, "exp_avg_sq": exp_avg_sqs}
    arrays |= {"max_exp_avg_sq": max_exp_avg_sqs, "ema": emas, "param_out": params_out}
    for of, writer in each_parameter(arrays, rows, rounding, key, offset):
        # Scalars are computed in double, then rounded to the compute dtype once.
        scalar = compute_dtype(of["param"].dtype).type
        step_size = scalar(lr / bias_correction1 * sqrt_bias_correction2)
        eps_hat = scalar(eps * sqrt_bias_correction2)
        if eps_hat == 0 and eps != 0:
            eps_hat = np.finfo(scalar).smallest_subnormal
        p = wide(of["param"])
        g = scaled_gradient(p, of["grad"], grad_scale, maximize, 0.0 if decoupled else weight_decay)
        m = lerp(wide(of["exp_avg"]), g, beta1)
        v = scalar(beta2) * wide(of["exp_avg_sq"]) + scalar(1 - beta2) * g * g
        writer.write("exp_avg", m)
        stored = writer.write("exp_avg_sq", v)
        if of["max_exp_avg_sq"] is not None:
            old = wide(of["max_exp_avg_sq"])
            v = np.where((old >= stored) | np.isnan(old), old, stored)  # the larger, or NaN if either is NaN
            writer.write("max_exp_avg_sq", v)
        # m / (sqrt(v) / c + eps) = c * m / (sqrt(v) + c * eps), with c = sqrt_bias_correction2
        denominator = np.sqrt(v) + eps_hat
        change = np.where(denominator == 0, scalar(0), step_size * m / denominator)
        if weight_decay != 0 and decoupled:
            change = change + scalar(lr * weight_decay) * p
        writer.write_param(p - change, ema_decay)
    return True
