"""The two sublayers of a Transformer block, attention and feed-forward, and what joins them.

Each part is a forward beside its backward, which walks the same lines in reverse order. The
operations they are made of are in operations.py, and so are the letters for the shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import pyreg

from .operations import (
    Array,
    DropoutSite,
    linear_backward,
    linear_forward,
    matmul_backward,
    matmul_forward,
)

Params = dict[str, Array]


@dataclass(frozen=True)
class Config:
    """What a model is. The sizes' defaults fit 8x8 images, read as 8 rows of 8 pixels.

    `functions` has the fused functions: pyreg, or training.unfused for the same in separate passes.
    """

    input_size: int = 8
    num_tokens: int = 8
    num_classes: int = 10
    d_model: int = 64
    num_heads: int = 4
    num_layers: int = 4
    d_ff: int = 128
    dropout: float = 0.0
    layer_norm: bool = True
    norm_position: str = "pre"
    dtype: npt.DTypeLike = np.float32
    functions: ModuleType = pyreg


class AttentionSaved(NamedTuple):
    """x, merged: (B, T, C); q, k, v: (B, H, T, D); scores, dropped: (B, H, T, T); the others: (B, H, T)."""

    x: Array
    q: Array
    k: Array
    v: Array
    scores: Array
    maximum: Array
    rsum: Array
    dropped: Array
    site: DropoutSite
    merged: Array


def attention_forward(x: Array, w: Params, config: Config, site: DropoutSite) -> tuple[Array, AttentionSaved]:
    """Multi-head self-attention with dropout on its weights: (B, T, C) to (B, T, C)."""
    b, t, c = x.shape
    d = c // config.num_heads
    qkv = linear_forward(x, w["qkv.weight"], w["qkv.bias"])  # (B, T, 3C)
    q, k, v = qkv.reshape(b, t, 3, config.num_heads, d).transpose(2, 0, 3, 1, 4)
    scores = q @ k.swapaxes(-1, -2)  # (B, H, query, key)
    # 1 / sqrt(D) keeps the scores' variance at that of q and k, so that softmax does not saturate.
    dropped, maximum, rsum = config.functions.softmax_dropout_forward(scores, scale=d**-0.5, **site.of(scores))
    heads = dropped @ v  # (B, H, T, D)
    merged = heads.transpose(0, 2, 1, 3).reshape(b, t, c)
    y = linear_forward(merged, w["proj.weight"], w["proj.bias"])
    return y, AttentionSaved(x, q, k, v, scores, maximum, rsum, dropped, site, merged)


def attention_backward(dy: Array, s: AttentionSaved, w: Params, config: Config, grads: Params) -> Array:
    """Return dx; put the parameters' gradients into `grads`."""
    b, t, c = s.x.shape
    d = c // config.num_heads
    dmerged, grads["proj.weight"], grads["proj.bias"] = linear_backward(dy, s.merged, w["proj.weight"])
    dheads = dmerged.reshape(b, t, config.num_heads, d).transpose(0, 2, 1, 3)
    # For y = a @ b: da = dy @ b^T and db = a^T @ dy, here and twice below.
    ddropped = dheads @ s.v.swapaxes(-1, -2)
    dscores = config.functions.softmax_dropout_backward(
        ddropped, s.scores, s.maximum, s.rsum, scale=d**-0.5, **s.site.of(s.scores), out=ddropped
    )
    dqkv = np.empty((b, t, 3, config.num_heads, d), dy.dtype)
    dq, dk, dv = dqkv.transpose(2, 0, 3, 1, 4)  # views: writing to them fills dqkv
    dq[...] = dscores @ s.k
    dk[...] = dscores.swapaxes(-1, -2) @ s.q
    dv[...] = s.dropped.swapaxes(-1, -2) @ dheads
    dqkv = dqkv.reshape(b, t, 3 * c)
    dx, grads["qkv.weight"], grads["qkv.bias"] = linear_backward(dqkv, s.x, w["qkv.weight"])
    return dx


class FeedForwardSaved(NamedTuple):
    """x: (B, T, C); the others: (B, T, d_ff)."""

    x: Array
    hidden: Array
    dropped: Array
    site: DropoutSite


def feed_forward_forward(x: Array, w: Params, config: Config, site: DropoutSite) -> tuple[Array, FeedForwardSaved]:
    """Two linear maps with GELU and dropout in between, each token alone: (B, T, C) to itself."""
    hidden = matmul_forward(x, w["fc1.weight"])  # gelu_dropout adds its bias
    dropped = config.functions.gelu_dropout_forward(hidden, w["fc1.bias"], **site.of(hidden))
    y = linear_forward(dropped, w["fc2.weight"], w["fc2.bias"])
    return y, FeedForwardSaved(x, hidden, dropped, site)


def feed_forward_backward(dy: Array, s: FeedForwardSaved, w: Params, config: Config, grads: Params) -> Array:
    """Return dx; put the parameters' gradients into `grads`."""
    ddropped, grads["fc2.weight"], grads["fc2.bias"] = linear_backward(dy, s.dropped, w["fc2.weight"])
    dhidden, grads["fc1.bias"] = config.functions.gelu_dropout_backward(
        ddropped, s.hidden, w["fc1.bias"], **s.site.of(s.hidden), out=ddropped
    )
    dx, grads["fc1.weight"] = matmul_backward(dhidden, s.x, w["fc1.weight"])
    return dx


# A block is these two sublayers, one after the other.
SUBLAYERS: dict[str, tuple[Callable[..., tuple[Array, Any]], Callable[..., Array]]] = {
    "attention": (attention_forward, attention_backward),
    "feed_forward": (feed_forward_forward, feed_forward_backward),
}


class JoinSaved(NamedTuple):
    """The sum z (B, T, C), mean and rstd (B, T), None where there is no norm; the mask on the branch."""

    z: Array | None
    mean: Array | None
    rstd: Array | None
    site: DropoutSite


def join_forward(
    branch: Array, residual: Array, norm: tuple[Array, Array] | None, config: Config, site: DropoutSite
) -> tuple[Array, Array, JoinSaved]:
    """Drop out of a sublayer's branch, add the residual, normalise the sum: return y, z = the sum.

    `norm` is the weight and bias of LayerNorm; without it y is z. The branch's memory is used again.
    """
    if norm is None:
        z = pyreg.dropout(branch, **site.of(branch), out=branch)
        z += residual
        return z, z, JoinSaved(None, None, None, site)
    y, z, mean, rstd = config.functions.dropout_add_layer_norm_forward(
        branch, residual, *norm, **site.of(branch), out=branch
    )
    return y, z, JoinSaved(z, mean, rstd, site)


def join_backward(
    dy: Array, dz: Array | None, s: JoinSaved, weight: Array | None, config: Config
) -> tuple[Array, Array, Array | None, Array | None]:
    """Return dbranch, dresidual, dweight, dbias.

    `dz` is None if only y was used. If there is a norm, dbranch and dresidual are written to the memory of dy and dz.
    """
    if s.z is None:
        return pyreg.dropout(dy, **s.site.of(dy)), dy, None, None
    *gradients, _ = config.functions.dropout_add_layer_norm_backward(
        dy, dz, s.z, s.mean, s.rstd, weight, **s.site.of(s.z), out=dy, dresidual_out=dz
    )
    return tuple(gradients)
