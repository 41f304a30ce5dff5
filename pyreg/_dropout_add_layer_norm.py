"""Dropout of a branch, the residual added, and LayerNorm of the sum: in one pass, forward and backward."""

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
from pyreg._layer_norm import backward_arguments


@overload
def dropout_add_layer_norm_forward(
    x: npt.ArrayLike,
    residual: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    z_out: FloatArray | EllipsisType = ...,
    **options: Unpack[ForwardOptions],
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]: ...
@overload
def dropout_add_layer_norm_forward(
    x: npt.ArrayLike,
    residual: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    z_out: None,
    **options: Unpack[ForwardOptions],
) -> tuple[FloatArray, None, FloatArray, FloatArray]: ...
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
    """Dropout, the residual added, and LayerNorm of the sum, in one pass.

    ``z = dropout(x, p, key=key, offset=offset) * row_scale * layer_scale + residual`` and
    ``y = layer_norm(z, weight, bias)``: the same bits as these, one after the other, and about half the
    memory traffic. A Pre-LN Transformer goes on with both, z being the next residual; Post-LN with y.

    Parameters
    ----------
    x : array_like of float32 or float64, shape ``(..., *normalized_shape)``
        The branch: what a sublayer made. In any memory layout; one that cannot be streamed is copied once.
    residual : array_like, x's dtype and shape, optional
        What is added; nothing by default.
    weight, bias : array_like, shape `normalized_shape`, optional
        As in `layer_norm`.
    p, key, offset
        As in `dropout`.
    training : bool, optional
        Where False, nothing is dropped. `row_scale` and `layer_scale` multiply all the same: leave out a
        `row_scale` that is drawn at random.
    normalized_shape, eps
        As in `layer_norm`.
    row_scale : array_like, x's dtype, shape of x without the normalised axes, optional
        A factor for each row that is normalised. For stochastic depth [1]_: those of `drop_path`, repeated
        for the rows of a sample (see its Notes).
    layer_scale : array_like, x's dtype, shape `normalized_shape`, optional
        A factor for each element of a sample's branch: LayerScale [2]_.
    out : ndarray, optional
        Where y goes: of x's dtype and shape, C-contiguous, aligned, writeable. It may be `x` or `residual`
        itself, and must not overlap them otherwise, nor another argument.
    z_out : ndarray, Ellipsis or None, optional
        Where z goes, under the conditions of `out`; ``...``, the default, for a new array. None where z is
        not wanted, as in the inference of a Post-LN model: it is not written then. The backward pass
        needs z, and x too where there is a `layer_scale`.

    Returns
    -------
    y : ndarray
        The normalised sum, of x's dtype and shape; `out` where that is given.
    z : ndarray or None
        The sum; `z_out` where that is given.
    mean : ndarray of float64
        The mean of each sample of z, of x's leading shape.
    rstd : ndarray
        ``1 / sqrt(var + eps)``, of x's dtype and its leading shape.

    Raises
    ------
    TypeError
        Where an array is not float32 or float64, or not of x's dtype; `key` or `offset` is not an integer.
    ValueError
        Where a shape does not match, a number is out of range, or `out` or `z_out` cannot be written.

    See Also
    --------
    dropout_add_layer_norm_backward : The gradients.

    References
    ----------
    .. [1] G. Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016, arXiv:1603.09382.
    .. [2] H. Touvron et al., "Going deeper with Image Transformers", ICCV 2021, arXiv:2103.17239.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x, residual = np.ones((2, 4)), np.array([[0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0]])
    >>> y, z, mean, rstd = pyreg.dropout_add_layer_norm_forward(x, residual, p=0.5, key=1)
    >>> z
    array([[0., 1., 4., 5.],
           [5., 2., 1., 2.]])
    >>> bool((z == pyreg.dropout(x, 0.5, key=1) + residual).all() and (y == pyreg.layer_norm(z)).all())
    True
    """
    checked = checked_forward(x, residual, weight, bias, p, key, offset, training, normalized_shape, eps,
                              row_scale, layer_scale, out, z_out)  # fmt: skip
    mean, rstd = np.empty(checked.leading, np.float64), np.empty(checked.leading, checked.x.dtype)
    run_forward(checked, mean, rstd)
    return checked.y, checked.z, mean, rstd


