"""PyTorch's side of run.py, through torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import run_torch
import torch
from run_ops import AdamWUpdate, Call, Dropout, LayerNormBackward, LayerNormForward
from run_ops_activation_dropout import ActivationDropoutBackward, ActivationDropoutForward
from run_ops_fused import DropoutAddNormBackward, DropoutAddNormForward
from run_ops_norm import RmsNormForward
from run_ops_softmax_dropout import SoftmaxDropoutBackward, SoftmaxDropoutForward

VERSION = torch.__version__
set_num_threads = run_torch.set_num_threads


def compiled(call: Callable[[], Any]) -> Call:
    """Compile for one size and thread count: a function that has seen others gets a slower version."""
    torch.compiler.reset()
    return torch.compile(call, dynamic=False)


def layer_norm_forward(case: LayerNormForward) -> Call:
    return compiled(run_torch.layer_norm_forward(case))


def layer_norm_backward(case: LayerNormBackward) -> Call:
    return compiled(run_torch.layer_norm_backward(case))


def dropout(case: Dropout) -> Call:
    return compiled(run_torch.dropout(case))


def rms_norm_forward(case: RmsNormForward) -> Call:
    return compiled(run_torch.rms_norm_forward(case))


def dropout_add_layer_norm_forward(case: DropoutAddNormForward) -> Call:
    return compiled(run_torch.dropout_add_layer_norm_forward(case))


def dropout_add_layer_norm_backward(case: DropoutAddNormBackward) -> Call:
    return compiled(run_torch.dropout_add_layer_norm_backward(case))


def dropout_add_rms_norm_forward(case: DropoutAddNormForward) -> Call:
    return compiled(run_torch.dropout_add_rms_norm_forward(case))


def adamw_update(case: AdamWUpdate) -> Call:
    # Not fused: that is one kernel already, which compiling leaves as it is.
    step = compiled(run_torch.make_optimizer(case, fused=False).step)

    def call() -> tuple[object, ...]:
        step()
        return case.param, case.exp_avg, case.exp_avg_sq

    return call


def softmax_dropout_forward(case: SoftmaxDropoutForward) -> Call:
    return compiled(run_torch.softmax_dropout_forward(case))


def softmax_dropout_backward(case: SoftmaxDropoutBackward) -> Call:
    return compiled(run_torch.softmax_dropout_backward(case))


def _activation_dropout_forward(case: ActivationDropoutForward) -> Call:
    return compiled(getattr(run_torch, case.name)(case))


def _activation_dropout_backward(case: ActivationDropoutBackward) -> Call:
    return compiled(getattr(run_torch, case.name)(case))


gelu_dropout_forward = silu_dropout_forward = relu_dropout_forward = _activation_dropout_forward
gelu_dropout_backward = silu_dropout_backward = relu_dropout_backward = _activation_dropout_backward
