"""LayerNorm, forward and backward, derived.

**Forward.** Of each row x of n elements (Ba, Kiros and Hinton, 2016)::

    mean = sum(x) / n      var = sum((x - mean)**2) / n      rstd = 1 / sqrt(var + eps)
    xhat = (x - mean) * rstd                                 y = xhat * weight + bias

**Backward.** Given dy, the gradient of a loss for y. By the product and sum rules, over all rows::

    dweight = sum(dy * xhat)      dbias = sum(dy)

and the gradient for xhat is ``g = dy * weight``. A row's x acts on each xhat[i] in three ways::

    d xhat[i] / d x[j] = rstd * ((i == j) - 1/n) + (x[i] - mean) * d rstd / d x[j]
    d rstd / d x[j]    = -1/2 * (var + eps)**(-3/2) * 2/n * (x[j] - mean) = -rstd**2 * xhat[j] / n

directly, through the mean and through the deviation. Summed over i with weights g[i]::

    dx[j] = rstd * (g[j] - sum(g)/n - xhat[j] * sum(g * xhat)/n)

so dx is g with its components along the row of ones and along xhat taken out: those are the directions
in which the forward pass does not see x move.

**Rounding.** The mean is held as shift + lo: shift is a number of x's dtype near it, lo the mean of x - shift,
which is what the shift missed. Even the float32 nearest to a mean around 1e6 may be off by 0.03.
The sum of (x - shift)**2 overshoots by n * lo**2 and is corrected for that. The nearer the shift, the less there
is to correct, and the more digits are left: it is the mean of the row's first elements, which most often is well
within a standard deviation of the row's; where it is not, the sums are taken again about the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from pyreg import _check
from pyreg._check import FloatArray
from pyreg._layer_norm import backward_arguments, forward_arguments
from pyreg.reference.lanes import lane_count, lane_sum, row_sum
from pyreg.reference.norm_rows import factor, inverse_deviation, row_mean, scale_for, sum_rows


class RowMoments(NamedTuple):
    """Of each row: its mean as shift + lo, and its variance. (rows, 1) each."""

    shift: FloatArray
    lo: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]


def row_moments(x: FloatArray) -> RowMoments:
    """From one pass over the row, or two (Chan, Golub and LeVeque, 1983)."""
    first = x[..., : lane_count(x.dtype)]
    shift = (lane_sum(first)[..., None].astype(np.float64) / np.float64(first.shape[-1])).astype(x.dtype)
    shifted = moments_about(shift, x)
    far = shifted.lo * shifted.lo > shifted.variance
    corrected = moments_about((shift + shifted.lo).astype(x.dtype), x)
    return RowMoments(*(np.where(far, two, one) for one, two in zip(shifted, corrected, strict=True)))


def moments_about(shift: FloatArray, x: FloatArray) -> RowMoments:
    """Shifted data (section 3 there); about the mean, the corrected two-pass algorithm (eq. 1.7)."""
    n = np.float64(x.shape[-1])
    d = x - shift
    lo = row_sum(d) / n
    variance = row_sum(d * d) / n - lo * lo
    return RowMoments(shift, lo, np.where(variance < 0, 0.0, variance))


def layer_norm_forward(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
    eps: float = 1e-5,
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`pyreg.layer_norm_forward`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> y, mean, rstd = pyreg.reference.layer_norm_forward(np.array([1.0, 2.0, 3.0]))
    >>> y.round(3)
    array([-1.225,  0.   ,  1.225])
    """
    x, weight, bias, shape, eps = forward_arguments(x, weight, bias, normalized_shape, eps)
    y = _check.out(out, ("x", "weight", "bias"), (x, weight, bias))
    dtype, leading = x.dtype, x.shape[: -len(shape)]
    n = int(np.prod(shape))
    rows = x.reshape(int(np.prod(leading)), n)

    with np.errstate(all="ignore"):
        moments = row_moments(rows)
        scale = scale_for(rows, moments.variance, eps)
        rows = rows * scale.astype(dtype)
        shift, lo, variance = row_moments(rows)

        inverse = inverse_deviation(variance, eps, scale)
        xhat = ((rows - shift) - lo.astype(dtype)) * factor(inverse, dtype)
        result = xhat
        if weight is not None:
            result = result * weight.reshape(n)
        if bias is not None:
            result = result + bias.reshape(n)
        mean = (shift.astype(np.float64) + lo) / scale
        rstd = (inverse * scale).astype(dtype)

    y[...] = result.reshape(y.shape)
    return y, mean.reshape(leading), rstd.reshape(leading)


def layer_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
    eps: float = 1e-5,
    out: FloatArray | None = None,
) -> FloatArray:
    """`pyreg.layer_norm`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> pyreg.reference.layer_norm(np.array([1.0, 2.0, 3.0])).round(3)
    array([-1.225,  0.   ,  1.225])
    """
    y, _, _ = layer_norm_forward(x, weight, bias, normalized_shape=normalized_shape, eps=eps, out=out)
    return y


@overload
def layer_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    mean: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: None = None,
    *,
    out: FloatArray | None = None,
) -> tuple[FloatArray, None, None]: ...
@overload
def layer_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    mean: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike,
    *,
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray]: ...
def layer_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    mean: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray | None, FloatArray | None]:
    """`pyreg.layer_norm_backward`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x = np.array([[1.0, 2.0, 4.0]])
    >>> y, mean, rstd = pyreg.reference.layer_norm_forward(x)
    >>> dx, _, _ = pyreg.reference.layer_norm_backward(np.array([[1.0, 0.0, 0.0]]), x, mean, rstd)
    >>> dx.round(3)
    array([[ 0.229, -0.344,  0.115]])
    """
    dy, x, mean, rstd, weight, shape = backward_arguments(dy, x, mean, rstd, weight)
    names = ("x", "dy", "mean", "rstd", "weight")
    dx = _check.out(out, names, (x, dy, mean, rstd, weight), may_be=2)
    dtype, n = x.dtype, int(np.prod(shape))
    mean, rstd = mean.reshape(-1, 1), rstd.reshape(-1, 1)
    rows, dy = x.reshape(mean.size, n), dy.reshape(mean.size, n)

    with np.errstate(all="ignore"):
        shift = mean.astype(dtype)
        difference: FloatArray = mean - shift.astype(np.float64)
        lo = difference.astype(dtype)
        xhat = ((rows - shift) - lo) * rstd
        g = dy if weight is None else dy * weight.reshape(n)
        mean_g = row_mean(g)
        mean_g_xhat = row_mean(g * xhat)
        result = ((g - mean_g) - xhat * mean_g_xhat) * rstd
        dweight = dbias = None
        if weight is not None:
            dweight = sum_rows(dy * xhat).reshape(shape)
            dbias = sum_rows(dy).reshape(shape)

    dx[...] = result.reshape(dx.shape)
    return dx, dweight, dbias
