"""NumPy's side of run.py: expressions that one would write, with buffers where they help."""

from __future__ import annotations

import math

import numpy as np
from run_ops import AdamWUpdate, Array, Call, Dropout, LayerNormBackward, LayerNormForward

VERSION = np.__version__


def set_num_threads(threads: int) -> bool:
    """NumPy's elementwise functions run on one thread, whatever is asked for."""
    return True


def layer_norm_forward(case: LayerNormForward) -> Call:
    x, weight, bias = case.x, case.weight, case.bias
    y = np.empty_like(case.out)  # each library its own: what one leaves in the cache slows or speeds the next
    n = case.shape[-1]

    def call() -> tuple[Array, Array, Array]:
        mean = x.mean(axis=-1, keepdims=True)
        np.subtract(x, mean, out=y)
        var = np.vecdot(y, y)[:, np.newaxis] / n
        rstd = 1 / np.sqrt(var + case.eps)
        np.multiply(y, rstd, out=y)
        np.multiply(y, weight, out=y)
        np.add(y, bias, out=y)
        return y, mean, rstd

    return call


def layer_norm_backward(case: LayerNormBackward) -> Call:
    dy, x, weight, dx = case.dy, case.x, case.weight, np.empty_like(case.out)
    mean, rstd = case.mean.astype(np.float32)[:, np.newaxis], case.rstd[:, np.newaxis]
    n = case.shape[-1]
    xhat = np.empty_like(x)

    def call() -> tuple[Array, Array, Array]:
        np.subtract(x, mean, out=xhat)
        np.multiply(xhat, rstd, out=xhat)
        dweight = np.einsum("ij,ij->j", dy, xhat)
        dbias = dy.sum(axis=0)
        g = np.multiply(dy, weight, out=dx)
        mean_g = g.mean(axis=-1, keepdims=True)
        mean_g_xhat = np.vecdot(g, xhat)[:, np.newaxis] / n
        np.subtract(g, mean_g, out=dx)
        np.multiply(xhat, mean_g_xhat, out=xhat)
        np.subtract(dx, xhat, out=dx)
        np.multiply(dx, rstd, out=dx)
        return dx, dweight, dbias

    return call


def dropout(case: Dropout) -> Call:
    x, p, scale = case.x, case.p, 1 / (1 - case.p)
    rng = np.random.default_rng(1)
    return lambda: np.where(rng.random(x.shape, dtype=np.float32) >= p, x * scale, 0)


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
