"""Softmax over scores and dropout of its weights: attention's, in one pass, forward and backward."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from pyreg import _check, _core
from pyreg._results import FloatArray, SoftmaxDropoutForward


def softmax_dropout_forward(
    x: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    *,
    p: float = 0.0,
    key: SupportsIndex | None = None,
    offset: SupportsIndex = 0,
    training: bool = True,
    scale: float = 1.0,
    causal: bool = False,
    out: FloatArray | None = None,
) -> SoftmaxDropoutForward:
    """Softmax over the last axis and dropout of the result, in one pass.

    ``s = x * scale + mask``, ``prob = exp(s - maximum) / sum(exp(s - maximum))`` with the maximum of each row of
    s, and ``y = dropout(prob, p, key=key, offset=offset)``: the weights of attention [1]_, for x the products of
    queries and keys.

    Parameters
    ----------
    x : array_like of float32 or float64, shape ``(..., n)``
        The scores. In any memory layout; one that the kernels cannot read is copied once.
    mask : array_like, x's dtype, optional
        What is added to the scaled scores: ``-inf`` where a weight has to be 0. Of x's shape, or one that
        broadcasts to it, such as (queries, keys), or (batch, 1, 1, keys) for keys that are padding. It is
        not copied for that. A mask's -inf does not hide NaN or +inf in x. From a boolean array
        `keep`, True where a weight is wanted, make it by ``np.where(keep, 0, -np.inf).astype(x.dtype)``.
    p, key, offset
        As in `dropout`; without p, nothing is dropped.
    training : bool, optional
        Where False, no weight is dropped.
    scale : float, optional
        What x is multiplied with first, ``1 / sqrt(d)`` for queries and keys of d features. Finite in x's dtype.
    causal : bool, optional
        Whether the weights of keys after the query are 0: of element j of row i of the last two axes,
        where j > i. Unlike under a `mask`, which is added, what x holds there has no effect, not even NaN.
    out : ndarray, optional
        Where y goes: of x's dtype and shape, C-contiguous, aligned, writeable. It may be x itself, and must
        not overlap x otherwise, nor `mask`. The backward pass needs x as it was.

    Returns
    -------
    y : ndarray
        The weights, of x's dtype and shape; `out` where that is given. A row of which nothing is left by
        `mask` and `causal` is 0 throughout. One with a NaN or a score of +inf is NaN throughout, but for what is
        dropped.
    maximum : ndarray
        The largest s of each row, 0 where nothing is left of it; of x's dtype, and its shape without the last
        axis.
    rsum : ndarray
        ``1 / sum(exp(s - maximum))`` of each row, 0 where nothing is left of it; likewise.

    Raises
    ------
    TypeError
        Where an array is not float32 or float64, or not of x's dtype: a boolean mask too; `key` or `offset` is not
        an integer.
    ValueError
        Where x has no axis, or one axis with `causal`; a shape does not match, a number is out of range, or `out`
        cannot be written or overlaps.

    See Also
    --------
    softmax_dropout_backward : The gradient.

    Notes
    -----
    The exponential is pyreg's own, with an error of at most 1 unit in the last place: the same bits on every
    machine.

    Rows i and columns j are counted from the same start, as PyTorch does: of 3 queries and 5 keys, the first query
    sees the first key alone. A single query that continues a sequence needs no `causal`.

    References
    ----------
    .. [1] A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017, arXiv:1706.03762.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> y, maximum, rsum = pyreg.softmax_dropout_forward(np.zeros((3, 3)), causal=True)
    >>> y.round(3)
    array([[1.   , 0.   , 0.   ],
           [0.5  , 0.5  , 0.   ],
           [0.333, 0.333, 0.333]])
    """
    result: SoftmaxDropoutForward = _core.softmax_dropout_forward(
        x, mask, p, key, offset, training, scale, causal, out, forward_arguments
    )
    return result


def softmax_dropout_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    maximum: npt.ArrayLike,
    rsum: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    *,
    p: float = 0.0,
    key: SupportsIndex | None = None,
    offset: SupportsIndex = 0,
    scale: float = 1.0,
    causal: bool = False,
    out: FloatArray | None = None,
) -> FloatArray:
    """Return the gradient of `softmax_dropout_forward` for x.

    With ``prob = exp(x * scale + mask - maximum) * rsum``, made again to the bit, and 0 where `causal` has it so, and
    ``dprob = dropout(dy, p, key=key, offset=offset)``: ``dx = prob * (dprob - sum(dprob * prob)) * scale``, summed
    over a row.

    Parameters
    ----------
    dy : array_like, x's dtype and shape
        The gradient of the loss for y.
    x : array_like of float32 or float64, shape ``(..., n)``
        The scores of the forward pass.
    maximum, rsum : array_like, x's dtype, shape of x without the last axis
        As the forward pass returned them.
    mask, p, key, offset, scale, causal
        Those of the forward pass; p is 0 where `training` was False.
    out : ndarray, optional
        Where dx goes: of x's dtype and shape, C-contiguous, aligned, writeable. It may be `dy` or `x` itself, and
        must not overlap them otherwise, nor another argument.

    Returns
    -------
    ndarray
        The gradient dx, of x's dtype and shape; `out` where that is given. That for a `mask` is ``dx / scale``, to
        rounding, summed over the axes along which it was broadcast.

    Raises
    ------
    TypeError
        Where an array is not float32 or float64, or not of x's dtype; `key` or `offset` is not an integer.
    ValueError
        Where a shape does not match, a number is out of range, or `out` cannot be written or overlaps.

    See Also
    --------
    softmax_dropout_forward : The weights.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x = np.array([[0.0, 1.0, 2.0]])
    >>> y, maximum, rsum = pyreg.softmax_dropout_forward(x)
    >>> dy = np.array([[1.0, 0.0, 0.0]])
    >>> pyreg.softmax_dropout_backward(dy, x, maximum, rsum).round(3)
    array([[ 0.082, -0.022, -0.06 ]])
    """
    dx: FloatArray = _core.softmax_dropout_backward(
        dy, x, maximum, rsum, mask, p, key, offset, scale, causal, out, backward_arguments
    )
    return dx


def forward_arguments(
    x: Any, mask: Any, p: float, key: Any, offset: Any, training: bool, scale: float, causal: bool, out: Any
) -> tuple[Any, ...]:
    x, mask = _check.arrays({"x": x}, {"mask": added_mask(mask)})
    mask, causal = rows_of_mask(mask, x, causal)
    dropout = _check.dropout(p, key, offset, x.size, training)
    scale = _check.finite("scale", scale, x.dtype)
    return x, mask, *dropout, scale, causal, _check.out(out, {"x": x}, {"mask": mask})


def backward_arguments(
    dy: Any,
    x: Any,
    maximum: Any,
    rsum: Any,
    mask: Any,
    p: float,
    key: Any,
    offset: Any,
    scale: float,
    causal: bool,
    out: Any,
) -> tuple[Any, ...]:
    x, dy, maximum, rsum, mask = _check.arrays(
        {"x": x, "dy": dy, "maximum": maximum, "rsum": rsum}, {"mask": added_mask(mask)}
    )
    mask, causal = rows_of_mask(mask, x, causal)
    _check.match_shape("dy", dy, x.shape, "x")
    _check.match_shape("maximum", maximum, x.shape[:-1], "x without the last axis")
    _check.match_shape("rsum", rsum, x.shape[:-1], "x without the last axis")
    p, key, offset, _ = _check.dropout(p, key, offset, x.size)
    scale = _check.finite("scale", scale, x.dtype)
    out = _check.out(out, {"x": x, "dy": dy}, {"maximum": maximum, "rsum": rsum, "mask": mask})
    return dy, x, maximum, rsum, mask, p, key, offset, scale, causal, out


def added_mask(mask: Any) -> Any:
    """The mask, unless it is one of booleans or integers: to add that would hide nothing."""
    if isinstance(mask, float):
        raise TypeError(f"mask must be an array, got {mask!r}; a probability is p={mask!r}")
    try:
        dtype = np.asarray(mask).dtype
    except ValueError:  # not an array at all
        return mask
    if dtype.kind in "biu":
        raise TypeError(
            f"mask is added to the scores and must be float32 or float64, got {dtype}; from an array `keep`, true "
            "where a weight is wanted, make it by np.where(keep, 0, -np.inf).astype(x.dtype)"
        )
    return mask


def rows_of_mask(mask: FloatArray | None, x: FloatArray, causal: bool) -> tuple[FloatArray | None, bool]:
    """The mask, with rows of x's length; and `causal`."""
    if x.ndim == 0:
        raise ValueError(f"x must have an axis, over which softmax is taken, got shape {x.shape}")
    if mask is not None:
        aligned = (1,) * (x.ndim - mask.ndim) + mask.shape
        if mask.ndim > x.ndim or any(m not in (1, n) for m, n in zip(aligned, x.shape, strict=True)):
            raise ValueError(f"mask must have a shape that broadcasts to {x.shape} like x, got {mask.shape}")
        if mask.shape[-1:] != x.shape[-1:]:
            mask = np.ascontiguousarray(np.broadcast_to(mask, (*mask.shape[:-1], x.shape[-1])))
    causal = _check.flag("causal", causal)
    if causal and x.ndim < 2:
        raise ValueError(f"x must have an axis of queries and one of keys where causal, got shape {x.shape}")
    return mask, causal
