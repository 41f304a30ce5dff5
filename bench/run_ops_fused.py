"""More operations that run.py measures: RMSNorm, DropPath, and what is fused with dropout."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from run_case import FLOAT, KEY, Array, Case, Shape, WrongAnswer, check_close, slices

import pyreg

EPS = 1e-5
TOLERANCE = 2e-5  # a float32 sum over a row of 4096, one element after the other, is off by about 4e-6


def normalise(z: Array, centred: bool) -> tuple[Array, Array, Array]:
    """Return xhat, mean (0 where not centred) and rstd of rows in float64."""
    mean = z.mean(axis=1, keepdims=True) if centred else np.zeros((len(z), 1))
    rstd = 1 / np.sqrt(((z - mean) ** 2).mean(axis=1, keepdims=True) + EPS)
    return (z - mean) * rstd, mean, rstd


def gradient(g: Array, xhat: Array, rstd: Array, centred: bool) -> Array:
    """Return the gradient for the rows, of g for their xhat."""
    mean_g = g.mean(axis=1, keepdims=True) if centred else 0
    return (g - mean_g - xhat * (g * xhat).mean(axis=1, keepdims=True)) * rstd


class Norm(Case):
    """Of rows z (rows, n), by LayerNorm or RMSNorm."""

    centred: ClassVar[bool]
    eps = EPS

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        rng = np.random.default_rng(1)
        n = shape[1]
        self.x = rng.standard_normal(shape, dtype=np.float32)
        self.weight = 1 + rng.standard_normal(n, dtype=np.float32) / 4
        self.bias = rng.standard_normal(n, dtype=np.float32) if self.centred else np.zeros(n, np.float32)
        self.out = np.empty_like(self.x)

    def check_y(self, y: Any, z: Array) -> None:
        y = np.asarray(y)
        for part in slices(self.shape[0], 256):
            xhat, _, _ = normalise(z[part].astype(np.float64), self.centred)
            check_close("y", y[part], xhat * self.weight + self.bias, TOLERANCE)

    def statistics_of(self, z: Array) -> None:
        """Set `mean` and `rstd`."""
        rows = self.shape[0]
        self.mean, self.rstd = np.empty(rows), np.empty(rows, np.float32)
        for part in slices(rows, 256):
            _, mean, rstd = normalise(z[part].astype(np.float64), self.centred)
            self.mean[part], self.rstd[part] = mean[:, 0], rstd[:, 0]

    def check_statistics(self, statistics: tuple[Any, ...], z: Array) -> None:
        """Check the mean, of a norm that has one, and rstd, where a library returns them."""
        if not statistics:
            return
        self.statistics_of(z)
        if self.centred:
            # A mean near 0 is off by the rounding of what is summed, which is of the size of 1.
            check_close("mean", 1 + np.asarray(statistics[0]).ravel(), 1 + self.mean, TOLERANCE)
        check_close("rstd", statistics[-1], self.rstd, TOLERANCE)

    def gradients_of(self, z: Array, dy: Array) -> tuple[Array, Array]:
        """Return the gradient that comes through the norm, and that of the weight."""
        dz, dweight = np.empty_like(z), np.zeros(self.shape[1])
        for part in slices(self.shape[0], 256):
            xhat, _, rstd = normalise(z[part].astype(np.float64), self.centred)
            g = dy[part].astype(np.float64)
            dz[part] = gradient(g * self.weight, xhat, rstd, self.centred)
            dweight += (g * xhat).sum(axis=0)
        return dz, dweight


class RmsNormForward(Norm):
    """``y = x * rstd * weight`` with the rstd of each row of x (rows, n)."""

    name = "rms_norm_forward"
    moved_per_element = 2 * FLOAT  # read x, write y
    centred = False

    def check(self, answer: tuple[Any, ...]) -> None:
        self.check_y(answer[0], self.x)
        self.check_statistics(answer[1:], self.x)


class RmsNormBackward(Norm):
    """The gradients for x and weight."""

    name = "rms_norm_backward"
    moved_per_element = 3 * FLOAT  # read dy and x, write dx
    centred = False

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.dy = np.random.default_rng(2).standard_normal(shape, dtype=np.float32)
        self.statistics_of(self.x)
        self.dx, self.dweight = self.gradients_of(self.x, self.dy)

    def check(self, answer: tuple[Any, Any]) -> None:
        check_close("dx", answer[0], self.dx, TOLERANCE)
        check_close("dweight", answer[1], self.dweight, TOLERANCE)


class DropPath(Case):
    """``y = x / (1 - p)`` for the samples that are kept, 0 for the others."""

    name = "drop_path"
    moved_per_element = 2 * FLOAT  # write y; read x, of which a tenth could be spared
    p = 0.1

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
        self.out = np.empty_like(self.x)

    def check(self, answer: Any) -> None:
        y = np.asarray(answer)
        kept = (y != 0).any(axis=1, keepdims=True)
        for part in slices(self.shape[0], 256):
            check_close("y", y[part], kept[part] * (self.x[part] / (1 - self.p)) + 0.0, tolerance=1e-6)


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
        z = np.asarray(answer[1])
        for part in (slice(0, 4), slice(self.shape[0] - 4, None)):  # rows that a mistake in blocks would not spare
            offset = part.indices(self.shape[0])[0] * self.shape[1]
            expected = pyreg.reference.dropout(self.x[part], self.p, key=KEY, offset=offset) + self.residual[part]
            if not np.array_equal(z[part].view(np.uint32), expected.view(np.uint32)):
                raise WrongAnswer(f"rows {part} of z differ from pyreg.reference")


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
