"""pyreg's side of run.py: the public functions, and what they are held against."""

from __future__ import annotations

import math

import numpy as np
from run_ops import KEY, AdamWUpdate, Call, Case, Dropout, DropPath, LayerNormBackward, LayerNormForward
from run_ops_fused import DropoutAddNormBackward, DropoutAddNormForward
from run_ops_norm import RmsNormBackward, RmsNormForward
from run_pyreg_then_dropout import *  # noqa: F403 (run.py looks in this module)

import pyreg
from pyreg import _core

# --- the public functions, their results in arrays that are there already


def layer_norm_forward(case: LayerNormForward) -> Call:
    x, weight, bias, out = case.x, case.weight, case.bias, case.out
    return lambda: pyreg.layer_norm_forward(x, weight, bias, eps=case.eps, out=out)


def layer_norm_backward(case: LayerNormBackward) -> Call:
    dy, x, mean, rstd, weight, out = case.dy, case.x, case.mean, case.rstd, case.weight, case.out
    return lambda: pyreg.layer_norm_backward(dy, x, mean, rstd, weight, out=out)


def rms_norm_forward(case: RmsNormForward) -> Call:
    x, weight, out = case.x, case.weight, case.out
    return lambda: pyreg.rms_norm_forward(x, weight, eps=case.eps, out=out)


def rms_norm_backward(case: RmsNormBackward) -> Call:
    dy, x, rstd, weight, out = case.dy, case.x, case.rstd, case.weight, case.out
    return lambda: pyreg.rms_norm_backward(dy, x, rstd, weight, out=out)


def drop_path(case: DropPath) -> Call:
    x, p, out = case.x, case.p, case.out
    return lambda: pyreg.drop_path(x, p, key=KEY, out=out)


def dropout_add_layer_norm_forward(case: DropoutAddNormForward) -> Call:
    arrays = case.x, case.residual, case.weight, case.bias
    options = {"p": case.p, "key": KEY, "eps": case.eps, "out": case.out, "z_out": case.z_out}
    return lambda: pyreg.dropout_add_layer_norm_forward(*arrays, **options)


def dropout_add_layer_norm_backward(case: DropoutAddNormBackward) -> Call:
    arrays = case.dy, case.dz, case.z, case.mean, case.rstd, case.weight
    options = {"p": case.p, "key": KEY, "out": case.out, "dresidual_out": case.dresidual_out}
    return lambda: pyreg.dropout_add_layer_norm_backward(*arrays, **options)


def dropout_add_rms_norm_forward(case: DropoutAddNormForward) -> Call:
    arrays = case.x, case.residual, case.weight
    options = {"p": case.p, "key": KEY, "eps": case.eps, "out": case.out, "z_out": case.z_out}
    return lambda: pyreg.dropout_add_rms_norm_forward(*arrays, **options)


def dropout_add_rms_norm_backward(case: DropoutAddNormBackward) -> Call:
    arrays = case.dy, case.dz, case.z, case.rstd, case.weight
    options = {"p": case.p, "key": KEY, "out": case.out, "dresidual_out": case.dresidual_out}
    return lambda: pyreg.dropout_add_rms_norm_backward(*arrays, **options)


def dropout(case: Dropout) -> Call:
    x, p, out = case.x, case.p, case.out
    return lambda: pyreg.dropout(x, p, key=KEY, out=out)


def adamw_update(case: AdamWUpdate) -> Call:
    param, grad, exp_avg, exp_avg_sq = case.param, case.grad, case.exp_avg, case.exp_avg_sq
    numbers = {
        "step": case.step,
        "lr": case.lr,
        "betas": (case.beta1, case.beta2),
        "eps": case.eps,
        "weight_decay": case.weight_decay,
    }

    def call() -> tuple[object, ...]:
        pyreg.adamw_update(param, grad, exp_avg, exp_avg_sq, **numbers)
        return param, exp_avg, exp_avg_sq

    return call


# --- the same, each result in a new array


def layer_norm_forward_new(case: LayerNormForward) -> Call:
    x, weight, bias = case.x, case.weight, case.bias
    return lambda: pyreg.layer_norm_forward(x, weight, bias, eps=case.eps)


def dropout_new(case: Dropout) -> Call:
    x, p = case.x, case.p
    return lambda: pyreg.dropout(x, p, key=KEY)


