"""Stochastic gradient descent with momentum and coupled weight decay."""

from __future__ import annotations

from typing import Any

from pyreg._dtypes import compute_dtype
from pyreg.reference.results import wide
from pyreg.reference.update import all_finite, scaled_gradient, store, tensors


def sgd_update(
    params: Any,
    grads: Any,
    momentum_buffers: Any,
    step: int,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    grad_scale: float,
    skip_nonfinite: bool,
    emas: Any,
    ema_decay: float,
    params_out: Any,
) -> bool:
    if skip_nonfinite and not all_finite(grads, grad_scale):
        return False
    arrays = params, grads, momentum_buffers, emas, params_out
    for param, grad, momentum_buffer, ema, param_out in tensors(*arrays):
        scalar = compute_dtype(param.dtype).type
        p = wide(param)
        g = scaled_gradient(p, grad, grad_scale, maximize, weight_decay)
        if momentum != 0:
            b = g if step == 1 else scalar(momentum) * wide(momentum_buffer) + scalar(1 - dampening) * g
            momentum_buffer[...] = b
            g = g + scalar(momentum) * b if nesterov else b
        store(p - scalar(lr) * g, param, ema, ema_decay, param_out)
    return True
