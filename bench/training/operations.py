"""The operations of a Transformer, each forward beside its backward.

Shapes: B images, T tokens, C features (``d_model``), H heads of D = C / H features. A gradient is
called ``d`` and the name of what it is the gradient for, and has that array's shape. A backward
takes the gradient of the forward's result first, then what the forward saved for it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import pyreg

# Any: one model may be float32 (to train) or float64 (to check its gradient).
Array = npt.NDArray[Any]


def matmul_forward(x: Array, weight: Array) -> Array:
    """``x @ weight`` over the last axis: (..., in) to (..., out)."""
    # One matrix product over all rows: on three axes matmul would do a small one per image.
    y = x.reshape(-1, weight.shape[0]) @ weight
    return y.reshape(*x.shape[:-1], weight.shape[1])


def matmul_backward(dy: Array, x: Array, weight: Array) -> tuple[Array, Array]:
    """Return dx, dweight."""
    fan_in, fan_out = weight.shape
    rows = dy.reshape(-1, fan_out)
    dx = (rows @ weight.T).reshape(x.shape)
    dweight = x.reshape(-1, fan_in).T @ rows
    return dx, dweight


def linear_forward(x: Array, weight: Array, bias: Array) -> Array:
    """``x @ weight + bias`` over the last axis: (..., in) to (..., out)."""
    y = matmul_forward(x, weight)
    y += bias
    return y


def linear_backward(dy: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Return dx, dweight, dbias."""
    return *matmul_backward(dy, x, weight), sum_rows(dy)


def sum_rows(dy: Array) -> Array:
    """Sum over all axes but the last: a bias's gradient.

    Over 16 rows, over 4 such sums, then in double precision over these blocks of 64 rows, as pyreg's functions
    sum the gradients of weights and biases.
    """
    rows = dy.reshape(-1, dy.shape[-1])
    if missing := -len(rows) % 64:
        rows = np.concatenate([rows, np.zeros((missing, dy.shape[-1]), dy.dtype)])
    blocks = rows.reshape(-1, 4, 16, dy.shape[-1]).sum(axis=2).sum(axis=1)
    total: Array = blocks.astype(np.float64).sum(axis=0).astype(dy.dtype)
    return total


class NormSaved(NamedTuple):
    """What LayerNorm's backward needs: the input (..., C), and one mean and rstd a row (...)."""

    x: Array
    mean: Array
    rstd: Array


def norm_forward(x: Array, weight: Array, bias: Array) -> tuple[Array, NormSaved]:
    """LayerNorm (Ba et al., 2016) over the features."""
    y, mean, rstd = pyreg.layer_norm_forward(x, weight, bias)
    return y, NormSaved(x, mean, rstd)


def norm_backward(dy: Array, s: NormSaved, weight: Array) -> tuple[Array, Array, Array]:
    """Return dx, in dy's memory, dweight and dbias."""
    return pyreg.layer_norm_backward(dy, s.x, s.mean, s.rstd, weight, out=dy)


class DropoutSite(NamedTuple):
    """One dropout mask: all that backward must remember of it.

    `first` is the place of the first image in the batch: a part of a batch drops what the whole would drop there.
    """

    p: float
    key: int | None
    first: int

    def of(self, x: Array) -> dict[str, Any]:
        """Return the mask on `x` (images, ...) as keywords of pyreg's functions."""
        return {"p": self.p, "key": self.key, "offset": self.first * math.prod(x.shape[1:])}


def dropout_sites(key: int | None, sublayer: int, p: float, first: int = 0) -> tuple[DropoutSite, DropoutSite]:
    """Return the masks of a sublayer: the one inside, and the one on its branch.

    Their keys are made from the step's key and the sublayer's number in the model. So one seed is
    enough for a run, and a mask does not depend on which others were drawn before it. In
    inference, the key is None, and nothing is dropped.
    """
    if key is None:
        return DropoutSite(0.0, None, first), DropoutSite(0.0, None, first)
    inside, branch = (pyreg.fold_in(key, sublayer, place) for place in range(2))
    return DropoutSite(p, inside, first), DropoutSite(p, branch, first)


def mean_pool_forward(x: Array) -> Array:
    """Average over the tokens: (B, T, C) to (B, C)."""
    return x.mean(axis=1)


def mean_pool_backward(dy: Array, num_tokens: int) -> Array:
    """Return dx: every token gets an equal share, (B, C) to (B, T, C)."""
    return np.repeat(dy[:, np.newaxis, :] / num_tokens, num_tokens, axis=1)


def cross_entropy_forward(logits: Array, labels: npt.NDArray[np.integer]) -> tuple[float, Array]:
    """Mean negative log-likelihood of `labels` (B,) and the log-probabilities (B, classes)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_prob = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return float(-log_prob[np.arange(len(labels)), labels].mean()), log_prob


def cross_entropy_backward(log_prob: Array, labels: npt.NDArray[np.integer], batch_size: int) -> Array:
    """Return dlogits: the probabilities less the one-hot labels, divided for the mean over a batch of this size."""
    dlogits = np.exp(log_prob)
    dlogits[np.arange(len(labels)), labels] -= 1
    return dlogits / batch_size
