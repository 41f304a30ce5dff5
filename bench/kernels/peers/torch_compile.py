"""PyTorch through torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..case import Case
from ..measure import Call
from . import torch as eager

NAME = "compile"
VERSION = eager.VERSION
NOTE = "compile is torch.compile (adamw_update: of an optimiser that is not fused)."
set_num_threads = eager.set_num_threads
read = eager.read


def compiled(call: Callable[[], Any]) -> Call:
    """Compile for one size and thread count: a function that has seen others gets a slower version."""
    torch.compiler.reset()
    return torch.compile(call, dynamic=False)


def adamw_update(case: Case) -> Call:
    # Not fused: that is one kernel already, which compiling leaves as it is.
    return compiled(eager.make_optimizer(case, fused=False).step)


def __getattr__(name: str) -> Callable[[Case], Call]:
    """Every other operation is the eager one, compiled."""
    make = getattr(eager, name)
    return lambda case: compiled(make(case))
