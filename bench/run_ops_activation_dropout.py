"""An activation and dropout behind it, as feed-forward sublayers have them: what run.py measures of it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from run_case import FLOAT, KEY, Array, Case, Shape, check_close, check_dropped, check_same_bits, slices

import pyreg
from pyreg.reference.norm_rows import sum_rows

TOLERANCE = 2e-6  # a few roundings; GELU's approximation by tanh is 1e-4 of the largest entry off
erfc = np.vectorize(math.erfc, otypes=[float])


# --- the activations, and their derivatives


def relu(h: Array) -> tuple[Array, Array]:
    return np.maximum(h, 0), h > 0


def silu(h: Array) -> tuple[Array, Array]:
    s = 1 / (1 + np.exp(-h))
    return h * s, s * (1 + h * (1 - s))


def gelu(h: Array) -> tuple[Array, Array]:
    below = erfc(-h / math.sqrt(2)) / 2
    return h * below, below + h * np.exp(-h * h / 2) / math.sqrt(2 * math.pi)


def gelu_tanh(h: Array) -> tuple[Array, Array]:
    scale = math.sqrt(2 / math.pi)
    t = np.tanh(scale * (h + 0.044715 * h * h * h))
    slope = scale * (1 + 3 * 0.044715 * h * h)
    return h * (1 + t) / 2, (1 + t + h * (1 - t * t) * slope) / 2


ACTIVATIONS = {"relu": relu, "silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh}


# --- the operations


class ActivationDropout(Case):
    """Of x (rows, n) and a bias (n,).

    `h` is their sum, which pyreg makes again in its backward pass and the others have stored.
    """

    activation: ClassVar[str]  # of ACTIVATIONS
    # A GPT of 768 features has 3072 between its two linear maps: 100 MB an array at the end.
    sizes = ((8, 768), (512, 768), (1000, 1001), (2048, 3072), (8192, 3072))
    p = 0.1

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        rng = np.random.default_rng(1)
        self.x = rng.standard_normal(shape, dtype=np.float32)
        self.bias = rng.standard_normal(shape[1], dtype=np.float32)
        self.h = self.x + self.bias
        self.out = np.empty_like(self.x)


class ActivationDropoutForward(ActivationDropout):
    """``y = dropout(activation(x + bias))``."""

    arguments = "x, bias, p=p, key=key"
    also_new = True
    moved_per_element = 2 * FLOAT  # read x, write y

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.value = np.empty_like(self.x)
        for part in slices(shape[0], 256):
            self.value[part], _ = ACTIVATIONS[self.activation](self.h[part].astype(np.float64))

    def check(self, answer: Any) -> None:
        check_dropped("y", answer, self.value, self.p, TOLERANCE)


class ActivationDropoutBackward(ActivationDropout):
    """The gradients for x and the bias, of a mask that is the same for all."""

    arguments = "dy, x, bias, p=p, key=key"
    row_arguments, row_results = "dy x", "dx"
    moved_per_element = 3 * FLOAT  # read dy and x, write dx

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.dy = np.random.default_rng(2).standard_normal(shape, dtype=np.float32)
        self.mask = pyreg.dropout_mask(shape, self.p, key=KEY)  # which pyreg itself makes again
        self.dx, self.dbias = np.empty_like(self.x), np.zeros(shape[1])
        for part in slices(shape[0], 256):
            _, derivative = ACTIVATIONS[self.activation](self.h[part].astype(np.float64))
            dx = self.mask[part] * (self.dy[part] / (1 - self.p)) * derivative
            self.dx[part] = dx
            self.dbias += dx.sum(axis=0)

    def check(self, answer: tuple[Any, Any]) -> None:
        check_close("dx", answer[0], self.dx, TOLERANCE)
        check_close("dbias", answer[1], self.dbias, tolerance=2e-5)  # a float32 sum over 8192 rows

    def check_bits(self, answer: tuple[Array, Array]) -> None:
        super().check_bits(answer)
        check_same_bits("dbias", answer[1], sum_rows(answer[0]))


class GeluForward(ActivationDropoutForward):
    name, activation = "gelu_dropout_forward", "gelu"


class GeluBackward(ActivationDropoutBackward):
    name, activation = "gelu_dropout_backward", "gelu"


class GeluTanhForward(GeluForward):
    activation = "gelu_tanh"
    arguments = GeluForward.arguments + ", approximate='tanh'"


class GeluTanhBackward(GeluBackward):
    activation = "gelu_tanh"
    arguments = GeluBackward.arguments + ", approximate='tanh'"


class SiluForward(ActivationDropoutForward):
    name, activation = "silu_dropout_forward", "silu"


class SiluBackward(ActivationDropoutBackward):
    name, activation = "silu_dropout_backward", "silu"


class ReluForward(ActivationDropoutForward):
    name, activation = "relu_dropout_forward", "relu"


class ReluBackward(ActivationDropoutBackward):
    name, activation = "relu_dropout_backward", "relu"


# By the title of their tables.
OPS: dict[str, type[ActivationDropout]] = {
    "gelu_dropout_forward p=0.1": GeluForward,
    "gelu_dropout_forward p=0.1 tanh": GeluTanhForward,
    "gelu_dropout_backward p=0.1": GeluBackward,
    "gelu_dropout_backward p=0.1 tanh": GeluTanhBackward,
    "silu_dropout_forward p=0.1": SiluForward,
    "silu_dropout_backward p=0.1": SiluBackward,
    "relu_dropout_forward p=0.1": ReluForward,
    "relu_dropout_backward p=0.1": ReluBackward,
}
