"""Softmax and dropout of the weights, derived.

**Forward.** For each row of scores s. Subtracting the maximum does not change the result, and keeps exp from
overflowing::

    prob[i] = exp(s[i] - maximum) / sum(exp(s - maximum))      y = dropout(prob)

**Backward.** ``d prob[i] / d s[j] = prob[i] * ((i == j) - prob[j])``, and with ``dprob = dropout(dy)``::

    ds[j] = sum over i of dprob[i] * prob[i] * ((i == j) - prob[j])
          = prob[j] * (dprob[j] - sum(dprob * prob))

The forward pass returns two numbers per row, the maximum and 1 / sum. prob is recomputed from them, bit for bit. If
nothing was dropped, it is y, which is rounded if it has 16 bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pyreg._dtypes import compute_dtype
from pyreg._results import FloatArray, SoftmaxDropoutForward
from pyreg.reference.dropout import after_dropout
from pyreg.reference.elementary import exp
from pyreg.reference.lanes import row_sum
from pyreg.reference.results import wide, written

Kept = npt.NDArray[np.bool_]


def left_by(x: FloatArray, causal: bool | str, keep: Kept | None) -> Kept:
    """Which scores causal and `keep` leave, in an array that broadcasts to x."""
    left = np.ones((1,) * x.ndim, np.bool_) if keep is None else keep.view(np.uint8).astype(np.bool_)
    return left & ~behind(x, causal) if causal else left


def behind(x: FloatArray, causal: bool | str) -> Kept:
    """Which keys come after the query. (queries, keys)."""
    queries, keys = x.shape[-2:]
    i, j = np.ogrid[:queries, :keys]
    result: Kept = j - i > (keys - queries if causal == "lower_right" else 0)
    return result


def where(left: Kept, value: FloatArray, other: float) -> FloatArray:
    return np.where(left, value, value.dtype.type(other))


def scores(x: FloatArray, mask: FloatArray | None, scale: float, left: Kept) -> FloatArray:
    """The scores of which exp is computed: -inf where one is left out."""
    s: FloatArray = wide(x) * compute_dtype(x.dtype).type(scale)
    if mask is not None:
        s = s + wide(mask)
    return where(left, s, -np.inf)


def softmax_dropout_forward(
    x: FloatArray,
    mask: FloatArray | None,
    p: float,
    key: int,
    offset: int,
    training: bool,
    scale: float,
    causal: bool | str,
    keep: Kept | None,
    axis: int,
    out: FloatArray | None,
) -> SoftmaxDropoutForward:
    s = np.moveaxis(scores(x, mask, scale, left_by(x, causal, keep)), axis, -1)
    zero = s.dtype.type(0)
    maximum = np.fmax.reduce(s, axis=-1, initial=-np.inf, keepdims=True)
    # If nothing is left of a row, exp is 0 with any maximum. Adding zero turns -0 into +0.
    maximum = np.where(maximum == -np.inf, zero, maximum) + zero
    e = exp(s - maximum)
    total = row_sum(e)
    rsum = np.where(total == 0, 0.0, 1 / total).astype(s.dtype)
    prob = np.ascontiguousarray(np.moveaxis(e * rsum, -1, axis))
    y = written(after_dropout(prob, p, key, offset, training), out, x.shape, x.dtype)
    return SoftmaxDropoutForward(y, maximum.reshape(s.shape[:-1]), rsum.reshape(s.shape[:-1]))


def softmax_dropout_backward(
    dy: FloatArray,
    x: FloatArray | None,
    maximum: FloatArray | None,
    rsum: FloatArray | None,
    mask: FloatArray | None,
    y: FloatArray | None,
    p: float,
    key: int,
    offset: int,
    scale: float,
    causal: bool | str,
    keep: Kept | None,
    axis: int,
    out: FloatArray | None,
) -> FloatArray:
    left = left_by(dy, causal, keep)
    if y is not None:
        prob = wide(y)
    else:
        assert x is not None
        assert maximum is not None
        assert rsum is not None
        maximum, rsum = (np.expand_dims(statistic, axis) for statistic in (maximum, rsum))
        prob = exp(scores(x, mask, scale, left) - maximum) * rsum
    prob, dprob = (where(left, w, 0) for w in (prob, after_dropout(dy, p, key, offset)))
    mean = np.moveaxis(row_sum(np.moveaxis(dprob * prob, axis, -1)), -1, axis).astype(prob.dtype)
    return written((prob * (dprob - mean)) * prob.dtype.type(scale), out, dy.shape, dy.dtype)
