"""NumPy's side of run.py: expressions that one would write, with buffers where they help."""

from __future__ import annotations

import math

import numpy as np
from run_numpy_then_dropout import *  # noqa: F403 (run.py looks in this module)
from run_ops import AdamWUpdate, Array, Call, Dropout, DropPath, LayerNormBackward, LayerNormForward
from run_ops_fused import DropoutAddNormBackward, DropoutAddNormForward
from run_ops_norm import RmsNormBackward, RmsNormForward

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


def rms_norm_forward(case: RmsNormForward) -> Call:
    x, weight, y = case.x, case.weight, np.empty_like(case.out)
    n = case.shape[-1]

    def call() -> tuple[Array, Array]:
        rstd = 1 / np.sqrt(np.vecdot(x, x)[:, np.newaxis] / n + case.eps)
        np.multiply(x, rstd, out=y)
        np.multiply(y, weight, out=y)
        return y, rstd

    return call


def rms_norm_backward(case: RmsNormBackward) -> Call:
    dy, x, weight, rstd = case.dy, case.x, case.weight, case.rstd[:, np.newaxis]
    n, dx, xhat = case.shape[-1], np.empty_like(case.out), np.empty_like(case.out)

    def call() -> tuple[Array, Array]:
        np.multiply(x, rstd, out=xhat)
        dweight = np.einsum("ij,ij->j", dy, xhat)
        g = np.multiply(dy, weight, out=dx)
        np.multiply(xhat, np.vecdot(g, xhat)[:, np.newaxis] / n, out=xhat)
        np.subtract(g, xhat, out=dx)
        np.multiply(dx, rstd, out=dx)
        return dx, dweight

    return call


def drop_path(case: DropPath) -> Call:
    x, p, y = case.x, case.p, np.empty_like(case.out)
    rng = np.random.default_rng(1)

    def call() -> Array:
        factors = (rng.random(len(x), dtype=np.float32) >= p) / np.float32(1 - p)
        return np.multiply(x, factors[:, np.newaxis], out=y)

    return call


def dropout_add(case: DropoutAddNormForward, z: Array, rng: np.random.Generator) -> None:
    np.multiply(case.x, np.float32(1 / (1 - case.p)), out=z)
    np.multiply(z, rng.random(z.shape, dtype=np.float32) >= case.p, out=z)
    np.add(z, case.residual, out=z)


def dropout_add_layer_norm_forward(case: DropoutAddNormForward) -> Call:
    y, z, n = np.empty_like(case.out), np.empty_like(case.out), case.shape[-1]
    rng = np.random.default_rng(1)

    def call() -> tuple[Array, ...]:
        dropout_add(case, z, rng)
        mean = z.mean(axis=-1, keepdims=True)
        np.subtract(z, mean, out=y)
        rstd = 1 / np.sqrt(np.vecdot(y, y)[:, np.newaxis] / n + case.eps)
        np.multiply(y, rstd, out=y)
        np.multiply(y, case.weight, out=y)
        np.add(y, case.bias, out=y)
        return y, z, mean, rstd

    return call


def dropout_add_rms_norm_forward(case: DropoutAddNormForward) -> Call:
    y, z, n = np.empty_like(case.out), np.empty_like(case.out), case.shape[-1]
    rng = np.random.default_rng(1)

    def call() -> tuple[Array, ...]:
        dropout_add(case, z, rng)
        rstd = 1 / np.sqrt(np.vecdot(z, z)[:, np.newaxis] / n + case.eps)
        np.multiply(z, rstd, out=y)
        np.multiply(y, case.weight, out=y)
        return y, z, rstd

    return call


def add_dropout_backward(case: DropoutAddNormBackward, dresidual: Array, dx: Array) -> None:
    np.add(dresidual, case.dz, out=dresidual)
    np.multiply(dresidual, np.float32(1 / (1 - case.p)), out=dx)
    np.multiply(dx, case.mask, out=dx)


def dropout_add_layer_norm_backward(case: DropoutAddNormBackward) -> Call:
    dy, z, weight, n = case.dy, case.z, case.weight, case.shape[-1]
    mean, rstd = case.mean.astype(np.float32)[:, np.newaxis], case.rstd[:, np.newaxis]
    xhat, dx, dresidual = np.empty_like(z), np.empty_like(z), np.empty_like(z)

    def call() -> tuple[Array, ...]:
        np.subtract(z, mean, out=xhat)
        np.multiply(xhat, rstd, out=xhat)
        dweight, dbias = np.einsum("ij,ij->j", dy, xhat), dy.sum(axis=0)
        g = np.multiply(dy, weight, out=dresidual)
        mean_g = g.mean(axis=-1, keepdims=True)
        np.multiply(xhat, np.vecdot(g, xhat)[:, np.newaxis] / n, out=xhat)
        np.subtract(g, mean_g, out=dresidual)
        np.subtract(dresidual, xhat, out=dresidual)
        np.multiply(dresidual, rstd, out=dresidual)
        add_dropout_backward(case, dresidual, dx)
        return dx, dresidual, dweight, dbias

    return call


def dropout_add_rms_norm_backward(case: DropoutAddNormBackward) -> Call:
    dy, z, weight, n, rstd = case.dy, case.z, case.weight, case.shape[-1], case.rstd[:, np.newaxis]
    xhat, dx, dresidual = np.empty_like(z), np.empty_like(z), np.empty_like(z)

    def call() -> tuple[Array, ...]:
        np.multiply(z, rstd, out=xhat)
        dweight = np.einsum("ij,ij->j", dy, xhat)
        g = np.multiply(dy, weight, out=dresidual)
        np.multiply(xhat, np.vecdot(g, xhat)[:, np.newaxis] / n, out=xhat)
        np.subtract(g, xhat, out=dresidual)
        np.multiply(dresidual, rstd, out=dresidual)
        add_dropout_backward(case, dresidual, dx)
        return dx, dresidual, dweight

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
