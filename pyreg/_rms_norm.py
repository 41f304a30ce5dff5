"""RMSNorm, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from pyreg import _check, _core
from pyreg._check import FloatArray, Shape
from pyreg._layer_norm import forward_arguments


def rms_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
    eps: float = 1e-5,
    out: FloatArray | None = None,
) -> FloatArray:
    """Divide each sample by its root mean square over its last axes.

    ``y = x / sqrt(mean(x**2) + eps) * weight``, with the mean of each sample over the axes of
    `normalized_shape` [1]_: `layer_norm` without the mean and without a bias.

    Parameters
    ----------
    x : array_like of float32 or float64, shape ``(..., *normalized_shape)``
        In any memory layout; one that cannot be streamed is copied once.
    weight : array_like, shape `normalized_shape`, optional
        Scale of each normalised element, of x's dtype.
    normalized_shape : int or sequence of int, optional
        The trailing shape that is normalised. Defaults to ``weight.shape``, else the last axis.
    eps : float, optional
        Added to the mean square, in the units of x squared. Finite, at least 0. PyTorch's default
        is another: the dtype's machine epsilon.
    out : ndarray, optional
        Where the result goes: of x's dtype and shape, C-contiguous, aligned, writeable. It may be x
        itself, and must not overlap x otherwise, nor `weight`.

    Returns
    -------
    ndarray
        The result, of x's dtype and shape; `out` where that is given.

    Raises
    ------
    TypeError
        Where an array is not float32 or float64, or not of x's dtype.
    ValueError
        Where a shape does not match, `eps` is negative or not finite, or `out` cannot be written.

    See Also
    --------
    rms_norm_forward : Also returns what the backward pass needs.

    Notes
    -----
    A row whose squares would overflow or underflow is brought near 1 by a power of two first: all
    magnitudes that the dtype can hold are normalised. A sample of zeros gives zeros, also with
    ``eps=0``. A sample with a NaN is NaN throughout; one with an infinity is NaN there, and 0 elsewhere.

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
    x, weight, _, shape, eps = forward_arguments(x, weight, None, normalized_shape, eps)
    y = _check.out(out, ("x", "weight"), (x, weight))
    _core.rms_norm_forward(x, math.prod(shape), weight, eps, y, None)
    return y


def rms_norm_forward(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
    eps: float = 1e-5,
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """`rms_norm`, and the statistic that its backward pass needs.

    Parameters
    ----------
    x, weight, normalized_shape, eps, out
        As in `rms_norm`. The backward pass needs x as it was: in training, `out` should be another array.

    Returns
    -------
    y : ndarray
        The result, of x's dtype and shape; `out` where that is given.
    rstd : ndarray
        ``1 / sqrt(mean(x**2) + eps)``, of x's dtype and its leading shape: without the normalised axes.

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
    x, weight, _, shape, eps = forward_arguments(x, weight, None, normalized_shape, eps)
    y = _check.out(out, ("x", "weight"), (x, weight))
    rstd = np.empty(x.shape[: -len(shape)], x.dtype)
    _core.rms_norm_forward(x, math.prod(shape), weight, eps, y, rstd)
    return y, rstd


@overload
def rms_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: None = None,
    *,
    out: FloatArray | None = None,
) -> tuple[FloatArray, None]: ...
@overload
def rms_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike,
    *,
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]: ...
def rms_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray | None]:
    """Return the gradients of `rms_norm` for x and weight.

    With ``xhat = x * rstd`` and ``g = dy * weight``, and the mean over the normalised axes:
    ``dx = (g - xhat * mean(g * xhat)) * rstd``; ``dweight`` is the sum of ``dy * xhat`` over the samples.

    Parameters
    ----------
    dy : array_like, x's dtype and shape
        The gradient of the loss for the result.
    x : array_like of float32 or float64, shape ``(..., *normalized_shape)``
        The input of the forward pass.
    rstd : array_like, x's dtype, shape of x without the normalised axes
        As `rms_norm_forward` returned it.
    weight : array_like, the normalised shape, optional
        The weight of the forward pass.
    out : ndarray, optional
        Where dx goes: of x's dtype and shape, C-contiguous, aligned, writeable. It may be `dy` or `x`
        itself, and must not overlap them otherwise, nor the other arrays.

    Returns
    -------
    dx : ndarray
        Of x's dtype and shape; `out` where that is given.
    dweight : ndarray, or None where there is no weight
        Of x's dtype and the normalised shape.

    Raises
    ------
    TypeError
        Where an array is not float32 or float64, or not of x's dtype.
    ValueError
        Where a shape does not match or `out` cannot be written.

    Notes
    -----
    `dweight` is summed over blocks of 64 samples, then over the blocks in double precision: the number of
    threads does not show in it.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x, weight = np.array([[1.0, 2.0, 2.0]]), np.ones(3)
    >>> y, rstd = pyreg.rms_norm_forward(x, weight)
    >>> dx, dweight = pyreg.rms_norm_backward(np.array([[1.0, 0.0, 0.0]]), x, rstd, weight)
    >>> dx.round(3)
    array([[ 0.513, -0.128, -0.128]])
    """
    dy, x, rstd, weight, shape = backward_arguments(dy, x, rstd, weight)
    dx = _check.out(out, ("x", "dy", "rstd", "weight"), (x, dy, rstd, weight), may_be=2)
    dweight = None if weight is None else np.empty(shape, x.dtype)
    _core.rms_norm_backward(dy, x, rstd, weight, math.prod(shape), dx, dweight)
    return dx, dweight


def backward_arguments(
    dy: Any, value: Any, rstd: Any, weight: Any, x: str = "x"
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray | None, Shape]:
    """The arguments of the backward pass, with their normalised shape. x: what the input is called."""
    value, dy, rstd, weight = _check.arrays((x, "dy", "rstd", "weight"), (value, dy, rstd, weight), 2)
    normalized = _check.normalized_by("rstd", rstd, x, value)
    if dy.shape != value.shape:
        _check.match_shape("dy", dy, value.shape, x)
    if weight is not None and weight.shape != normalized:
        _check.match_shape("weight", weight, normalized, f"{x}, in the normalised axes")
    return dy, value, rstd, weight, normalized
