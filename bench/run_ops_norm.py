"""RMSNorm, as run.py measures it, and what it shares with the norms that are fused with dropout."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from run_case import FLOAT, Array, Case, Shape, check_close, slices

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
