"""Stochastic gradient descent with momentum and coupled weight decay."""

from __future__ import annotations

from typing import Any

from pyreg._dtypes import compute_dtype
from pyreg.reference.results import wide
from pyreg.reference.update import all_finite, each_parameter, scaled_gradient


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
    rows: Any,
    rounding: Any,
    key: int | None,
    offset: int,
) -> bool:
    if skip_nonfinite and not all_finite(grads, grad_scale):
        return False
    arrays = {
        "param": params,
        "grad": grads,
        "momentum_buffer": momentum_buffers,
        "ema": emas,
        "param_out": params_out,
    }
    for of, writer in each_parameter(arrays, rows, rounding, key, offset):
        scalar = compute_dtype(of["param"].dtype).type
        p = wide(of["param"])
        g = scaled_gradient(p, of["grad"], grad_scale, maximize, weight_decay)
        if momentum != 0:
            b = g if step == 1 else scalar(momentum) * wide(of["momentum_buffer"]) + scalar(1 - dampening) * g
            writer.write("momentum_buffer", b)
            g = g + scalar(momentum) * b if nesterov else b
        writer.write_param(p - scalar(lr) * g, ema_decay)
    return True
