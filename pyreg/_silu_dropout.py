"""SiLU followed by dropout, in one pass, forward and backward."""

from __future__ import annotations

from typing import SupportsIndex

import numpy.typing as npt

from pyreg import _core
from pyreg._activation_dropout import backward_arguments, forward_arguments
from pyreg._results import ActivationDropoutBackward, FloatArray


def silu_dropout_forward(
    x: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    p: float = 0.0,
    key: SupportsIndex | None = None,
    offset: SupportsIndex = 0,
    training: bool = True,
    out: FloatArray | None = None,
) -> FloatArray:
    """Add a bias, apply SiLU and then dropout, in one pass.

    ``y = dropout(silu(x + bias), p, key=key, offset=offset)``, where ``silu(h) = h / (1 + exp(-h))`` [1]_. SiLU is
    also called swish.

    Parameters
    ----------
    x, bias, p, key, offset, training, out
        As in `gelu_dropout_forward`.

    Returns
    -------
    ndarray
        As in `gelu_dropout_forward`.

    Raises
    ------
    TypeError, ValueError
        As in `gelu_dropout_forward`.

    See Also
    --------
    silu_dropout_backward : The gradients.

    References
    ----------
    .. [1] S. Elfwing, E. Uchibe, K. Doya, "Sigmoid-Weighted Linear Units for Neural Network Function
       Approximation in Reinforcement Learning", Neural Networks 107, 2018, arXiv:1702.03118.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> pyreg.silu_dropout_forward(np.array([-1.0, 0.0, 1.0, 2.0])).round(3)
    array([-0.269,  0.   ,  0.731,  1.762])
    """
    y: FloatArray = _core.activation_dropout_forward(
        "silu", x, bias, p, key, offset, training, out, forward_arguments
    )
    return y


def silu_dropout_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    p: float = 0.0,
    key: SupportsIndex | None = None,
    offset: SupportsIndex = 0,
    out: FloatArray | None = None,
) -> ActivationDropoutBackward:
    """Return the gradients of `silu_dropout_forward`.

    ``dx = dropout(dy * silu'(x + bias), p, key=key, offset=offset)``, and `dbias` is the sum of dx over all axes
    but the last.

    Parameters
    ----------
    dy, x, bias, p, key, offset, out
        As in `gelu_dropout_backward`.

    Returns
    -------
    dx : ndarray
        Of x's dtype and shape; `out` if given.
    dbias : ndarray, or None if there is no bias
        Of bias's dtype and shape.

    Raises
    ------
    TypeError, ValueError
        As in `gelu_dropout_backward`.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> dx, dbias = pyreg.silu_dropout_backward(np.ones(4), np.array([0.0, 0.0, 0.0, 1.0]), p=0.5, key=1)
    >>> dx.round(3)
    array([0.   , 0.   , 1.   , 1.855])
    """
    result: ActivationDropoutBackward = _core.activation_dropout_backward(
        "silu", dy, x, bias, p, key, offset, out, backward_arguments
    )
    return result
