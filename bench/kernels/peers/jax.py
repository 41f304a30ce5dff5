"""JAX, jit-compiled; a call waits for its results. LayerNorm, dropout and AdamW only."""

from __future__ import annotations

import os
from functools import partial

import jax
import jax.numpy as jnp

from ..case import Case
from ..measure import Call

NAME = "jax"
VERSION = jax.__version__
NOTE = "jax is jit-compiled, returns new arrays, and uses all CPUs: shown only where pyreg does too."

jax.config.update("jax_platforms", "cpu")


def set_num_threads(threads: int) -> bool:
    """XLA uses all CPUs that it may, and no setting changes that."""
    return threads == len(os.sched_getaffinity(0))


@jax.jit
def _layer_norm_forward(x, weight, bias, eps):
    mean = x.mean(axis=-1, keepdims=True)
    rstd = jax.lax.rsqrt(x.var(axis=-1, keepdims=True) + eps)
    return (x - mean) * rstd * weight + bias, mean, rstd


def layer_norm_forward(case: Case) -> Call:
    x, weight, bias = jnp.array(case.x), jnp.array(case.weight), jnp.array(case.bias)
    return lambda: jax.block_until_ready(_layer_norm_forward(x, weight, bias, case.eps))


@jax.jit
def _layer_norm_backward(dy, x, mean, rstd, weight):
    xhat = (x - mean) * rstd
    g = dy * weight
    projected = xhat * (g * xhat).mean(axis=-1, keepdims=True)
    dx = (g - g.mean(axis=-1, keepdims=True) - projected) * rstd
    return dx, (dy * xhat).sum(axis=0), dy.sum(axis=0)


def layer_norm_backward(case: Case) -> Call:
    dy, x, weight = jnp.array(case.dy), jnp.array(case.x), jnp.array(case.weight)
    mean, rstd = jnp.array(case.mean, jnp.float32)[:, None], jnp.array(case.rstd)[:, None]
    return lambda: jax.block_until_ready(_layer_norm_backward(dy, x, mean, rstd, weight))


@partial(jax.jit, static_argnames="p")
def _dropout(x, key, p):
    return jnp.where(jax.random.bernoulli(key, 1 - p, x.shape), x / (1 - p), 0)


def dropout(case: Case) -> Call:
    x, key, p = jnp.array(case.x), jax.random.key(1), case.p
    return lambda: jax.block_until_ready(_dropout(x, key, p))


# Donated: the results may use the memory of the arguments, like an update in place.
@partial(jax.jit, donate_argnames=("param", "exp_avg", "exp_avg_sq"))
def _adamw_update(param, exp_avg, exp_avg_sq, grad, step, lr, beta1, beta2, eps, weight_decay):
    m = exp_avg + (1 - beta1) * (grad - exp_avg)
    v = beta2 * exp_avg_sq + (1 - beta2) * grad * grad
    denominator = jnp.sqrt(v / (1 - beta2**step)) + eps
    return param - lr * (m / (1 - beta1**step) / denominator + weight_decay * param), m, v


def adamw_update(case: Case) -> Call:
    state = jnp.array(case.param), jnp.array(case.exp_avg), jnp.array(case.exp_avg_sq)
    grad = jnp.array(case.grad)
    numbers = (case.step, case.lr, *case.betas, case.eps, case.weight_decay)

    def call() -> tuple[jax.Array, ...]:
        nonlocal state
        state = jax.block_until_ready(_adamw_update(*state, grad, *numbers))
        return state

    return call
