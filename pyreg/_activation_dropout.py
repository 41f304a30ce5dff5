"""What the activations with dropout behind them have in common: their checks and calls of the core."""

from __future__ import annotations

from typing import Any, NamedTuple, SupportsIndex

import numpy as np

from pyreg import _check, _core
from pyreg._check import FloatArray


def run_forward(
    activation: str,
    x: Any,
    bias: Any,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex,
    training: bool,
    out: Any,
) -> FloatArray:
    a = checked_forward(x, bias, p, key, offset, training, out)
    _core.activation_dropout_forward(activation, a.x, a.bias, a.threshold, a.key, a.offset, a.y)
    return a.y


def run_backward(
    activation: str, dy: Any, x: Any, bias: Any, p: float, key: SupportsIndex, offset: SupportsIndex, out: Any
) -> tuple[FloatArray, Any]:
    a = checked_backward(dy, x, bias, p, key, offset, out)
    dbias = None if a.bias is None else np.empty_like(a.bias)
    _core.activation_dropout_backward(activation, a.dy, a.x, a.bias, a.threshold, a.key, a.offset, a.dx, dbias)
    return a.dx, dbias


class Forward(NamedTuple):
    """The arguments of a forward pass, checked."""

    x: FloatArray
    bias: FloatArray | None
    threshold: int
    key: int
    offset: int
    y: FloatArray


def checked_forward(
    x: Any, bias: Any, p: float, key: SupportsIndex, offset: SupportsIndex, training: bool, out: Any
) -> Forward:
    x, bias = _check.arrays(("x", "bias"), (x, bias), 0)
    _check_bias(x, bias)
    threshold, key, offset = _check.dropout_arguments(p, key, offset, x.size, training)
    return Forward(x, bias, threshold, key, offset, _check.out(out, ("x", "bias"), (x, bias)))


class Backward(NamedTuple):
    """The arguments of a backward pass, checked."""

    dy: FloatArray
    x: FloatArray
    bias: FloatArray | None
    threshold: int
    key: int
    offset: int
    dx: FloatArray


def checked_backward(
    dy: Any, x: Any, bias: Any, p: float, key: SupportsIndex, offset: SupportsIndex, out: Any
) -> Backward:
    x, dy, bias = _check.arrays(("x", "dy", "bias"), (x, dy, bias), 1)
    _check.match_shape("dy", dy, x.shape, "x")
    _check_bias(x, bias)
    threshold, key, offset = _check.dropout_arguments(p, key, offset, x.size)
    dx = _check.out(out, ("x", "dy", "bias"), (x, dy, bias), may_be=2)
    return Backward(dy, x, bias, threshold, key, offset, dx)


def _check_bias(x: FloatArray, bias: FloatArray | None) -> None:
    if bias is None:
        return
    if x.ndim == 0:
        raise ValueError(f"x must have an axis that bias belongs to, got shape {x.shape}")
    _check.match_shape("bias", bias, x.shape[-1:], "x's last axis")
