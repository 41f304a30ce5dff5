"""NumPy's side of run.py: softmax and the activations, then dropout; into buffers throughout."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from run_case import Array, Call
from run_ops_activation_dropout import ActivationDropoutBackward, ActivationDropoutForward
from run_ops_softmax_dropout import SoftmaxDropoutBackward, SoftmaxDropoutForward


def _make_dropout(shape: tuple[int, ...], p: float) -> Callable[[Array], None]:
    """Return a function that drops from an array of that shape, in place."""
    rng = np.random.default_rng(1)
    noise, kept = np.empty(shape, np.float32), np.empty(shape, bool)

    def drop(y: Array) -> None:
        rng.random(out=noise, dtype=np.float32)
        np.greater_equal(noise, p, out=kept)
        np.multiply(y, 1 / (1 - p), out=y)
        np.multiply(y, kept, out=y)

    return drop


def softmax_dropout_forward(case: SoftmaxDropoutForward) -> Call:
    x, y, drop = case.x, np.empty_like(case.x), _make_dropout(case.shape, case.p)

    def call() -> tuple[Array, ...]:
        np.multiply(x, case.scale, out=y)
        np.subtract(y, y.max(axis=-1, keepdims=True), out=y)
        np.exp(y, out=y)
        np.multiply(y, 1 / y.sum(axis=-1, keepdims=True), out=y)
        drop(y)
        return (y,)

    return call


def softmax_dropout_backward(case: SoftmaxDropoutBackward) -> Call:
    dy, mask, prob, dx = case.dy, case.mask, case.prob, np.empty_like(case.x)

    def call() -> Array:
        np.multiply(dy, 1 / (1 - case.p), out=dx)
        np.multiply(dx, mask, out=dx)
        np.subtract(dx, np.vecdot(dx, prob)[..., np.newaxis], out=dx)
        np.multiply(dx, prob, out=dx)
        return np.multiply(dx, case.scale, out=dx)

    return call


# --- the activations of h, into y; a and b are buffers


def _relu(h: Array, y: Array, a: Array, b: Array) -> None:
    np.maximum(h, 0, out=y)


def _silu(h: Array, y: Array, a: Array, b: Array) -> None:
    np.negative(h, out=y)
    np.exp(y, out=y)
    np.add(y, 1, out=y)
    np.divide(h, y, out=y)


def _normal(h: Array, below: Array, density: Array, t: Array) -> None:
    """``(1 + erf(h / sqrt(2))) / 2`` to 3e-7, and ``exp(-h * h / 2)``, which its derivative needs too.

    NumPy has no erf; this takes a third of the time of SciPy's on large arrays. Abramowitz & Stegun, 7.1.26.
    """
    np.multiply(h, h, out=density)
    np.multiply(density, -0.5, out=density)
    np.exp(density, out=density)
    np.abs(h, out=t)
    np.multiply(t, 0.3275911 / math.sqrt(2), out=t)
    np.add(t, 1, out=t)
    np.reciprocal(t, out=t)
    np.multiply(t, 1.061405429 / 2, out=below)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        np.add(below, coefficient / 2, out=below)
        np.multiply(below, t, out=below)
    np.multiply(below, density, out=below)  # of -|h|
    np.subtract(0.5, below, out=below)
    np.copysign(below, h, out=below)
    np.add(below, 0.5, out=below)


def _gelu(h: Array, y: Array, a: Array, b: Array) -> None:
    _normal(h, y, a, b)
    np.multiply(y, h, out=y)


def _tanh(h: Array, t: Array) -> None:
    """``tanh(sqrt(2 / pi) * (h + 0.044715 * h**3))``, into t."""
    np.multiply(h, h, out=t)
    np.multiply(t, math.sqrt(2 / math.pi) * 0.044715, out=t)
    np.add(t, math.sqrt(2 / math.pi), out=t)
    np.multiply(t, h, out=t)
    np.tanh(t, out=t)


def _gelu_tanh(h: Array, y: Array, a: Array, b: Array) -> None:
    _tanh(h, y)
    np.add(y, 1, out=y)
    np.multiply(y, h, out=y)
    np.multiply(y, 0.5, out=y)


# --- their derivatives, into d


def _relu_derivative(h: Array, d: Array, a: Array, b: Array) -> None:
    np.greater(h, 0, out=d)


def _silu_derivative(h: Array, d: Array, a: Array, b: Array) -> None:
    np.negative(h, out=a)
    np.exp(a, out=a)
    np.add(a, 1, out=a)
    np.reciprocal(a, out=a)
    np.subtract(1, a, out=d)
    np.multiply(d, h, out=d)
    np.add(d, 1, out=d)
    np.multiply(d, a, out=d)


def _gelu_derivative(h: Array, d: Array, a: Array, b: Array) -> None:
    _normal(h, d, a, b)
    np.multiply(a, 1 / math.sqrt(2 * math.pi), out=a)
    np.multiply(a, h, out=a)
    np.add(d, a, out=d)


def _gelu_tanh_derivative(h: Array, d: Array, a: Array, b: Array) -> None:
    _tanh(h, a)
    np.multiply(h, h, out=b)
    np.multiply(b, math.sqrt(2 / math.pi) * 3 * 0.044715, out=b)
    np.add(b, math.sqrt(2 / math.pi), out=b)
    np.multiply(b, h, out=b)  # h times the slope of tanh's argument
    np.multiply(a, a, out=d)
    np.subtract(1, d, out=d)
    np.multiply(d, b, out=d)
    np.add(d, a, out=d)
    np.add(d, 1, out=d)
    np.multiply(d, 0.5, out=d)


_ACTIVATIONS = {
    "relu": (_relu, _relu_derivative),
    "silu": (_silu, _silu_derivative),
    "gelu": (_gelu, _gelu_derivative),
    "gelu_tanh": (_gelu_tanh, _gelu_tanh_derivative),
}


def _activation_dropout_forward(case: ActivationDropoutForward) -> Call:
    activation, _ = _ACTIVATIONS[case.activation]
    h, y, a, b = (np.empty_like(case.x) for _ in range(4))
    drop = _make_dropout(case.shape, case.p)

    def call() -> Array:
        np.add(case.x, case.bias, out=h)
        activation(h, y, a, b)
        drop(y)
        return y

    return call


def _activation_dropout_backward(case: ActivationDropoutBackward) -> Call:
    _, derivative = _ACTIVATIONS[case.activation]
    dx, a, b = (np.empty_like(case.x) for _ in range(3))

    def call() -> tuple[Array, Array]:
        derivative(case.h, dx, a, b)
        np.multiply(dx, case.dy, out=dx)
        np.multiply(dx, 1 / (1 - case.p), out=dx)
        np.multiply(dx, case.mask, out=dx)
        return dx, dx.sum(axis=0)

    return call


gelu_dropout_forward = silu_dropout_forward = relu_dropout_forward = _activation_dropout_forward
gelu_dropout_backward = silu_dropout_backward = relu_dropout_backward = _activation_dropout_backward
