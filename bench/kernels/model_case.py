"""AdamW over a whole model in one precision: its arrays, pyreg's step, and the check of an answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from console import WrongAnswer

import pyreg
from pyreg._cases import Shape, sixteen_bit_dtypes

from .case import Array, slices
from .measure import Call

STEP = 10
NUMBERS: dict[str, Any] = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
MAX_NORM = 1.0  # less than the norm of any model's gradients, as they are drawn
CHUNK = 2**20  # elements that are in float64 at a time


@dataclass(frozen=True)
class Precision:
    """The dtypes of a model's arrays; `out`: of the copy of the parameters that the step writes."""

    name: str
    param: Any
    grad: Any
    state: Any
    out: Any = None

    def bytes_held(self) -> int:
        """Return the bytes of all arrays, per parameter."""
        return sum(np.dtype(t).itemsize for t in (self.param, self.grad, self.state, self.state, self.out) if t)

    def bytes_moved(self, clipped: bool) -> int:
        """Return what a step must read and write, per parameter. Clipping reads the gradients once more."""
        written = np.dtype(self.param).itemsize + 2 * np.dtype(self.state).itemsize
        return self.bytes_held() + written + clipped * np.dtype(self.grad).itemsize


FLOAT32 = Precision("float32", *[np.float32] * 3)
PRECISIONS = [FLOAT32]
for bfloat16 in sixteen_bit_dtypes()[1:]:  # if ml_dtypes is installed
    PRECISIONS.append(Precision("master", np.float32, bfloat16, np.float32, bfloat16))
    PRECISIONS.append(Precision("bfloat16", *[bfloat16] * 3))


def adamw_in_float64(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float,
) -> tuple[Array, Array, Array]:
    """Return the parameters and moments after a step of AdamW (Loshchilov & Hutter, 2019, algorithm 2)."""
    param, grad, exp_avg, exp_avg_sq = (a.astype(np.float64) for a in (param, grad, exp_avg, exp_avg_sq))
    beta1, beta2 = betas
    exp_avg = beta1 * exp_avg + (1 - beta1) * grad
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * grad**2
    mean, mean_sq = exp_avg / (1 - beta1**step), exp_avg_sq / (1 - beta2**step)
    return param - lr * (mean / (np.sqrt(mean_sq) + eps) + weight_decay * param), exp_avg, exp_avg_sq


def array_or_list(arrays: list[Array]) -> Array | list[Array]:
    return arrays[0] if len(arrays) == 1 else arrays


class ModelCase:
    """A model's arrays in one precision, a list of each kind."""

    def __init__(self, model: str, shapes: Sequence[Shape], precision: Precision, clipped: bool) -> None:
        def arrays(dtype: Any) -> list[Array]:
            return [np.empty(shape, dtype) for shape in shapes]

        self.model, self.precision, self.clipped = model, precision, clipped
        self.line = precision.name + ", clipped" * clipped
        self.bytes_moved = precision.bytes_moved(clipped) * sum(map(math.prod, shapes))
        self.param, self.grad = arrays(precision.param), arrays(precision.grad)
        self.exp_avg, self.exp_avg_sq = arrays(precision.state), arrays(precision.state)
        self.param_out = arrays(precision.out) if precision.out else None
        self.parameters = sum(a.size for a in self.param)
        self.restore()
        self.expected = list(self._in_float64())

    @property
    def is_plain(self) -> bool:
        """Whether the step is that of float32 without clipping."""
        return self.precision is FLOAT32 and not self.clipped

    def restore(self) -> None:
        """Undo what calls did to the arrays: draw them again, because a copy takes gigabytes."""
        rng = np.random.default_rng(0)
        for p, g, m, v in zip(self.param, self.grad, self.exp_avg, self.exp_avg_sq, strict=True):
            p[...] = rng.standard_normal(p.shape, np.float32) * np.float32(0.02)
            g[...] = rng.standard_normal(p.shape, np.float32) * np.float32(0.01)
            m[...] = rng.standard_normal(p.shape, np.float32) * np.float32(0.003)
            v[...] = (rng.random(p.shape, np.float32) + np.float32(0.5)) * np.float32(1e-6)

    def _scale(self) -> float:
        """Return what clipping multiplies the gradients by."""
        parts = (g.reshape(-1)[part].astype(np.float64) for g in self.grad for part in slices(g.size, CHUNK))
        return min(1.0, MAX_NORM / (math.sqrt(sum(part @ part for part in parts)) + 1e-6))

    def _in_float64(self) -> Iterator[Array]:
        """Yield each parameter after a step, computed in float64 and stored in float32."""
        scale = self._scale() if self.clipped else 1.0
        for tensors in zip(self.param, self.grad, self.exp_avg, self.exp_avg_sq, strict=True):
            made = np.empty(tensors[0].shape, np.float32)
            for part in slices(made.size, CHUNK):
                p, g, m, v = (a.reshape(-1)[part] for a in tensors)
                made.reshape(-1)[part] = adamw_in_float64(p, g * np.float64(scale), m, v, step=STEP, **NUMBERS)[0]
            yield made

    def public_call(self) -> Call:
        """Return pyreg's step, over lists unless there is only one array."""
        param, grad, exp_avg, exp_avg_sq = map(array_or_list, (self.param, self.grad, self.exp_avg, self.exp_avg_sq))
        numbers = NUMBERS | {"step": STEP}
        if self.param_out:
            numbers["param_out"] = array_or_list(self.param_out)

        def step() -> None:
            pyreg.adamw_update(param, grad, exp_avg, exp_avg_sq, **numbers)

        def clipped_step() -> None:
            scale = pyreg.clip_coefficient(pyreg.global_norm(grad), MAX_NORM)
            pyreg.adamw_update(param, grad, exp_avg, exp_avg_sq, **numbers, grad_scale=scale)

        return clipped_step if self.clipped else step

    def check(self) -> None:
        """Raise WrongAnswer if the parameters are not those after one step.

        Allowed is the rounding of the parameter, half a unit. A step is about as long as the learning rate: the dozen
        roundings on its way, and those of the norm's sum, are allowed a thousandth of that.
        """
        half_a_unit = float(np.spacing(np.ones((), self.precision.param))) / 2
        for got, expected in zip(self.param, self.expected, strict=True):
            for part in slices(got.size, CHUNK):
                wanted = expected.reshape(-1)[part]
                error = np.abs(got.reshape(-1)[part].astype(np.float32) - wanted)
                excess = np.max(error / (1e-3 * NUMBERS["lr"] + half_a_unit * np.abs(wanted)))
                if not excess <= 1:  # written this way so that NaN fails
                    raise WrongAnswer(f"param is off by {excess:.1f} times what rounding explains")
        for out, param in zip(self.param_out or [], self.param, strict=False):
            if not np.array_equal(out, param.astype(out.dtype)):
                raise WrongAnswer("param_out is not the rounded param")

    def checked(self, name: str, make: Callable[[], Call]) -> Call:
        """Return the call that `make` makes, if its answer is right."""
        self.restore()
        call = make()
        call()
        try:
            self.check()
        except WrongAnswer as error:
            raise WrongAnswer(f"{name}, AdamW over {self.model} in {self.line}: {error}") from None
        return call
