"""Dropout of a branch, addition of the residual, and RMSNorm of the sum, in one pass, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy.typing as npt

from pyreg import _core, _dropout_add_norm
from pyreg._results import DropoutAddRmsNormBackward, DropoutAddRmsNormForward, FloatArray


def dropout_add_rms_norm_forward(
    x: npt.ArrayLike,
    residual: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    *,
    p: float = 0.0,
    key: SupportsIndex | None = None,
    offset: SupportsIndex = 0,
    training: bool = True,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
    eps: float = 1e-5,
    row_scale: npt.ArrayLike | None = None,
    layer_scale: npt.ArrayLike | None = None,
    return_z: bool = True,
    out: FloatArray | None = None,
    z_out: FloatArray | None = None,
) -> DropoutAddRmsNormForward:
    """Apply dropout, add the residual and normalise the sum by RMSNorm, in one pass.

    ``z = dropout(x, p, key=key, offset=offset) * row_scale * layer_scale + residual`` and
    ``y = rms_norm(z, weight)``: `dropout_add_layer_norm_forward` with RMSNorm in place of LayerNorm.

    Parameters
    ----------
    x, residual, weight, p, key, offset, training, normalized_shape, eps
        As in `dropout_add_layer_norm_forward`.
    row_scale, layer_scale, return_z, out, z_out
        As in `dropout_add_layer_norm_forward`.

    Returns
    -------
    y : ndarray
        The normalised sum, of x's dtype and shape; `out` if given.
    z : ndarray or None
        As in `dropout_add_layer_norm_forward`.
    rstd : ndarray of float32, or of float64 if x is
        ``1 / sqrt(mean(z**2) + eps)`` of each row of z, of x's leading shape.

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
    result: DropoutAddRmsNormForward = _core.dropout_add_rms_norm_forward(
        x, residual, weight, p, key, offset, training, normalized_shape, eps, row_scale, layer_scale, return_z, out,
        z_out, forward_arguments,
    )  # fmt: skip
    return result


def dropout_add_rms_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    p: float = 0.0,
    key: SupportsIndex | None = None,
    offset: SupportsIndex = 0,
    row_scale: npt.ArrayLike | None = None,
    layer_scale: npt.ArrayLike | None = None,
    x: npt.ArrayLike | None = None,
    return_dresidual: bool = True,
    out: FloatArray | None = None,
    dresidual_out: FloatArray | None = None,
) -> DropoutAddRmsNormBackward:
    """Return the gradients of `dropout_add_rms_norm_forward`.

    This is `dropout_add_layer_norm_backward` with RMSNorm in place of LayerNorm.

    Parameters
    ----------
    dy, dz, z, rstd, weight, p, key, offset
        As in `dropout_add_layer_norm_backward`.
    row_scale, layer_scale, x, return_dresidual, out, dresidual_out
        As in `dropout_add_layer_norm_backward`.

    Returns
    -------
    dx : ndarray
        Of dy's dtype and shape; `out` if given.
    dresidual : ndarray or None
        As in `dropout_add_layer_norm_backward`.
    dweight : ndarray, or None if there is no weight
        Of weight's dtype and shape.
    dlayer_scale : ndarray, or None if there is no layer_scale
        Of layer_scale's dtype and shape.

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
    >>> gradients = pyreg.dropout_add_rms_norm_backward(dy, None, z, rstd, p=0.5, key=1)
    >>> gradients.dresidual.round(3)
    array([[0.309, 0.   , 0.   , 0.   ]])
    """
    result: DropoutAddRmsNormBackward = _core.dropout_add_rms_norm_backward(
        dy, dz, z, rstd, weight, p, key, offset, row_scale, layer_scale, x, return_dresidual, out, dresidual_out,
        backward_arguments,
    )  # fmt: skip
    return result


def forward_arguments(x: Any, residual: Any, weight: Any, *others: Any) -> tuple[Any, ...]:
    checked = _dropout_add_norm.forward_arguments(x, residual, weight, None, *others)
    return *checked[:3], *checked[4:]  # without the bias


def backward_arguments(dy: Any, dz: Any, z: Any, rstd: Any, weight: Any, *others: Any) -> tuple[Any, ...]:
    dy, z, rstd, weight = _dropout_add_norm.backward_arrays(dy, z, rstd, weight)
    checked = _dropout_add_norm.backward_arguments(dy, dz, z, None, rstd, weight, *others)
    return *checked[:3], *checked[4:]  # without the mean
