"""Stochastic gradient descent, in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy.typing as npt

from pyreg import _check, _core, _model
from pyreg._model import Rounding
from pyreg._results import FloatArray


def sgd_update(
    param: FloatArray | Sequence[FloatArray],
    grad: npt.ArrayLike | Sequence[npt.ArrayLike],
    momentum_buffer: FloatArray | Sequence[FloatArray] | None = None,
    *,
    step: SupportsIndex,
    lr: float = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
    skip_nonfinite: bool = False,
    ema: FloatArray | Sequence[FloatArray] | None = None,
    ema_decay: float = 0.999,
    param_out: FloatArray | Sequence[FloatArray] | None = None,
    rows: npt.ArrayLike | Sequence[npt.ArrayLike | None] | None = None,
    rounding: Rounding = "nearest",
    key: SupportsIndex | None = None,
    offset: SupportsIndex = 0,
) -> bool:
    """Update a parameter in place by stochastic gradient descent, with coupled weight decay.

    With ``g = grad + weight_decay * param``, the gradient of the loss plus the penalty
    ``weight_decay / 2 * sum(param**2)`` (see `l2_penalty`) [1]_::

        momentum_buffer = momentum * momentum_buffer + (1 - dampening) * g    (at step 1: g)
        param -= lr * momentum_buffer           (Nesterov: lr * (g + momentum * momentum_buffer))

    Parameters
    ----------
    param, grad
        As in `adamw_update`: an array each, or a list or tuple with an array for each parameter of a model.
    momentum_buffer : ndarray of float32 or bfloat16, param's shape, or a list of them, optional
        **Updated in place**. Required if `momentum` is not 0, else left unchanged. Step 1 overwrites it,
        so its initial contents do not matter. float64 if `param` is float64. Aligned, writeable, and laid out as
        `param` is, as ``np.zeros_like`` makes it.
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
    grad_scale, skip_nonfinite, ema, ema_decay, param_out, rows, rounding, key, offset
        As in `adamw_update`.

    Returns
    -------
    bool
        Whether the update was applied: True unless `skip_nonfinite` found a gradient that is not finite.

    Raises
    ------
    TypeError, ValueError
        As in `adamw_update`.

    References
    ----------
    .. [1] I. Sutskever et al., "On the importance of initialization and momentum in deep learning",
       ICML 2013, in the form of PyTorch's ``torch.optim.SGD``.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> param, grad, momentum_buffer = np.array([1.0, -2.0]), np.array([0.5, 0.5]), np.zeros(2)
    >>> pyreg.sgd_update(param, grad, momentum_buffer, step=1, lr=0.1, momentum=0.9)
    True
    >>> pyreg.sgd_update(param, grad, momentum_buffer, step=2, lr=0.1, momentum=0.9)
    True
    >>> param
    array([ 0.855, -2.145])
    """
    applied: bool = _core.sgd_update(
        param, grad, momentum_buffer, step, lr, momentum, dampening, weight_decay, nesterov, maximize,
        grad_scale, skip_nonfinite, ema, ema_decay, param_out, rows, rounding, key, offset, arguments,
    )  # fmt: skip
    return applied


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
    *options: Any,
) -> tuple[Any, ...]:
    given = step, lr, momentum, dampening, weight_decay, nesterov, maximize
    step, lr, momentum = _check.step(step), _check.number("lr", lr), _check.number("momentum", momentum)
    dampening, weight_decay = _check.number("dampening", dampening), _check.number("weight_decay", weight_decay)
    nesterov, maximize = _check.flag("nesterov", nesterov), _check.flag("maximize", maximize)
    numbers = step, lr, momentum, dampening, weight_decay, nesterov, maximize
    if momentum != 0 and momentum_buffer is None:
        raise ValueError(f"momentum_buffer must be given if momentum is not 0, got None with momentum={momentum}")
    _check.nesterov(nesterov, momentum, dampening)
    arrays, options = _model.arguments(
        {"param": param, "grad": grad}, {"momentum_buffer": momentum_buffer}, _check.any_new(numbers, given), *options
    )
    return *arrays, *numbers, *options
