"""numba: plain loops, parallel over the rows. LayerNorm, dropout and AdamW only."""

from __future__ import annotations

import math
import random

import numba
import numpy as np
from numba import njit, prange

from ..case import Array, Case
from ..measure import Call

NAME = "numba"
VERSION = numba.__version__
NOTE = "numba is @njit(parallel=True) on plain loops, without fastmath, into buffers."

# This starts numba's threads now. Starting them sets OpenMP's number of threads; later, it would overwrite the number
# that another library has set.
numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)

f32 = np.float32  # a Python float in a loop would make it float64


def set_num_threads(threads: int) -> bool:
    """Return False where numba was not started with as many."""
    if threads > numba.config.NUMBA_NUM_THREADS:
        return False
    numba.set_num_threads(threads)
    return True


@njit(parallel=True)
def _layer_norm_forward(x, weight, bias, eps, y, mean, rstd):
    rows, n = x.shape
    for i in prange(rows):
        total = f32(0)
        for j in range(n):
            total += x[i, j]
        m = total / f32(n)
        squares = f32(0)
        for j in range(n):
            squares += (x[i, j] - m) * (x[i, j] - m)
        r = f32(1) / np.sqrt(squares / f32(n) + eps)
        for j in range(n):
            y[i, j] = (x[i, j] - m) * r * weight[j] + bias[j]
        mean[i] = m
        rstd[i] = r


def layer_norm_forward(case: Case) -> Call:
    rows = case.shape[0]
    mean, rstd = np.empty(rows, f32), np.empty(rows, f32)
    out = np.empty_like(case.out)
    args = (case.x, case.weight, case.bias, f32(case.eps), out, mean, rstd)

    def call() -> tuple[Array, Array, Array]:
        _layer_norm_forward(*args)
        return out, mean, rstd

    return call


@njit(parallel=True)
def _layer_norm_backward(dy, x, mean, rstd, weight, dx, dweights, dbiases):
    # dweights, dbiases (blocks, n): the sums of a block of rows, so that no two threads share one.
    rows, n = x.shape
    blocks = len(dweights)
    for block in prange(blocks):
        dweights[block] = 0
        dbiases[block] = 0
        for i in range(rows * block // blocks, rows * (block + 1) // blocks):
            sum_g = f32(0)
            sum_g_xhat = f32(0)
            for j in range(n):
                xhat = (x[i, j] - mean[i]) * rstd[i]
                g = dy[i, j] * weight[j]
                sum_g += g
                sum_g_xhat += g * xhat
                dweights[block, j] += dy[i, j] * xhat
                dbiases[block, j] += dy[i, j]
            for j in range(n):
                xhat = (x[i, j] - mean[i]) * rstd[i]
                g = dy[i, j] * weight[j]
                dx[i, j] = (g - sum_g / f32(n) - xhat * sum_g_xhat / f32(n)) * rstd[i]


def layer_norm_backward(case: Case) -> Call:
    n = case.shape[-1]
    blocks = 4 * numba.get_num_threads()
    dweights, dbiases = np.empty((blocks, n), f32), np.empty((blocks, n), f32)
    out = np.empty_like(case.out)
    args = (case.dy, case.x, case.mean.astype(f32), case.rstd, case.weight, out, dweights, dbiases)

    def call() -> tuple[Array, Array, Array]:
        _layer_norm_backward(*args)
        return out, dweights.sum(axis=0), dbiases.sum(axis=0)

    return call


@njit(parallel=True)
def _dropout(x, p, scale, y):
    for i in prange(x.size):
        y[i] = x[i] * scale if random.random() >= p else f32(0)


def dropout(case: Case) -> Call:
    out = np.empty_like(case.out)
    args = (case.x.ravel(), case.p, f32(1 / (1 - case.p)), out.ravel())

    def call() -> Array:
        _dropout(*args)
        return out

    return call


@njit(parallel=True)
def _adamw_update(param, grad, exp_avg, exp_avg_sq, beta1, beta2, eps, step_size, sqrt_bc2, decay):
    for i in prange(param.size):
        g = grad[i]
        m = exp_avg[i] + (f32(1) - beta1) * (g - exp_avg[i])
        v = beta2 * exp_avg_sq[i] + (f32(1) - beta2) * g * g
        param[i] -= step_size * m / (np.sqrt(v) / sqrt_bc2 + eps) + decay * param[i]
        exp_avg[i] = m
        exp_avg_sq[i] = v


def adamw_update(case: Case) -> Call:
    arrays = (case.param, case.grad, case.exp_avg, case.exp_avg_sq)
    beta1, beta2 = case.betas
    bc1, bc2 = 1 - beta1**case.step, 1 - beta2**case.step
    numbers = (beta1, beta2, case.eps, case.lr / bc1, math.sqrt(bc2))
    args = (*arrays, *(f32(x) for x in (*numbers, case.lr * case.weight_decay)))

    def call() -> tuple[Array, Array, Array]:
        _adamw_update(*args)
        return case.param, case.exp_avg, case.exp_avg_sq

    return call
