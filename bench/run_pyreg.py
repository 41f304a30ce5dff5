"""pyreg's side of run.py: the public functions, the core below them, and what they are held against."""

from __future__ import annotations

import math
import sys
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
from run_case import Call, Case
from run_ops import AdamWUpdate

import pyreg
from pyreg import _core


def public_call(case: Case) -> Call:
    """The public function, its results in arrays that are there already."""
    return case.call(pyreg, case.arguments + case.outputs)


def new_call(case: Case) -> Call:
    """The same, each result in a new array."""
    return case.call(pyreg, case.arguments)


class Recorder:
    """The core, with its calls recorded."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __getattr__(self, name: str) -> Any:
        function = getattr(_core, name)

        def record(*arguments: Any) -> Any:
            self.calls.append(partial(function, *arguments))
            return function(*arguments)

        return record


def core_call(case: Case) -> Call:
    """What the public function calls of the core, with the arguments that it hands on."""
    recorder = Recorder()
    with mock.patch.object(sys.modules[getattr(pyreg, case.name).__module__], "_core", recorder):
        public_call(case)()
    return recorder.calls[-1]


# --- what memory allows


def copies(case: Case) -> dict[str, Call]:
    """A copy that moves as many bytes as the operation must, with either kind of stores."""
    source = np.ones(math.ceil(case.bytes_moved / 2 / 4), np.float32)
    target = np.empty_like(source)
    return {
        "copy": lambda: _core.copy(source, target, False),
        "nontemporal copy": lambda: _core.copy(source, target, True),
    }


def update_loop(case: AdamWUpdate) -> Call:
    """The least that an update with AdamW's traffic can do: an addition for each array it writes."""
    arrays = (case.param, case.grad, case.exp_avg, case.exp_avg_sq)
    return lambda: _core.update_loop(*arrays)
