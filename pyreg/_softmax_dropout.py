"""Softmax over scores and dropout of its weights: attention's, in one pass, forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import numpy.typing as npt

from pyreg import _check, _core
from pyreg._check import FloatArray, Shape


def softmax_dropout_forward(
    x: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    training: bool = True,
    scale: float = 1.0,
    causal: bool = False,
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Softmax over the last axis and dropout of the result, in one pass.

    ``s = x * scale + mask``, ``prob = exp(s - maximum) / sum(exp(s - maximum))`` with the maximum of each row of
    s, and ``y = dropout(prob, p, key=key, offset=offset)``: the weights of attention [1]_, for x the products of
    queries and keys.

    Parameters
    ----------
    x : array_like of float32 or float64, shape ``(..., n)``
        The scores. In any memory layout; one that cannot be streamed is copied once.
    mask : array_like, x's dtype, optional
        What is added to the scaled scores: ``-inf`` where a weight has to be 0. Of x's shape, or one that
        broadcasts to it, such as (queries, keys), or (batch, 1, 1, keys) for keys that are padding. It is
        not copied for that. A NaN or +inf in x stays one under -inf.
    p, key, offset
        As in `dropout`.
    training : bool, optional
        Where False, no weight is dropped.
    scale : float, optional
        What x is multiplied with first, ``1 / sqrt(d)`` for queries and keys of d features. Finite in x's dtype.
    causal : bool, optional
        Whether the weights of keys after the query are 0: of element j of row i of the last two axes,
        where j > i. Unlike under a `mask`, which is added, what x holds there has no effect, NaN neither.
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
    >>> y, maximum, rsum = pyreg.softmax_dropout_forward(np.zeros((3, 3)), p=0.0, key=1, causal=True)
    >>> y.round(3)
    array([[1.   , 0.   , 0.   ],
           [0.5  , 0.5  , 0.   ],
           [0.333, 0.333, 0.333]])
    """
    a = checked_forward(x, mask, p, key, offset, training, scale, causal, out)
    maximum, rsum = np.empty(a.x.shape[:-1], a.x.dtype), np.empty(a.x.shape[:-1], a.x.dtype)
    _core.softmax_dropout_forward(a.x, *a.mask, a.queries, a.scale, a.threshold, a.key, a.offset, a.y, maximum, rsum)
    return a.y, maximum, rsum


def softmax_dropout_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    maximum: npt.ArrayLike,
    rsum: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    *,
    p: float,
    key: SupportsIndex,
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
    >>> y, maximum, rsum = pyreg.softmax_dropout_forward(x, p=0.0, key=1)
    >>> dy = np.array([[1.0, 0.0, 0.0]])
    >>> pyreg.softmax_dropout_backward(dy, x, maximum, rsum, p=0.0, key=1).round(3)
    array([[ 0.082, -0.022, -0.06 ]])
    """
    a = checked_backward(dy, x, maximum, rsum, mask, p, key, offset, scale, causal, out)
    _core.softmax_dropout_backward(
        a.dy, a.x, a.maximum, a.rsum, *a.mask, a.queries, a.scale, a.threshold, a.key, a.offset, a.dx
    )
    return a.dx


class MaskRows(NamedTuple):
    """How the mask's rows belong to x's."""

    mask: FloatArray | None  # (..., n), C-contiguous
    lengths: Shape  # x's shape without the last axis
    steps: Shape  # for each of them, how far on in the mask its next row is


class Forward(NamedTuple):
    """The arguments of the forward pass, checked."""

    x: FloatArray
    mask: MaskRows
    queries: int  # the length of the last axis but one where causal, else 0
    scale: float
    threshold: int
    key: int
    offset: int
    y: FloatArray


def checked_forward(
    x: Any,
    mask: Any,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex,
    training: bool,
    scale: float,
    causal: bool,
    out: Any,
) -> Forward:
    x, mask = _check.arrays(("x", "mask"), (x, mask), 0)
    queries = _check_shapes(x, mask, causal)
    scale = _check.finite("scale", scale, x.dtype)
    threshold, key, offset = _check.dropout_arguments(p, key, offset, x.size, training)
    y = _check.out(out, ("x", "mask"), (x, mask))
    return Forward(x, mask_rows(mask, x.shape), queries, scale, threshold, key, offset, y)


class Backward(NamedTuple):
    """The arguments of the backward pass, checked."""

    dy: FloatArray
    x: FloatArray
    maximum: FloatArray
    rsum: FloatArray
    mask: MaskRows
    queries: int
    scale: float
    threshold: int
    key: int
    offset: int
    dx: FloatArray


def checked_backward(
    dy: Any,
    x: Any,
    maximum: Any,
    rsum: Any,
    mask: Any,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex,
    scale: float,
    causal: bool,
    out: Any,
) -> Backward:
    names = ("x", "dy", "maximum", "rsum", "mask")
    x, dy, maximum, rsum, mask = arrays = _check.arrays(names, (x, dy, maximum, rsum, mask), 3)
    queries = _check_shapes(x, mask, causal)
    _check.match_shape("dy", dy, x.shape, "x")
    _check.match_shape("maximum", maximum, x.shape[:-1], "x without the last axis")
    _check.match_shape("rsum", rsum, x.shape[:-1], "x without the last axis")
    scale = _check.finite("scale", scale, x.dtype)
    threshold, key, offset = _check.dropout_arguments(p, key, offset, x.size)
    dx = _check.out(out, names, arrays, may_be=2)
    return Backward(
        dy, x, maximum, rsum, mask_rows(mask, x.shape), queries, scale, threshold, key, offset, dx
    )  # fmt: skip


def _check_shapes(x: FloatArray, mask: FloatArray | None, causal: bool) -> int:
    """Returns `queries`."""
    if x.ndim == 0:
        raise ValueError(f"x must have an axis, over which softmax is taken, got shape {x.shape}")
    if mask is not None:
        aligned = (1,) * (x.ndim - mask.ndim) + mask.shape
        if mask.ndim > x.ndim or any(m not in (1, n) for m, n in zip(aligned, x.shape, strict=True)):
            raise ValueError(f"mask must have a shape that broadcasts to {x.shape} like x, got {mask.shape}")
    if not _check.flag("causal", causal):
        return 0
    if x.ndim < 2:
        raise ValueError(f"x must have an axis of queries and one of keys where causal, got shape {x.shape}")
    queries: int = x.shape[-2]
    return queries


def mask_rows(mask: FloatArray | None, shape: Shape) -> MaskRows:
    *lengths, n = shape
    if mask is None:
        return MaskRows(None, tuple(lengths), (0,) * len(lengths))
    if mask.ndim == 0 or mask.shape[-1] != n:
        mask = np.ascontiguousarray(np.broadcast_to(mask, (*mask.shape[:-1], n)))
    steps, step = [0] * len(lengths), n
    for axis in range(-1, -mask.ndim, -1):
        length = mask.shape[axis - 1]
        if length != 1:
            steps[axis] = step
        step *= length
    return MaskRows(mask, tuple(lengths), tuple(steps))