# --- the bare kernels: no checks, nothing allocated


def layer_norm_forward_core(case: LayerNormForward) -> Call:
    rows, n = case.shape
    mean, rstd = np.empty(rows), np.empty(rows, np.float32)
    args = (case.x, n, case.weight, case.bias, case.eps, case.out, mean, rstd)
    return lambda: _core.layer_norm_forward(*args)


def layer_norm_backward_core(case: LayerNormBackward) -> Call:
    n = case.shape[-1]
    dweight, dbias = np.empty(n, np.float32), np.empty(n, np.float32)
    args = (case.dy, case.x, case.mean, case.rstd, case.weight, n, case.out, dweight, dbias)
    return lambda: _core.layer_norm_backward(*args)


def rms_norm_forward_core(case: RmsNormForward) -> Call:
    args = (case.x, case.shape[1], case.weight, case.eps, case.out, np.empty(case.shape[0], np.float32))
    return lambda: _core.rms_norm_forward(*args)


def rms_norm_backward_core(case: RmsNormBackward) -> Call:
    n = case.shape[1]
    args = (case.dy, case.x, case.rstd, case.weight, n, case.out, np.empty(n, np.float32))
    return lambda: _core.rms_norm_backward(*args)


def drop_path_core(case: DropPath) -> Call:
    args = (case.x, case.shape[0], round(case.p * 2**32), KEY, 0, case.out)
    return lambda: _core.drop_path(*args)


def dropout_add_layer_norm_forward_core(case: DropoutAddNormForward) -> Call:
    rows, n = case.shape
    inputs = (case.x, case.residual, case.weight, case.bias, None, None, n, round(case.p * 2**32), KEY, 0, case.eps)
    results = (case.out, case.z_out, np.empty(rows), np.empty(rows, np.float32))
    return lambda: _core.dropout_add_norm_forward(*inputs, *results)


def dropout_add_layer_norm_backward_core(case: DropoutAddNormBackward) -> Call:
    n = case.shape[1]
    inputs = (case.dy, case.dz, case.z, case.mean, case.rstd, case.weight, None, None, None, n)
    sums = (np.empty(n, np.float32), np.empty(n, np.float32), None)
    results = (round(case.p * 2**32), KEY, 0, case.out, case.dresidual_out, *sums)
    return lambda: _core.dropout_add_norm_backward(*inputs, *results)


def dropout_add_rms_norm_forward_core(case: DropoutAddNormForward) -> Call:
    rows, n = case.shape
    inputs = (case.x, case.residual, case.weight, None, None, None, n, round(case.p * 2**32), KEY, 0, case.eps)
    results = (case.out, case.z_out, None, np.empty(rows, np.float32))
    return lambda: _core.dropout_add_norm_forward(*inputs, *results)


def dropout_add_rms_norm_backward_core(case: DropoutAddNormBackward) -> Call:
    n = case.shape[1]
    inputs = (case.dy, case.dz, case.z, None, case.rstd, case.weight, None, None, None, n)
    results = (round(case.p * 2**32), KEY, 0, case.out, case.dresidual_out, np.empty(n, np.float32), None, None)
    return lambda: _core.dropout_add_norm_backward(*inputs, *results)


def dropout_core(case: Dropout) -> Call:
    args = (case.x, round(case.p * 2**32), KEY, 0, case.out)
    return lambda: _core.dropout(*args)


def adamw_update_core(case: AdamWUpdate) -> Call:
    arrays = (case.param, case.grad, case.exp_avg, case.exp_avg_sq, None)
    numbers = (case.step, case.lr, case.beta1, case.beta2, case.eps, case.weight_decay)
    return lambda: _core.adam(*arrays, *numbers, True, False)


# --- what memory allows


def copies(case: Case) -> dict[str, Call]:
    """A copy that moves as many bytes as the operation must, with either kind of stores."""
    source = np.ones(math.ceil(case.bytes_moved / 2 / 4), np.float32)
    target = np.empty_like(source)
    return {
        "copy": lambda: _core.copy(source, target, False),
        "streaming copy": lambda: _core.copy(source, target, True),
    }


def update_loop(case: AdamWUpdate) -> Call:
    """The least that an update with AdamW's traffic can do: an addition for each array it writes."""
    arrays = (case.param, case.grad, case.exp_avg, case.exp_avg_sq)
    return lambda: _core.update_loop(*arrays)
