"""Activations followed by dropout.

Each activation is its input times a curve from 0 to 1: a step for ReLU, the logistic function for SiLU, the normal
distribution function for GELU. ``(1 + tanh(u)) / 2`` is the logistic function of ``2 * u``, so GELU's
approximation by tanh uses the logistic function too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pyreg._results import ActivationDropoutBackward, FloatArray
from pyreg.reference.dropout import after_dropout, dropped, threshold_of
from pyreg.reference.elementary import constants_of, normal, sigmoid
from pyreg.reference.norm_rows import as_rows, gradient_of
from pyreg.reference.results import wide, written

TANH_SCALE = 2 * math.sqrt(2 / math.pi)
TANH_CUBIC = TANH_SCALE * 0.044715


def at_least(low: float, h: FloatArray) -> FloatArray:
    """h clamped from below: the curve is 0 there, and 0 * low is 0, but 0 * -inf would be NaN."""
    return np.where(h < low, h.dtype.type(low), h)


def at_most(high: float, h: FloatArray) -> FloatArray:
    return np.where(h > high, h.dtype.type(high), h)


def biased(x: FloatArray, bias: FloatArray | None) -> FloatArray:
    return wide(x) if bias is None else wide(x) + wide(bias)


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


def activation_dropout_forward(
    activation: str,
    x: FloatArray,
    bias: FloatArray | None,
    p: float,
    key: int,
    offset: int,
    training: bool,
    out: FloatArray | None,
) -> FloatArray:
    y = after_dropout(value(activation, biased(x, bias)), p, key, offset, training)
    return written(y, out, x.shape, x.dtype)


def activation_dropout_backward(
    activation: str,
    dy: FloatArray,
    x: FloatArray,
    bias: FloatArray | None,
    p: float,
    key: int,
    offset: int,
    out: FloatArray | None,
) -> ActivationDropoutBackward:
    dx = after_dropout(gradient(activation, wide(dy), biased(x, bias)), p, key, offset)
    return gradients(dx, bias, out, x.dtype)


def relu_dropout_backward(
    dy: FloatArray,
    x: FloatArray | None,
    bias: FloatArray | None,
    y: Any,
    p: float,
    key: int,
    offset: int,
    out: FloatArray | None,
) -> ActivationDropoutBackward:
    if x is not None:
        return activation_dropout_backward("relu", dy, x, bias, p, key, offset, out)
    # y is positive where x + bias was and is kept. Not `y > 0`, because dy passes through where y is NaN.
    return gradients(dropped(wide(dy), ~(wide(y) <= 0), threshold_of(p)), bias, out, y.dtype)


def gradients(
    dx: FloatArray, bias: FloatArray | None, out: FloatArray | None, dtype: np.dtype[Any]
) -> ActivationDropoutBackward:
    dbias = None if bias is None else gradient_of(bias, as_rows(dx, dx.ndim - 1))
    return ActivationDropoutBackward(written(dx, out, dx.shape, dtype), dbias)
