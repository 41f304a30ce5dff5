"""ReLU followed by dropout, in one pass, forward and backward."""

from __future__ import annotations

from typing import SupportsIndex

import numpy.typing as npt

from pyreg import _core
from pyreg._activation_dropout import backward_arguments, forward_arguments
from pyreg._results import ActivationDropoutBackward, FloatArray


def relu_dropout_forward(
    x: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    p: float = 0.0,
    key: SupportsIndex | None = None,
    offset: SupportsIndex = 0,
    training: bool = True,
    out: FloatArray | None = None,
) -> FloatArray:
    """Add a bias, apply ReLU and then dropout, in one pass.

    ``y = dropout(max(x + bias, 0), p, key=key, offset=offset)``.

    Parameters
    ----------
    x, bias, p, key, offset, training, out
        As in `gelu_dropout_forward`.

    Returns
    -------
    ndarray
        As in `gelu_dropout_forward`. A NaN that is kept stays NaN.

    Raises
    ------
    TypeError, ValueError
        As in `gelu_dropout_forward`.

    See Also
    --------
    relu_dropout_backward : The gradients.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> pyreg.relu_dropout_forward(np.array([-1.0, 1.0, 2.0, 3.0]), p=0.5, key=1)
    array([0., 0., 4., 6.])
    """
    y: FloatArray = _core.activation_dropout_forward(
        "relu", x, bias, p, key, offset, training, out, forward_arguments
    )
    return y


def relu_dropout_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    p: float = 0.0,
    key: SupportsIndex | None = None,
    offset: SupportsIndex = 0,
    out: FloatArray | None = None,
) -> ActivationDropoutBackward:
    """Return the gradients of `relu_dropout_forward`.

    ``dx = dropout(np.where(x + bias <= 0, 0, dy), p, key=key, offset=offset)``, and `dbias` is the sum of dx over all
    axes but the last. Where x is NaN, dy passes through, as in PyTorch.

    Parameters
    ----------
    dy, x, bias, p, key, offset, out
        As in `gelu_dropout_backward`.

    Returns
    -------
    dx : ndarray
        Of x's dtype and shape; `out` if given.
    dbias : ndarray, or None if there is no bias
        Of x's dtype and shape ``(n,)``.

    Raises
    ------
    TypeError, ValueError
        As in `gelu_dropout_backward`.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> dx, dbias = pyreg.relu_dropout_backward(np.ones(4), np.array([1.0, 1.0, -1.0, 1.0]), p=0.5, key=1)
    >>> dx
    array([0., 0., 0., 2.])
    """
    result: ActivationDropoutBackward = _core.activation_dropout_backward(
        "relu", dy, x, bias, p, key, offset, out, backward_arguments
    )
    return result
