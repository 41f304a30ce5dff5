"""Softmax and dropout of its weights, as attention has them: what run.py measures of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from run_case import FLOAT, KEY, Case, Shape, check_close, check_dropped, slices

import pyreg


class SoftmaxDropout(Case):
    """Of scores x (..., n), the products of queries and keys with 64 features each.

    `prob` is what softmax gives, which pyreg makes again in its backward pass and the others have stored.
    """

    # Heads, queries, keys: 100 MB an array at the end.
    sizes = ((8, 8, 8), (16, 64, 64), (96, 128, 128), (24, 1024, 1024))
    p = 0.1
    scale = 1 / 8  # 1 / sqrt(64)

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
        self.x *= 8  # sqrt(64)
        self.out = np.empty_like(self.x)
        self.prob = np.empty_like(self.x)
        self.maximum, self.rsum = (np.empty(shape[:-1], np.float32) for _ in range(2))
        x, prob = (array.reshape(-1, shape[-1]) for array in (self.x, self.prob))  # views: (rows, n)
        maximum, rsum = self.maximum.reshape(-1), self.rsum.reshape(-1)
        for part in slices(len(x), 256):
            s = x[part].astype(np.float64) * self.scale
            maximum[part] = s.max(axis=1)
            e = np.exp(s - s.max(axis=1, keepdims=True))
            rsum[part] = 1 / e.sum(axis=1)
            prob[part] = e / e.sum(axis=1, keepdims=True)


class SoftmaxDropoutForward(SoftmaxDropout):
    """``y = dropout(softmax(x * scale))``."""

    name = "softmax_dropout_forward"
    arguments, row_results = "x, p=p, key=key, scale=scale", "y maximum rsum"
    also_new = True
    moved_per_element = 2 * FLOAT  # read x, write y

    def check(self, answer: tuple[Any, ...]) -> None:
        # The sum over 1024 weights, one after the other, is off by about 2e-6.
        check_dropped("y", answer[0], self.prob, self.p, tolerance=1e-5)


class SoftmaxDropoutBackward(SoftmaxDropout):
    """The gradient for x, of a mask that is the same for all."""

    name = "softmax_dropout_backward"
    arguments = "dy, x, maximum, rsum, p=p, key=key, scale=scale"
    row_arguments, row_results = "dy x maximum rsum", "dx"
    moved_per_element = 3 * FLOAT  # read dy and x, write dx

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.dy = np.random.default_rng(2).standard_normal(shape, dtype=np.float32)
        self.mask = pyreg.dropout_mask(shape, self.p, key=KEY)  # which pyreg itself makes again
        self.dx = np.empty_like(self.x)
        dy, mask, prob, dx = (a.reshape(-1, shape[-1]) for a in (self.dy, self.mask, self.prob, self.dx))
        for part in slices(len(dx), 256):
            w = prob[part].astype(np.float64)
            dprob = mask[part] * (dy[part] / (1 - self.p))
            dx[part] = w * (dprob - (w * dprob).sum(axis=1, keepdims=True)) * self.scale

    def check(self, answer: Any) -> None:
        check_close("dx", answer, self.dx, tolerance=1e-5)


# By the title of their tables.
OPS: dict[str, type[SoftmaxDropout]] = {
    "softmax_dropout_forward p=0.1": SoftmaxDropoutForward,
    "softmax_dropout_backward p=0.1": SoftmaxDropoutBackward,
}
