"""The two sublayers of a Transformer block, attention and feed-forward, and what wraps them.

Each part is a forward beside its backward, which walks the same lines in reverse order. The
operations they are made of are in transformer_ops.py, and so are the letters for the shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from transformer_ops import (
    Array,
    DropoutSite,
    DropoutStream,
    NormSaved,
    dropout_backward,
    dropout_forward,
    gelu_backward,
    gelu_forward,
    linear_backward,
    linear_forward,
    norm_backward,
    norm_forward,
    softmax_backward,
    softmax_forward,
)

Params = dict[str, Array]


@dataclass(frozen=True)
class Config:
    """What a model is. The sizes' defaults fit 8x8 images, read as 8 rows of 8 pixels."""

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


class AttentionSaved(NamedTuple):
    """q, k, v: (B, H, T, D); prob, dropped: (B, H, T, T); x, merged: (B, T, C)."""

    x: Array
    q: Array
    k: Array
    v: Array
    prob: Array
    dropped: Array
    site: DropoutSite
    merged: Array


def attention_forward(x: Array, w: Params, config: Config, stream: DropoutStream) -> tuple[Array, AttentionSaved]:
    """Multi-head self-attention with dropout on its weights: (B, T, C) to (B, T, C)."""
    b, t, c = x.shape
    d = c // config.num_heads
    qkv = linear_forward(x, w["qkv.weight"], w["qkv.bias"])  # (B, T, 3C)
    q, k, v = qkv.reshape(b, t, 3, config.num_heads, d).transpose(2, 0, 3, 1, 4)
    # 1 / sqrt(D) keeps the scores' variance at that of q and k, so that softmax does not saturate.
    scores = q @ k.swapaxes(-1, -2) * d**-0.5  # (B, H, query, key)
    prob = softmax_forward(scores)
    dropped, site = dropout_forward(prob, config.dropout, stream)
    heads = dropped @ v  # (B, H, T, D)
    merged = heads.transpose(0, 2, 1, 3).reshape(b, t, c)
    y = linear_forward(merged, w["proj.weight"], w["proj.bias"])
    return y, AttentionSaved(x, q, k, v, prob, dropped, site, merged)


def attention_backward(dy: Array, s: AttentionSaved, w: Params, config: Config, grads: Params) -> Array:
    """Return dx; put the parameters' gradients into `grads`."""
    b, t, c = s.x.shape
    d = c // config.num_heads
    dmerged, grads["proj.weight"], grads["proj.bias"] = linear_backward(dy, s.merged, w["proj.weight"])
    dheads = dmerged.reshape(b, t, config.num_heads, d).transpose(0, 2, 1, 3)
    # For y = a @ b: da = dy @ b^T and db = a^T @ dy, here and twice below.
    ddropped = dheads @ s.v.swapaxes(-1, -2)
    dprob = dropout_backward(ddropped, config.dropout, s.site)
    dscores = softmax_backward(dprob, s.prob) * d**-0.5
    dqkv = np.empty((b, t, 3, config.num_heads, d), dy.dtype)
    dq, dk, dv = dqkv.transpose(2, 0, 3, 1, 4)  # views: writing to them fills dqkv
    dq[...] = dscores @ s.k
    dk[...] = dscores.swapaxes(-1, -2) @ s.q
    dv[...] = s.dropped.swapaxes(-1, -2) @ dheads
    dx, grads["qkv.weight"], grads["qkv.bias"] = linear_backward(dqkv, s.x, w["qkv.weight"])
    return dx


class FeedForwardSaved(NamedTuple):
    """x: (B, T, C); the others: (B, T, d_ff)."""

    x: Array
    hidden: Array
    tanh: Array
    dropped: Array
    site: DropoutSite


def feed_forward_forward(
    x: Array, w: Params, config: Config, stream: DropoutStream
) -> tuple[Array, FeedForwardSaved]:
    """Two linear maps with GELU and dropout in between, each token alone: (B, T, C) to itself."""
    hidden = linear_forward(x, w["fc1.weight"], w["fc1.bias"])
    active, tanh = gelu_forward(hidden)
    dropped, site = dropout_forward(active, config.dropout, stream)
    y = linear_forward(dropped, w["fc2.weight"], w["fc2.bias"])
    return y, FeedForwardSaved(x, hidden, tanh, dropped, site)


def feed_forward_backward(dy: Array, s: FeedForwardSaved, w: Params, config: Config, grads: Params) -> Array:
    """Return dx; put the parameters' gradients into `grads`."""
    ddropped, grads["fc2.weight"], grads["fc2.bias"] = linear_backward(dy, s.dropped, w["fc2.weight"])
    dactive = dropout_backward(ddropped, config.dropout, s.site)
    dhidden = gelu_backward(dactive, s.hidden, s.tanh)
    dx, grads["fc1.weight"], grads["fc1.bias"] = linear_backward(dhidden, s.x, w["fc1.weight"])
    return dx


# A block is these two sublayers, one after the other.
SUBLAYERS: dict[str, tuple[Callable[..., tuple[Array, Any]], Callable[..., Array]]] = {
    "attention": (attention_forward, attention_backward),
    "feed_forward": (feed_forward_forward, feed_forward_backward),
}


class ResidualSaved(NamedTuple):
    """What the inner sublayer and the norm saved, and the mask on the branch."""

    inner: Any
    norm: NormSaved | None
    site: DropoutSite


def residual_forward(
    kind: str, x: Array, w: Params, config: Config, stream: DropoutStream
) -> tuple[Array, ResidualSaved]:
    """A sublayer in its residual connection: (B, T, C) to (B, T, C).

    Post-LN, as in Vaswani et al.: ``norm(x + dropout(sublayer(x)))``. Pre-LN:
    ``x + dropout(sublayer(norm(x)))``, which leaves the way from the loss to every block free of
    norms, so that gradients start out even across depth (Xiong et al., 2020).
    """
    forward, _ = SUBLAYERS[kind]
    weight, bias = w.get("norm.weight"), w.get("norm.bias")
    if config.norm_position == "pre":
        normed, norm = norm_forward(x, weight, bias)
        branch, inner = forward(normed, w, config, stream)
        dropped, site = dropout_forward(branch, config.dropout, stream)
        return x + dropped, ResidualSaved(inner, norm, site)
    branch, inner = forward(x, w, config, stream)
    dropped, site = dropout_forward(branch, config.dropout, stream)
    y, norm = norm_forward(x + dropped, weight, bias)
    return y, ResidualSaved(inner, norm, site)


def residual_backward(kind: str, dy: Array, s: ResidualSaved, w: Params, config: Config) -> tuple[Array, Params]:
    """Return dx and the gradients of the sublayer's parameters, named as in `w`."""
    _, backward = SUBLAYERS[kind]
    grads: Params = {}
    weight = w.get("norm.weight")
    if config.norm_position == "pre":
        dbranch = dropout_backward(dy, config.dropout, s.site)
        dnormed = backward(dbranch, s.inner, w, config, grads)
        dx, dweight, dbias = norm_backward(dnormed, s.norm, weight)
        dx = dy + dx
    else:
        dsum, dweight, dbias = norm_backward(dy, s.norm, weight)
        dbranch = dropout_backward(dsum, config.dropout, s.site)
        dx = dsum + backward(dbranch, s.inner, w, config, grads)
    if dweight is not None and dbias is not None:
        grads["norm.weight"], grads["norm.bias"] = dweight, dbias
    return dx, grads
