"""Softmax and dropout of the weights, derived.

**Forward.** For each row of scores s. Subtracting the maximum does not change the result, and keeps exp from
overflowing::

    prob[i] = exp(s[i] - maximum) / sum(exp(s - maximum))      y = dropout(prob)

**Backward.** ``d prob[i] / d s[j] = prob[i] * ((i == j) - prob[j])``, and with ``dprob = dropout(dy)``::

    ds[j] = sum over i of dprob[i] * prob[i] * ((i == j) - prob[j])
          = prob[j] * (dprob[j] - sum(dprob * prob))

The forward pass returns two numbers per row, the maximum and 1 / sum. prob is recomputed from them, bit for bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pyreg._results import FloatArray, SoftmaxDropoutForward
from pyreg.reference.dropout import dropout
from pyreg.reference.elementary import exp
from pyreg.reference.lanes import row_sum
from pyreg.reference.results import written


def scores(x: FloatArray, mask: FloatArray | None, scale: float, causal: bool) -> FloatArray:
    """The scores of which exp is computed: -inf where `causal` leaves out a key."""
    s: FloatArray = x * x.dtype.type(scale)
    if mask is not None:
        s = s + mask
    return np.where(behind(x), s.dtype.type(-np.inf), s) if causal else s


def behind(x: FloatArray) -> npt.NDArray[np.bool_]:
    """Which keys come after the query. (queries, keys)."""
    queries, keys = x.shape[-2:]
    i, j = np.ogrid[:queries, :keys]
    result: npt.NDArray[np.bool_] = j > i
    return result


def softmax_dropout_forward(
    x: FloatArray,
    mask: FloatArray | None,
    p: float,
    key: int,
    offset: int,
    training: bool,
    scale: float,
    causal: bool,
    out: FloatArray | None,
) -> SoftmaxDropoutForward:
    s = scores(x, mask, scale, causal)
    zero = s.dtype.type(0)
    maximum = np.fmax.reduce(s, axis=-1, initial=-np.inf, keepdims=True)
    # If nothing is left of a row, exp is 0 with any maximum. Adding zero turns -0 into +0.
    maximum = np.where(maximum == -np.inf, zero, maximum) + zero
    e = exp(s - maximum)
    total = row_sum(e)
    rsum = np.where(total == 0, 0.0, 1 / total).astype(s.dtype)
    y = dropout(e * rsum, p, key, offset, training, out)
    return SoftmaxDropoutForward(y, maximum.reshape(x.shape[:-1]), rsum.reshape(x.shape[:-1]))


def softmax_dropout_backward(
    dy: FloatArray,
    x: FloatArray,
    maximum: FloatArray,
    rsum: FloatArray,
    mask: FloatArray | None,
    p: float,
    key: int,
    offset: int,
    scale: float,
    causal: bool,
    out: FloatArray | None,
) -> FloatArray:
    prob = exp(scores(x, mask, scale, causal) - maximum[..., None]) * rsum[..., None]
    dprob = dropout(dy, p, key, offset)
    if causal:
        prob, dprob = (np.where(behind(x), w.dtype.type(0), w) for w in (prob, dprob))
    mean = row_sum(dprob * prob).astype(prob.dtype)
    return written((prob * (dprob - mean)) * prob.dtype.type(scale), out, x.shape)
