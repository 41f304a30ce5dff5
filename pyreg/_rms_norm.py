"""RMSNorm, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy.typing as npt

from pyreg import _check, _core
from pyreg._check import Shape
from pyreg._layer_norm import normalized_arrays
from pyreg._results import FloatArray, RmsNormBackward, RmsNormForward


def rms_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
    eps: float = 1e-5,
    out: FloatArray | None = None,
) -> FloatArray:
    """Divide each row of x, the elements along its last axes, by its root mean square.

    ``y = x / sqrt(mean(x**2) + eps) * weight``, with the mean of each row over the axes of
    `normalized_shape` [1]_. This is `layer_norm` without subtracting the mean and without a bias.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, shape ``(..., *normalized_shape)``
        Any memory layout; copied once unless C-contiguous, aligned and in native byte order.
    weight : array_like, shape `normalized_shape`, optional
        Scale of each normalised element: of x's dtype, or float32 if x has 16 bits.
    normalized_shape : int or sequence of int, optional
        The trailing shape that is normalised. Defaults to ``weight.shape``, else the last axis.
    eps : float, optional
        Added to the mean square, in the units of x squared. Finite, at least 0. PyTorch's default
        differs: it is the dtype's machine epsilon.
    out : ndarray, optional
        Array that receives the result, of x's dtype and shape, C-contiguous, aligned and writeable. It
        may be x itself, but must not partly overlap x, nor overlap `weight`.

    Returns
    -------
    ndarray
        The result, of x's dtype and shape; `out` if given.

    Raises
    ------
    TypeError
        If an array has a dtype other than those above.
    ValueError
        If a shape does not match, `eps` is negative or not finite, or `out` cannot be written.

    See Also
    --------
    rms_norm_forward : Also returns the statistic that the backward pass needs.

    Notes
    -----
    Arrays of 16 bits are computed as in `layer_norm`.

    If the squares of a row would overflow or underflow, a power of two first brings the row near 1, so all
    magnitudes that the dtype can hold are normalised. A row of zeros gives zeros, even with ``eps=0``. A row
    with a NaN is NaN throughout. A row with an infinity is NaN at the infinity and 0 elsewhere.

    References
    ----------
    .. [1] B. Zhang, R. Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019, arXiv:1910.07467.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> pyreg.rms_norm(np.array([[1.0, 2.0, 2.0], [-10.0, 20.0, 20.0]])).round(3)
    array([[ 0.577,  1.155,  1.155],
           [-0.577,  1.155,  1.155]])
    """
    y: FloatArray = _core.rms_norm(x, weight, normalized_shape, eps, out, forward_arguments)
    return y


def rms_norm_forward(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
    eps: float = 1e-5,
    out: FloatArray | None = None,
) -> RmsNormForward:
    """Apply `rms_norm`, and return the statistic that its backward pass needs.

    Parameters
    ----------
    x, weight, normalized_shape, eps, out
        As in `rms_norm`. The backward pass needs the original x: in training, `out` should not be x.

    Returns
    -------
    y : ndarray
        The result, of x's dtype and shape; `out` if given.
    rstd : ndarray of float32, or of float64 if x is
        ``1 / sqrt(mean(x**2) + eps)`` of each row, of x's leading shape: without the normalised axes.

    Raises
    ------
    TypeError, ValueError
        As in `rms_norm`.

    See Also
    --------
    rms_norm_backward : The gradients.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> y, rstd = pyreg.rms_norm_forward(np.array([[1.0, 2.0, 2.0], [-10.0, 20.0, 20.0]]))
    >>> rstd.round(4)
    array([0.5773, 0.0577])
    """
    result: RmsNormForward = _core.rms_norm_forward(x, weight, normalized_shape, eps, out, forward_arguments)
    return result


def rms_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    out: FloatArray | None = None,
) -> RmsNormBackward:
    """Return the gradients of `rms_norm` with respect to x and weight.

    With ``xhat = x * rstd``, ``g = dy * weight`` and the mean over the normalised axes,
    ``dx = (g - xhat * mean(g * xhat)) * rstd``. ``dweight`` is the sum of ``dy * xhat`` over the rows.

    Parameters
    ----------
    dy : array_like, x's dtype and shape
        The gradient of the loss with respect to the result.
    x : array_like of float32, float64, float16 or bfloat16, shape ``(..., *normalized_shape)``
        The input of the forward pass.
    rstd : array_like, shape of x without the normalised axes
        As `rms_norm_forward` returned it.
    weight : array_like, the normalised shape, optional
        The weight of the forward pass: of x's dtype, or float32 if x has 16 bits.
    out : ndarray, optional
        Array that receives dx, of x's dtype and shape, C-contiguous, aligned and writeable. It may be
        `dy` or `x` itself, but must not partly overlap them, nor overlap the other arrays.

    Returns
    -------
    dx : ndarray
        Of x's dtype and shape; `out` if given.
    dweight : ndarray, or None if there is no weight
        Of weight's dtype and shape.

    Raises
    ------
    TypeError
        If an array has a dtype other than those above.
    ValueError
        If a shape does not match or `out` cannot be written.

    Notes
    -----
    `dweight` is summed over blocks of 64 rows, then over the blocks in double precision, so it does not
    depend on the number of threads.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x, weight = np.array([[1.0, 2.0, 2.0]]), np.ones(3)
    >>> y, rstd = pyreg.rms_norm_forward(x, weight)
    >>> dx, dweight = pyreg.rms_norm_backward(np.array([[1.0, 0.0, 0.0]]), x, rstd, weight)
    >>> dx.round(3)
    array([[ 0.513, -0.128, -0.128]])
    """
    result: RmsNormBackward = _core.rms_norm_backward(dy, x, rstd, weight, out, backward_arguments)
    return result


def forward_arguments(
    x: Any, weight: Any, normalized_shape: Any, eps: float, out: Any
) -> tuple[FloatArray, FloatArray | None, Shape, float, FloatArray | None]:
    x, weight, _, normalized = normalized_arrays(x, weight, None, normalized_shape)
    return x, weight, normalized, _check.number("eps", eps), _check.out(out, {"x": x}, {"weight": weight})


def backward_arguments(
    dy: Any, x: Any, rstd: Any, weight: Any, out: Any
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray | None, FloatArray | None]:
    x, dy, rstd, weight = _check.arrays({"x": x, "dy": dy}, statistics={"rstd": rstd}, params={"weight": weight})
    normalized = _check.normalized_by("rstd", rstd, "x", x)
    _check.match_shape("dy", dy, x.shape, "x")
    _check.match_shape("weight", weight, normalized, "the normalised axes of x")
    return dy, x, rstd, weight, _check.out(out, {"x": x, "dy": dy}, {"rstd": rstd, "weight": weight})
