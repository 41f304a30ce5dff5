"""Activations and dropout behind them.

Each activation is its input times a curve that runs from 0 to 1: a step for ReLU, the logistic function for SiLU, the
normal distribution for GELU. ``(1 + tanh(u)) / 2`` is the logistic function of ``2 * u``, so GELU's approximation by
tanh is SiLU of another argument.
"""

from __future__ import annotations

import math
from typing import Any, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from pyreg._activation_dropout import checked_backward, checked_forward
from pyreg._check import FloatArray
from pyreg._gelu_dropout import Approximate, gelu_name
from pyreg.reference.dropout import dropout
from pyreg.reference.elementary import constants_of, normal, sigmoid
from pyreg.reference.norm_rows import sum_rows

TANH_SCALE = 2 * math.sqrt(2 / math.pi)
TANH_CUBIC = TANH_SCALE * 0.044715


def at_least(low: float, h: FloatArray) -> FloatArray:
    """For an infinite h: 0 times the lowest that matters is 0, times -inf it would be NaN."""
    return np.where(h < low, h.dtype.type(low), h)


def at_most(high: float, h: FloatArray) -> FloatArray:
    return np.where(h > high, h.dtype.type(high), h)


def value(activation: str, h: FloatArray) -> Any:
    f, t = constants_of(h.dtype), h.dtype.type
    match activation:
        case "relu":
            return np.where(h <= 0, t(0), h)
        case "silu":
            h = at_least(f.lowest, h)
            return h * sigmoid(h)[0]
        case "gelu":
            h = at_least(-f.far, h)
            return h * normal(h)[0]
        case _:
            h = at_least(-f.far, h)
            return h * sigmoid(h * (h * h * t(TANH_CUBIC) + t(TANH_SCALE)))[0]


def gradient(activation: str, dy: FloatArray, h: FloatArray) -> Any:
    """dy times the activation's derivative."""
    f, t = constants_of(h.dtype), h.dtype.type
    match activation:
        case "relu":
            return np.where(h <= 0, t(0), dy)
        case "silu":
            h = at_most(-f.lowest, at_least(f.lowest, h))
            s, rest = sigmoid(h)
            return dy * (s * (h * rest + t(1)))
        case "gelu":
            h = at_most(f.far, at_least(-f.far, h))
            below, density = normal(h)
            return dy * (h * (density * t(1 / math.sqrt(2 * math.pi))) + below)
        case _:
            h = at_most(f.far, at_least(-f.far, h))
            s, rest = sigmoid(h * (h * h * t(TANH_CUBIC) + t(TANH_SCALE)))
            slope = h * h * t(3 * TANH_CUBIC) + t(TANH_SCALE)
            return dy * (s * (h * rest * slope + t(1)))


def forward(
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
    with np.errstate(all="ignore"):
        h = a.x if a.bias is None else a.x + a.bias
        y = dropout(value(activation, h), p, key=a.key, offset=a.offset, training=training)
    a.y[...] = y
    return a.y


def backward(
    activation: str, dy: Any, x: Any, bias: Any, p: float, key: SupportsIndex, offset: SupportsIndex, out: Any
) -> tuple[FloatArray, Any]:
    a = checked_backward(dy, x, bias, p, key, offset, out)
    with np.errstate(all="ignore"):
        h = a.x if a.bias is None else a.x + a.bias
        dx = dropout(gradient(activation, a.dy, h), p, key=a.key, offset=a.offset)
        dbias = None
        if a.bias is not None:
            rows = math.prod(dx.shape[:-1])
            dbias = sum_rows(dx.reshape(rows, a.bias.size))
    a.dx[...] = dx
    return a.dx, dbias


def gelu_dropout_forward(
    x: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    training: bool = True,
    approximate: Approximate = "none",
    out: FloatArray | None = None,
) -> FloatArray:
    """`pyreg.gelu_dropout_forward`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> pyreg.reference.gelu_dropout_forward(np.array([-1.0, 0.0, 1.0]), p=0.0, key=1).round(3)
    array([-0.159,  0.   ,  0.841])
    """
    return forward(gelu_name(approximate), x, bias, p, key, offset, training, out)


@overload
def gelu_dropout_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    bias: None = None,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    approximate: Approximate = "none",
    out: FloatArray | None = None,
) -> tuple[FloatArray, None]: ...
@overload
def gelu_dropout_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    bias: npt.ArrayLike,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    approximate: Approximate = "none",
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]: ...
def gelu_dropout_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    approximate: Approximate = "none",
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray | None]:
    """`pyreg.gelu_dropout_backward`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> dx, _ = pyreg.reference.gelu_dropout_backward(np.ones(3), np.array([-1.0, 0.0, 1.0]), p=0.0, key=1)
    >>> dx.round(3)
    array([-0.083,  0.5  ,  1.083])
    """
    return backward(gelu_name(approximate), dy, x, bias, p, key, offset, out)


def relu_dropout_forward(
    x: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    training: bool = True,
    out: FloatArray | None = None,
) -> FloatArray:
    """`pyreg.relu_dropout_forward`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> pyreg.reference.relu_dropout_forward(np.array([-1.0, 0.0, 1.0]), p=0.0, key=1)
    array([0., 0., 1.])
    """
    return forward("relu", x, bias, p, key, offset, training, out)


@overload
def relu_dropout_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    bias: None = None,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    out: FloatArray | None = None,
) -> tuple[FloatArray, None]: ...
@overload
def relu_dropout_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    bias: npt.ArrayLike,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]: ...
def relu_dropout_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray | None]:
    """`pyreg.relu_dropout_backward`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> dx, _ = pyreg.reference.relu_dropout_backward(np.ones(3), np.array([-1.0, 0.0, 1.0]), p=0.0, key=1)
    >>> dx
    array([0., 0., 1.])
    """
    return backward("relu", dy, x, bias, p, key, offset, out)


def silu_dropout_forward(
    x: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    training: bool = True,
    out: FloatArray | None = None,
) -> FloatArray:
    """`pyreg.silu_dropout_forward`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> pyreg.reference.silu_dropout_forward(np.array([-1.0, 0.0, 1.0]), p=0.0, key=1).round(3)
    array([-0.269,  0.   ,  0.731])
    """
    return forward("silu", x, bias, p, key, offset, training, out)


@overload
def silu_dropout_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    bias: None = None,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    out: FloatArray | None = None,
) -> tuple[FloatArray, None]: ...
@overload
def silu_dropout_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    bias: npt.ArrayLike,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]: ...
def silu_dropout_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    out: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray | None]:
    """`pyreg.silu_dropout_backward`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> dx, _ = pyreg.reference.silu_dropout_backward(np.ones(3), np.array([-1.0, 0.0, 1.0]), p=0.0, key=1)
    >>> dx.round(3)
    array([0.072, 0.5  , 0.928])
    """
    return backward("silu", dy, x, bias, p, key, offset, out)
