"""AdamW over a whole model in one precision: its arrays, pyreg's steps, and the check of an answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from console import WrongAnswer

import pyreg
from pyreg._cases import Shape

from .case import Array, digest, slices
from .measure import Call
from .precisions import FLOAT32, Precision, adamw_in_float64

STEP = 10
NUMBERS: dict[str, Any] = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
MAX_NORM = 1.0  # less than the norm of any model's gradients, as they are drawn
CHUNK = 2**20  # elements that are in float64 at a time
FEW = 2**12  # elements at either end that pyreg.reference computes


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
        self.ends_before = self._ends()

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

    def _ends(self) -> list[tuple[int, list[Array]]]:
        """Return copies of a few elements of the first tensor and of the last, each after their place among all."""
        tensors = self.param, self.grad, self.exp_avg, self.exp_avg_sq
        first = [arrays[0].reshape(-1)[:FEW].copy() for arrays in tensors]
        last = [arrays[-1].reshape(-1)[-FEW:].copy() for arrays in tensors]
        return [(0, first), (self.parameters - last[0].size, last)]

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
        return self._call(self.precision.rounding_of(STEP))

    def nearest_call(self) -> Call:
        """Return the step that rounds to nearest."""
        return self._call({})

    def _call(self, rounding: dict[str, Any]) -> Call:
        param, grad, exp_avg, exp_avg_sq = map(array_or_list, (self.param, self.grad, self.exp_avg, self.exp_avg_sq))
        numbers = NUMBERS | {"step": STEP} | rounding
        if self.param_out:
            numbers["param_out"] = array_or_list(self.param_out)

        def step() -> None:
            pyreg.adamw_update(param, grad, exp_avg, exp_avg_sq, **numbers)

        def clipped_step() -> None:
            scale = pyreg.clip_coefficient(pyreg.global_norm(grad), MAX_NORM)
            pyreg.adamw_update(param, grad, exp_avg, exp_avg_sq, **numbers, grad_scale=scale)

        return clipped_step if self.clipped else step

    def class_call(self) -> Call:
        """Return the step of pyreg.AdamW on these parameters. It has moments of its own, which begin as these."""
        optimizer, grads = pyreg.AdamW(self.param, **NUMBERS), self.grad
        moments = enumerate(zip(self.exp_avg, self.exp_avg_sq, strict=True))
        begun = {i: {"step": float(STEP - 1), "exp_avg": m, "exp_avg_sq": v} for i, (m, v) in moments}
        optimizer.load_torch_state_dict(optimizer.to_torch_state_dict() | {"state": begun})
        clipping = {"max_norm": MAX_NORM} if self.clipped else {}
        return lambda: optimizer.step(grads, **clipping)

    def check(self) -> None:
        """Raise WrongAnswer if the parameters are not those after one step.

        Allowed is the rounding of the parameter: half a unit, or a whole one if it is stochastic. A step is about as
        long as the learning rate: the dozen roundings on its way, and those of the norm's sum, are allowed a
        thousandth of that.
        """
        unit = float(np.spacing(np.ones((), self.precision.param)))
        rounding = unit / 2 if self.precision.rounding == "nearest" else unit
        for got, expected in zip(self.param, self.expected, strict=True):
            for part in slices(got.size, CHUNK):
                wanted = expected.reshape(-1)[part]
                error = np.abs(got.reshape(-1)[part].astype(np.float32) - wanted)
                excess = np.max(error / (1e-3 * NUMBERS["lr"] + rounding * np.abs(wanted)))
                if not excess <= 1:  # written this way so that NaN fails
                    raise WrongAnswer(f"param is off by {excess:.1f} times what rounding explains")
        for out, param in zip(self.param_out or [], self.param, strict=False):
            if not np.array_equal(out, param.astype(out.dtype)):
                raise WrongAnswer("param_out is not the rounded param")

    def check_bits(self) -> None:
        """Raise WrongAnswer if elements at either end are not those that pyreg.reference computes of them alone.

        A mistake in their places in the random stream would show there.
        """
        numbers = NUMBERS | {"step": STEP} | self.precision.rounding_of(STEP)
        if self.clipped:
            numbers["grad_scale"] = pyreg.clip_coefficient(pyreg.global_norm(self.grad), MAX_NORM)
        for (place, before), (_, after) in zip(self.ends_before, self._ends(), strict=True):
            wanted = [array.copy() for array in before]
            pyreg.reference.adamw_update(*wanted, **numbers, offset=place)
            for name, got, right in zip(("param", "grad", "exp_avg", "exp_avg_sq"), after, wanted, strict=True):
                if got.tobytes() != right.tobytes():
                    raise WrongAnswer(f"{name} differs from pyreg.reference")

    def digest(self) -> str:
        """Return the digest of the parameters' bits."""
        return digest(self.param)

    def check_digest(self, digest: str) -> None:
        """Raise WrongAnswer if the parameters' bits are not those of another call."""
        if self.digest() != digest:
            raise WrongAnswer("param differs from adamw_update's")

    def checked(self, name: str, make: Callable[[], Call], *more: Callable[[], None]) -> Call:
        """Return the call that `make` makes, if its answer is right. `more`: checks beside `check`."""
        self.restore()
        call = make()
        call()
        try:
            for check in (self.check, *more):
                check()
        except WrongAnswer as error:
            raise WrongAnswer(f"{name}, AdamW over {self.model} in {self.line}: {error}") from None
        return call
