"""PyTorch's side of run.py, eager."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from run_case import Array, Call
from run_ops import AdamWUpdate, Dropout
from run_ops_dropout_add_norm import DropoutAddNormBackward, DropoutAddNormForward
from run_ops_norm import LayerNormBackward, LayerNormForward, RmsNormForward
from run_torch_activation_dropout import *  # noqa: F403 (run.py looks in this module)

VERSION = torch.__version__

# The forward passes are timed alone, without what autograd would record.
torch.set_grad_enabled(False)

tensor = torch.from_numpy  # shares the array's memory


def set_num_threads(threads: int) -> bool:
    torch.set_num_threads(threads)
    return True


def product(a: Array, b: Array, out: Array) -> tuple[int, Call]:
    """PyTorch's number of threads, and ``a @ b`` on them."""
    a_, b_, out_ = tensor(a), tensor(b), tensor(out)
    return torch.get_num_threads(), lambda: torch.mm(a_, b_, out=out_)


def layer_norm_forward(case: LayerNormForward) -> Call:
    x, weight, bias = tensor(case.x), tensor(case.weight), tensor(case.bias)
    shape = weight.shape
    return lambda: torch.native_layer_norm(x, shape, weight, bias, case.eps)


def layer_norm_backward(case: LayerNormBackward) -> Call:
    dy, x, weight, bias = (tensor(array) for array in (case.dy, case.x, case.weight, case.bias))
    mean, rstd = tensor(case.mean).float()[:, None], tensor(case.rstd)[:, None]
    shape, wanted = weight.shape, (True, True, True)
    backward = torch.ops.aten.native_layer_norm_backward
    return lambda: backward(dy, x, shape, mean, rstd, weight, bias, wanted)


def dropout(case: Dropout) -> Call:
    torch.manual_seed(1)
    x, p = tensor(case.x), case.p
    return lambda: F.dropout(x, p, training=True)


def rms_norm_forward(case: RmsNormForward) -> Call:
    x, weight = tensor(case.x), tensor(case.weight)
    shape = weight.shape
    return lambda: (F.rms_norm(x, shape, weight, case.eps),)


def dropout_add_layer_norm_forward(case: DropoutAddNormForward) -> Call:
    torch.manual_seed(1)
    x, residual, weight, bias = (tensor(a) for a in (case.x, case.residual, case.weight, case.bias))
    shape = weight.shape

    def call() -> tuple[torch.Tensor, ...]:
        z = F.dropout(x, case.p, training=True) + residual
        y, mean, rstd = torch.native_layer_norm(z, shape, weight, bias, case.eps)
        return y, z, mean, rstd

    return call


def dropout_add_layer_norm_backward(case: DropoutAddNormBackward) -> Call:
    dy, dz, z, weight, bias = (tensor(a) for a in (case.dy, case.dz, case.z, case.weight, case.bias))
    mean, rstd, mask = tensor(case.mean).float()[:, None], tensor(case.rstd)[:, None], tensor(case.mask)
    shape, wanted, scale = weight.shape, (True, True, True), 1 / (1 - case.p)
    norm_backward = torch.ops.aten.native_layer_norm_backward
    dropout_backward = torch.ops.aten.native_dropout_backward

    def call() -> tuple[torch.Tensor, ...]:
        dresidual, dweight, dbias = norm_backward(dy, z, shape, mean, rstd, weight, bias, wanted)
        dresidual += dz
        return dropout_backward(dresidual, mask, scale), dresidual, dweight, dbias

    return call


def dropout_add_rms_norm_forward(case: DropoutAddNormForward) -> Call:
    torch.manual_seed(1)
    x, residual, weight = tensor(case.x), tensor(case.residual), tensor(case.weight)
    shape = weight.shape

    def call() -> tuple[torch.Tensor, ...]:
        z = F.dropout(x, case.p, training=True) + residual
        return F.rms_norm(z, shape, weight, case.eps), z

    return call


def make_optimizer(case: AdamWUpdate, fused: bool) -> torch.optim.AdamW:
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


def adamw_update(case: AdamWUpdate) -> Call:
    return make_optimizer(case, fused=True).step
