"""PyTorch's side of run.py, eager: softmax and the activations, then dropout."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from run_case import Call
from run_ops_activation_dropout import ActivationDropoutBackward, ActivationDropoutForward
from run_ops_softmax_dropout import SoftmaxDropoutBackward, SoftmaxDropoutForward

_tensor = torch.from_numpy  # shares the array's memory
_aten = torch.ops.aten


def softmax_dropout_forward(case: SoftmaxDropoutForward) -> Call:
    torch.manual_seed(1)
    x, p, scale = _tensor(case.x), case.p, case.scale
    return lambda: (F.dropout(F.softmax(x * scale, dim=-1), p, training=True),)


# The backward passes are what autograd calls, with what it stored.


def softmax_dropout_backward(case: SoftmaxDropoutBackward) -> Call:
    dy, mask, prob = _tensor(case.dy), _tensor(case.mask), _tensor(case.prob)
    keep, scale = 1 / (1 - case.p), case.scale

    def call() -> torch.Tensor:
        dprob = _aten.native_dropout_backward(dy, mask, keep)
        return _aten._softmax_backward_data(dprob, prob, -1, torch.float32) * scale

    return call


_ACTIVATIONS = {
    "relu": (F.relu, partial(_aten.threshold_backward, threshold=0)),
    "silu": (F.silu, _aten.silu_backward),
    "gelu": (F.gelu, _aten.gelu_backward),
    "gelu_tanh": (partial(F.gelu, approximate="tanh"), partial(_aten.gelu_backward, approximate="tanh")),
}


def _activation_dropout_forward(case: ActivationDropoutForward) -> Call:
    torch.manual_seed(1)
    x, bias, p = _tensor(case.x), _tensor(case.bias), case.p
    activation, _ = _ACTIVATIONS[case.activation]
    return lambda: F.dropout(activation(x + bias), p, training=True)


def _activation_dropout_backward(case: ActivationDropoutBackward) -> Call:
    dy, mask, h, keep = _tensor(case.dy), _tensor(case.mask), _tensor(case.h), 1 / (1 - case.p)
    _, activation_backward = _ACTIVATIONS[case.activation]

    def call() -> tuple[torch.Tensor, torch.Tensor]:
        dx = activation_backward(_aten.native_dropout_backward(dy, mask, keep), h)
        return dx, dx.sum(dim=0)

    return call


gelu_dropout_forward = silu_dropout_forward = relu_dropout_forward = _activation_dropout_forward
gelu_dropout_backward = silu_dropout_backward = relu_dropout_backward = _activation_dropout_backward
