"""GELU followed by dropout, in one pass, forward and backward."""

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
    """Add a bias, apply GELU and then dropout, in one pass.

    ``y = dropout(gelu(x + bias), p, key=key, offset=offset)``, where ``gelu(h) = h * (1 + erf(h / sqrt(2))) / 2``
    [1]_: h times the probability that a standard normal variable is below h.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, shape ``(..., n)``
        The output of the sublayer's first linear map. Any memory layout; copied once unless C-contiguous, aligned
        and in native byte order.
    bias : array_like, shape ``(n,)``, optional
        Added to x: of x's dtype, or float32 if x has 16 bits. By default, nothing is added.
    p, key, offset
        As in `dropout`. With the default p of 0, nothing is dropped.
    training : bool, optional
        If False, nothing is dropped.
    approximate : {"none", "tanh"}, optional
        With "tanh", ``gelu(h) = h / 2 * (1 + tanh(sqrt(2 / pi) * (h + 0.044715 * h**3)))``, as in GPT-2. It takes
        less time and is off by up to 5e-4.
    out : ndarray, optional
        Array that receives the result, of x's dtype and shape, C-contiguous, aligned and writeable. It may be x
        itself, but must not partly overlap x, nor overlap `bias`. The backward pass needs the original x.

    Returns
    -------
    ndarray
        Of x's dtype and shape; `out` if given. A dropped element is +0.0, even where x is infinite or NaN.

    Raises
    ------
    TypeError
        If an array has a dtype other than those above; if `key` or `offset` is not an integer; if `approximate` is
        not a string.
    ValueError
        If `bias` does not have the shape of x's last axis, a number is out of range, `approximate` is any other
        string, or `out` cannot be written or overlaps an input.

    See Also
    --------
    gelu_dropout_backward : The gradients.
    relu_dropout_forward, silu_dropout_forward : Other activations.

    Notes
    -----
    Arrays of 16 bits are computed as in `layer_norm`. Only the result is rounded, not the activation before dropout.

    The exponential is pyreg's own and gives the same bits on every machine. GELU is computed from the tail of the
    normal distribution, and its approximation from the logistic function. Both keep their digits for negative h,
    where ``1 + erf`` and ``1 + tanh`` lose theirs.

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

    ``dx = dropout(dy * gelu'(x + bias), p, key=key, offset=offset)``, and `dbias` is the sum of dx over all axes
    but the last. The mask is regenerated, not stored.

    Parameters
    ----------
    dy : array_like, x's dtype and shape
        The gradient of the loss with respect to the result.
    x : array_like of float32, float64, float16 or bfloat16, shape ``(..., n)``
        The input of the forward pass.
    bias, p, key, offset, approximate
        As in the forward pass; p is 0 if `training` was False.
    out : ndarray, optional
        Array that receives dx, of x's dtype and shape, C-contiguous, aligned and writeable. It may be `dy` or `x`
        itself, but must not partly overlap them, nor overlap `bias`.

    Returns
    -------
    dx : ndarray
        Of x's dtype and shape; `out` if given.
    dbias : ndarray, or None if there is no bias
        Of bias's dtype and shape.

    Raises
    ------
    TypeError, ValueError
        As in `gelu_dropout_forward`, and if dy does not match x.

    Notes
    -----
    `dbias` is summed over blocks of 64 rows, then over the blocks in double precision, so it does not depend on
    the number of threads.

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
