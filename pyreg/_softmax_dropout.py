"""Softmax of scores and dropout of the weights, as in attention, in one pass, forward and backward."""

from __future__ import annotations

import math
from typing import Any, Literal, SupportsIndex

import numpy as np
import numpy.typing as npt

from pyreg import _check, _core
from pyreg._dtypes import FLOATS, compute_dtype, either, name_of
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
    causal: bool | Literal["upper_left", "lower_right"] = False,
    keep: npt.ArrayLike | None = None,
    axis: SupportsIndex = -1,
    out: FloatArray | None = None,
) -> SoftmaxDropoutForward:
    """Apply softmax over an axis and dropout to the result, in one pass.

    With ``s = x * scale + mask`` and the maximum of each row of s,
    ``prob = exp(s - maximum) / sum(exp(s - maximum))`` and ``y = dropout(prob, p, key=key, offset=offset)``. A row
    is what softmax turns into weights that sum to 1: the elements along `axis`. If x holds the products of queries
    and keys, y holds the weights of attention [1]_.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, shape ``(..., n)``
        The scores. Any memory layout; copied once unless C-contiguous, aligned and in native byte order.
    mask : array_like, optional
        Added to the scaled scores, such as a bias of positions: of x's dtype, or float32 if x has 16 bits. Its shape
        broadcasts to x's; it is copied only if it broadcasts along the last axis. Where it is -inf, the weight is 0,
        but NaN or +inf in x is not hidden; `keep` hides them.
    p, key, offset
        As in `dropout`. With the default p of 0, nothing is dropped.
    training : bool, optional
        If False, no weight is dropped.
    scale : float, optional
        Factor that x is multiplied by first: ``1 / sqrt(d)`` for queries and keys of d features. Finite in x's
        dtype; in float32 if x has 16 bits.
    causal : bool, "upper_left" or "lower_right", optional
        Whether the weights of keys after the query are 0. With True, which is "upper_left", query i has none for the
        keys j > i (L queries and S keys are x's last two axes). With "lower_right", the last query is at the last
        key: none for j > i + S - L. That continues a sequence whose first keys are cached. Hides whatever x holds
        there, even NaN.
    keep : array_like of bool, optional
        True where a weight may differ from 0. Its shape broadcasts to x's, such as (queries, keys), or
        (batch, 1, 1, keys) for keys that are padding. It is copied only if it broadcasts along the last axis. It
        hides whatever x holds elsewhere, even NaN, and combines with `mask` and `causal`.
    axis : int, optional
        The axis along which the weights sum to 1. With `causal`, it must be the last. The stream of random numbers
        follows x's elements in C order, whatever the axis.
    out : ndarray, optional
        Array that receives y, of x's dtype and shape, C-contiguous, aligned and writeable. It may be x itself,
        but must not partly overlap x, nor overlap `mask` or `keep`. The backward pass needs the original x, or y.

    Returns
    -------
    y : ndarray
        The weights, of x's dtype and shape; `out` if given. A row in which `mask`, `keep` and `causal` leave
        nothing is 0 throughout. A row with a NaN or a score of +inf is NaN throughout, except for dropped elements.
    maximum : ndarray of float32, or of float64 if x is
        The largest s of each row, or 0 if nothing is left of the row. Of x's shape without `axis`.
    rsum : ndarray
        ``1 / sum(exp(s - maximum))`` of each row, or 0 if nothing is left of the row. Of maximum's dtype and shape.

    Raises
    ------
    TypeError
        If an array has a dtype other than those above (this includes a boolean mask); if `keep` is not boolean; if
        `key`, `offset` or `axis` is not an integer.
    ValueError
        If x has no such axis; with `causal`, if x has only one axis, or `axis` is not the last; if a shape does not
        match, a number is out of range, or `out` cannot be written or overlaps an input.

    See Also
    --------
    softmax_dropout_backward : The gradient.

    Notes
    -----
    Arrays of 16 bits are computed as in `layer_norm`. Only y is rounded, not the weights before dropout.

    The exponential is pyreg's own. It has an error of at most 1 unit in the last place, and gives the same bits on
    every machine.

    The names of the corners are PyTorch's, and its ``is_causal=True`` is "upper_left": with 3 queries and 5 keys, the
    first query sees only the first key. With "lower_right" it sees three keys. If there are more queries than keys,
    the first queries see no key then: their rows are 0. A single query needs no `causal`.

    Along another axis than the last, the bits are those of the transposed array.

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
    >>> pyreg.softmax_dropout_forward(np.zeros((1, 4)), keep=[True, False, True, True]).y.round(3)
    array([[0.333, 0.   , 0.333, 0.333]])
    """
    result: SoftmaxDropoutForward = _core.softmax_dropout_forward(
        x, mask, p, key, offset, training, scale, causal, keep, axis, out, forward_arguments
    )
    return result


