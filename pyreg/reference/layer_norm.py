"""LayerNorm, forward and backward, derived.

**Forward.** For each row x of n elements (Ba, Kiros and Hinton, 2016)::

    mean = sum(x) / n      var = sum((x - mean)**2) / n      rstd = 1 / sqrt(var + eps)
    xhat = (x - mean) * rstd                                 y = xhat * weight + bias

**Backward.** dy is the gradient of the loss with respect to y. By the product and sum rules, over all rows::

    dweight = sum(dy * xhat)      dbias = sum(dy)

and the gradient with respect to xhat is ``g = dy * weight``. A row's x affects each xhat[i] directly,
through the mean and through rstd::

    d xhat[i] / d x[j] = rstd * ((i == j) - 1/n) + (x[i] - mean) * d rstd / d x[j]
    d rstd / d x[j]    = -1/2 * (var + eps)**(-3/2) * 2/n * (x[j] - mean) = -rstd**2 * xhat[j] / n

The mean within rstd has no effect, because the deviations sum to 0. Summed over i with weights g[i]::

    dx[j] = rstd * (g[j] - sum(g)/n - xhat[j] * sum(g * xhat)/n)

So dx is rstd times what is left of g after removing its components along the row of ones and (exactly if eps is 0)
along xhat. Moving x in these directions does not change the result of the forward pass.

**Rounding.** The mean is held as shift + lo: shift is a number of the sums' dtype near the mean, and lo is the mean
of x - shift. A single float32 is not enough: the nearest one to a mean around 1e6 may be off by 0.03. The sum of
(x - shift)**2 is too large by n * lo**2 and is corrected. The nearer the shift is to the mean, the smaller the
correction, and the more digits are left. The shift is the mean of the row's first elements, which usually is well
within a standard deviation of the row's mean. If it is not, the sums are recomputed about the mean (Chan, Golub and
LeVeque, "Algorithms for Computing the Sample Variance", 1983). A row whose squares overflow or underflow is first
multiplied by a power of two, `scale`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pyreg._results import Float64Array, FloatArray, LayerNormBackward, LayerNormForward
from pyreg.reference.lanes import lane_count, lane_sum, row_sum
from pyreg.reference.norm_rows import as_rows, factor, gradient_of, inverse_deviation, row_mean, scale_for
from pyreg.reference.results import wide, written


class RowMoments(NamedTuple):
    """The mean of each row, as shift + lo, and its variance. (rows, 1) each."""

    shift: FloatArray
    lo: Float64Array
    variance: Float64Array


def row_moments(x: FloatArray) -> RowMoments:
    """From one pass over the row, or two (Chan, Golub and LeVeque, 1983)."""
    first = x[..., : lane_count(x.dtype)]
    shift = (lane_sum(first)[..., None].astype(np.float64) / np.float64(first.shape[-1])).astype(x.dtype)
    shifted = moments_about(shift, x)
    far = shifted.lo * shifted.lo > shifted.variance
    corrected = moments_about((shift + shifted.lo).astype(x.dtype), x)
    return RowMoments(*(np.where(far, two, one) for one, two in zip(shifted, corrected, strict=True)))


def moments_about(shift: FloatArray, x: FloatArray) -> RowMoments:
    """By shifted data (section 3 there). With the mean as the shift: the corrected two-pass algorithm (eq. 1.7)."""
    n = np.float64(x.shape[-1])
    d = x - shift
    lo = row_sum(d) / n
    variance = row_sum(d * d) / n - lo * lo
    return RowMoments(shift, lo, np.where(variance < 0, 0.0, variance))


def layer_norm_forward(
    x: FloatArray,
    weight: FloatArray | None,
    bias: FloatArray | None,
    normalized_shape: tuple[int, ...],
    eps: float,
    out: FloatArray | None,
) -> LayerNormForward:
    leading = x.shape[: -len(normalized_shape)]
    rows = as_rows(x, len(leading))
    scale = scale_for(rows, row_moments(rows).variance, eps)
    rows = rows * scale.astype(rows.dtype)
    shift, lo, variance = row_moments(rows)
    inverse = inverse_deviation(variance, eps, scale)

    y = ((rows - shift) - lo.astype(rows.dtype)) * factor(inverse, rows.dtype)
    if weight is not None:
        y = y * wide(weight).reshape(-1)
    if bias is not None:
        y = y + wide(bias).reshape(-1)
    mean = (shift.astype(np.float64) + lo) / scale
    rstd = (inverse * scale).astype(rows.dtype)
    return LayerNormForward(written(y, out, x.shape, x.dtype), mean.reshape(leading), rstd.reshape(leading))


def layer_norm(*arguments: Any) -> FloatArray:
    return layer_norm_forward(*arguments).y


def layer_norm_backward(
    dy: FloatArray,
    x: FloatArray,
    mean: Float64Array,
    rstd: FloatArray,
    weight: FloatArray | None,
    out: FloatArray | None,
) -> LayerNormBackward:
    rows, dy = as_rows(x, mean.ndim), as_rows(dy, mean.ndim)
    mean, rstd = mean.reshape(-1, 1), rstd.reshape(-1, 1)
    shift = mean.astype(rows.dtype)
    lo = (mean - shift.astype(np.float64)).astype(rows.dtype)

    xhat = ((rows - shift) - lo) * rstd
    g = dy if weight is None else dy * wide(weight).reshape(-1)
    dx = ((g - row_mean(g)) - xhat * row_mean(g * xhat)) * rstd
    dweight = dbias = None
    if weight is not None:
        dweight, dbias = gradient_of(weight, dy * xhat), gradient_of(weight, dy)
    return LayerNormBackward(written(dx, out, x.shape, x.dtype), dweight, dbias)
