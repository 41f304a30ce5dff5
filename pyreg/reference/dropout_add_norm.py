"""The fused functions, written as the separate steps that they combine.

**Forward.** ::

    z = dropout(x) * row_scale * layer_scale + residual      y = norm(z)

A row whose `row_scale` is 0 is dropped, as by `drop_path`: it becomes +0, whatever the branch holds there.

**Backward.** The gradient with respect to z is the sum over both of its uses: through the norm and past it. The
residual has the same gradient. The branch's gradient passes back through the factors and the mask::

    dresidual    = norm_backward(dy) + dz
    dx           = dropout(dresidual * layer_scale * row_scale)
    dlayer_scale = sum over rows of dresidual * (dropout(x) * row_scale)

The compiled kernels do this row by row, in the same order.

**Rounding.** Of 16-bit arrays, only results are rounded. The norm is that of z as it is returned, rounded. The other
steps are computed from each other before they are rounded: dx is computed from the sum that dresidual is rounded to.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyreg import _results
from pyreg._dtypes import compute_dtype
from pyreg._results import Float64Array, FloatArray
from pyreg.reference.dropout import after_dropout
from pyreg.reference.layer_norm import layer_norm_backward, layer_norm_forward
from pyreg.reference.norm_rows import as_rows, gradient_of
from pyreg.reference.results import wide, written
from pyreg.reference.rms_norm import rms_norm_backward, rms_norm_forward


def times_row_scale(branch: FloatArray, row_scale: FloatArray | None) -> FloatArray:
    if row_scale is None:
        return branch
    factor = wide(row_scale).reshape(row_scale.shape + (1,) * (branch.ndim - row_scale.ndim))
    result: FloatArray = np.where(factor == 0, branch.dtype.type(0), branch * factor)
    return result


def branch_sum(
    x: FloatArray,
    residual: FloatArray | None,
    p: float,
    key: int,
    offset: int,
    training: bool,
    normalized_shape: tuple[int, ...],
    eps: float,
    row_scale: FloatArray | None,
    layer_scale: FloatArray | None,
    return_z: bool,
    out: FloatArray | None,
    z_out: FloatArray | None,
) -> tuple[FloatArray, FloatArray | None, tuple[Any, ...]]:
    """z, the sum; z as a result, None if not wanted; and the last arguments of the norm."""
    value = times_row_scale(after_dropout(x, p, key, offset, training), row_scale)
    if layer_scale is not None:
        value = value * wide(layer_scale)
    if residual is not None:
        value = value + wide(residual)
    like = next(array for array in (residual, z_out, x) if array is not None)
    z = written(value, z_out, x.shape, like.dtype)
    # z may be wider than y, which has x's dtype.
    return z, z if return_z else None, (normalized_shape, eps, np.empty_like(x) if out is None else out)


def dropout_add_layer_norm_forward(
    x: FloatArray, residual: FloatArray | None, weight: FloatArray | None, bias: FloatArray | None, *others: Any
) -> _results.DropoutAddLayerNormForward:
    z, z_result, of_norm = branch_sum(x, residual, *others)
    y, mean, rstd = layer_norm_forward(z, weight, bias, *of_norm)
    return _results.DropoutAddLayerNormForward(y, z_result, mean, rstd)


def dropout_add_rms_norm_forward(
    x: FloatArray, residual: FloatArray | None, weight: FloatArray | None, *others: Any
) -> _results.DropoutAddRmsNormForward:
    z, z_result, of_norm = branch_sum(x, residual, *others)
    y, rstd = rms_norm_forward(z, weight, *of_norm)
    return _results.DropoutAddRmsNormForward(y, z_result, rstd)


def branch_gradients(
    through_norm: FloatArray,
    dy: FloatArray,
    dz: FloatArray | None,
    z: FloatArray,
    axis: int,
    p: float,
    key: int,
    offset: int,
    row_scale: FloatArray | None,
    layer_scale: FloatArray | None,
    x: FloatArray | None,
    return_dresidual: bool,
    out: FloatArray | None,
    dresidual_out: FloatArray | None,
) -> tuple[FloatArray, FloatArray | None, FloatArray | None]:
    """dx, dresidual and dlayer_scale. The normalised axes are those from `axis` on."""
    d = through_norm if dz is None else through_norm + wide(dz)
    dbranch, dlayer_scale = d, None
    if x is not None and layer_scale is not None:
        unscaled = times_row_scale(after_dropout(x, p, key, offset), row_scale)
        dlayer_scale = gradient_of(layer_scale, as_rows(d * unscaled, axis))
        dbranch = dbranch * wide(layer_scale)
    dx = written(after_dropout(times_row_scale(dbranch, row_scale), p, key, offset), out, d.shape, dy.dtype)
    dresidual = written(d, dresidual_out, d.shape, z.dtype) if return_dresidual else None
    return dx, dresidual, dlayer_scale


def unrounded(z: FloatArray) -> FloatArray:
    """An array that receives the gradient with respect to z before it is rounded."""
    return np.empty(z.shape, compute_dtype(z.dtype))


def dropout_add_layer_norm_backward(
    dy: FloatArray,
    dz: FloatArray | None,
    z: FloatArray,
    mean: Float64Array,
    rstd: FloatArray,
    weight: FloatArray | None,
    *others: Any,
) -> _results.DropoutAddLayerNormBackward:
    through_norm, dweight, dbias = layer_norm_backward(dy, z, mean, rstd, weight, unrounded(z))
    dx, dresidual, dlayer_scale = branch_gradients(through_norm, dy, dz, z, rstd.ndim, *others)
    return _results.DropoutAddLayerNormBackward(dx, dresidual, dweight, dbias, dlayer_scale)


def dropout_add_rms_norm_backward(
    dy: FloatArray, dz: FloatArray | None, z: FloatArray, rstd: FloatArray, weight: FloatArray | None, *others: Any
) -> _results.DropoutAddRmsNormBackward:
    through_norm, dweight = rms_norm_backward(dy, z, rstd, weight, unrounded(z))
    dx, dresidual, dlayer_scale = branch_gradients(through_norm, dy, dz, z, rstd.ndim, *others)
    return _results.DropoutAddRmsNormBackward(dx, dresidual, dweight, dlayer_scale)
