"""PyTorch, eager."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..case import Array, Case
from ..measure import Call

NAME = "torch"
VERSION = torch.__version__
NOTE = "torch returns new arrays (adamw_update: in place, torch.optim.AdamW with fused=True)."

# The forward passes are timed alone, without what autograd would record; the backward passes are what it would call.
torch.set_grad_enabled(False)

aten = torch.ops.aten
ALL = (True, True, True)  # the gradients of native_layer_norm_backward


def tensor(array: Array) -> torch.Tensor:
    """Return a tensor that shares the array's memory. PyTorch does not know NumPy's bfloat16."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def read(answer: Any) -> Any:
    """Return an answer in tensors that NumPy can read: its dtypes do not include bfloat16."""
    if isinstance(answer, tuple):
        return tuple(map(read, answer))
    return answer.float() if isinstance(answer, torch.Tensor) and answer.dtype == torch.bfloat16 else answer


def set_num_threads(threads: int) -> bool:
    torch.set_num_threads(threads)
    return True


def product(a: Array, b: Array, out: Array) -> Call:
    """Return ``a @ b`` on PyTorch's threads."""
    a_, b_, out_ = tensor(a), tensor(b), tensor(out)
    return lambda: torch.mm(a_, b_, out=out_)


def layer_norm_forward(case: Case) -> Call:
    x, weight, bias = tensor(case.x), tensor(case.weight), tensor(case.bias)
    shape = weight.shape
    return lambda: torch.native_layer_norm(x, shape, weight, bias, case.eps)


def statistics(case: Case) -> tuple[torch.Tensor, ...]:
    """Return what native_layer_norm returns beside y: mean and rstd, in the dtype of the weight."""
    dtype = tensor(case.weight).dtype
    return tuple(tensor(a).to(dtype)[:, None] for a in (case.mean, case.rstd))


def layer_norm_backward(case: Case) -> Call:
    dy, x, weight = tensor(case.dy), tensor(case.x), tensor(case.weight)
    bias, shape = torch.zeros_like(weight), weight.shape
    mean, rstd = statistics(case)
    return lambda: aten.native_layer_norm_backward(dy, x, shape, mean, rstd, weight, bias, ALL)


def rms_norm_forward(case: Case) -> Call:
    x, weight = tensor(case.x), tensor(case.weight)
    shape = weight.shape
    return lambda: F.rms_norm(x, shape, weight, case.eps)


def dropout(case: Case) -> Call:
    torch.manual_seed(1)
    x, p = tensor(case.x), case.p
    return lambda: F.dropout(x, p, training=True)


def dropout_add_layer_norm_forward(case: Case) -> Call:
    torch.manual_seed(1)
    x, residual, weight, bias = (tensor(a) for a in (case.x, case.residual, case.weight, case.bias))
    shape = weight.shape

    def call() -> tuple[torch.Tensor, ...]:
        z = F.dropout(x, case.p, training=True) + residual
        y, mean, rstd = torch.native_layer_norm(z, shape, weight, bias, case.eps)
        return y, z, mean, rstd

    return call


def dropout_add_layer_norm_backward(case: Case) -> Call:
    dy, dz, z, weight = (tensor(a) for a in (case.dy, case.dz, case.z, case.weight))
    bias, shape, keep = torch.zeros_like(weight), weight.shape, 1 / (1 - case.p)
    (mean, rstd), kept = statistics(case), tensor(case.kept)

    def call() -> tuple[torch.Tensor, ...]:
        dresidual, dweight, dbias = aten.native_layer_norm_backward(dy, z, shape, mean, rstd, weight, bias, ALL)
        dresidual += dz
        return aten.native_dropout_backward(dresidual, kept, keep), dresidual, dweight, dbias

    return call


def dropout_add_rms_norm_forward(case: Case) -> Call:
    torch.manual_seed(1)
    x, residual, weight = tensor(case.x), tensor(case.residual), tensor(case.weight)
    shape = weight.shape

    def call() -> tuple[torch.Tensor, ...]:
        z = F.dropout(x, case.p, training=True) + residual
        return F.rms_norm(z, shape, weight, case.eps), z

    return call


def softmax_dropout_forward(case: Case) -> Call:
    torch.manual_seed(1)
    x, p, scale = tensor(case.x), case.p, case.scale
    if case.keep is None:
        return lambda: F.dropout(F.softmax(x * scale, dim=-1), p, training=True)
    left_out = ~tensor(case.keep)
    return lambda: F.softmax((x * scale).masked_fill_(left_out, -torch.inf), dim=-1)


def softmax_dropout_backward(case: Case) -> Call:
    if case.y is not None:
        grad, y = tensor(case.dy), tensor(case.y)
        return lambda: aten._softmax_backward_data(grad, y, -1, y.dtype).mul_(case.scale)
    dy, kept, prob = tensor(case.dy), tensor(case.kept), tensor(case.prob)
    keep, scale = 1 / (1 - case.p), case.scale

    def call() -> torch.Tensor:
        dprob = aten.native_dropout_backward(dy, kept, keep)
        return aten._softmax_backward_data(dprob, prob, -1, prob.dtype) * scale

    return call


ACTIVATIONS = {
    "relu": (F.relu, partial(aten.threshold_backward, threshold=0)),
    "silu": (F.silu, aten.silu_backward),
    "gelu": (F.gelu, aten.gelu_backward),
    "gelu_tanh": (partial(F.gelu, approximate="tanh"), partial(aten.gelu_backward, approximate="tanh")),
}


def gelu_dropout_forward(case: Case) -> Call:
    torch.manual_seed(1)
    x, bias, p = tensor(case.x), tensor(case.bias), case.p
    activation, _ = ACTIVATIONS[case.activation]
    return lambda: F.dropout(activation(x + bias), p, training=True)


def gelu_dropout_backward(case: Case) -> Call:
    dy, kept, h, keep = tensor(case.dy), tensor(case.kept), tensor(case.h), 1 / (1 - case.p)
    _, activation_backward = ACTIVATIONS[case.activation]

    def call() -> tuple[torch.Tensor, torch.Tensor]:
        dx = activation_backward(aten.native_dropout_backward(dy, kept, keep), h)
        return dx, dx.sum(dim=0)

    return call


silu_dropout_forward = relu_dropout_forward = gelu_dropout_forward
silu_dropout_backward = gelu_dropout_backward


def relu_dropout_backward(case: Case) -> Call:
    if case.y is None:
        return gelu_dropout_backward(case)
    dy, y, keep = tensor(case.dy), tensor(case.y), 1 / (1 - case.p)

    def call() -> tuple[torch.Tensor, torch.Tensor]:
        dx = aten.threshold_backward(dy, y, threshold=0).mul_(keep)
        return dx, dx.sum(dim=0)

    return call


def make_optimizer(case: Case, fused: bool) -> torch.optim.AdamW:
    """Return an optimiser in the case's state, which works on the case's arrays."""
    param = tensor(case.param)
    param.grad = tensor(case.grad)
    numbers = {"lr": case.lr, "betas": case.betas, "eps": case.eps, "weight_decay": case.weight_decay}
    optimizer = torch.optim.AdamW([param], **numbers, fused=fused)
    optimizer.state[param] = {
        "step": torch.tensor(float(case.step - 1)),
        "exp_avg": tensor(case.exp_avg),
        "exp_avg_sq": tensor(case.exp_avg_sq),
    }
    return optimizer


def adamw_update(case: Case) -> Call:
    return make_optimizer(case, fused=True).step
