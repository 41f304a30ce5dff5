"""PyTorch's AdamW over a whole model, on the arrays of a `ModelCase`.

If the gradients have fewer bits than the parameters, they are widened before the step, and the parameters rounded
after it: PyTorch's optimisers take one dtype. All lists go to PyTorch whole, so no loop of Python's slows it down.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .measure import Call
from .model_case import MAX_NORM, NUMBERS, STEP, ModelCase
from .peers.torch import tensor


def make_step(case: ModelCase, kind: str) -> Call:
    """Return a step of torch.optim.AdamW; kind: fused or foreach."""
    params, given, exp_avg, exp_avg_sq, out = (
        [tensor(array) for array in arrays or []]
        for arrays in (case.param, case.grad, case.exp_avg, case.exp_avg_sq, case.param_out)
    )
    widens = case.precision.grad != case.precision.param
    grads = [torch.empty_like(p) for p in params] if widens else given
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad
    optimizer = torch.optim.AdamW(params, **NUMBERS, **{kind: True})
    for p, m, v in zip(params, exp_avg, exp_avg_sq, strict=True):
        optimizer.state[p] = {"step": torch.tensor(float(STEP - 1)), "exp_avg": m, "exp_avg_sq": v}

    def step() -> None:
        if widens:
            torch._foreach_copy_(grads, given)
        if case.clipped:
            torch.nn.utils.clip_grad_norm_(params, MAX_NORM)
        optimizer.step()
        if out:
            torch._foreach_copy_(out, params)

    return step


def steps(case: ModelCase) -> dict[str, Callable[[], Call]]:
    """Return what makes each step that is measured: fused, and foreach for plain float32."""
    kinds = ["fused", *["foreach"] * case.is_plain]
    return {f"torch {kind}": lambda kind=kind: make_step(case, kind) for kind in kinds}
