"""The ways to train that train_step.py compares, in turns, and the processes that they run in."""

from __future__ import annotations

import time
from collections import Counter
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

import pyreg
from pyreg import _functions

from . import unfused
from .steps import Problem, PyregTrainer, Trainer

# The ways to train on pyreg: the functions, the dtype.
PYREG_WAYS: dict[str, tuple[ModuleType, type]] = {
    "fused": (pyreg, np.float32),
    "unfused": (unfused, np.float32),
    "float64": (pyreg, np.float64),
}
# The ways to train in PyTorch: whether the masks are its own, the dtype.
TORCH_WAYS: dict[str, tuple[bool, type]] = {
    "PyTorch": (True, np.float32),
    "masks given": (False, np.float32),
    "PyTorch float64": (False, np.float64),
}


def make_trainer(way: str, problem: Problem) -> Trainer:
    """Return a trainer; raise ImportError if it needs PyTorch and that cannot be imported."""
    if way in PYREG_WAYS:
        functions, dtype = PYREG_WAYS[way]
        return PyregTrainer(problem.config(functions, dtype), problem.batches(dtype))
    from .torch_model import TorchTrainer

    own_masks, dtype = TORCH_WAYS[way]
    return TorchTrainer(problem.config(pyreg, dtype), problem.batches(dtype), own_masks)


# The functions whose share of a step is measured, and the modules that have them: the optimiser classes call those of
# _functions.
PARTS = ("softmax_dropout", "gelu_dropout", "dropout_add_layer_norm", "layer_norm", "adamw_update")
MODULES = (pyreg, unfused, _functions)


def record_parts(seconds: Counter[str]) -> None:
    """From now on, in this process, add up the time in the functions of PARTS."""
    inside = False

    def recording(part: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            if inside:  # a separate function, called by the one that replaces a fused one
                return function(*args, **kwargs)
            inside, start = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[part] += time.perf_counter() - start
                inside = False

        return call

    for module in MODULES:
        for part in PARTS:
            for name in (part, f"{part}_forward", f"{part}_backward"):
                if hasattr(module, name):
                    setattr(module, name, recording(part, getattr(module, name)))


class Turn(NamedTuple):
    """Two steps: their losses, the seconds of the second one, and of these the seconds in PARTS."""

    losses: tuple[float, float]
    seconds: float
    parts: dict[str, float]


# In a training process:
_trainers: dict[str, Trainer] = {}
_parts: Counter[str] = Counter()


def start_process(threads: int) -> None:
    threadpool_limits(threads)
    pyreg.set_num_threads(threads)
    record_parts(_parts)


def start_training(way: str, problem: Problem) -> None:
    _trainers[way] = make_trainer(way, problem)
    if way in TORCH_WAYS:
        import torch

        torch.set_num_threads(pyreg.get_num_threads())


def take_turn(way: str) -> Turn:
    """Take two steps. The first one is not timed: it finds in the caches what another process left there."""
    trainer = _trainers[way]
    trainer.prepare()
    first = trainer.step()
    trainer.prepare()
    _parts.clear()
    start = time.perf_counter()
    second = trainer.step()
    return Turn((first, second), time.perf_counter() - start, dict(_parts))


def have_same_bits(way: str, other: str) -> bool:
    """Return whether the parameters of two trainings are equal bit for bit."""
    ours, theirs = _trainers[way].model.params, _trainers[other].model.params
    return all(param.tobytes() == theirs[name].tobytes() for name, param in ours.items())
