"""Adam with coupled or decoupled weight decay."""

from __future__ import annotations

import math
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from pyreg._adam import checked_gradient, checked_numbers
from pyreg._check import FloatArray


def power(base: float, exponent: int) -> float:
    """base**exponent by repeated squaring: multiplications alone, the same on every machine."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        exponent >>= 1
        base *= base
    return result


def adamw_update(
    param: FloatArray,
    grad: npt.ArrayLike,
    exp_avg: FloatArray,
    exp_avg_sq: FloatArray,
    *,
    step: SupportsIndex,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    max_exp_avg_sq: FloatArray | None = None,
    maximize: bool = False,
) -> None:
    """`pyreg.adamw_update`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> param, exp_avg, exp_avg_sq = np.array([1.0]), np.zeros(1), np.zeros(1)
    >>> pyreg.reference.adamw_update(param, np.array([0.5]), exp_avg, exp_avg_sq, step=1, lr=0.1)
    >>> param.round(6)
    array([0.899])
    """
    _update(
        param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay, max_exp_avg_sq,
        maximize, decoupled=True,
    )  # fmt: skip


def adam_update(
    param: FloatArray,
    grad: npt.ArrayLike,
    exp_avg: FloatArray,
    exp_avg_sq: FloatArray,
    *,
    step: SupportsIndex,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    max_exp_avg_sq: FloatArray | None = None,
    maximize: bool = False,
) -> None:
    """`pyreg.adam_update`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> param, exp_avg, exp_avg_sq = np.array([1.0]), np.zeros(1), np.zeros(1)
    >>> pyreg.reference.adam_update(param, np.array([0.5]), exp_avg, exp_avg_sq, step=1, lr=0.1)
    >>> param.round(6)
    array([0.9])
    """
    _update(
        param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay, max_exp_avg_sq,
        maximize, decoupled=False,
    )  # fmt: skip


def _update(
    param: FloatArray,
    grad: npt.ArrayLike,
    exp_avg: FloatArray,
    exp_avg_sq: FloatArray,
    step: SupportsIndex,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    max_exp_avg_sq: FloatArray | None,
    maximize: bool,
    decoupled: bool,
) -> None:
    grad = checked_gradient(param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq)
    step, lr, beta1, beta2, eps, weight_decay, maximize = checked_numbers(
        step, lr, betas, eps, weight_decay, maximize
    )

    # Scalars in double, then rounded to the dtype once.
    scalar = param.dtype.type
    with np.errstate(all="ignore"):
        sqrt_bias_correction2 = math.sqrt(1 - power(beta2, step))
        step_size = scalar(lr / (1 - power(beta1, step)) * sqrt_bias_correction2)
        eps_hat = scalar(eps * sqrt_bias_correction2)
        if eps_hat == 0 and eps != 0:
            eps_hat = np.finfo(scalar).smallest_subnormal
        g = -grad if maximize else grad
        if weight_decay != 0 and not decoupled:
            g = g + scalar(weight_decay) * param
        # The form of lerp that starts at the nearer end: with beta1 = 0, m is g to the last bit.
        from_m = exp_avg + scalar(1 - beta1) * (g - exp_avg)
        from_g = g - scalar(beta1) * (g - exp_avg)
        m = from_m if scalar(beta1) >= 0.5 else from_g
        v = scalar(beta2) * exp_avg_sq + scalar(1 - beta2) * g * g
        exp_avg[...], exp_avg_sq[...] = m, v
        if max_exp_avg_sq is not None:
            old = max_exp_avg_sq
            v = np.where((old >= v) | np.isnan(old), old, v)  # the larger; a NaN wins
            max_exp_avg_sq[...] = v
        # m / (sqrt(v) / c + eps) = c * m / (sqrt(v) + c * eps), with c = sqrt_bias_correction2
        update = step_size * m / (np.sqrt(v) + eps_hat)
        if weight_decay != 0 and decoupled:
            update = update + scalar(lr * weight_decay) * param
        param[...] = param - update
