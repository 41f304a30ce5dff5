"""Adam and AdamW, in place."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy.typing as npt

from pyreg import _check, _core
from pyreg._results import FloatArray


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
    """Update a parameter in place by AdamW: Adam with decoupled weight decay.

    With ``bc1 = 1 - beta1**step`` and ``bc2 = 1 - beta2**step`` [1]_::

        exp_avg    += (1 - beta1) * (grad - exp_avg)
        exp_avg_sq  = beta2 * exp_avg_sq + (1 - beta2) * grad * grad
        param      -= lr / bc1 * exp_avg / (sqrt(exp_avg_sq) / sqrt(bc2) + eps)
                      + lr * weight_decay * param

    Parameters
    ----------
    param : ndarray of float32 or float64
        The parameter: **updated in place**. C-contiguous, aligned, writeable.
    grad : array_like, param's dtype and shape
        The gradient. Any memory layout; copied once unless C-contiguous, aligned and in native byte order.
    exp_avg, exp_avg_sq : ndarray, param's dtype and shape
        The first and second moments: **updated in place**. Zeros before the first step. C-contiguous,
        aligned, writeable.
    step : int
        The number of this update, starting at 1.
    lr : float, optional
        The learning rate, at least 0.
    betas : (float, float), optional
        The decay rates of the two moments, each in [0, 1).
    eps : float, optional
        Added to the square root of the second moment, at least 0.
    weight_decay : float, optional
        The decoupled decay, at least 0. Each step subtracts ``lr * weight_decay * param`` from the
        parameter, whatever the gradient is.
    max_exp_avg_sq : ndarray, optional
        Like `exp_avg_sq`. If given, selects AMSGrad [2]_: it is **updated in place** to the largest
        `exp_avg_sq` so far, and the update uses it instead of `exp_avg_sq`.
    maximize : bool, optional
        Maximise the objective instead of minimising it.

    Raises
    ------
    TypeError
        If an array has the wrong type or dtype, or an argument is not a number.
    ValueError
        If a shape does not match, an array cannot be updated in place, two arrays overlap, or a
        number is out of range. No array is modified then.

    See Also
    --------
    adam_update : Adam with coupled weight decay: an L2 term in the gradient.

    References
    ----------
    .. [1] I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019,
       arXiv:1711.05101. The defaults and the position of eps follow PyTorch.
    .. [2] S. J. Reddi, S. Kale, S. Kumar, "On the Convergence of Adam and Beyond", ICLR 2018.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> param, grad = np.array([1.0, -2.0]), np.array([0.5, 0.5])
    >>> exp_avg, exp_avg_sq = np.zeros(2), np.zeros(2)
    >>> pyreg.adamw_update(param, grad, exp_avg, exp_avg_sq, step=1, lr=0.1, weight_decay=0.1)
    >>> param
    array([ 0.89, -2.08])
    """
    _core.adamw_update(
        param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay, max_exp_avg_sq, maximize, arguments
    )


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
    """Update a parameter in place by classic Adam, with coupled weight decay.

    The decay is the gradient of the penalty ``weight_decay / 2 * sum(param**2)``. It is added to the
    gradient: the update is that of `adamw_update` without decay, with ``grad + weight_decay * param`` in
    place of ``grad`` [1]_.

    Parameters
    ----------
    param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps
        As in `adamw_update`.
    weight_decay : float, optional
        The coefficient of the L2 penalty, at least 0. Adam divides the decay, as part of the gradient,
        by the gradient's size, so weights with large gradients decay less.
    max_exp_avg_sq, maximize
        As in `adamw_update`.

    Raises
    ------
    TypeError, ValueError
        As in `adamw_update`.

    References
    ----------
    .. [1] D. P. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015,
       arXiv:1412.6980.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> param, grad = np.array([1.0, -2.0]), np.array([0.5, 0.5])
    >>> exp_avg, exp_avg_sq = np.zeros(2), np.zeros(2)
    >>> pyreg.adam_update(param, grad, exp_avg, exp_avg_sq, step=1, lr=0.1)
    >>> param.round(6)
    array([ 0.9, -2.1])
    """
    _core.adam_update(
        param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay, max_exp_avg_sq, maximize, arguments
    )


def arguments(
    param: Any,
    grad: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    step: Any,
    lr: float,
    betas: Any,
    eps: float,
    weight_decay: float,
    max_exp_avg_sq: Any,
    maximize: bool,
) -> tuple[Any, ...]:
    written = {"param": param, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    grad = _check.updated(written, {"max_exp_avg_sq": max_exp_avg_sq}, grad)
    numbers = _check.step(step), _check.number("lr", lr), _check.betas(betas), _check.number("eps", eps)
    weight_decay, maximize = _check.number("weight_decay", weight_decay), _check.flag("maximize", maximize)
    return param, grad, exp_avg, exp_avg_sq, *numbers, weight_decay, max_exp_avg_sq, maximize
