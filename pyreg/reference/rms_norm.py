"""RMSNorm, forward and backward, derived.

**Forward.** Of each row x of n elements (Zhang and Sennrich, 2019)::

    rstd = 1 / sqrt(sum(x**2) / n + eps)      xhat = x * rstd      y = xhat * weight

LayerNorm without the mean: a row is scaled, and not shifted.

**Backward.** With ``g = dy * weight``, the gradient for xhat, a row's x acts on each xhat[i] directly and through
rstd::

    d rstd / d x[j]    = -1/2 * rstd**3 * 2/n * x[j] = -rstd**2 * xhat[j] / n
    d xhat[i] / d x[j] = rstd * ((i == j) - xhat[i] * xhat[j] / n)
    dx[j]              = rstd * (g[j] - xhat[j] * sum(g * xhat)/n)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from pyreg import _check
from pyreg._check import FloatArray
from pyreg._layer_norm import forward_arguments
from pyreg._rms_norm import backward_arguments
from pyreg.reference.lanes import row_sum
from pyreg.reference.norm_rows import factor, inverse_deviation, row_mean, scale_for, sum_rows


def mean_square(x: FloatArray) -> npt.NDArray[np.float64]:
    """Of each row. (rows, 1)."""
    return row_sum(x * x) / np.float64(x.shape[-1])


def rms_norm_forward(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
    eps: float = 1e-5,
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """`pyreg.rms_norm_forward`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> y, rstd = pyreg.reference.rms_norm_forward(np.array([1.0, 2.0, 2.0]))
    >>> y.round(3)
    array([0.577, 1.155, 1.155])
    """
    x, weight, _, shape, eps = forward_arguments(x, weight, None, normalized_shape, eps)
    y = _check.out(out, ("x", "weight"), (x, weight))
    dtype, leading = x.dtype, x.shape[: -len(shape)]
    n = int(np.prod(shape))
    rows = x.reshape(int(np.prod(leading)), n)

    with np.errstate(all="ignore"):
        scale = scale_for(rows, mean_square(rows), eps)
        rows = rows * scale.astype(dtype)
        inverse = inverse_deviation(mean_square(rows), eps, scale)
        result = rows * factor(inverse, dtype)
        if weight is not None:
            result = result * weight.reshape(n)
        rstd = (inverse * scale).astype(dtype)

    y[...] = result.reshape(y.shape)
    return y, rstd.reshape(leading)


def rms_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
    eps: float = 1e-5,
    out: FloatArray | None = None,
) -> FloatArray:
    """`pyreg.rms_norm`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> pyreg.reference.rms_norm(np.array([1.0, 2.0, 2.0])).round(3)
    array([0.577, 1.155, 1.155])
    """
    y, _ = rms_norm_forward(x, weight, normalized_shape=normalized_shape, eps=eps, out=out)
    return y


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
    """`pyreg.rms_norm_backward`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x = np.array([[1.0, 2.0, 2.0]])
    >>> y, rstd = pyreg.reference.rms_norm_forward(x)
    >>> dx, _ = pyreg.reference.rms_norm_backward(np.array([[1.0, 0.0, 0.0]]), x, rstd)
    >>> dx.round(3)
    array([[ 0.513, -0.128, -0.128]])
    """
    dy, x, rstd, weight, shape = backward_arguments(dy, x, rstd, weight)
    dx = _check.out(out, ("x", "dy", "rstd", "weight"), (x, dy, rstd, weight), may_be=2)
    n = int(np.prod(shape))
    rstd = rstd.reshape(-1, 1)
    rows, dy = x.reshape(rstd.size, n), dy.reshape(rstd.size, n)

    with np.errstate(all="ignore"):
        xhat = rows * rstd
        g = dy if weight is None else dy * weight.reshape(n)
        result = (g - xhat * row_mean(g * xhat)) * rstd
        dweight = None if weight is None else sum_rows(dy * xhat).reshape(shape)

    dx[...] = result.reshape(dx.shape)
    return dx, dweight
