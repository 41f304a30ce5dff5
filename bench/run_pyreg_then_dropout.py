"""pyreg's side of run.py: softmax and the activations, then dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
from run_case import KEY, Call
from run_ops_activation_dropout import ActivationDropoutBackward, ActivationDropoutForward
from run_ops_softmax_dropout import SoftmaxDropoutBackward, SoftmaxDropoutForward

import pyreg
from pyreg import _core

# --- the public functions, their results in arrays that are there already


def softmax_dropout_forward(case: SoftmaxDropoutForward) -> Call:
    x, out = case.x, case.out
    return lambda: pyreg.softmax_dropout_forward(x, p=case.p, key=KEY, scale=case.scale, out=out)


def softmax_dropout_backward(case: SoftmaxDropoutBackward) -> Call:
    arrays, out = (case.dy, case.x, case.maximum, case.rsum), case.out
    return lambda: pyreg.softmax_dropout_backward(*arrays, p=case.p, key=KEY, scale=case.scale, out=out)


def _activation_dropout_forward(case: ActivationDropoutForward) -> Call:
    function, x, bias = getattr(pyreg, case.name), case.x, case.bias
    options: dict[str, Any] = {"p": case.p, "key": KEY, "out": case.out, **case.options}
    return lambda: function(x, bias, **options)


def _activation_dropout_backward(case: ActivationDropoutBackward) -> Call:
    function, dy, x, bias = getattr(pyreg, case.name), case.dy, case.x, case.bias
    options: dict[str, Any] = {"p": case.p, "key": KEY, "out": case.out, **case.options}
    return lambda: function(dy, x, bias, **options)


gelu_dropout_forward = silu_dropout_forward = relu_dropout_forward = _activation_dropout_forward
gelu_dropout_backward = silu_dropout_backward = relu_dropout_backward = _activation_dropout_backward


# --- the same, each result in a new array


def softmax_dropout_forward_new(case: SoftmaxDropoutForward) -> Call:
    x = case.x
    return lambda: pyreg.softmax_dropout_forward(x, p=case.p, key=KEY, scale=case.scale)


def gelu_dropout_forward_new(case: ActivationDropoutForward) -> Call:
    x, bias = case.x, case.bias
    return lambda: pyreg.gelu_dropout_forward(x, bias, p=case.p, key=KEY, **case.options)


# --- the bare kernels: no checks, nothing allocated


def softmax_dropout_forward_core(case: SoftmaxDropoutForward) -> Call:
    lengths, steps = case.shape[:-1], (0,) * (len(case.shape) - 1)
    maximum, rsum = np.empty_like(case.maximum), np.empty_like(case.rsum)
    stream = (round(case.p * 2**32), KEY, 0)
    args = (case.x, None, lengths, steps, 0, case.scale, *stream, case.out, maximum, rsum)
    return lambda: _core.softmax_dropout_forward(*args)


def softmax_dropout_backward_core(case: SoftmaxDropoutBackward) -> Call:
    lengths, steps = case.shape[:-1], (0,) * (len(case.shape) - 1)
    inputs = (case.dy, case.x, case.maximum, case.rsum, None, lengths, steps, 0, case.scale)
    stream = (round(case.p * 2**32), KEY, 0)
    return lambda: _core.softmax_dropout_backward(*inputs, *stream, case.out)


def _activation_dropout_forward_core(case: ActivationDropoutForward) -> Call:
    args = (case.activation, case.x, case.bias, round(case.p * 2**32), KEY, 0, case.out)
    return lambda: _core.activation_dropout_forward(*args)


def _activation_dropout_backward_core(case: ActivationDropoutBackward) -> Call:
    inputs = (case.activation, case.dy, case.x, case.bias, round(case.p * 2**32), KEY, 0)
    results = (case.out, np.empty_like(case.bias))
    return lambda: _core.activation_dropout_backward(*inputs, *results)


gelu_dropout_forward_core = silu_dropout_forward_core = relu_dropout_forward_core = _activation_dropout_forward_core
gelu_dropout_backward_core = silu_dropout_backward_core = _activation_dropout_backward_core
relu_dropout_backward_core = _activation_dropout_backward_core
