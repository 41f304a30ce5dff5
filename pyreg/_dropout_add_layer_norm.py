"""Dropout of a branch, addition of the residual, and LayerNorm of the sum, in one pass, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy.typing as npt

from pyreg import _core, _dropout_add_norm
from pyreg._dropout_add_norm import forward_arguments
from pyreg._layer_norm import row_means
from pyreg._results import DropoutAddLayerNormBackward, DropoutAddLayerNormForward, FloatArray


def dropout_add_layer_norm_forward(
    x: npt.ArrayLike,
    residual: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
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
) -> DropoutAddLayerNormForward:
    """Apply dropout, add the residual and normalise the sum by LayerNorm, in one pass.

    ``z = dropout(x, p, key=key, offset=offset) * row_scale * layer_scale + residual`` and
    ``y = layer_norm(z, weight, bias)``. The results have the same bits as these steps run separately (see the
    Notes for arrays of 16 bits), with about half the memory traffic. A Pre-LN Transformer uses both, z as the
    next residual; a Post-LN one uses y.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, shape ``(..., *normalized_shape)``
        The branch: the output of a sublayer. Any memory layout; copied once unless C-contiguous, aligned and in
        native byte order.
    residual : array_like, x's shape, optional
        Added to the branch: of x's dtype, or float32 if x has 16 bits. By default, nothing is added.
    weight, bias : array_like, shape `normalized_shape`, optional
        As in `layer_norm`.
    p, key, offset
        As in `dropout`. With the default p of 0, nothing is dropped.
    training : bool, optional
        If False, nothing is dropped. `row_scale` and `layer_scale` still multiply, so leave out a `row_scale`
        that is drawn at random.
    normalized_shape, eps
        As in `layer_norm`.
    row_scale : array_like, shape of x without the normalised axes, optional
        A factor for each row that is normalised: of x's dtype, or float32 if x has 16 bits. A factor of 0 drops the
        row's branch, even where it is infinite or NaN. For stochastic depth [1]_, pass the factors of `drop_path`,
        repeated for each row of a sample (see the Notes there).
    layer_scale : array_like, shape `normalized_shape`, optional
        A factor for each element of a row's branch: LayerScale [2]_. Its dtype is as for `row_scale`.
    return_z : bool, optional
        Whether to return z. The backward pass needs z, and also x if there is a `layer_scale`. Inference with a
        Post-LN model does not need z.
    out : ndarray, optional
        Array that receives y, of x's dtype and shape, C-contiguous, aligned and writeable. It may be `x` or
        `residual` itself, but must not partly overlap them, nor overlap another argument.
    z_out : ndarray, optional
        Array that receives z, of residual's dtype; without a residual, of x's dtype, or float32 if x has 16 bits. The
        other conditions are those of `out`, and it must not overlap `out`.

    Returns
    -------
    y : ndarray
        The normalised sum, of x's dtype and shape; `out` if given.
    z : ndarray or None
        The sum, of residual's dtype (without a residual, of `z_out`'s or x's) and x's shape; `z_out` if given. None
        with ``return_z=False``.
    mean : ndarray of float64
        The mean of each row of z, of x's leading shape: without the normalised axes.
    rstd : ndarray of float32, or of float64 if x is
        ``1 / sqrt(var + eps)`` of each row of z, of x's leading shape.

    Raises
    ------
    TypeError
        If an array has a dtype other than those above; if `key` or `offset` is not an integer.
    ValueError
        If a shape does not match, a number is out of range, or `out` or `z_out` cannot be written.

    See Also
    --------
    dropout_add_layer_norm_backward : The gradients.

    Notes
    -----
    Arrays of 16 bits are computed as in `layer_norm`. The branch is not rounded before the sum, so z may differ from
    that of separate steps in the last place. y and the statistics are those of the rounded z. A float32 residual
    keeps the sum over many layers from being rounded to 16 bits in each.

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
    result: DropoutAddLayerNormForward = _core.dropout_add_layer_norm_forward(
        x, residual, weight, bias, p, key, offset, training, normalized_shape, eps, row_scale, layer_scale, return_z,
        out, z_out, forward_arguments,
    )  # fmt: skip
    return result


