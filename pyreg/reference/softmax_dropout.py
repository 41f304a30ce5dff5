"""Softmax and dropout of its weights, derived.

**Forward.** Of each row of scores s, with its maximum subtracted, which leaves the result and keeps exp from
overflowing::

    prob[i] = exp(s[i] - maximum) / sum(exp(s - maximum))      y = dropout(prob)

**Backward.** ``d prob[i] / d s[j] = prob[i] * ((i == j) - prob[j])``, and with ``dprob = dropout(dy)``::

    ds[j] = sum over i of dprob[i] * prob[i] * ((i == j) - prob[j])
          = prob[j] * (dprob[j] - sum(dprob * prob))

Two numbers of a row are kept for it, the maximum and 1 / sum: prob is made again from these, to the bit.
"""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from pyreg._check import FloatArray
from pyreg._softmax_dropout import Backward, Forward, checked_backward, checked_forward
from pyreg.reference.dropout import dropout
from pyreg.reference.elementary import exp
from pyreg.reference.lanes import row_sum


def scores(a: Forward | Backward) -> FloatArray:
    """What exp is taken of, -inf where the weight is 0."""
    s: FloatArray = a.x * a.x.dtype.type(a.scale)
    if a.mask.mask is not None:
        s = s + a.mask.mask
    return np.where(behind(a), s.dtype.type(-np.inf), s) if a.queries else s


def behind(a: Forward | Backward) -> npt.NDArray[np.bool_]:
    """Which keys are behind the query. (queries, keys)."""
    i, j = np.ogrid[: a.queries, : a.x.shape[-1]]
    result: npt.NDArray[np.bool_] = j > i
    return result


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
    """`pyreg.softmax_dropout_forward`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> y, maximum, rsum = pyreg.reference.softmax_dropout_forward(np.zeros((2, 4)), p=0.5, key=1)
    >>> y
    array([[0. , 0. , 0.5, 0.5],
           [0.5, 0. , 0. , 0.5]])
    """
    a = checked_forward(x, mask, p, key, offset, training, scale, causal, out)
    with np.errstate(all="ignore"):
        s = scores(a)
        maximum = np.fmax.reduce(s, axis=-1, initial=-np.inf, keepdims=True)
        # Where nothing is left, exp is 0 all the same. The zero that is added takes the sign from -0.
        maximum = np.where(maximum == -np.inf, s.dtype.type(0), maximum) + s.dtype.type(0)
        e = exp(s - maximum)
        total = row_sum(e)
        rsum = np.where(total == 0, 0.0, 1 / total).astype(s.dtype)
        y = dropout(e * rsum, p, key=a.key, offset=a.offset, training=training)
    a.y[...] = y
    return a.y, maximum[..., 0], rsum[..., 0]


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
    """`pyreg.softmax_dropout_backward`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x = np.zeros((1, 4))
    >>> _, maximum, rsum = pyreg.reference.softmax_dropout_forward(x, p=0.5, key=1)
    >>> dy = np.array([[9.0, 9.0, 1.0, 0.0]])
    >>> pyreg.reference.softmax_dropout_backward(dy, x, maximum, rsum, p=0.5, key=1)
    array([[-0.125, -0.125,  0.375, -0.125]])
    """
    a = checked_backward(dy, x, maximum, rsum, mask, p, key, offset, scale, causal, out)
    with np.errstate(all="ignore"):
        prob = exp(scores(a) - a.maximum[..., None]) * a.rsum[..., None]
        dprob: Any = dropout(a.dy, p, key=a.key, offset=a.offset)
        if a.queries:
            prob, dprob = (np.where(behind(a), w.dtype.type(0), w) for w in (prob, dprob))
        mean = row_sum(dprob * prob).astype(prob.dtype)
        dx = (prob * (dprob - mean)) * prob.dtype.type(a.scale)
    a.dx[...] = dx
    return a.dx
