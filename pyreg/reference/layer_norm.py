"""LayerNorm, forward and backward, derived.

**Forward.** Of each row x of n elements (Ba, Kiros and Hinton, 2016)::

    mean = sum(x) / n      var = sum((x - mean)**2) / n      rstd = 1 / sqrt(var + eps)
    xhat = (x - mean) * rstd                                 y = xhat * weight + bias

**Backward.** Given dy, the gradient of a loss for y. By the product and sum rules, over all rows::

    dweight = sum(dy * xhat)      dbias = sum(dy)

and the gradient for xhat is ``g = dy * weight``. A row's x acts on each xhat[i] in three ways::

    d xhat[i] / d x[j] = rstd * ((i == j) - 1/n) + (x[i] - mean) * d rstd / d x[j]
    d rstd / d x[j]    = -1/2 * (var + eps)**(-3/2) * 2/n * (x[j] - mean) = -rstd**2 * xhat[j] / n

directly, through the mean and through the deviation (whose own mean does not matter: the deviations sum to 0). Summed
over i with weights g[i]::

    dx[j] = rstd * (g[j] - sum(g)/n - xhat[j] * sum(g * xhat)/n)

so dx is g with its components along the row of ones and (exactly where eps is 0) along xhat taken out: those are the
directions in which the forward pass does not see x move.

**Rounding.** The mean is held as shift + lo: shift is a number of x's dtype near it, lo the mean of x - shift,
which is what the shift missed. Even the float32 nearest to a mean around 1e6 may be off by 0.03.
The sum of (x - shift)**2 overshoots by n * lo**2 and is corrected for that. The nearer the shift, the less there
is to correct, and the more digits are left: it is the mean of the row's first elements, which most often is well
within a standard deviation of the row's; where it is not, the sums are taken again about the mean (Chan, Golub and
LeVeque, "Algorithms for Computing the Sample Variance", 1983). A row whose squares overflow or underflow is first
multiplied by a power of two, `scale`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pyreg._results import Float64Array, FloatArray, LayerNormBackward, LayerNormForward
from pyreg.reference.lanes import lane_count, lane_sum, row_sum
from pyreg.reference.norm_rows import as_rows, factor, inverse_deviation, row_mean, scale_for, sum_rows
from pyreg.reference.results import written


class RowMoments(NamedTuple):
    """Of each row: its mean as shift + lo, and its variance. (rows, 1) each."""

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
    """Shifted data (section 3 there); about the mean, the corrected two-pass algorithm (eq. 1.7)."""
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
    rows = rows * scale.astype(x.dtype)
    shift, lo, variance = row_moments(rows)
    inverse = inverse_deviation(variance, eps, scale)

    y = ((rows - shift) - lo.astype(x.dtype)) * factor(inverse, x.dtype)
    if weight is not None:
        y = y * weight.reshape(-1)
    if bias is not None:
        y = y + bias.reshape(-1)
    mean = (shift.astype(np.float64) + lo) / scale
    rstd = (inverse * scale).astype(x.dtype)
    return LayerNormForward(written(y, out, x.shape), mean.reshape(leading), rstd.reshape(leading))


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
    shape = x.shape[mean.ndim :]
    rows, dy = as_rows(x, mean.ndim), as_rows(dy, mean.ndim)
    mean, rstd = mean.reshape(-1, 1), rstd.reshape(-1, 1)
    shift = mean.astype(x.dtype)
    lo = (mean - shift.astype(np.float64)).astype(x.dtype)

    xhat = ((rows - shift) - lo) * rstd
    g = dy if weight is None else dy * weight.reshape(-1)
    dx = ((g - row_mean(g)) - xhat * row_mean(g * xhat)) * rstd
    dweight = dbias = None
    if weight is not None:
        dweight = sum_rows(dy * xhat).reshape(shape)
        dbias = sum_rows(dy).reshape(shape)
    return LayerNormBackward(written(dx, out, x.shape), dweight, dbias)
