"""The fused functions, as the separate ones that they stand for.

**Forward.** ::

    z = dropout(x) * row_scale * layer_scale + residual      y = norm(z)

**Backward.** The gradient for z comes from both of its uses, through the norm and past it; that of the residual is
the same. The branch's goes back through the factors and the mask::

    dresidual    = norm_backward(dy) + dz
    dx           = dropout(dresidual * layer_scale * row_scale)
    dlayer_scale = sum over rows of dresidual * (dropout(x) * row_scale)

A `row_scale` of 0 drops its row by selection: `dropout(x) * row_scale` and dx are +0 there, whatever x and dresidual
are.

The compiled kernels do this row by row, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from pyreg._check import FloatArray, Shape
from pyreg._dropout_add_norm import Backward, Forward, checked_backward, checked_forward
from pyreg._layer_norm import backward_arguments as layer_norm_backward_arguments
from pyreg._rms_norm import backward_arguments as rms_norm_backward_arguments
from pyreg.reference.dropout import dropout
from pyreg.reference.layer_norm import layer_norm_backward, layer_norm_forward
from pyreg.reference.norm_rows import sum_rows
from pyreg.reference.rms_norm import rms_norm_backward, rms_norm_forward


def per_row(row_scale: FloatArray, normalized: Shape) -> FloatArray:
    """Shaped to be multiplied with rows of the normalised shape."""
    return row_scale.reshape(row_scale.shape + (1,) * len(normalized))


def scale_rows(rows: FloatArray, row_scale: FloatArray | None, normalized: Shape) -> FloatArray:
    """Each row times its factor, and +0 where that is 0."""
    if row_scale is None:
        return rows
    factors = per_row(row_scale, normalized)
    return np.where(factors == 0, rows.dtype.type(0), rows * factors)


def branch_sum(a: Forward, p: float, training: bool) -> FloatArray:
    """What dropout leaves of the branch, scaled, and the residual: z."""
    with np.errstate(all="ignore"):
        z = dropout(a.x, p, key=a.key, offset=a.offset, training=training)
        z = scale_rows(z, a.row_scale, a.normalized)
        if a.layer_scale is not None:
            z = z * a.layer_scale
        if a.residual is not None:
            z = z + a.residual
    return z


def write(a: Forward, y: FloatArray, z: FloatArray) -> None:
    a.y[...] = y
    if a.z is not None:
        a.z[...] = z


def dropout_add_layer_norm_forward(
    x: npt.ArrayLike,
    residual: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    training: bool = True,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
    eps: float = 1e-5,
    row_scale: npt.ArrayLike | None = None,
    layer_scale: npt.ArrayLike | None = None,
    out: FloatArray | None = None,
    z_out: FloatArray | EllipsisType | None = ...,
) -> tuple[Any, ...]:
    """`pyreg.dropout_add_layer_norm_forward`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> y, z, _, _ = pyreg.reference.dropout_add_layer_norm_forward(np.ones(4), np.arange(4.0), p=0.5, key=1)
    >>> z
    array([0., 1., 4., 5.])
    """
    checked = checked_forward(x, residual, weight, bias, p, key, offset, training, normalized_shape, eps,
                              row_scale, layer_scale, out, z_out)  # fmt: skip
    z = branch_sum(checked, p, training)
    y, mean, rstd = layer_norm_forward(
        z, checked.weight, checked.bias, normalized_shape=checked.normalized, eps=checked.eps
    )
    write(checked, y, z)
    return checked.y, checked.z, mean, rstd


def dropout_add_rms_norm_forward(
    x: npt.ArrayLike,
    residual: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    training: bool = True,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
    eps: float = 1e-5,
    row_scale: npt.ArrayLike | None = None,
    layer_scale: npt.ArrayLike | None = None,
    out: FloatArray | None = None,
    z_out: FloatArray | EllipsisType | None = ...,
) -> tuple[Any, ...]:
    """`pyreg.dropout_add_rms_norm_forward`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> y, z, rstd = pyreg.reference.dropout_add_rms_norm_forward(np.ones(4), np.arange(4.0), p=0.5, key=1)
    >>> z
    array([0., 1., 4., 5.])
    """
    checked = checked_forward(x, residual, weight, None, p, key, offset, training, normalized_shape, eps,
                              row_scale, layer_scale, out, z_out)  # fmt: skip
    z = branch_sum(checked, p, training)
    y, rstd = rms_norm_forward(z, checked.weight, normalized_shape=checked.normalized, eps=checked.eps)
    write(checked, y, z)
    return checked.y, checked.z, rstd


def branch_gradients(a: Backward, through_norm: FloatArray, p: float) -> FloatArray | None:
    """Writes dresidual and dx; returns dlayer_scale."""
    dlayer_scale = None
    with np.errstate(all="ignore"):
        d = through_norm if a.dz is None else through_norm + a.dz
        dbranch = d
        if a.x is not None and a.layer_scale is not None:
            unscaled = dropout(a.x, p, key=a.key, offset=a.offset)
            unscaled = scale_rows(unscaled, a.row_scale, a.normalized)
            rows = (d * unscaled).reshape(a.rstd.size, a.layer_scale.size)
            dlayer_scale = sum_rows(rows).reshape(a.normalized)
            dbranch = dbranch * a.layer_scale
        dbranch = scale_rows(dbranch, a.row_scale, a.normalized)
        dx = dropout(dbranch, p, key=a.key, offset=a.offset)
    a.dx[...] = dx
    if a.dresidual is not None:
        a.dresidual[...] = d
    return dlayer_scale


def dropout_add_layer_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    mean: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    row_scale: npt.ArrayLike | None = None,
    layer_scale: npt.ArrayLike | None = None,
    x: npt.ArrayLike | None = None,
    out: FloatArray | None = None,
    dresidual_out: FloatArray | EllipsisType | None = ...,
) -> tuple[Any, ...]:
    """`pyreg.dropout_add_layer_norm_backward`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> y, z, mean, rstd = pyreg.reference.dropout_add_layer_norm_forward(np.ones((1, 4)), p=0.5, key=1)
    >>> dx, _, _, _ = pyreg.reference.dropout_add_layer_norm_backward(y, None, z, mean, rstd, p=0.5, key=1)
    >>> bool((dx[z == 0] == 0).all())
    True
    """
    dy, z, mean, rstd, weight, normalized = layer_norm_backward_arguments(dy, z, mean, rstd, weight, x="z")
    checked = checked_backward(dy, dz, z, mean, rstd, weight, normalized, p, key, offset, row_scale, layer_scale, x,
                               out, dresidual_out)  # fmt: skip
    through_norm, dweight, dbias = layer_norm_backward(dy, z, mean, rstd, weight)
    dlayer_scale = branch_gradients(checked, through_norm, p)
    results = (checked.dx, checked.dresidual, dweight, dbias)
    return results if dlayer_scale is None else (*results, dlayer_scale)


def dropout_add_rms_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    row_scale: npt.ArrayLike | None = None,
    layer_scale: npt.ArrayLike | None = None,
    x: npt.ArrayLike | None = None,
    out: FloatArray | None = None,
    dresidual_out: FloatArray | EllipsisType | None = ...,
) -> tuple[Any, ...]:
    """`pyreg.dropout_add_rms_norm_backward`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> y, z, rstd = pyreg.reference.dropout_add_rms_norm_forward(np.ones((1, 4)), p=0.5, key=1)
    >>> dx, _, _ = pyreg.reference.dropout_add_rms_norm_backward(y, None, z, rstd, p=0.5, key=1)
    >>> bool((dx[z == 0] == 0).all())
    True
    """
    dy, z, rstd, weight, normalized = rms_norm_backward_arguments(dy, z, rstd, weight, x="z")
    checked = checked_backward(dy, dz, z, None, rstd, weight, normalized, p, key, offset, row_scale, layer_scale, x,
                               out, dresidual_out)  # fmt: skip
    through_norm, dweight = rms_norm_backward(dy, z, rstd, weight)
    dlayer_scale = branch_gradients(checked, through_norm, p)
    results = (checked.dx, checked.dresidual, dweight)
    return results if dlayer_scale is None else (*results, dlayer_scale)
