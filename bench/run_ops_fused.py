"""Dropout, the residual and a norm in one pass, as run.py measures them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from run_case import FLOAT, KEY, Shape, WrongAnswer, check_close, check_same_bits, ends, slices
from run_ops_norm import TOLERANCE, Norm

import pyreg


class DropoutAddNormForward(Norm):
    """``z = dropout(x) + residual``, ``y = norm(z)``."""

    moved_per_element = 4 * FLOAT  # read x and the residual, write y and z
    p = 0.1

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.residual = np.random.default_rng(3).standard_normal(shape, dtype=np.float32)
        self.z_out = np.empty_like(self.x)

    def check(self, answer: tuple[Any, ...]) -> None:
        """Check by value; each library draws another mask, of which only the fraction kept is known."""
        y, z = (np.asarray(array) for array in answer[:2])
        kept = 0
        for part in slices(self.shape[0], 256):
            branch, scaled = z[part] - self.residual[part], self.x[part] / np.float32(1 - self.p)
            mask = np.abs(branch) > np.abs(scaled) / 2
            kept += np.count_nonzero(mask)
            check_close("z", z[part], mask * scaled + self.residual[part], tolerance=1e-6)
        deviation = math.sqrt(self.p * (1 - self.p) / self.size)
        if abs(kept / self.size - (1 - self.p)) > 6 * deviation:
            raise WrongAnswer(f"{kept / self.size:.2%} were kept instead of {1 - self.p:.2%}")
        self.check_y(y, z)
        self.check_statistics(answer[2:], z)

    def check_bits(self, answer: tuple[Any, ...]) -> None:
        rows, n = self.shape
        for part in ends(rows, n):
            dropped = pyreg.reference.dropout(self.x[part], self.p, key=KEY, offset=part.start * n)
            check_same_bits("z", answer[1][part], dropped + self.residual[part])


class DropoutAddNormBackward(Norm):
    """The gradients for x, the residual and the weight, from dy and dz, of a mask that is the same for all."""

    moved_per_element = 5 * FLOAT  # read dy, dz and z, write dx and dresidual
    p = 0.1

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        rng = np.random.default_rng(2)
        self.dy, self.dz = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
        self.z = self.x
        self.mask = pyreg.dropout_mask(shape, self.p, key=KEY)  # which pyreg itself makes again
        self.dresidual_out = np.empty_like(self.x)
        self.statistics_of(self.z)
        self.dresidual, self.dweight = self.gradients_of(self.z, self.dy)
        self.dresidual += self.dz
        self.dbias = self.dy.sum(axis=0, dtype=np.float64)

    def check(self, answer: tuple[Any, ...]) -> None:
        dx, dresidual, dweight = (np.asarray(array) for array in answer[:3])
        check_close("dresidual", dresidual, self.dresidual, TOLERANCE)
        check_close("dweight", dweight, self.dweight, TOLERANCE)
        if self.centred:
            check_close("dbias", answer[3], self.dbias, TOLERANCE)
        for part in slices(self.shape[0], 256):
            expected = self.mask[part] * (self.dresidual[part] / np.float32(1 - self.p))
            check_close("dx", dx[part], expected, TOLERANCE)

    def check_bits(self, answer: tuple[Any, ...]) -> None:
        dx, dresidual = answer[:2]
        rows, n = self.shape
        for part in ends(rows, n):
            expected = pyreg.reference.dropout(dresidual[part], self.p, key=KEY, offset=part.start * n)
            check_same_bits("dx", dx[part], expected)


class DropoutAddLayerNormForward(DropoutAddNormForward):
    name = "dropout_add_layer_norm_forward"
    centred = True


class DropoutAddLayerNormBackward(DropoutAddNormBackward):
    name = "dropout_add_layer_norm_backward"
    centred = True


class DropoutAddRmsNormForward(DropoutAddNormForward):
    name = "dropout_add_rms_norm_forward"
    centred = False


class DropoutAddRmsNormBackward(DropoutAddNormBackward):
    name = "dropout_add_rms_norm_backward"
    centred = False
