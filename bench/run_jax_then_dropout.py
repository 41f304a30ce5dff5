"""JAX's side of run.py: softmax and the activations, then dropout."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from run_case import Call
from run_ops_activation_dropout import ActivationDropoutBackward, ActivationDropoutForward
from run_ops_softmax_dropout import SoftmaxDropoutBackward, SoftmaxDropoutForward


def _dropout(x, key, p):
    return jnp.where(jax.random.bernoulli(key, 1 - p, x.shape), x / (1 - p), 0)


@partial(jax.jit, static_argnames="p")
def _softmax_dropout_forward(x, scale, key, p):
    return _dropout(jax.nn.softmax(x * scale, axis=-1), key, p)


def softmax_dropout_forward(case: SoftmaxDropoutForward) -> Call:
    args = (jnp.array(case.x), case.scale, jax.random.key(1), case.p)
    return lambda: (jax.block_until_ready(_softmax_dropout_forward(*args)),)


@jax.jit
def _softmax_dropout_backward(dy, prob, mask, scale, keep):
    dprob = jnp.where(mask, dy * keep, 0)
    return prob * (dprob - (dprob * prob).sum(axis=-1, keepdims=True)) * scale


def softmax_dropout_backward(case: SoftmaxDropoutBackward) -> Call:
    arrays = (jnp.array(case.dy), jnp.array(case.prob), jnp.array(case.mask))
    return lambda: jax.block_until_ready(_softmax_dropout_backward(*arrays, case.scale, 1 / (1 - case.p)))


_ACTIVATIONS = {
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}


@partial(jax.jit, static_argnames=("activation", "p"))
def _forward(activation, x, bias, key, p):
    return _dropout(_ACTIVATIONS[activation](x + bias), key, p)


def _activation_dropout_forward(case: ActivationDropoutForward) -> Call:
    args = (case.activation, jnp.array(case.x), jnp.array(case.bias), jax.random.key(1), case.p)
    return lambda: jax.block_until_ready(_forward(*args))


@partial(jax.jit, static_argnames="activation")
def _backward(activation, dy, h, mask, keep):
    _, activation_backward = jax.vjp(_ACTIVATIONS[activation], h)
    (dx,) = activation_backward(jnp.where(mask, dy * keep, 0))
    return dx, dx.sum(axis=0)


def _activation_dropout_backward(case: ActivationDropoutBackward) -> Call:
    arrays = (jnp.array(case.dy), jnp.array(case.h), jnp.array(case.mask))
    return lambda: jax.block_until_ready(_backward(case.activation, *arrays, 1 / (1 - case.p)))


gelu_dropout_forward = silu_dropout_forward = relu_dropout_forward = _activation_dropout_forward
gelu_dropout_backward = silu_dropout_backward = relu_dropout_backward = _activation_dropout_backward
