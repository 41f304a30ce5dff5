"""LayerNorm and RMSNorm, as run.py measures them, and what they share with `dropout_add_norm`."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from run_case import FLOAT, Array, Case, Shape, check_close, slices

TOLERANCE = 2e-5  # a float32 sum over a row of 4096, one element after the other, is off by about 4e-6


class Norm(Case):
    """Of rows z (rows, n), by LayerNorm, which is centred, or RMSNorm."""

    centred: ClassVar[bool]
    eps = 1e-5

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        rng = np.random.default_rng(1)
        n = shape[1]
        self.x = rng.standard_normal(shape, dtype=np.float32)
        self.weight = 1 + rng.standard_normal(n, dtype=np.float32) / 4
        self.bias = rng.standard_normal(n, dtype=np.float32) if self.centred else np.zeros(n, np.float32)
        self.out = np.empty_like(self.x)

    def normalise(self, z: Array) -> tuple[Array, Array, Array]:
        """Return xhat, mean (0 where not centred) and rstd of rows in float64."""
        z = z.astype(np.float64)
        mean = z.mean(axis=1, keepdims=True) if self.centred else np.zeros((len(z), 1))
        rstd = 1 / np.sqrt(((z - mean) ** 2).mean(axis=1, keepdims=True) + self.eps)
        return (z - mean) * rstd, mean, rstd

    def forward_of(self, z: Array) -> dict[str, Array]:
        """Return y and the statistics: the mean in float64, as pyreg returns it; others take it in float32."""
        rows = len(z)
        made = {"y": np.empty_like(z), "mean": np.empty(rows), "rstd": np.empty(rows, np.float32)}
        for part in slices(rows, 256):
            xhat, mean, rstd = self.normalise(z[part])
            made["y"][part] = xhat * self.weight + self.bias
            made["mean"][part], made["rstd"][part] = mean[:, 0], rstd[:, 0]
        return made

    def check_forward(self, y: Any, statistics: tuple[Any, ...], expected: dict[str, Array]) -> None:
        """Check y, and of the mean, which not all norms have, and rstd what a library returns."""
        check_close("y", y, expected["y"], TOLERANCE)
        if statistics:
            *mean, rstd = statistics
            check_close("rstd", rstd, expected["rstd"], TOLERANCE)
            for got in mean:
                # One near 0 is off by the rounding of what is summed, which is of the size of 1.
                check_close("mean", 1 + np.asarray(got), 1 + expected["mean"], TOLERANCE / 10)

    def backward_of(self, z: Array, dy: Array) -> dict[str, Array]:
        """Return the gradients that come through the norm to z, and those of weight and bias."""
        n = self.shape[1]
        made = {"dx": np.empty_like(z), "dweight": np.zeros(n), "dbias": np.zeros(n)}
        for part in slices(len(z), 256):
            xhat, _, rstd = self.normalise(z[part])
            through_y = dy[part].astype(np.float64)
            made["dweight"] += (through_y * xhat).sum(axis=0)
            made["dbias"] += through_y.sum(axis=0)
            g = through_y * self.weight
            mean_g = g.mean(axis=1, keepdims=True) if self.centred else 0
            made["dx"][part] = (g - mean_g - xhat * (g * xhat).mean(axis=1, keepdims=True)) * rstd
        return made if self.centred else {name: made[name] for name in ("dx", "dweight")}


class NormForward(Norm):
    """``y = (x - mean) * rstd * weight + bias`` with the statistics of each row of x (rows, n)."""

    moved_per_element = 2 * FLOAT  # read x, write y

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.expected = self.forward_of(self.x)

    def check(self, answer: tuple[Any, ...]) -> None:
        self.check_forward(answer[0], answer[1:], self.expected)


class NormBackward(Norm):
    """The gradients for x, weight and bias."""

    row_results = "dx"
    moved_per_element = 3 * FLOAT  # read dy and x, write dx

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.dy = np.random.default_rng(2).standard_normal(shape, dtype=np.float32)
        forward = self.forward_of(self.x)
        self.mean, self.rstd = forward["mean"], forward["rstd"]
        self.expected = self.backward_of(self.x, self.dy)

    def check(self, answer: tuple[Any, ...]) -> None:
        for (name, expected), got in zip(self.expected.items(), answer, strict=True):
            check_close(name, got, expected, TOLERANCE)


class LayerNormForward(NormForward):
    name, centred = "layer_norm_forward", True
    arguments, row_results = "x, weight, bias, eps=eps", "y mean rstd"
    also_new = True


class LayerNormBackward(NormBackward):
    name, centred = "layer_norm_backward", True
    arguments, row_arguments = "dy, x, mean, rstd, weight", "dy x mean rstd"


class RmsNormForward(NormForward):
    name, centred = "rms_norm_forward", False
    arguments, row_results = "x, weight, eps=eps", "y rstd"


class RmsNormBackward(NormBackward):
    name, centred = "rms_norm_backward", False
    arguments, row_arguments = "dy, x, rstd, weight", "dy x rstd"


# By the title of their tables.
OPS: dict[str, type[Norm]] = {
    case.name: case for case in (LayerNormForward, LayerNormBackward, RmsNormForward, RmsNormBackward)
}
