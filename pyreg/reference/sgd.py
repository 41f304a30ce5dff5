"""Stochastic gradient descent with momentum and coupled weight decay."""

from __future__ import annotations

from pyreg._results import FloatArray


def sgd_update(
    param: FloatArray,
    grad: FloatArray,
    momentum_buffer: FloatArray | None,
    step: int,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    scalar = param.dtype.type
    g = -grad if maximize else grad
    if weight_decay != 0:
        g = g + scalar(weight_decay) * param
    if momentum != 0 and momentum_buffer is not None:
        if step == 1:
            momentum_buffer[...] = g
        else:
            momentum_buffer[...] = scalar(momentum) * momentum_buffer + scalar(1 - dampening) * g
        g = g + scalar(momentum) * momentum_buffer if nesterov else momentum_buffer
    param[...] = param - scalar(lr) * g
