"""NumPy: expressions as a careful user writes them, into buffers and in place.

The buffers are the library's own: what another one leaves in the caches would slow these calls down or speed them up.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..case import Array, Case
from ..measure import Call
from .numpy_activations import ACTIVATIONS

NAME = "numpy"
VERSION = np.__version__
NOTE = "numpy always works on one thread, into buffers (out=)."


def set_num_threads(threads: int) -> bool:
    """NumPy's elementwise functions always run on one thread."""
    return True


# --- the norms


def norm(case: Case, z: Array, y: Array) -> tuple[Array, ...]:
    """Return y, which is written, and the statistics of the rows of z."""
    centred, statistics = "layer_norm" in case.name, ()
    if centred:
        mean = z.mean(axis=-1, keepdims=True)
        z = np.subtract(z, mean, out=y)
        statistics = (mean,)
    rstd = 1 / np.sqrt(np.vecdot(z, z)[:, np.newaxis] / z.shape[-1] + case.eps)
    np.multiply(z, rstd, out=y)
    y *= case.weight
    if centred:
        y += case.bias
    return y, *statistics, rstd


def layer_norm_forward(case: Case) -> Call:
    x, y = case.x, np.empty_like(case.x)
    return lambda: norm(case, x, y)


def norm_gradients(case: Case, z: Array, dx: Array) -> Callable[[], list[Array]]:
    """Return a function that writes dx and returns dweight, and dbias for LayerNorm."""
    dy, weight, n, centred = case.dy, case.weight, z.shape[-1], "layer_norm" in case.name
    rstd = case.rstd[:, np.newaxis]
    mean = case.mean.astype(np.float32)[:, np.newaxis] if centred else None
    xhat = np.empty_like(z)

    def write() -> list[Array]:
        np.multiply(np.subtract(z, mean, out=xhat) if centred else z, rstd, out=xhat)
        sums = [np.einsum("ij,ij->j", dy, xhat)]
        if centred:
            sums.append(dy.sum(axis=0))
        g = np.multiply(dy, weight, out=dx)
        mean_g_xhat = np.vecdot(g, xhat)[:, np.newaxis] / n
        if centred:
            g -= g.mean(axis=-1, keepdims=True)
        np.multiply(xhat, mean_g_xhat, out=xhat)
        np.subtract(g, xhat, out=dx)
        np.multiply(dx, rstd, out=dx)
        return sums

    return write


def layer_norm_backward(case: Case) -> Call:
    dx = np.empty_like(case.x)
    write = norm_gradients(case, case.x, dx)
    return lambda: (dx, *write())


rms_norm_forward, rms_norm_backward = layer_norm_forward, layer_norm_backward


# --- dropout


def dropout_in_place(case: Case) -> Callable[[Array], None]:
    """Return a function that drops from an array in place."""
    rng, p, scale = np.random.default_rng(1), case.p, np.float32(1 / (1 - case.p))
    noise, kept = np.empty(case.shape, np.float32), np.empty(case.shape, bool)

    def drop(y: Array) -> None:
        rng.random(out=noise, dtype=np.float32)
        np.greater_equal(noise, p, out=kept)
        y *= scale
        y *= kept

    return drop


def dropout(case: Case) -> Call:
    x, y, drop = case.x, np.empty_like(case.x), dropout_in_place(case)

    def call() -> Array:
        np.copyto(y, x)
        drop(y)
        return y

    return call


def drop_path(case: Case) -> Call:
    x, p, y = case.x, case.p, np.empty_like(case.x)
    rng = np.random.default_rng(1)

    def call() -> Array:
        factors = (rng.random(len(x), dtype=np.float32) >= p) / np.float32(1 - p)
        return np.multiply(x, factors[:, np.newaxis], out=y)

    return call


def dropout_add_layer_norm_forward(case: Case) -> Call:
    y, z, drop = np.empty_like(case.x), np.empty_like(case.x), dropout_in_place(case)

    def call() -> tuple[Array, ...]:
        np.copyto(z, case.x)
        drop(z)
        np.add(z, case.residual, out=z)
        _, *statistics = norm(case, z, y)
        return y, z, *statistics

    return call


