"""LayerNorm, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from pyreg import _check, _core
from pyreg._check import Shape
from pyreg._dtypes import WIDE
from pyreg._results import FloatArray, LayerNormBackward, LayerNormForward


def layer_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
    eps: float = 1e-5,
    out: FloatArray | None = None,
) -> FloatArray:
    """Normalise each row of x: the elements along its last axes.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, with the mean and the (biased) variance of
    each row over the axes of `normalized_shape` [1]_.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, shape ``(..., *normalized_shape)``
        Any memory layout; copied once unless C-contiguous, aligned and in native byte order.
    weight, bias : array_like, shape `normalized_shape`, optional
        Scale and shift of each normalised element. Either may be omitted. Each has x's dtype, or is float32 if x
        has 16 bits.
    normalized_shape : int or sequence of int, optional
        The trailing shape that is normalised. Defaults to ``weight.shape``, else ``bias.shape``, else
        the last axis.
    eps : float, optional
        Added to the variance, in the units of x squared. Finite, at least 0.
    out : ndarray, optional
        Array that receives the result, of x's dtype and shape, C-contiguous, aligned and writeable. It
        may be x itself, but must not partly overlap x, nor overlap `weight` or `bias`.

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
    layer_norm_forward : Also returns the statistics that the backward pass needs.

    Notes
    -----
    Arrays of 16 bits, float16 and bfloat16 (that of the package ml_dtypes), are computed in float32, and each
    result is rounded once. The memory of a PyTorch tensor of bfloat16 can be passed as
    ``tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)``.

    The mean has more than x's precision: it is held as a float32 (or float64) number plus the mean of the
    deviations from that number. So float32 rows around 1e6 are normalised as accurately as rows around 0. If the
    squares of a row would overflow or underflow, a power of two first brings the row near 1, so all
    magnitudes that the dtype can hold are normalised. A constant row gives `bias`, even with ``eps=0``. A
    row with a NaN or an infinity is NaN throughout.

    References
    ----------
    .. [1] J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", 2016, arXiv:1607.06450.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x = np.array([[1.0, 2.0, 3.0, 4.0], [10.0, 10.0, 30.0, 30.0]])
    >>> pyreg.layer_norm(x).round(3)
    array([[-1.342, -0.447,  0.447,  1.342],
           [-1.   , -1.   ,  1.   ,  1.   ]])
    """
    y: FloatArray = _core.layer_norm(x, weight, bias, normalized_shape, eps, out, forward_arguments)
    return y


def layer_norm_forward(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
    eps: float = 1e-5,
    out: FloatArray | None = None,
) -> LayerNormForward:
    """Apply `layer_norm`, and return the statistics that its backward pass needs.

    Parameters
    ----------
    x, weight, bias, normalized_shape, eps, out
        As in `layer_norm`. The backward pass needs the original x: in training, `out` should not be x.

    Returns
    -------
    y : ndarray
        The result, of x's dtype and shape; `out` if given.
    mean : ndarray of float64
        The mean of each row, of x's leading shape: without the normalised axes. It is float64 whatever
        x's dtype, because the float32 mean of a row around 1e6 is off by up to 1/32.
    rstd : ndarray of float32, or of float64 if x is
        ``1 / sqrt(var + eps)`` of each row, of x's leading shape.

    Raises
    ------
    TypeError, ValueError
        As in `layer_norm`.

    See Also
    --------
    layer_norm_backward : The gradients.

    Notes
    -----
    If the standard deviation exceeds about 8e37 (float64: 4e307), `rstd` is a subnormal
    number, and the gradients have fewer correct digits.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x = np.array([[1.0, 2.0, 3.0, 4.0], [10.0, 10.0, 30.0, 30.0]])
    >>> y, mean, rstd = pyreg.layer_norm_forward(x)
    >>> mean
    array([ 2.5, 20. ])
    >>> rstd.round(3)
    array([0.894, 0.1  ])
    """
    result: LayerNormForward = _core.layer_norm_forward(
        x, weight, bias, normalized_shape, eps, out, forward_arguments
    )
    return result


def layer_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    mean: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    out: FloatArray | None = None,
) -> LayerNormBackward:
    """Return the gradients of `layer_norm` with respect to x, weight and bias.

    With ``xhat = (x - mean) * rstd``, ``g = dy * weight`` and means over the normalised axes,
    ``dx = (g - mean(g) - xhat * mean(g * xhat)) * rstd``. ``dweight`` and ``dbias`` are the sums of
    ``dy * xhat`` and of ``dy`` over the rows.

    Parameters
    ----------
    dy : array_like, x's dtype and shape
        The gradient of the loss with respect to the result.
    x : array_like of float32, float64, float16 or bfloat16, shape ``(..., *normalized_shape)``
        The input of the forward pass.
    mean, rstd : array_like, shape of x without the normalised axes
        As `layer_norm_forward` returned them. A float32 `mean` is also accepted, and is only as accurate as
        float32.
    weight : array_like, the normalised shape, optional
        The weight of the forward pass: of x's dtype, or float32 if x has 16 bits.
    out : ndarray, optional
        Array that receives dx, of x's dtype and shape, C-contiguous, aligned and writeable. It may be
        `dy` or `x` itself, but must not partly overlap them, nor overlap the other arrays.

    Returns
    -------
    dx : ndarray
        Of x's dtype and shape; `out` if given.
    dweight, dbias : ndarray, or None if there is no weight
        Of weight's dtype and shape. If there is a bias but no weight, its gradient is the sum of `dy` over the
        rows (of 16-bit arrays, with ``dtype=np.float32``).

    Raises
    ------
    TypeError
        If an array has a dtype other than those above.
    ValueError
        If a shape does not match or `out` cannot be written.

    Notes
    -----
    `dweight` and `dbias` are summed over blocks of 64 rows, then over the blocks in double precision, so
    they do not depend on the number of threads.

    Gradients are not finite if a deviation from the mean overflows float32, or float64 if x is (elements of both
    signs beyond half its range), or if `rstd` is infinite (with ``eps=0``, a constant row or one of subnormal
    numbers).

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x, weight = np.array([[1.0, 2.0, 4.0]]), np.ones(3)
    >>> y, mean, rstd = pyreg.layer_norm_forward(x, weight)
    >>> dy = np.array([[1.0, 0.0, 0.0]])
    >>> dx, dweight, dbias = pyreg.layer_norm_backward(dy, x, mean, rstd, weight)
    >>> dx.round(3)
    array([[ 0.229, -0.344,  0.115]])
    >>> dbias
    array([1., 0., 0.])
    """
    result: LayerNormBackward = _core.layer_norm_backward(dy, x, mean, rstd, weight, out, backward_arguments)
    return result


def forward_arguments(
    x: Any, weight: Any, bias: Any, normalized_shape: Any, eps: float, out: Any
) -> tuple[FloatArray, FloatArray | None, FloatArray | None, Shape, float, FloatArray | None]:
    x, weight, bias, normalized = normalized_arrays(x, weight, bias, normalized_shape)
    out = _check.out(out, {"x": x}, {"weight": weight, "bias": bias})
    return x, weight, bias, normalized, _check.number("eps", eps), out


def normalized_arrays(
    x: Any, weight: Any, bias: Any, normalized_shape: Any
) -> tuple[FloatArray, FloatArray | None, FloatArray | None, Shape]:
    """x, weight and bias of a forward pass, and the normalised shape."""
    # In PyTorch, the normalised shape is in this position.
    lengths = weight if isinstance(weight, (tuple, list)) else [weight]
    if lengths and all(isinstance(n, int) for n in lengths):
        raise TypeError(
            f"weight must be an array, got {_check.shown(weight)}; "
            f"pass a shape as normalized_shape={_check.shown(weight)}"
        )
    x, weight, bias = _check.arrays({"x": x}, params={"weight": weight, "bias": bias})
    shape = x.shape
    if normalized_shape is not None:
        normalized, whose = _check.shape("normalized_shape", normalized_shape), "normalized_shape"
    elif weight is not None:
        normalized, whose = weight.shape, "weight"
    elif bias is not None:
        normalized, whose = bias.shape, "bias"
    else:
        normalized, whose = shape[-1:], "x"
    if not shape:
        raise ValueError(f"x must have at least one axis, got shape {shape}")
    if not normalized or shape[-len(normalized) :] != normalized:
        raise ValueError(f"{whose} must match the last axis or axes of x, which has shape {shape}, got {normalized}")
    _check.match_shape("weight", weight, normalized, "the normalised axes of x")
    _check.match_shape("bias", bias, normalized, "the normalised axes of x")
    return x, weight, bias, normalized


def backward_arguments(
    dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, out: Any
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray | None, FloatArray | None]:
    x, dy, rstd, weight = _check.arrays({"x": x, "dy": dy}, statistics={"rstd": rstd}, params={"weight": weight})
    mean = row_means(mean, rstd, "x", x)
    normalized = x.shape[mean.ndim :]
    _check.match_shape("dy", dy, x.shape, "x")
    _check.match_shape("weight", weight, normalized, "the normalised axes of x")
    out = _check.out(out, {"x": x, "dy": dy}, {"mean": mean, "rstd": rstd, "weight": weight})
    return dy, x, mean, rstd, weight, out


def row_means(value: Any, rstd: FloatArray, of: str, x: FloatArray) -> FloatArray:
    """The means of the rows of x, an array called `of`, in float64."""
    mean: FloatArray = np.asarray(_check.array("mean", value, WIDE[::-1]), np.float64)
    _check.normalized_by("mean", mean, of, x)
    _check.match_shape("rstd", rstd, mean.shape, f"{of} without the normalised axes")
    return mean
