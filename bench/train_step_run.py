"""The trainings that train_step.py compares, step by step, and the processes that they run in."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
import transformer_unfused
from threadpoolctl import threadpool_limits
from train_run import BATCH_SIZE, NUM_HEADS, learning_rate, load_split
from transformer import Labels, Transformer
from transformer_adamw import AdamW
from transformer_layers import Config
from transformer_ops import Array, DropoutStream

import pyreg

KEY = 2024
# As train.py has them by default.
TRAIN_SIZE, LR, WEIGHT_DECAY, DROPOUT = 300, 1e-3, 1.0, 0.1

Batches = Sequence[tuple[Array, Labels]]  # one for each step


@dataclass(frozen=True)
class Problem:
    """A model's sizes, and for how many steps it is trained on the digits."""

    d_model: int
    d_ff: int
    num_tokens: int
    norm_position: str
    steps: int

    def config(self, functions: ModuleType, dtype: type) -> Config:
        return Config(
            input_size=64 // self.num_tokens,
            num_tokens=self.num_tokens,
            d_model=self.d_model,
            num_heads=NUM_HEADS,
            d_ff=self.d_ff,
            dropout=DROPOUT,
            norm_position=self.norm_position,
            dtype=dtype,
            functions=functions,
        )

    def batches(self, dtype: type) -> Batches:
        rng = np.random.default_rng(KEY)
        split = load_split(TRAIN_SIZE, rng)
        # A token is a row of pixels, or one pixel.
        x = split.train_x.reshape(TRAIN_SIZE, self.num_tokens, -1).astype(dtype)
        parts = (rng.choice(TRAIN_SIZE, BATCH_SIZE, replace=False) for _ in range(self.steps))
        return [(x[part], split.train_labels[part]) for part in parts]


def learning_rate_at(step: int, num_steps: int) -> float:
    return learning_rate(step, num_steps, LR)


def start_model(config: Config) -> Transformer:
    """Return a model whose parameters are rounded to float32, so that those of float64 start from the same."""
    model = Transformer(config, np.random.default_rng(KEY))
    for param in model.params.values():
        param[...] = param.astype(np.float32)
    return model


class Trainer(Protocol):
    """A training, step by step."""

    def prepare(self) -> None: ...
    def step(self) -> float: ...


class PyregTrainer:
    """A training on NumPy and pyreg, step by step."""

    def __init__(self, config: Config, batches: Batches) -> None:
        self.model = start_model(config)
        self.optimizer = AdamW(self.model.params, WEIGHT_DECAY)
        self.batches = batches
        self.stream = DropoutStream(KEY)

    def prepare(self) -> None:
        """Nothing: the masks are made on the way."""

    def step(self) -> float:
        """Take a step: forward, backward, update. Return the loss."""
        done = self.optimizer.step
        loss, saved = self.model.forward(*self.batches[done], self.stream)
        self.optimizer.update(self.model.backward(saved), learning_rate_at(done + 1, len(self.batches)))
        return loss


# The ways to train: the functions, the dtype.
PYREG_WAYS: dict[str, tuple[ModuleType, type]] = {
    "fused": (pyreg, np.float32),
    "unfused": (transformer_unfused, np.float32),
    "float64": (pyreg, np.float64),
}
# And in PyTorch: whether the masks are its own, the dtype.
TORCH_WAYS: dict[str, tuple[bool, type]] = {
    "PyTorch": (True, np.float32),
    "masks given": (False, np.float32),
    "PyTorch float64": (False, np.float64),
}


def make_trainer(way: str, problem: Problem) -> Trainer:
    """Raise ImportError for a way of PyTorch, where that cannot be imported."""
    if way in PYREG_WAYS:
        functions, dtype = PYREG_WAYS[way]
        return PyregTrainer(problem.config(functions, dtype), problem.batches(dtype))
    from train_torch import TorchTrainer

    own_masks, dtype = TORCH_WAYS[way]
    return TorchTrainer(problem.config(pyreg, dtype), problem.batches(dtype), own_masks)


# What PARTS records: where the time of a step goes, and so does what these functions call.
PARTS = ("softmax_dropout", "gelu_dropout", "dropout_add_layer_norm", "layer_norm", "adamw_update")


def record_parts(seconds: Counter[str]) -> None:
    """From now on, in this process, add up the time in the functions of PARTS, those of both modules."""
    inside = False

    def recording(part: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            if inside:  # a separate function, called by the one that stands for a fused one
                return function(*args, **kwargs)
            inside, start = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[part] += time.perf_counter() - start
                inside = False

        return call

    for module in (pyreg, transformer_unfused):
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


def start_training(way: str, problem: Problem, threads: int) -> None:
    _trainers[way] = make_trainer(way, problem)
    if way in TORCH_WAYS:
        import torch

        torch.set_num_threads(threads)


def take_turn(way: str) -> Turn:
    """Take two steps. The first one finds in the caches what another process left there, and is not timed."""
    trainer = _trainers[way]
    trainer.prepare()
    first = trainer.step()
    trainer.prepare()
    _parts.clear()
    start = time.perf_counter()
    second = trainer.step()
    return Turn((first, second), time.perf_counter() - start, dict(_parts))


def have_same_bits(way: str, other: str) -> bool:
    """Tell whether the parameters of two trainings are equal bit for bit."""
    ours, theirs = _trainers[way].model.params, _trainers[other].model.params
    return all(param.tobytes() == theirs[name].tobytes() for name, param in ours.items())