@overload
def dropout_add_layer_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    mean: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: None = None,
    *,
    layer_scale: None = None,
    x: npt.ArrayLike | None = None,
    dresidual_out: FloatArray | EllipsisType = ...,
    **options: Unpack[BackwardOptions],
) -> tuple[FloatArray, FloatArray, None, None]: ...
@overload
def dropout_add_layer_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    mean: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: None = None,
    *,
    layer_scale: None = None,
    x: npt.ArrayLike | None = None,
    dresidual_out: None,
    **options: Unpack[BackwardOptions],
) -> tuple[FloatArray, None, None, None]: ...
@overload
def dropout_add_layer_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    mean: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: None = None,
    *,
    layer_scale: npt.ArrayLike,
    x: npt.ArrayLike,
    dresidual_out: FloatArray | EllipsisType = ...,
    **options: Unpack[BackwardOptions],
) -> tuple[FloatArray, FloatArray, None, None, FloatArray]: ...
@overload
def dropout_add_layer_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    mean: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: None = None,
    *,
    layer_scale: npt.ArrayLike,
    x: npt.ArrayLike,
    dresidual_out: None,
    **options: Unpack[BackwardOptions],
) -> tuple[FloatArray, None, None, None, FloatArray]: ...
@overload
def dropout_add_layer_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    mean: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike,
    *,
    layer_scale: None = None,
    x: npt.ArrayLike | None = None,
    dresidual_out: FloatArray | EllipsisType = ...,
    **options: Unpack[BackwardOptions],
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]: ...
@overload
def dropout_add_layer_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    mean: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike,
    *,
    layer_scale: None = None,
    x: npt.ArrayLike | None = None,
    dresidual_out: None,
    **options: Unpack[BackwardOptions],
) -> tuple[FloatArray, None, FloatArray, FloatArray]: ...
@overload
def dropout_add_layer_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    mean: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike,
    *,
    layer_scale: npt.ArrayLike,
    x: npt.ArrayLike,
    dresidual_out: FloatArray | EllipsisType = ...,
    **options: Unpack[BackwardOptions],
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]: ...
@overload
def dropout_add_layer_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    mean: npt.ArrayLike,
    rstd: npt.ArrayLike,
    weight: npt.ArrayLike,
    *,
    layer_scale: npt.ArrayLike,
    x: npt.ArrayLike,
    dresidual_out: None,
    **options: Unpack[BackwardOptions],
) -> tuple[FloatArray, None, FloatArray, FloatArray, FloatArray]: ...
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
    """Return the gradients of `dropout_add_layer_norm_forward`.

    ``dresidual = layer_norm_backward(dy, z, mean, rstd, weight)[0] + dz`` is the gradient for z, and with
    it for the residual; ``dx = dropout(dresidual * layer_scale * row_scale, p, key=key, offset=offset)``.
    The mask is made again: none has been stored.

    Parameters
    ----------
    dy : array_like, z's dtype and shape
        The gradient of the loss for y.
    dz : array_like, z's dtype and shape, or None
        The gradient of the loss for z, where z was used besides: the next residual's, in Pre-LN.
    z : array_like of float32 or float64, shape ``(..., *normalized_shape)``
        The sum, as the forward pass returned it.
    mean, rstd : array_like, shape of z without the normalised axes
        As the forward pass returned them.
    weight : array_like, the normalised shape, optional
        The weight of the forward pass.
    p, key, offset, row_scale, layer_scale
        Those of the forward pass; p is 0 where `training` was False.
    x : array_like, z's dtype and shape
        The branch, as it was in the forward pass. Needed for the gradient of `layer_scale`, and only then.
    out : ndarray, optional
        Where dx goes: of z's dtype and shape, C-contiguous, aligned, writeable. It may be `dy`, `dz`, `z` or
        `x` itself, and must not overlap them otherwise, nor another argument.
    dresidual_out : ndarray, Ellipsis or None, optional
        Where dresidual goes, under the conditions of `out`; ``...``, the default, for a new array; None
        where it is not wanted: it is not written then.

    Returns
    -------
    dx : ndarray
        Of z's dtype and shape; `out` where that is given.
    dresidual : ndarray or None
        The gradient for z and the residual; `dresidual_out` where that is given.
    dweight, dbias : ndarray, or None where there is no weight
        Of z's dtype and the normalised shape.
    dlayer_scale : ndarray
        The sum of ``dresidual * dropout(x) * row_scale`` over the samples, of z's dtype and the normalised
        shape. Only where there is a `layer_scale`: else there are four results.

    Raises
    ------
    TypeError
        Where an array is not float32 or float64, or not of z's dtype; `layer_scale` is given and x is not;
        `key` or `offset` is not an integer.
    ValueError
        Where a shape does not match, a number is out of range, or a result cannot be written.

    Notes
    -----
    `dweight`, `dbias` and `dlayer_scale` are summed over blocks of 64 samples, then over the blocks in
    double precision: the number of threads does not show in them.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x, residual = np.ones((1, 4)), np.array([[0.0, 1.0, 2.0, 3.0]])
    >>> y, z, mean, rstd = pyreg.dropout_add_layer_norm_forward(x, residual, p=0.5, key=1)
    >>> dy, dz = np.array([[1.0, 0.0, 0.0, 0.0]]), np.zeros((1, 4))
    >>> dx, dresidual, _, _ = pyreg.dropout_add_layer_norm_backward(dy, dz, z, mean, rstd, p=0.5, key=1)
    >>> dresidual.round(3)
    array([[ 0.185, -0.228, -0.014,  0.057]])
    >>> dx.round(3)
    array([[ 0.   ,  0.   , -0.029,  0.114]])
    """
    dy, z, mean, rstd, weight, normalized = backward_arguments(dy, z, mean, rstd, weight, x="z")
    checked = checked_backward(dy, dz, z, mean, rstd, weight, normalized, p, key, offset, row_scale, layer_scale, x,
                               out, dresidual_out)  # fmt: skip
    dweight, dbias = empty_like(weight, normalized), empty_like(weight, normalized)
    dlayer_scale = run_backward(checked, dweight, dbias)
    results = (checked.dx, checked.dresidual, dweight, dbias)
    return results if dlayer_scale is None else (*results, dlayer_scale)
