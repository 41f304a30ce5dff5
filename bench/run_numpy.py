"""NumPy's side of run.py: expressions that one would write, with buffers where they help."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from run_case import Array, Call
from run_numpy_activation_dropout import *  # noqa: F403 (run.py looks in this module)
from run_ops import AdamWUpdate, Dropout, DropPath
from run_ops_dropout_add_norm import DropoutAddNormBackward, DropoutAddNormForward
from run_ops_norm import Norm, NormBackward, NormForward

VERSION = np.__version__


def set_num_threads(threads: int) -> bool:
    """NumPy's elementwise functions run on one thread, whatever is asked for."""
    return True


# --- LayerNorm and RMSNorm. Each library has its own buffers: what one leaves in the cache slows or speeds the next


def _norm(case: Norm, z: Array, y: Array) -> tuple[Array, ...]:
    """Return y, which is written, and the statistics of the rows of z."""
    statistics = ()
    if case.centred:
        mean = z.mean(axis=-1, keepdims=True)
        z = np.subtract(z, mean, out=y)
        statistics = (mean,)
    rstd = 1 / np.sqrt(np.vecdot(z, z)[:, np.newaxis] / z.shape[-1] + case.eps)
    np.multiply(z, rstd, out=y)
    np.multiply(y, case.weight, out=y)
    if case.centred:
        np.add(y, case.bias, out=y)
    return y, *statistics, rstd


def _norm_forward(case: NormForward) -> Call:
    x, y = case.x, np.empty_like(case.x)
    return lambda: _norm(case, x, y)


def _gradients(case: Norm, z: Array, dx: Array) -> Callable[[], list[Array]]:
    """Return a function that writes dx and returns dweight, and dbias where there is one."""
    dy, weight, n = case.dy, case.weight, z.shape[-1]
    mean, rstd = case.mean.astype(np.float32)[:, np.newaxis], case.rstd[:, np.newaxis]
    xhat = np.empty_like(z)

    def write() -> list[Array]:
        deviation = np.subtract(z, mean, out=xhat) if case.centred else z
        np.multiply(deviation, rstd, out=xhat)
        sums = [np.einsum("ij,ij->j", dy, xhat)]
        if case.centred:
            sums.append(dy.sum(axis=0))
        g = np.multiply(dy, weight, out=dx)
        mean_g_xhat = np.vecdot(g, xhat)[:, np.newaxis] / n
        if case.centred:
            np.subtract(g, g.mean(axis=-1, keepdims=True), out=dx)
        np.multiply(xhat, mean_g_xhat, out=xhat)
        np.subtract(dx, xhat, out=dx)
        np.multiply(dx, rstd, out=dx)
        return sums

    return write


def _norm_backward(case: NormBackward) -> Call:
    dx = np.empty_like(case.x)
    write = _gradients(case, case.x, dx)
    return lambda: (dx, *write())


layer_norm_forward = rms_norm_forward = _norm_forward
layer_norm_backward = rms_norm_backward = _norm_backward


# --- with dropout and the residual before


def _dropout_add_norm_forward(case: DropoutAddNormForward) -> Call:
    y, z = np.empty_like(case.x), np.empty_like(case.x)
    rng = np.random.default_rng(1)

    def call() -> tuple[Array, ...]:
        np.multiply(case.x, np.float32(1 / (1 - case.p)), out=z)
        np.multiply(z, rng.random(z.shape, dtype=np.float32) >= case.p, out=z)
        np.add(z, case.residual, out=z)
        _, *statistics = _norm(case, z, y)
        return y, z, *statistics

    return call


def _dropout_add_norm_backward(case: DropoutAddNormBackward) -> Call:
    dx, dresidual = np.empty_like(case.z), np.empty_like(case.z)
    write = _gradients(case, case.z, dresidual)

    def call() -> tuple[Array, ...]:
        sums = write()
        np.add(dresidual, case.dz, out=dresidual)
        np.multiply(dresidual, np.float32(1 / (1 - case.p)), out=dx)
        np.multiply(dx, case.mask, out=dx)
        return dx, dresidual, *sums

    return call


dropout_add_layer_norm_forward = dropout_add_rms_norm_forward = _dropout_add_norm_forward
dropout_add_layer_norm_backward = dropout_add_rms_norm_backward = _dropout_add_norm_backward


# --- dropout and AdamW


def dropout(case: Dropout) -> Call:
    x, p, scale = case.x, case.p, 1 / (1 - case.p)
    rng = np.random.default_rng(1)
    return lambda: np.where(rng.random(x.shape, dtype=np.float32) >= p, x * scale, 0)


def drop_path(case: DropPath) -> Call:
    x, p, y = case.x, case.p, np.empty_like(case.x)
    rng = np.random.default_rng(1)

    def call() -> Array:
        factors = (rng.random(len(x), dtype=np.float32) >= p) / np.float32(1 - p)
        return np.multiply(x, factors[:, np.newaxis], out=y)

    return call


def adamw_update(case: AdamWUpdate) -> Call:
    param, grad, exp_avg, exp_avg_sq = case.param, case.grad, case.exp_avg, case.exp_avg_sq
    beta1, beta2, step = case.beta1, case.beta2, case.step
    step_size = case.lr / (1 - beta1**step)
    sqrt_bc2 = math.sqrt(1 - beta2**step)
    buffer = np.empty_like(param)

    def call() -> tuple[Array, Array, Array]:
        np.multiply(exp_avg, beta1, out=exp_avg)
        np.multiply(grad, 1 - beta1, out=buffer)
        np.add(exp_avg, buffer, out=exp_avg)
        np.multiply(exp_avg_sq, beta2, out=exp_avg_sq)
        np.multiply(grad, grad, out=buffer)
        np.multiply(buffer, 1 - beta2, out=buffer)
        np.add(exp_avg_sq, buffer, out=exp_avg_sq)
        np.sqrt(exp_avg_sq, out=buffer)
        np.divide(buffer, sqrt_bc2, out=buffer)
        np.add(buffer, case.eps, out=buffer)
        np.divide(exp_avg, buffer, out=buffer)
        np.multiply(buffer, step_size, out=buffer)
        np.multiply(param, 1 - case.lr * case.weight_decay, out=param)
        np.subtract(param, buffer, out=param)
        return param, exp_avg, exp_avg_sq

    return call
