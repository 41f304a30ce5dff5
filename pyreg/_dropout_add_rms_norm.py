"""Dropout of a branch, the residual added, and RMSNorm of the sum: in one pass, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Any, SupportsIndex, Unpack, overload

import numpy as np
import numpy.typing as npt

from pyreg._check import FloatArray
from pyreg._dropout_add_norm import (
    BackwardOptions,
    ForwardOptions,
    checked_backward,
    checked_forward,
    empty_like,
    run_backward,
    run_forward,
)
from pyreg._rms_norm import backward_arguments


@overload
def dropout_add_rms_norm_forward(
    x: npt.ArrayLike,
    residual: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    *,
    z_out: FloatArray | EllipsisType = ...,
    **options: Unpack[ForwardOptions],
) -> tuple[FloatArray, FloatArray, FloatArray]: ...
@overload
def dropout_add_rms_norm_forward(
    x: npt.ArrayLike,
    residual: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    *,
    z_out: None,
    **options: Unpack[ForwardOptions],
) -> tuple[FloatArray, None, FloatArray]: ...
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
    """Dropout, the residual added, and RMSNorm of the sum, in one pass.

    ``z = dropout(x, p, key=key, offset=offset) * row_scale * layer_scale + residual`` and
    ``y = rms_norm(z, weight)``: `dropout_add_layer_norm_forward` with RMSNorm in LayerNorm's place.

    Parameters
    ----------
    x, residual, weight, p, key, offset, training, normalized_shape, eps
        As in `dropout_add_layer_norm_forward`.
    row_scale, layer_scale, out, z_out
        As in `dropout_add_layer_norm_forward`.

    Returns
    -------
    y : ndarray
        The normalised sum, of x's dtype and shape; `out` where that is given.
    z : ndarray or None
        The sum; `z_out` where that is given.
    rstd : ndarray
        ``1 / sqrt(mean(z**2) + eps)``, of x's dtype and its leading shape.

    Raises
    ------
    TypeError, ValueError
        As in `dropout_add_layer_norm_forward`.

    See Also
    --------
    dropout_add_rms_norm_backward : The gradients.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x, residual = np.ones((1, 4)), np.array([[0.0, 1.0, 2.0, 3.0]])
    >>> y, z, rstd = pyreg.dropout_add_rms_norm_forward(x, residual, p=0.5, key=1)
    >>> z
    array([[0., 1., 4., 5.]])
    >>> y.round(3)
    array([[0.   , 0.309, 1.234, 1.543]])
    """
    checked = checked_forward(x, residual, weight, None, p, key, offset, training, normalized_shape, eps,
                              row_scale, layer_scale, out, z_out)  # fmt: skip
    rstd = np.empty(checked.leading, checked.x.dtype)
    run_forward(checked, None, rstd)
    return checked.y, checked.z, rstd


@overload
def dropout_add_rms_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: None = None,
    *,
    layer_scale: None = None,
    x: npt.ArrayLike | None = None,
    dresidual_out: FloatArray | EllipsisType = ...,
    **options: Unpack[BackwardOptions],
) -> tuple[FloatArray, FloatArray, None]: ...
@overload
def dropout_add_rms_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: None = None,
    *,
    layer_scale: None = None,
    x: npt.ArrayLike | None = None,
    dresidual_out: None,
    **options: Unpack[BackwardOptions],
) -> tuple[FloatArray, None, None]: ...
@overload
def dropout_add_rms_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: None = None,
    *,
    layer_scale: npt.ArrayLike,
    x: npt.ArrayLike,
    dresidual_out: FloatArray | EllipsisType = ...,
    **options: Unpack[BackwardOptions],
) -> tuple[FloatArray, FloatArray, None, FloatArray]: ...
@overload
def dropout_add_rms_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: None = None,
    *,
    layer_scale: npt.ArrayLike,
    x: npt.ArrayLike,
    dresidual_out: None,
    **options: Unpack[BackwardOptions],
) -> tuple[FloatArray, None, None, FloatArray]: ...
@overload
def dropout_add_rms_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike,
    *,
    layer_scale: None = None,
    x: npt.ArrayLike | None = None,
    dresidual_out: FloatArray | EllipsisType = ...,
    **options: Unpack[BackwardOptions],
) -> tuple[FloatArray, FloatArray, FloatArray]: ...
@overload
def dropout_add_rms_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike,
    *,
    layer_scale: None = None,
    x: npt.ArrayLike | None = None,
    dresidual_out: None,
    **options: Unpack[BackwardOptions],
) -> tuple[FloatArray, None, FloatArray]: ...
@overload
def dropout_add_rms_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike,
    *,
    layer_scale: npt.ArrayLike,
    x: npt.ArrayLike,
    dresidual_out: FloatArray | EllipsisType = ...,
    **options: Unpack[BackwardOptions],
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]: ...
@overload
def dropout_add_rms_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike,
    *,
    layer_scale: npt.ArrayLike,
    x: npt.ArrayLike,
    dresidual_out: None,
    **options: Unpack[BackwardOptions],
) -> tuple[FloatArray, None, FloatArray, FloatArray]: ...
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
    """Return the gradients of `dropout_add_rms_norm_forward`.

    `dropout_add_layer_norm_backward` with RMSNorm in LayerNorm's place.

    Parameters
    ----------
    dy, dz, z, rstd, weight, p, key, offset
        As in `dropout_add_layer_norm_backward`.
    row_scale, layer_scale, x, out, dresidual_out
        As in `dropout_add_layer_norm_backward`.

    Returns
    -------
    dx : ndarray
        Of z's dtype and shape; `out` where that is given.
    dresidual : ndarray or None
        The same; `dresidual_out` where that is given.
    dweight : ndarray, or None where there is no weight
        Of z's dtype and the normalised shape.
    dlayer_scale : ndarray
        Of z's dtype and the normalised shape. Only where there is a `layer_scale`: else there are three
        results.

    Raises
    ------
    TypeError, ValueError
        As in `dropout_add_layer_norm_backward`.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x, residual = np.ones((1, 4)), np.array([[0.0, 1.0, 2.0, 3.0]])
    >>> y, z, rstd = pyreg.dropout_add_rms_norm_forward(x, residual, p=0.5, key=1)
    >>> dy = np.array([[1.0, 0.0, 0.0, 0.0]])
    >>> dx, dresidual, _ = pyreg.dropout_add_rms_norm_backward(dy, None, z, rstd, p=0.5, key=1)
    >>> dresidual.round(3)
    array([[0.309, 0.   , 0.   , 0.   ]])
    """
    dy, z, rstd, weight, normalized = backward_arguments(dy, z, rstd, weight, x="z")
    checked = checked_backward(dy, dz, z, None, rstd, weight, normalized, p, key, offset, row_scale, layer_scale, x,
                               out, dresidual_out)  # fmt: skip
    dweight = empty_like(weight, normalized)
    dlayer_scale = run_backward(checked, dweight, None)
    results = (checked.dx, checked.dresidual, dweight)
    return results if dlayer_scale is None else (*results, dlayer_scale)
