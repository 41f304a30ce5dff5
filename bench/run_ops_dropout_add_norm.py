"""Dropout, the residual and a norm in one pass, as run.py measures them."""

from __future__ import annotations

from typing import Any

import numpy as np
from run_case import FLOAT, KEY, Shape, check_close, check_dropped, slices
from run_ops_norm import TOLERANCE, Norm

import pyreg


class DropoutAddNormForward(Norm):
    """``z = dropout(x) + residual``, ``y = norm(z)``."""

    outputs, row_arguments = ", out=out, z_out=z_out", "x residual"
    moved_per_element = 4 * FLOAT  # read x and the residual, write y and z
    p = 0.1

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.residual = np.random.default_rng(3).standard_normal(shape, dtype=np.float32)
        self.z_out = np.empty_like(self.x)

    def check(self, answer: tuple[Any, ...]) -> None:
        y, z = (np.asarray(array) for array in answer[:2])
        check_dropped("z", z - self.residual, self.x, self.p, tolerance=1e-6)
        self.check_forward(y, answer[2:], self.forward_of(z))


class DropoutAddNormBackward(Norm):
    """The gradients for x, the residual and the weight, from dy and dz, of a mask that is the same for all."""

    outputs, row_results = ", out=out, dresidual_out=dresidual_out", "dx dresidual"
    moved_per_element = 5 * FLOAT  # read dy, dz and z, write dx and dresidual
    p = 0.1

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        rng = np.random.default_rng(2)
        self.dy, self.dz = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
        self.z = self.x
        self.mask = pyreg.dropout_mask(shape, self.p, key=KEY)  # which pyreg itself makes again
        self.dresidual_out = np.empty_like(self.x)
        forward = self.forward_of(self.z)
        self.mean, self.rstd = forward["mean"], forward["rstd"]
        self.sums = self.backward_of(self.z, self.dy)
        self.dresidual = self.sums.pop("dx") + self.dz

    def check(self, answer: tuple[Any, ...]) -> None:
        dx, dresidual, *sums = answer
        check_close("dresidual", dresidual, self.dresidual, TOLERANCE)
        for got, (name, expected) in zip(sums, self.sums.items(), strict=False):  # pyreg has dlayer_scale's place too
            check_close(name, got, expected, TOLERANCE)
        for part in slices(self.shape[0], 256):
            expected = self.mask[part] * (self.dresidual[part] / np.float32(1 - self.p))
            check_close("dx", np.asarray(dx)[part], expected, TOLERANCE)


class DropoutAddLayerNormForward(DropoutAddNormForward):
    name, centred = "dropout_add_layer_norm_forward", True
    arguments, row_results = "x, residual, weight, bias, p=p, key=key, eps=eps", "y z mean rstd"


class DropoutAddLayerNormBackward(DropoutAddNormBackward):
    name, centred = "dropout_add_layer_norm_backward", True
    arguments, row_arguments = "dy, dz, z, mean, rstd, weight, p=p, key=key", "dy dz z mean rstd"


class DropoutAddRmsNormForward(DropoutAddNormForward):
    name, centred = "dropout_add_rms_norm_forward", False
    arguments, row_results = "x, residual, weight, p=p, key=key, eps=eps", "y z rstd"


class DropoutAddRmsNormBackward(DropoutAddNormBackward):
    name, centred = "dropout_add_rms_norm_backward", False
    arguments, row_arguments = "dy, dz, z, rstd, weight, p=p, key=key", "dy dz z rstd"


# By the title of their tables.
OPS: dict[str, type[Norm]] = {
    "dropout_add_layer_norm_forward p=0.1": DropoutAddLayerNormForward,
    "dropout_add_layer_norm_backward p=0.1": DropoutAddLayerNormBackward,
    "dropout_add_rms_norm_forward p=0.1": DropoutAddRmsNormForward,
    "dropout_add_rms_norm_backward p=0.1": DropoutAddRmsNormBackward,
}