def dropout_add_layer_norm_backward(case: Case) -> Call:
    dx, dresidual, kept, scale = np.empty_like(case.z), np.empty_like(case.z), case.kept, np.float32(1 / (1 - case.p))
    write = norm_gradients(case, case.z, dresidual)

    def call() -> tuple[Array, ...]:
        sums = write()
        np.add(dresidual, case.dz, out=dresidual)
        np.multiply(dresidual, scale, out=dx)
        np.multiply(dx, kept, out=dx)
        return dx, dresidual, *sums

    return call


dropout_add_rms_norm_forward = dropout_add_layer_norm_forward
dropout_add_rms_norm_backward = dropout_add_layer_norm_backward


def softmax_dropout_forward(case: Case) -> Call:
    x, y, drop = case.x, np.empty_like(case.x), dropout_in_place(case)
    left_out = None if case.keep is None else ~case.keep

    def call() -> Array:
        np.multiply(x, case.scale, out=y)
        if left_out is not None:
            np.copyto(y, -np.inf, where=left_out)
        np.subtract(y, y.max(axis=-1, keepdims=True), out=y)
        np.exp(y, out=y)
        np.multiply(y, 1 / y.sum(axis=-1, keepdims=True), out=y)
        if case.p > 0:
            drop(y)
        return y

    return call


def softmax_dropout_backward(case: Case) -> Call:
    dy, prob, dx = case.dy, case.prob, np.empty_like(case.dy)
    kept = case.kept if case.p > 0 else None

    def call() -> Array:
        dprob = dy
        if kept is not None:
            dprob = np.multiply(dy, 1 / (1 - case.p), out=dx)
            np.multiply(dx, kept, out=dx)
        np.subtract(dprob, np.vecdot(dprob, prob)[..., np.newaxis], out=dx)
        np.multiply(dx, prob, out=dx)
        return np.multiply(dx, case.scale, out=dx)

    return call


def gelu_dropout_forward(case: Case) -> Call:
    activation, _ = ACTIVATIONS[case.activation]
    h, y, a, b = (np.empty_like(case.x) for _ in range(4))
    drop = dropout_in_place(case)

    def call() -> Array:
        np.add(case.x, case.bias, out=h)
        activation(h, y, a, b)
        drop(y)
        return y

    return call


def gelu_dropout_backward(case: Case) -> Call:
    _, derivative = ACTIVATIONS[case.activation]
    h, kept = case.h, case.kept
    dx, a, b = (np.empty_like(case.x) for _ in range(3))

    def call() -> tuple[Array, Array]:
        derivative(h, dx, a, b)
        np.multiply(dx, case.dy, out=dx)
        np.multiply(dx, 1 / (1 - case.p), out=dx)
        np.multiply(dx, kept, out=dx)
        return dx, dx.sum(axis=0)

    return call


silu_dropout_forward = relu_dropout_forward = gelu_dropout_forward
silu_dropout_backward = gelu_dropout_backward


def relu_dropout_backward(case: Case) -> Call:
    if case.y is None:
        return gelu_dropout_backward(case)
    dy, y, dx = case.dy, case.y, np.empty_like(case.y)

    def call() -> tuple[Array, Array]:
        np.greater(y, 0, out=dx)
        np.multiply(dx, dy, out=dx)
        np.multiply(dx, 1 / (1 - case.p), out=dx)
        return dx, dx.sum(axis=0)

    return call


# --- AdamW


def adamw_update(case: Case) -> Call:
    param, grad, exp_avg, exp_avg_sq = case.param, case.grad, case.exp_avg, case.exp_avg_sq
    beta1, beta2 = case.betas
    step_size, sqrt_bc2 = case.lr / (1 - beta1**case.step), math.sqrt(1 - beta2**case.step)
    buffer = np.empty_like(param)

    def call() -> None:
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

    return call