def dropout_add_layer_norm_backward(
    dy: npt.ArrayLike,
    dz: npt.ArrayLike | None,
    z: npt.ArrayLike,
    mean: npt.ArrayLike,
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
) -> DropoutAddLayerNormBackward:
    """Return the gradients of `dropout_add_layer_norm_forward`.

    ``dresidual = layer_norm_backward(dy, z, mean, rstd, weight)[0] + dz`` is the gradient with respect to z,
    and so to the residual. ``dx = dropout(dresidual * layer_scale * row_scale, p, key=key, offset=offset)``.
    The mask is regenerated, not stored.

    Parameters
    ----------
    dy : array_like of float32, float64, float16 or bfloat16, z's shape
        The gradient of the loss with respect to y.
    dz : array_like, z's dtype and shape, or None
        The gradient of the loss with respect to z from any use of z other than y. In Pre-LN, that of the next
        residual.
    z : array_like, shape ``(..., *normalized_shape)``
        The sum, as the forward pass returned it: of dy's dtype, or float32 if dy has 16 bits.
    mean, rstd : array_like, shape of z without the normalised axes
        As the forward pass returned them.
    weight : array_like, the normalised shape, optional
        The weight of the forward pass.
    p, key, offset, row_scale, layer_scale
        As in the forward pass; p is 0 if `training` was False.
    x : array_like, dy's dtype and shape
        The branch, as in the forward pass. Required if `layer_scale` is given, for its gradient; else ignored,
        whatever it is and overlaps.
    return_dresidual : bool, optional
        Whether to return dresidual.
    out : ndarray, optional
        Array that receives dx, of dy's dtype and shape, C-contiguous, aligned and writeable. It may be `dy`, `dz`,
        `z` or `x` itself, but must not partly overlap them, nor overlap another argument.
    dresidual_out : ndarray, optional
        Array that receives dresidual, of z's dtype. The other conditions are those of `out`, and it must not overlap
        `out`.

    Returns
    -------
    dx : ndarray
        Of dy's dtype and shape; `out` if given.
    dresidual : ndarray or None
        The gradient with respect to z and the residual, of z's dtype and shape; `dresidual_out` if given. None with
        ``return_dresidual=False``.
    dweight, dbias : ndarray, or None if there is no weight
        Of weight's dtype and shape.
    dlayer_scale : ndarray, or None if there is no layer_scale
        The sum of ``dresidual * dropout(x) * row_scale`` over the rows, of layer_scale's dtype and shape.

    Raises
    ------
    TypeError
        If an array has a dtype other than those above; if `layer_scale` is given and x is not; if `key` or `offset`
        is not an integer.
    ValueError
        If a shape does not match, a number is out of range, or a result cannot be written.

    Notes
    -----
    `dweight`, `dbias` and `dlayer_scale` are summed over blocks of 64 rows, then over the blocks in double
    precision, so they do not depend on the number of threads.

    Of arrays of 16 bits, only results are rounded: dx is computed from dresidual before it is rounded.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x, residual = np.ones((1, 4)), np.array([[0.0, 1.0, 2.0, 3.0]])
    >>> y, z, mean, rstd = pyreg.dropout_add_layer_norm_forward(x, residual, p=0.5, key=1)
    >>> dy, dz = np.array([[1.0, 0.0, 0.0, 0.0]]), np.zeros((1, 4))
    >>> gradients = pyreg.dropout_add_layer_norm_backward(dy, dz, z, mean, rstd, p=0.5, key=1)
    >>> gradients.dresidual.round(3)
    array([[ 0.185, -0.228, -0.014,  0.057]])
    >>> gradients.dx.round(3)
    array([[ 0.   ,  0.   , -0.029,  0.114]])
    """
    result: DropoutAddLayerNormBackward = _core.dropout_add_layer_norm_backward(
        dy, dz, z, mean, rstd, weight, p, key, offset, row_scale, layer_scale, x, return_dresidual, out,
        dresidual_out, backward_arguments,
    )  # fmt: skip
    return result


def backward_arguments(dy: Any, dz: Any, z: Any, mean: Any, rstd: Any, weight: Any, *others: Any) -> tuple[Any, ...]:
    dy, z, rstd, weight = _dropout_add_norm.backward_arrays(dy, z, rstd, weight)
    mean = row_means(mean, rstd, "z", z)
    return _dropout_add_norm.backward_arguments(dy, dz, z, mean, rstd, weight, *others)
