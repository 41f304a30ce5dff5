"""Adam and AdamW, in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy.typing as npt

from pyreg import _check, _core, _model
from pyreg._model import Rounding
from pyreg._results import FloatArray


def adamw_update(
    param: FloatArray | Sequence[FloatArray],
    grad: npt.ArrayLike | Sequence[npt.ArrayLike],
    exp_avg: FloatArray | Sequence[FloatArray],
    exp_avg_sq: FloatArray | Sequence[FloatArray],
    *,
    step: SupportsIndex,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    max_exp_avg_sq: FloatArray | Sequence[FloatArray] | None = None,
    maximize: bool = False,
    bias_correction: bool = True,
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
    """Update parameters in place by AdamW: Adam with decoupled weight decay.

    With ``bc1 = 1 - beta1**step`` and ``bc2 = 1 - beta2**step`` [1]_::

        exp_avg    += (1 - beta1) * (grad - exp_avg)
        exp_avg_sq  = beta2 * exp_avg_sq + (1 - beta2) * grad * grad
        param      -= lr / bc1 * exp_avg / (sqrt(exp_avg_sq) / sqrt(bc2) + eps)
                      + lr * weight_decay * param

    Each array argument is an array, or a list or tuple with an array for each parameter of a model: one call updates
    all of them. Their dtypes may differ from parameter to parameter.

    Parameters
    ----------
    param : ndarray of float32, float64, float16 or bfloat16, or a list of them
        The parameter: **updated in place**. Aligned, writeable, in native byte order. In C order, Fortran's, or
        transposed in another way, but not a slice with gaps. Computed in float32, or in float64 if it is float64.
    grad : array_like of float32, float16 or bfloat16, param's shape, or a list of them
        The gradient, which is only read. float64 if `param` is float64. Any memory layout; copied once unless it is
        aligned, in native byte order, and laid out as `param` is.
    exp_avg, exp_avg_sq : ndarray of float32 or bfloat16, param's shape, or a list of them
        The first and second moments: **updated in place**. Zeros before the first step. float64 if `param` is
        float64. Aligned, writeable, and laid out as `param` is: ``np.zeros_like(param, np.float32)``.
    step : int
        The number of this update, starting at 1.
    lr : float, optional
        The learning rate, at least 0.
    betas : (float, float), optional
        The decay rates of the two moments, each in [0, 1).
    eps : float, optional
        Added to the square root of the second moment, at least 0. Where the sum is 0 (``eps=0``, and every gradient
        so far was 0), only the decay applies.
    weight_decay : float, optional
        The decoupled decay, at least 0. Each step subtracts ``lr * weight_decay * param`` from the
        parameter, whatever the gradient is.
    max_exp_avg_sq : ndarray, or a list of them, optional
        Like `exp_avg_sq`. If given, selects AMSGrad [2]_: it is **updated in place** to the largest
        `exp_avg_sq` so far, and the update uses it instead of `exp_avg_sq`.
    maximize : bool, optional
        Maximise the objective instead of minimising it.
    bias_correction : bool, optional
        If False, ``bc1`` and ``bc2`` are 1, whatever `step` is.
    grad_scale : float, optional
        What to multiply the gradient by, at least 0: to undo the scale of a loss, to clip (see `clip_coefficient`),
        or both. PyTorch's fused optimisers divide by their attribute of this name instead.
    skip_nonfinite : bool, optional
        If True, the gradients of this call are looked through first. If one, times `grad_scale`, is infinite or NaN,
        nothing changes. If False, such a gradient makes its parameter NaN for good.
    ema : ndarray of float32, float16 or bfloat16, param's shape, or a list of them, optional
        An average of the parameter over the steps: **updated in place** to ``ema_decay * ema + (1 - ema_decay) *
        param``, with the updated `param`. float64 if `param` is float64. Aligned, writeable, and laid out as `param`
        is: start with ``np.copy(param)``, in float32.
    ema_decay : float, optional
        The decay rate of `ema`, in [0, 1).
    param_out : ndarray of float32, float16 or bfloat16, param's shape, or a list of them, optional
        **Overwritten** with the updated `param`, rounded to this dtype: the copy of float32 parameters that a model
        computes with. float64 if `param` is float64. Aligned, writeable, and laid out as `param` is.
    rows : array_like of int, 1-D, or a list with one or None for each parameter, optional
        The rows to update, of a parameter such as an embedding: indices along its first axis, each at most once
        (`sum_duplicate_rows`). `grad` has these rows alone, in this order, so its shape is ``(len(rows),
        *param.shape[1:])``. Other rows, and their states, stay as they are: they do not decay either. `param` must be
        in C order.
    rounding : {"nearest", "stochastic"}, or a dict of them by argument name, optional
        How arrays of 16 bits are rounded where they are written: to the nearest neighbour; or to one of both by
        chance, so that the mean is right (Notes). A dict such as ``{"param": "stochastic"}`` chooses for `param`,
        `exp_avg`, `exp_avg_sq`, `ema` and `param_out`; others are rounded to nearest.
    key : int, optional
        The key of the random numbers, in [0, 2**64). Required for stochastic rounding. Take a new one at each step:
        ``fold_in(key, step)``.
    offset : int, optional
        The place in the random stream of the first element: the arrays of a list follow each other. `offset` plus the
        number of elements must be at most 2**64.

    Returns
    -------
    bool
        Whether the update was applied: True unless `skip_nonfinite` found a gradient that is not finite.

    Raises
    ------
    TypeError
        If an array has the wrong type or dtype, or an argument is not a number.
    ValueError
        If a shape or the length of a list does not match, an array cannot be updated in place, two arrays overlap
        (gradients may overlap each other, and those that are copied, anything), or a number is out of range. No array
        is modified then.

    See Also
    --------
    adam_update : Adam with coupled weight decay: an L2 term in the gradient.
    global_norm : The norm of all gradients together, to clip by.

    Notes
    -----
    Arrays of 16 bits are computed in float32 and rounded to nearest, ties to even, where they are written. `ema` and
    `param_out` are computed from `param` as it is stored; `max_exp_avg_sq`, from `exp_avg_sq` as it is stored.

    Stochastic rounding takes the upper neighbour with the probability that makes the expectation exact [3]_: what
    rounding to nearest loses at each step is there on average. A finite number never becomes infinite by it.
    `max_exp_avg_sq` is always rounded to nearest. An element's random numbers depend on `key` and on its place in C
    order alone, so neither threads nor memory layouts nor a cut into several calls change them.

    What a dtype cannot hold is lost. In float32 with ``beta2=0.999``, gradients below 8e-22 leave `exp_avg_sq` at 0.
    Those above 1.8e19 make it infinite in time, above 6e20 at once; then the parameter never moves again, except for
    the decay. A decay with ``lr * weight_decay`` below 3e-8, half a unit in the last place, does nothing where there
    is no other change. In bfloat16, changes by less than 0.2 to 0.4 % are lost: parameters of size 1 do not see steps
    of 1e-3, and `exp_avg_sq` never shrinks. Keep parameters, `exp_avg_sq` and `ema` in float32.

    References
    ----------
    .. [1] I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019,
       arXiv:1711.05101. The defaults and the position of eps follow PyTorch.
    .. [2] S. J. Reddi, S. Kale, S. Kumar, "On the Convergence of Adam and Beyond", ICLR 2018.
    .. [3] S. Gupta, A. Agrawal, K. Gopalakrishnan, P. Narayanan, "Deep Learning with Limited Numerical Precision",
       ICML 2015.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> param, grad = np.array([1.0, -2.0]), np.array([0.5, 0.5])
    >>> exp_avg, exp_avg_sq = np.zeros(2), np.zeros(2)
    >>> pyreg.adamw_update(param, grad, exp_avg, exp_avg_sq, step=1, lr=0.1, weight_decay=0.1)
    True
    >>> param
    array([ 0.89, -2.08])

    A model's parameters in one call:

    >>> params = [np.ones((2, 3), np.float32), np.ones(3, np.float32)]
    >>> grads = [np.full_like(p, 2) for p in params]
    >>> exp_avgs, exp_avg_sqs = ([np.zeros_like(p) for p in params] for _ in range(2))
    >>> pyreg.adamw_update(params, grads, exp_avgs, exp_avg_sqs, step=1, lr=0.25, weight_decay=0)
    True
    >>> params[1]
    array([0.75, 0.75, 0.75], dtype=float32)

    Two rows of an embedding:

    >>> param, exp_avg, exp_avg_sq = np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((4, 2))
    >>> pyreg.adamw_update(param, np.ones((2, 2)), exp_avg, exp_avg_sq, step=1, lr=0.25, rows=[3, 1])
    True
    >>> param[:, 0].round(6)
    array([ 0.  , -0.25,  0.  , -0.25])
    """
    applied: bool = _core.adamw_update(
        param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay, max_exp_avg_sq, maximize,
        bias_correction, grad_scale, skip_nonfinite, ema, ema_decay, param_out, rows, rounding, key, offset,
        arguments,
    )  # fmt: skip
    return applied


def adam_update(
    param: FloatArray | Sequence[FloatArray],
    grad: npt.ArrayLike | Sequence[npt.ArrayLike],
    exp_avg: FloatArray | Sequence[FloatArray],
    exp_avg_sq: FloatArray | Sequence[FloatArray],
    *,
    step: SupportsIndex,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    max_exp_avg_sq: FloatArray | Sequence[FloatArray] | None = None,
    maximize: bool = False,
    bias_correction: bool = True,
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
    """Update parameters in place by classic Adam, with coupled weight decay.

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
    max_exp_avg_sq, maximize, bias_correction, grad_scale, skip_nonfinite, ema, ema_decay, param_out
        As in `adamw_update`.
    rows, rounding, key, offset
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
    .. [1] D. P. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015,
       arXiv:1412.6980.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> param, grad = np.array([1.0, -2.0]), np.array([0.5, 0.5])
    >>> exp_avg, exp_avg_sq = np.zeros(2), np.zeros(2)
    >>> pyreg.adam_update(param, grad, exp_avg, exp_avg_sq, step=1, lr=0.1)
    True
    >>> param.round(6)
    array([ 0.9, -2.1])
    """
    applied: bool = _core.adam_update(
        param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay, max_exp_avg_sq, maximize,
        bias_correction, grad_scale, skip_nonfinite, ema, ema_decay, param_out, rows, rounding, key, offset,
        arguments,
    )  # fmt: skip
    return applied


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
    bias_correction: bool,
    *options: Any,
) -> tuple[Any, ...]:
    numbers = _check.step(step), _check.number("lr", lr), _check.betas(betas), _check.number("eps", eps)
    decay, maximise = _check.number("weight_decay", weight_decay), _check.flag("maximize", maximize)
    correction = _check.flag("bias_correction", bias_correction)
    given = step, lr, betas, eps, weight_decay, maximize, bias_correction
    converted = _check.any_new((*numbers, decay, maximise, correction), given)
    needed = {"param": param, "grad": grad, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    arrays, options = _model.arguments(needed, {"max_exp_avg_sq": max_exp_avg_sq}, converted, *options)
    *needed_arrays, max_exp_avg_sq = arrays
    return *needed_arrays, *numbers, decay, max_exp_avg_sq, maximise, correction, *options
