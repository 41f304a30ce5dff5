"""PyTorch's side of run.py, through torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import run_torch
import torch
from run_case import Call, Case
from run_ops import AdamWUpdate

VERSION = torch.__version__
set_num_threads = run_torch.set_num_threads


def compiled(call: Callable[[], Any]) -> Call:
    """Compile for one size and thread count: a function that has seen others gets a slower version."""
    torch.compiler.reset()
    return torch.compile(call, dynamic=False)


def adamw_update(case: AdamWUpdate) -> Call:
    # Not fused: that is one kernel already, which compiling leaves as it is.
    return compiled(run_torch.make_optimizer(case, fused=False).step)


def __getattr__(name: str) -> Callable[[Case], Call]:
    """Every other operation is run_torch's, compiled."""
    make = getattr(run_torch, name)
    return lambda case: compiled(make(case))
