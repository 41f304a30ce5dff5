"""GELU and dropout behind it, in one pass, forward and backward."""

from __future__ import annotations

from typing import Literal, SupportsIndex

import numpy.typing as npt

from pyreg import _core
from pyreg._activation_dropout import backward_arguments, forward_arguments
from pyreg._results import ActivationDropoutBackward, FloatArray

Approximate = Literal["none", "tanh"]


def gelu_dropout_forward(
    x: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    p: float = 0.0,
    key: SupportsIndex | None = None,
    offset: SupportsIndex = 0,
    training: bool = True,
    approximate: Approximate = "none",
    out: FloatArray | None = None,
) -> FloatArray:
    """Add a bias, take GELU and then dropout, in one pass.

    ``y = dropout(gelu(x + bias), p, key=key, offset=offset)``, where ``gelu(h) = h * (1 + erf(h / sqrt(2))) / 2``
    [1]_: h times the probability that a standard normal number is below it.

    Parameters
    ----------
    x : array_like of float32 or float64, shape ``(..., n)``
        What the sublayer's first linear map made. In any memory layout; one that the kernels cannot read is
        copied once.
    bias : array_like, x's dtype, shape ``(n,)``, optional
        Added to x; nothing by default.
    p, key, offset
        As in `dropout`; without p, nothing is dropped.
    training : bool, optional
        Where False, nothing is dropped.
    approximate : {"none", "tanh"}, optional
        With "tanh", ``gelu(h) = h / 2 * (1 + tanh(sqrt(2 / pi) * (h + 0.044715 * h**3)))``, which is off by up to
        5e-4, and in less time: GPT-2's.
    out : ndarray, optional
        Where the result goes: of x's dtype and shape, C-contiguous, aligned, writeable. It may be x itself, and
        must not overlap x otherwise, nor `bias`. The backward pass needs x as it was.

    Returns
    -------
    ndarray
        Of x's dtype and shape; `out` where that is given. A dropped element is +0.0 also where x is infinite or
        NaN.

    Raises
    ------
    TypeError
        Where an array is not float32 or float64, or not of x's dtype; `key` or `offset` is not an integer;
        `approximate` is not a string.
    ValueError
        Where `bias` does not have the shape of x's last axis, a number is out of range, `approximate` is another
        string, or `out` cannot be written or overlaps.

    See Also
    --------
    gelu_dropout_backward : The gradients.
    relu_dropout_forward, silu_dropout_forward : Other activations.

    Notes
    -----
    The exponential is pyreg's own, with the same bits on every machine, and GELU is made of the normal
    distribution's tail, its approximation of the logistic function: it keeps its digits for negative h, where
    ``1 + erf`` and ``1 + tanh`` lose theirs.

    References
    ----------
    .. [1] D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units (GELUs)", 2016, arXiv:1606.08415.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x = np.array([-10.0, -1.0, 0.0, 1.0])
    >>> pyreg.gelu_dropout_forward(x)
    array([-7.61985302e-23, -1.58655254e-01,  0.00000000e+00,  8.41344746e-01])
    >>> pyreg.gelu_dropout_forward(x, p=0.5, key=1).round(3)
    array([0.   , 0.   , 0.   , 1.683])
    """
    y: FloatArray = _core.activation_dropout_forward(
        gelu_name(approximate), x, bias, p, key, offset, training, out, forward_arguments
    )
    return y


def gelu_dropout_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    p: float = 0.0,
    key: SupportsIndex | None = None,
    offset: SupportsIndex = 0,
    approximate: Approximate = "none",
    out: FloatArray | None = None,
) -> ActivationDropoutBackward:
    """Return the gradients of `gelu_dropout_forward`.

    ``dx = dropout(dy * gelu'(x + bias), p, key=key, offset=offset)``, and `dbias` is its sum over all axes but the
    last. The mask is made again: none has been stored.

    Parameters
    ----------
    dy : array_like, x's dtype and shape
        The gradient of the loss for the result.
    x : array_like of float32 or float64, shape ``(..., n)``
        The input of the forward pass.
    bias, p, key, offset, approximate
        Those of the forward pass; p is 0 where `training` was False.
    out : ndarray, optional
        Where dx goes: of x's dtype and shape, C-contiguous, aligned, writeable. It may be `dy` or `x` itself, and
        must not overlap them otherwise, nor `bias`.

    Returns
    -------
    dx : ndarray
        Of x's dtype and shape; `out` where that is given.
    dbias : ndarray, or None where there is no bias
        Of x's dtype and shape ``(n,)``.

    Raises
    ------
    TypeError, ValueError
        As in `gelu_dropout_forward`, and where dy does not match x.

    Notes
    -----
    `dbias` is summed over blocks of 64 rows, then over the blocks in double precision: the number of threads does
    not show in it.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> dy, x, bias = np.ones((2, 4)), np.zeros((2, 4)), np.zeros(4)
    >>> dx, dbias = pyreg.gelu_dropout_backward(dy, x, bias, p=0.5, key=1)
    >>> dx
    array([[0., 0., 1., 1.],
           [1., 0., 0., 1.]])
    >>> dbias
    array([1., 0., 1., 2.])
    """
    result: ActivationDropoutBackward = _core.activation_dropout_backward(
        gelu_name(approximate), dy, x, bias, p, key, offset, out, backward_arguments
    )
    return result


def gelu_name(approximate: str) -> str:
    """The name of the activation."""
    if not isinstance(approximate, str):
        raise TypeError(f'approximate must be "none" or "tanh", got {approximate!r}')
    if approximate not in ("none", "tanh"):
        raise ValueError(f'approximate must be "none" or "tanh", got {approximate!r}')
    return "gelu_tanh" if approximate == "tanh" else "gelu"
