"""Stochastic gradient descent, in place."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy.typing as npt

from pyreg import _check, _core
from pyreg._results import FloatArray


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
    """Update a parameter in place by stochastic gradient descent, with coupled weight decay.

    With ``g = grad + weight_decay * param``, the gradient of the loss plus the penalty
    ``weight_decay / 2 * sum(param**2)`` (see `l2_penalty`) [1]_::

        momentum_buffer = momentum * momentum_buffer + (1 - dampening) * g    (at step 1: g)
        param -= lr * momentum_buffer           (Nesterov: lr * (g + momentum * momentum_buffer))

    Parameters
    ----------
    param : ndarray of float32 or float64
        The parameter: **updated in place**. C-contiguous, aligned, writeable.
    grad : array_like, param's dtype and shape
        The gradient. Any memory layout; copied once unless C-contiguous, aligned and in native byte order.
    momentum_buffer : ndarray, param's dtype and shape, optional
        **Updated in place**. Required if `momentum` is not 0, else left unchanged. Step 1 overwrites it,
        so its initial contents do not matter.
    step : int
        The number of this update, starting at 1.
    lr : float, optional
        The learning rate, at least 0.
    momentum, dampening : float, optional
        The momentum and its dampening, each at least 0.
    weight_decay : float, optional
        The coefficient of the L2 penalty, at least 0.
    nesterov : bool, optional
        Use Nesterov's momentum. Requires a momentum and no dampening.
    maximize : bool, optional
        Maximise the objective instead of minimising it.

    Raises
    ------
    TypeError
        If an array has the wrong type or dtype, or an argument is not a number.
    ValueError
        If a shape does not match, an array cannot be updated in place, two arrays overlap, or a
        number is out of range. No array is modified then.

    References
    ----------
    .. [1] I. Sutskever et al., "On the importance of initialization and momentum in deep learning",
       ICML 2013, in the form of PyTorch's ``torch.optim.SGD``.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> param, grad, momentum_buffer = np.array([1.0, -2.0]), np.array([0.5, 0.5]), np.zeros(2)
    >>> pyreg.sgd_update(param, grad, momentum_buffer, step=1, lr=0.1, momentum=0.9)
    >>> pyreg.sgd_update(param, grad, momentum_buffer, step=2, lr=0.1, momentum=0.9)
    >>> param
    array([ 0.855, -2.145])
    """
    _core.sgd_update(
        param, grad, momentum_buffer, step, lr, momentum, dampening, weight_decay, nesterov, maximize, arguments
    )


def arguments(
    param: Any,
    grad: Any,
    momentum_buffer: Any,
    step: Any,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> tuple[Any, ...]:
    grad = _check.updated({"param": param}, {"momentum_buffer": momentum_buffer}, grad)
    step, nesterov, maximize = _check.step(step), _check.flag("nesterov", nesterov), _check.flag("maximize", maximize)
    lr, momentum = _check.number("lr", lr), _check.number("momentum", momentum)
    dampening = _check.number("dampening", dampening)
    weight_decay = _check.number("weight_decay", weight_decay)
    if momentum != 0 and momentum_buffer is None:
        raise ValueError(f"momentum_buffer must be given if momentum is not 0, got None with momentum={momentum}")
    if nesterov and (momentum == 0 or dampening != 0):
        raise ValueError(
            "nesterov must be False unless momentum > 0 and dampening == 0, "
            f"got momentum={momentum} and dampening={dampening}"
        )
    return param, grad, momentum_buffer, step, lr, momentum, dampening, weight_decay, nesterov, maximize
