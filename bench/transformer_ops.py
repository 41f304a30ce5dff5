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


def linear_forward(x: Array, weight: Array, bias: Array) -> Array:
    """``x @ weight + bias`` over the last axis: (..., in) to (..., out)."""
    # One matrix product over all rows: on three axes matmul would do a small one per image.
    y = x.reshape(-1, weight.shape[0]) @ weight
    y += bias
    return y.reshape(*x.shape[:-1], weight.shape[1])


def linear_backward(dy: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Return dx, dweight, dbias."""
    fan_in, fan_out = weight.shape
    rows = dy.reshape(-1, fan_out)
    dx = (rows @ weight.T).reshape(x.shape)
    dweight = x.reshape(-1, fan_in).T @ rows
    return dx, dweight, rows.sum(axis=0)


# GELU in the tanh form of Hendrycks & Gimpel, 2016: smooth, so that finite differences can check
# the whole model, and free of erf, which NumPy lacks.
_GELU_SCALE = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715


def gelu_forward(x: Array) -> tuple[Array, Array]:
    """Return y and the tanh inside it, which backward needs again."""
    tanh = np.tanh(_GELU_SCALE * (x + _GELU_CUBIC * x * x * x))
    return 0.5 * x * (1 + tanh), tanh


def gelu_backward(dy: Array, x: Array, tanh: Array) -> Array:
    """Return dx."""
    dinner = _GELU_SCALE * (1 + 3 * _GELU_CUBIC * x * x)
    return dy * (0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * dinner)


def softmax_forward(x: Array) -> Array:
    """Softmax over the last axis."""
    # Less the maximum: the same result, and exp cannot overflow.
    y = np.exp(x - x.max(axis=-1, keepdims=True))
    y /= y.sum(axis=-1, keepdims=True)
    return y


def softmax_backward(dy: Array, y: Array) -> Array:
    """Return dx. The Jacobian is ``diag(y) - y y^T``; this applies it row by row."""
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


class NormSaved(NamedTuple):
    """What LayerNorm's backward needs: the input (..., C), and one mean and rstd a row (...)."""

    x: Array
    mean: Array
    rstd: Array


def norm_forward(x: Array, weight: Array | None, bias: Array | None) -> tuple[Array, NormSaved | None]:
    """LayerNorm (Ba et al., 2016) over the features; the identity where there is no weight."""
    if weight is None:
        return x, None
    y, mean, rstd = pyreg.layer_norm_forward(x, weight, bias)
    return y, NormSaved(x, mean, rstd)


def norm_backward(
    dy: Array, saved: NormSaved | None, weight: Array | None
) -> tuple[Array, Array | None, Array | None]:
    """Return dx, dweight, dbias; the last two are None for the identity."""
    if saved is None:
        return dy, None, None
    return pyreg.layer_norm_backward(dy, saved.x, saved.mean, saved.rstd, weight)


class DropoutSite(NamedTuple):
    """Where in the random stream one dropout mask begins: all that backward must remember."""

    key: int
    offset: int


class DropoutStream:
    """Hands out positions of one run's random stream, each to one mask only.

    There is one key for a run, and every site of every step takes the next positions, as many as
    its array has elements. Whether two masks share randomness is then a matter of whole numbers
    (ranges that do not overlap), not of luck between keys, and ``(key, offset)`` names any mask.

    Parameters
    ----------
    key : int
        The run's key, from `pyreg.random_key`.
    training : bool
        False for inference: nothing is dropped and no position is used.
    """

    def __init__(self, key: int, training: bool = True) -> None:
        self.key = key
        self.offset = 0
        self.training = training

    def take(self, size: int) -> DropoutSite:
        """Reserve the next `size` positions."""
        site = DropoutSite(self.key, self.offset)
        if self.training:
            self.offset += size
        return site


def dropout_forward(x: Array, p: float, stream: DropoutStream) -> tuple[Array, DropoutSite]:
    """Inverted dropout (Srivastava et al., 2014): the kept are scaled up, inference is a copy."""
    site = stream.take(x.size)
    y = pyreg.dropout(x, p, key=site.key, offset=site.offset, training=stream.training)
    return y, site


def dropout_backward(dy: Array, p: float, site: DropoutSite) -> Array:
    """Return dx. Dropout is linear and diagonal: the same mask again, and none was stored."""
    return pyreg.dropout(dy, p, key=site.key, offset=site.offset)


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


def cross_entropy_backward(log_prob: Array, labels: npt.NDArray[np.integer]) -> Array:
    """Return dlogits: the probabilities less the one-hot labels, over B for the mean."""
    dlogits = np.exp(log_prob)
    dlogits[np.arange(len(labels)), labels] -= 1
    return dlogits / len(labels)
