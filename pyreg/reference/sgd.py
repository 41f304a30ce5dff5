"""Stochastic gradient descent with momentum and coupled weight decay."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from pyreg._check import FloatArray
from pyreg._sgd import checked_gradient, checked_numbers


def sgd_update(
    param: FloatArray,
    grad: npt.ArrayLike,
    momentum_buffer: FloatArray | None = None,
    *,
    step: SupportsIndex,
    lr: float = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> None:
    """`pyreg.sgd_update`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> param = np.array([1.0])
    >>> pyreg.reference.sgd_update(param, np.array([0.5]), step=1, lr=0.1)
    >>> param
    array([0.95])
    """
    grad = checked_gradient(param, grad, momentum_buffer)
    step, lr, momentum, dampening, weight_decay, nesterov, maximize = checked_numbers(
        step, lr, momentum, dampening, weight_decay, nesterov, maximize, momentum_buffer
    )

    scalar = param.dtype.type
    with np.errstate(all="ignore"):
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
