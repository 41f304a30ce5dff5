"""Learning rates as functions of the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import SupportsIndex

from pyreg import _check

# The Taylor series of sin(pi x) / x in x**2, from the highest power on: pi**(2k + 1) / (2k + 1)!, with signs. On
# [-1/2, 1/2] the first term left out is below 1e-17.
_SINE = (
    5.392664662608129e-10,
    -2.2948428997269873e-08,
    7.952054001475513e-07,
    -2.1915353447830217e-05,
    0.00046630280576761255,
    -0.0073704309457143504,
    0.08214588661112823,
    -0.5992645293207921,
    2.5501640398773455,
    -5.16771278004997,
    3.141592653589793,
)


def warmup_cosine(
    step: SupportsIndex, lr: float, *, warmup: SupportsIndex, total: SupportsIndex, final: float = 0.0
) -> float:
    """Return the learning rate at a step: a linear rise, then half a cosine down.

    Up to step `warmup` it is ``lr * step / warmup``. From there to step `total` it falls along half a cosine to
    `final`, and stays there [1]_. The cosine uses only additions and multiplications, so a run has the same rates on
    every machine.

    Parameters
    ----------
    step : int
        The number of the update, at least 0. Updates count from 1.
    lr : float
        The largest learning rate, that of step `warmup`, at least 0.
    warmup : int
        How many steps the rise takes, at least 0.
    total : int
        The step at which `final` is reached, above `warmup`.
    final : float, optional
        The last learning rate, at least 0.

    Returns
    -------
    float
        The learning rate.

    Raises
    ------
    TypeError
        If an argument is not a number.
    ValueError
        If a number is out of range.

    See Also
    --------
    warmup_linear : The same with a line in place of the cosine.

    References
    ----------
    .. [1] I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017: one period,
       without restarts.

    Examples
    --------
    >>> import pyreg
    >>> [pyreg.warmup_cosine(step, 0.1, warmup=2, total=6) for step in (0, 1, 2, 4, 6, 7)]
    [0.0, 0.05, 0.1, 0.05, 0.0, 0.0]
    """
    return _after_warmup(step, lr, warmup, total, final, lambda rest: (1 + _sine_of_pi_times(rest - 0.5)) / 2)


def warmup_linear(
    step: SupportsIndex, lr: float, *, warmup: SupportsIndex, total: SupportsIndex, final: float = 0.0
) -> float:
    """Return the learning rate at a step: a linear rise, then a linear fall.

    Up to step `warmup` it is ``lr * step / warmup``. From there to step `total` it falls along a line to `final`, and
    stays there.

    Parameters
    ----------
    step, lr, warmup, total, final
        As in `warmup_cosine`.

    Returns
    -------
    float
        The learning rate.

    Raises
    ------
    TypeError, ValueError
        As in `warmup_cosine`.

    References
    ----------
    J. Devlin, M.-W. Chang, K. Lee, K. Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding", NAACL 2019, appendix A.2.

    Examples
    --------
    >>> import pyreg
    >>> [pyreg.warmup_linear(step, 0.1, warmup=2, total=6) for step in (0, 1, 2, 4, 6, 7)]
    [0.0, 0.05, 0.1, 0.05, 0.0, 0.0]
    """
    return _after_warmup(step, lr, warmup, total, final, lambda rest: rest)


def _after_warmup(
    step: SupportsIndex,
    lr: float,
    warmup: SupportsIndex,
    total: SupportsIndex,
    final: float,
    share: Callable[[float], float],
) -> float:
    """share: of the way from `final` to `lr`, at the share of the fall that is left."""
    most = 2**53  # every integer up to here is a float
    step = _check.integer("step", step, low=0, high=2**63 - 1)
    warmup = _check.integer("warmup", warmup, low=0, high=most - 1)
    total = _check.integer("total", total, low=warmup + 1, high=most)
    lr, final = _check.number("lr", lr), _check.number("final", final)
    if step < warmup:
        return lr * (step / warmup)
    if step in (warmup, total) or step > total:
        return lr if step == warmup else final
    return final + (lr - final) * share((total - step) / (total - warmup))


def _sine_of_pi_times(x: float) -> float:
    """sin(pi x) for x in [-1/2, 1/2]."""
    square, total = x * x, 0.0
    for coefficient in _SINE:
        total = total * square + coefficient
    return x * total