def softmax_dropout_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike | None = None,
    maximum: npt.ArrayLike | None = None,
    rsum: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
    *,
    y: npt.ArrayLike | None = None,
    p: float = 0.0,
    key: SupportsIndex | None = None,
    offset: SupportsIndex = 0,
    scale: float = 1.0,
    causal: bool | Literal["upper_left", "lower_right"] = False,
    keep: npt.ArrayLike | None = None,
    axis: SupportsIndex = -1,
    out: FloatArray | None = None,
) -> FloatArray:
    """Return the gradient of `softmax_dropout_forward` with respect to x.

    With ``prob = exp(x * scale + mask - maximum) * rsum``, recomputed bit for bit (and 0 for keys that `causal`
    or `keep` leaves out), and ``dprob = dropout(dy, p, key=key, offset=offset)``,
    ``dx = prob * (dprob - sum(dprob * prob)) * scale``. The sum is over a row. prob is also y if nothing was dropped,
    so `y` may be given instead of x, maximum and rsum. The bits are the same, unless y has 16 bits: it is rounded.

    Parameters
    ----------
    dy : array_like, the dtype and shape of x or y
        The gradient of the loss with respect to y.
    x : array_like of float32, float64, float16 or bfloat16, shape ``(..., n)``, optional
        The scores of the forward pass. They must be left out if `y` is given.
    maximum, rsum : array_like, shape of x without `axis`, optional
        As the forward pass returned them. They must be left out if `y` is given.
    mask : array_like, optional
        As in the forward pass. It must be left out if `y` is given.
    y : array_like, the dtype and shape of x, optional
        The weights that the forward pass returned without dropout, in place of x, maximum, rsum and mask.
    p, key, offset, scale, causal, keep, axis
        As in the forward pass; p is 0 if `training` was False, and must be 0 if `y` is given. `causal` and `keep`
        also hide what dy holds where they leave no weight, even NaN.
    out : ndarray, optional
        Array that receives dx, of x's dtype and shape, C-contiguous, aligned and writeable. It may be `dy`, `x` or
        `y` itself, but must not partly overlap them, nor overlap another argument.

    Returns
    -------
    ndarray
        The gradient dx, of x's dtype and shape; `out` if given. The gradient with respect to `mask` is
        ``dx / scale``, up to rounding, summed over the axes along which `mask` was broadcast.

    Raises
    ------
    TypeError
        If an array has a dtype other than those above; if `keep` is not boolean; if `key`, `offset` or `axis` is not
        an integer; if neither y nor all of x, maximum and rsum are given, or y beside one of them or `mask`.
    ValueError
        If a shape does not match, a number is out of range, or `out` cannot be written or overlaps an input; if p is
        not 0 with `y`: it has lost the weights that were dropped.

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
    >>> pyreg.softmax_dropout_backward(dy, y=y).round(3)
    array([[ 0.082, -0.022, -0.06 ]])
    """
    dx: FloatArray = _core.softmax_dropout_backward(
        dy, x, maximum, rsum, mask, y, p, key, offset, scale, causal, keep, axis, out, backward_arguments
    )
    return dx


def forward_arguments(
    x: Any,
    mask: Any,
    p: float,
    key: Any,
    offset: Any,
    training: bool,
    scale: float,
    causal: Any,
    keep: Any,
    axis: Any,
    out: Any,
) -> tuple[Any, ...]:
    x, mask = _check.arrays({"x": x}, params={"mask": added_mask(mask)})
    mask, causal, keep, axis = options(x, mask, causal, keep, axis)
    dropout = _check.dropout(p, key, offset, x.size, training)
    scale = _check.finite("scale", scale, compute_dtype(x.dtype))
    out = _check.out(out, {"x": x}, {"mask": mask, "keep": keep})
    return x, mask, *dropout, scale, causal, keep, axis, out


