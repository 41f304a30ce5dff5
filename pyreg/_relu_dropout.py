"""ReLU followed by dropout, in one pass, forward and backward."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy.typing as npt

from pyreg import _activation_dropout, _check, _core
from pyreg._activation_dropout import forward_arguments
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
    x: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    y: npt.ArrayLike | None = None,
    p: float = 0.0,
    key: SupportsIndex | None = None,
    offset: SupportsIndex = 0,
    out: FloatArray | None = None,
) -> ActivationDropoutBackward:
    """Return the gradients of `relu_dropout_forward`.

    ``dx = dropout(np.where(x + bias <= 0, 0, dy), p, key=key, offset=offset)``, and `dbias` is the sum of dx over all
    axes but the last. Where x is NaN, dy passes through, as in PyTorch.

    What the forward pass returned is positive where x + bias is positive and the element is kept. So with `y` in
    place of x, ``dx = np.where(y <= 0, 0, dy * scale)`` with dropout's ``scale = 1 / (1 - p)``. No mask is made, and
    the gradients have the same bits. (They may differ with a float32 bias beside an x of 16 bits: where a positive
    x + bias is too small for 16 bits, y is 0.)

    Parameters
    ----------
    dy : array_like, the dtype and shape of x or y
        The gradient of the loss with respect to the result.
    x : array_like of float32, float64, float16 or bfloat16, shape ``(..., n)``, optional
        The input of the forward pass. Either x or `y` must be given.
    bias : array_like, shape ``(n,)``, optional
        The bias of the forward pass, of x's dtype, or float32 if x has 16 bits. With `y`, it only decides whether
        dbias is returned: its values are not read.
    y : array_like, the dtype and shape of x, optional
        What the forward pass returned, in place of x.
    p, key, offset
        As in the forward pass; p is 0 if `training` was False. With `y`, the key and the offset have no influence,
        and no key is needed. The p is: without it, dx is not scaled, and no error is raised.
    out : ndarray, optional
        Array that receives dx, of x's dtype and shape, C-contiguous, aligned and writeable. It may be `dy`, `x` or
        `y` itself, but must not partly overlap them, nor overlap `bias`.

    Returns
    -------
    dx : ndarray
        Of x's (or y's) dtype and shape; `out` if given.
    dbias : ndarray, or None if there is no bias
        Of bias's dtype and shape.

    Raises
    ------
    TypeError, ValueError
        As in `gelu_dropout_backward`. TypeError if x and `y` are both given, or neither.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> dx, dbias = pyreg.relu_dropout_backward(np.ones(4), np.array([1.0, 1.0, -1.0, 1.0]), p=0.5, key=1)
    >>> dx
    array([0., 0., 0., 2.])
    >>> y = pyreg.relu_dropout_forward(np.array([1.0, 1.0, -1.0, 1.0]), p=0.5, key=1)
    >>> pyreg.relu_dropout_backward(np.ones(4), y=y, p=0.5).dx
    array([0., 0., 0., 2.])
    """
    result: ActivationDropoutBackward = _core.relu_dropout_backward(
        dy, x, bias, y, p, key, offset, out, backward_arguments
    )
    return result


def backward_arguments(
    dy: Any, x: Any, bias: Any, y: Any, p: float, key: Any, offset: Any, out: Any
) -> tuple[Any, ...]:
    _check.y_instead_of(y, {"x": x}, {})
    name, given = ("x", x) if y is None else ("y", y)
    _, dy, given, bias, *others = _activation_dropout.backward_arguments(
        "relu", dy, given, bias, p, key, offset, out, name
    )
    return (dy, given, bias, None, *others) if y is None else (dy, None, bias, given, *others)
