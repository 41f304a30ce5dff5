"""RMSNorm, forward and backward, derived.

**Forward.** For each row x of n elements (Zhang and Sennrich, 2019)::

    rstd = 1 / sqrt(sum(x**2) / n + eps)      xhat = x * rstd      y = xhat * weight

This is LayerNorm without the mean: a row is scaled but not shifted.

**Backward.** ``g = dy * weight`` is the gradient with respect to xhat. A row's x affects each xhat[i] directly and
through rstd::

    d rstd / d x[j]    = -1/2 * rstd**3 * 2/n * x[j] = -rstd**2 * xhat[j] / n
    d xhat[i] / d x[j] = rstd * ((i == j) - xhat[i] * xhat[j] / n)
    dx[j]              = rstd * (g[j] - xhat[j] * sum(g * xhat)/n)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyreg._results import Float64Array, FloatArray, RmsNormBackward, RmsNormForward
from pyreg.reference.lanes import row_sum
from pyreg.reference.norm_rows import as_rows, factor, gradient_of, inverse_deviation, row_mean, scale_for
from pyreg.reference.results import wide, written


def mean_square(x: FloatArray) -> Float64Array:
    """The mean of the squares of each row. (rows, 1)."""
    return row_sum(x * x) / np.float64(x.shape[-1])


def rms_norm_forward(
    x: FloatArray, weight: FloatArray | None, normalized_shape: tuple[int, ...], eps: float, out: FloatArray | None
) -> RmsNormForward:
    leading = x.shape[: -len(normalized_shape)]
    rows = as_rows(x, len(leading))
    scale = scale_for(rows, mean_square(rows), eps)
    rows = rows * scale.astype(rows.dtype)
    inverse = inverse_deviation(mean_square(rows), eps, scale)

    y = rows * factor(inverse, rows.dtype)
    if weight is not None:
        y = y * wide(weight).reshape(-1)
    rstd = (inverse * scale).astype(rows.dtype)
    return RmsNormForward(written(y, out, x.shape, x.dtype), rstd.reshape(leading))


def rms_norm(*arguments: Any) -> FloatArray:
    return rms_norm_forward(*arguments).y


def rms_norm_backward(
    dy: FloatArray, x: FloatArray, rstd: FloatArray, weight: FloatArray | None, out: FloatArray | None
) -> RmsNormBackward:
    rows, dy = as_rows(x, rstd.ndim), as_rows(dy, rstd.ndim)
    rstd = rstd.reshape(-1, 1)

    xhat = rows * rstd
    g = dy if weight is None else dy * wide(weight).reshape(-1)
    dx = (g - xhat * row_mean(g * xhat)) * rstd
    dweight = None if weight is None else gradient_of(weight, dy * xhat)
    return RmsNormBackward(written(dx, out, x.shape, x.dtype), dweight)