def backward_arguments(
    dy: Any,
    x: Any,
    maximum: Any,
    rsum: Any,
    mask: Any,
    y: Any,
    p: float,
    key: Any,
    offset: Any,
    scale: float,
    causal: Any,
    keep: Any,
    axis: Any,
    out: Any,
) -> tuple[Any, ...]:
    _check.y_instead_of(y, {"x": x, "maximum": maximum, "rsum": rsum}, {"mask": mask})
    if y is None:
        x, dy, maximum, rsum, mask = _check.arrays(
            {"x": x, "dy": dy},
            statistics={"maximum": maximum, "rsum": rsum},
            params={"mask": added_mask(mask)},
        )
    else:
        y, dy = _check.arrays({"y": y, "dy": dy})
    name, read = ("x", x) if y is None else ("y", y)
    mask, causal, keep, axis = options(read, mask, causal, keep, axis, name)
    _check.match_shape("dy", dy, read.shape, name)
    for statistic, value in (("maximum", maximum), ("rsum", rsum)):
        shape = (*read.shape[:axis], *read.shape[axis + 1 :])
        _check.match_shape(statistic, value, shape, f"x without axis {axis}")
    p = _check.probability("p", p)
    if y is not None and _check.drops(p):
        raise ValueError(
            f"p must be 0 if y is given, got {p}: y has lost the weights that were dropped; pass x, maximum and rsum"
        )
    p, key, offset, _ = _check.dropout(p, key, offset, read.size)
    scale = _check.finite("scale", scale, compute_dtype(read.dtype))
    avoided = {"maximum": maximum, "rsum": rsum, "mask": mask, "keep": keep}
    out = _check.out(out, {name: read, "dy": dy}, avoided)
    return dy, x, maximum, rsum, mask, y, p, key, offset, scale, causal, keep, axis, out


def added_mask(mask: Any) -> Any:
    """The mask. Booleans and integers are rejected: added to the scores, they would hide nothing."""
    if isinstance(mask, float):
        raise TypeError(f"mask must be an array, got {mask!r}; pass a probability as p={mask!r}")
    dtype = _check.as_numpy("mask", mask).dtype
    if dtype.kind in "biu":
        how = "mask" if dtype.kind == "b" else "mask != 0"
        raise TypeError(
            f"mask is added to the scores and must be {either(FLOATS)}, got {dtype}; if it is true "
            f"where a weight is wanted, pass keep={how}, else keep={'~mask' if dtype.kind == 'b' else 'mask == 0'}"
        )
    return mask


def options(
    x: FloatArray, mask: FloatArray | None, causal: Any, keep: Any, axis: Any, name: str = "x"
) -> tuple[FloatArray | None, Any, Any, int]:
    """The mask, causal, keep and the axis for x, an array of this name."""
    if x.ndim == 0:
        raise ValueError(f"{name} must have an axis to apply softmax over, got shape {x.shape}")
    axis = _check.integer("axis", axis, low=-x.ndim, high=x.ndim - 1) % x.ndim
    mask, keep = along_rows("mask", mask, x, axis, name), along_rows("keep", kept(keep), x, axis, name)
    causal = which_causal(causal)
    if causal and x.ndim < 2:
        raise ValueError(f"{name} must have an axis of queries and one of keys with causal, got shape {x.shape}")
    if causal and axis != x.ndim - 1:
        raise ValueError(f"axis must be the last one with causal, got axis {axis} of shape {x.shape}")
    return mask, causal, keep, axis


def kept(keep: Any) -> Any:
    if keep is None:
        return None
    _check.refuse_masked("keep", keep)
    array = _check.as_numpy("keep", keep)
    if array.dtype != np.bool_:
        hint = "; convert it, e.g. with keep != 0" if array.dtype.kind in "iu" else ""
        hint = "; pass what is added to the scores as mask=" if name_of(array.dtype) else hint
        raise TypeError(f"keep must be an array of bool, True where a weight is wanted, got {array.dtype}{hint}")
    return np.asarray(array, order="C")


def along_rows(name: str, array: Any, x: FloatArray, axis: int, whose: str) -> Any:
    """The array, whose shape must broadcast to x's. If x has rows along the axis, broadcast to their length."""
    if array is None:
        return None
    aligned = (1,) * (x.ndim - array.ndim) + array.shape
    if array.ndim > x.ndim or any(m not in (1, n) for m, n in zip(aligned, x.shape, strict=True)):
        raise ValueError(
            f"{name} must have a shape that broadcasts to the shape {x.shape} of {whose}, got {array.shape}"
        )
    if x.size == 0:
        return None  # nothing is masked, but the rows could be too long for memory
    if math.prod(x.shape[axis + 1 :]) == 1 and aligned[axis] != x.shape[axis]:
        rows = (*aligned[:axis], x.shape[axis], *aligned[axis + 1 :])
        array = np.ascontiguousarray(np.broadcast_to(array.reshape(aligned), rows))
    return array


def which_causal(value: Any) -> Any:
    if isinstance(value, str):
        corner = str.__str__(value)  # a subclass may override it, and comparisons
        if corner not in ("upper_left", "lower_right"):
            raise ValueError(f'causal must be True, False, "upper_left" or "lower_right", got {corner!r}')
        return corner
    try:
        return _check.flag("causal", value)
    except TypeError as error:
        raise TypeError(f'{error}; "upper_left" and "lower_right" are accepted too') from None
