"""What train_step.py trains, and the training on NumPy and pyreg, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np

import pyreg

from .layers import Config
from .model import Labels, Transformer
from .operations import Array
from .parameters import decay_groups
from .runs import BATCH_SIZE, NUM_HEADS, learning_rate, load_split

KEY = 2024
# train.py's defaults.
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


def start_model(config: Config) -> Transformer:
    """Return a model with parameters rounded to float32: those of float64 start from the same numbers."""
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
        self.optimizer = pyreg.AdamW(decay_groups(self.model.params, WEIGHT_DECAY))
        self.batches = batches

    def prepare(self) -> None:
        """Do nothing: the functions make the masks."""

    def step(self) -> float:
        """Take a step: forward, backward, update. Return the loss."""
        step = self.optimizer.step_count + 1
        loss, saved = self.model.forward(*self.batches[step - 1], pyreg.fold_in(KEY, step))
        self.optimizer.step(self.model.backward(saved), lr=learning_rate(step, len(self.batches), LR))
        return loss
