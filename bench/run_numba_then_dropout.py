"""numba's side of run.py: softmax and the activations, then dropout."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import njit, prange
from run_case import Array, Call
from run_ops_activation_dropout import ActivationDropoutBackward, ActivationDropoutForward
from run_ops_softmax_dropout import SoftmaxDropoutBackward, SoftmaxDropoutForward

_f32 = np.float32  # a Python float in a loop would make it float64


@njit(parallel=True)
def _softmax_dropout_forward(x, scale, p, keep, y):
    rows, n = x.shape
    for i in prange(rows):
        maximum = x[i, 0] * scale
        for j in range(1, n):
            maximum = max(maximum, x[i, j] * scale)
        total = _f32(0)
        for j in range(n):
            y[i, j] = math.exp(x[i, j] * scale - maximum)
            total += y[i, j]
        factor = keep / total
        for j in range(n):
            y[i, j] = y[i, j] * factor if random.random() >= p else _f32(0)


def softmax_dropout_forward(case: SoftmaxDropoutForward) -> Call:
    out = np.empty_like(case.out)
    args = (case.rows(case.x), _f32(case.scale), case.p, _f32(1 / (1 - case.p)), case.rows(out))

    def call() -> tuple[Array, ...]:
        _softmax_dropout_forward(*args)
        return (out,)

    return call


@njit(parallel=True)
def _softmax_dropout_backward(dy, prob, mask, scale, keep, dx):
    rows, n = dy.shape
    for i in prange(rows):
        total = _f32(0)
        for j in range(n):
            if mask[i, j]:
                total += dy[i, j] * keep * prob[i, j]
        for j in range(n):
            dprob = dy[i, j] * keep if mask[i, j] else _f32(0)
            dx[i, j] = prob[i, j] * (dprob - total) * scale


def softmax_dropout_backward(case: SoftmaxDropoutBackward) -> Call:
    out = np.empty_like(case.out)
    arrays = (case.rows(array) for array in (case.dy, case.prob, case.mask))
    args = (*arrays, _f32(case.scale), _f32(1 / (1 - case.p)), case.rows(out))

    def call() -> Array:
        _softmax_dropout_backward(*args)
        return out

    return call


# --- the activations and their derivatives


@njit
def _relu(h):
    return max(h, _f32(0))


@njit
def _relu_derivative(h):
    return _f32(1) if h > 0 else _f32(0)


@njit
def _silu(h):
    return h / (_f32(1) + math.exp(-h))


@njit
def _silu_derivative(h):
    s = _f32(1) / (_f32(1) + math.exp(-h))
    return s * (_f32(1) + h * (_f32(1) - s))


_SQRT_HALF, _DENSITY = _f32(math.sqrt(0.5)), _f32(1 / math.sqrt(2 * math.pi))


@njit
def _gelu(h):
    return _f32(0.5) * h * (_f32(1) + math.erf(h * _SQRT_HALF))


@njit
def _gelu_derivative(h):
    return _f32(0.5) * (_f32(1) + math.erf(h * _SQRT_HALF)) + h * _DENSITY * math.exp(_f32(-0.5) * h * h)


_SCALE, _CUBIC = _f32(math.sqrt(2 / math.pi)), _f32(math.sqrt(2 / math.pi) * 0.044715)


@njit
def _gelu_tanh(h):
    return _f32(0.5) * h * (_f32(1) + math.tanh(h * (_SCALE + _CUBIC * h * h)))


@njit
def _gelu_tanh_derivative(h):
    t = math.tanh(h * (_SCALE + _CUBIC * h * h))
    return _f32(0.5) * (_f32(1) + t + h * (_f32(1) - t * t) * (_SCALE + _f32(3) * _CUBIC * h * h))


# --- the loops, compiled for each of them


def _compile_forward(activation: Callable[[Any], Any]) -> Callable[..., None]:
    @njit(parallel=True)
    def forward(x, bias, p, keep, y):
        rows, n = x.shape
        for i in prange(rows):
            for j in range(n):
                y[i, j] = activation(x[i, j] + bias[j]) * keep if random.random() >= p else _f32(0)

    return forward


def _compile_backward(derivative: Callable[[Any], Any]) -> Callable[..., None]:
    @njit(parallel=True)
    def backward(dy, h, mask, keep, dx, dbiases):
        # dbiases (blocks, n): the sums of a block of rows, so that no two threads share one.
        rows, n = dy.shape
        blocks = len(dbiases)
        for block in prange(blocks):
            dbiases[block] = 0
            for i in range(rows * block // blocks, rows * (block + 1) // blocks):
                for j in range(n):
                    d = dy[i, j] * keep * derivative(h[i, j]) if mask[i, j] else _f32(0)
                    dx[i, j] = d
                    dbiases[block, j] += d

    return backward


_KERNELS = {
    "relu": (_compile_forward(_relu), _compile_backward(_relu_derivative)),
    "silu": (_compile_forward(_silu), _compile_backward(_silu_derivative)),
    "gelu": (_compile_forward(_gelu), _compile_backward(_gelu_derivative)),
    "gelu_tanh": (_compile_forward(_gelu_tanh), _compile_backward(_gelu_tanh_derivative)),
}


def _activation_dropout_forward(case: ActivationDropoutForward) -> Call:
    forward, _ = _KERNELS[case.activation]
    out = np.empty_like(case.out)
    args = (case.x, case.bias, case.p, _f32(1 / (1 - case.p)), out)

    def call() -> Array:
        forward(*args)
        return out

    return call


def _activation_dropout_backward(case: ActivationDropoutBackward) -> Call:
    _, backward = _KERNELS[case.activation]
    dbiases = np.empty((4 * numba.get_num_threads(), case.shape[1]), _f32)
    out = np.empty_like(case.out)
    args = (case.dy, case.h, case.mask, _f32(1 / (1 - case.p)), out, dbiases)

    def call() -> tuple[Array, Array]:
        backward(*args)
        return out, dbiases.sum(axis=0)

    return call


gelu_dropout_forward = silu_dropout_forward = relu_dropout_forward = _activation_dropout_forward
gelu_dropout_backward = silu_dropout_backward = relu_dropout_backward = _activation_dropout_backward
