"""One training run: the data, the schedule, and the loop over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np

import pyreg

from . import data_parallel, unfused
from .layers import Config
from .model import Labels, Transformer
from .operations import Array
from .parameters import decay_groups, weight_norm


@dataclass(frozen=True)
class Settings:
    """What all runs of one call of train.py share; train.py's help says what each means."""

    norm_position: str
    train_size: int
    epochs: int
    lr: float
    weight_decay: float
    dropout: float
    num_layers: int
    d_model: int
    unfused: bool = False


# name: (LayerNorm, dropout, weight decay), each on or off
CONFIGURATIONS = {
    "none": (False, False, False),
    "weight decay": (False, False, True),
    "dropout": (False, True, False),
    "LayerNorm": (True, False, False),
    "all three": (True, True, True),
}

# The measures of a run, in the order in which a row of History.values has them.
MEASURES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "weight_norm")

NUM_HEADS = 4
BATCH_SIZE = 32
NUM_EVALUATIONS = 15
WARMUP = 0.1  # of all steps


@dataclass(frozen=True)
class History:
    """The course of one run: `epochs` (E,), `values` (E, measures), and the digest of the last parameters' bits."""

    epochs: Array
    values: Array
    digest: str


@dataclass(frozen=True)
class Split:
    """Images (B, T, pixels) in [0, 1] and labels (B,), to train on and to test on."""

    train_x: Array
    train_labels: Labels
    test_x: Array
    test_labels: Labels


def load_split(train_size: int, rng: np.random.Generator) -> Split:
    """Draw `train_size` of scikit-learn's 1,797 digits to train on; the rest are for testing."""
    # Imported here: the tests train on other data and need no scikit-learn.
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = rng.permutation(len(digits.target))
    # A pixel is 0 to 16. A row of pixels is a token: (B, 8, 8) as it comes.
    x = (digits.images[order] / 16).astype(np.float32)
    labels = digits.target[order]
    return Split(x[:train_size], labels[:train_size], x[train_size:], labels[train_size:])


def learning_rate(step: int, num_steps: int, peak: float) -> float:
    """Linear warm-up, which Post-LN needs (Xiong et al., 2020), then a half cosine towards 0."""
    warmup = max(1, round(WARMUP * num_steps))
    # A run of a single step takes it at the peak.
    return pyreg.warmup_cosine(step, peak, warmup=warmup, total=max(num_steps, warmup + 1))


def evaluation_epochs(epochs: int) -> set[int]:
    """At most NUM_EVALUATIONS + 1 epochs, evenly spread, the first and the last among them."""
    count = min(epochs, NUM_EVALUATIONS) + 1
    return {round(epochs * i / (count - 1)) for i in range(count)}


def one_step(model: Transformer, optimizer: pyreg.AdamW, x: Array, labels: Labels, key: int, lr: float) -> None:
    """Take a step on a batch."""
    _, saved = model.forward(x, labels, key)
    optimizer.step(model.backward(saved), lr=lr)


def fit(
    model: Transformer,
    optimizer: pyreg.AdamW,
    split: Split,
    settings: Settings,
    rng: np.random.Generator,
    take_step: Callable[..., None] = one_step,
    evaluates: bool = True,
) -> History:
    """Train the model for all epochs. `rng` draws the order of the images and the seed of the dropout masks."""
    seed = pyreg.random_key(rng)
    size = len(split.train_labels)
    num_steps = settings.epochs * math.ceil(size / BATCH_SIZE)
    evaluate_at = evaluation_epochs(settings.epochs)
    epochs, values = [], []
    for epoch in range(settings.epochs + 1):
        if epoch in evaluate_at and evaluates:
            train = model.evaluate(split.train_x, split.train_labels)
            test = model.evaluate(split.test_x, split.test_labels)
            epochs.append(epoch)
            values.append([*train, *test, weight_norm(model.params)])
        if epoch == settings.epochs:
            break
        order = rng.permutation(size)
        for start in range(0, size, BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            step = optimizer.step_count + 1
            key, lr = pyreg.fold_in(seed, step), learning_rate(step, num_steps, settings.lr)
            take_step(model, optimizer, split.train_x[batch], split.train_labels[batch], key, lr)
    digest = sha256(b"".join(param.tobytes() for param in model.params.values())).hexdigest()
    return History(np.array(epochs), np.array(values), digest)


def run(name: str, key: int, settings: Settings, comm: Any = None) -> History:
    """Train one configuration from one key: alone, or on all ranks of `comm`, of which rank 0 evaluates.

    The key decides the split, the initial parameters, the order of the images and the dropout
    masks, each from a generator of its own. So the configurations of one key differ in nothing but
    the regularisers, and the spread over keys covers the choice of the images too.
    """
    layer_norm, dropout, weight_decay = CONFIGURATIONS[name]
    split_rng, init_rng, fit_rng = map(np.random.default_rng, np.random.SeedSequence(key).spawn(3))
    config = Config(
        num_layers=settings.num_layers,
        d_model=settings.d_model,
        d_ff=2 * settings.d_model,
        num_heads=NUM_HEADS,
        norm_position=settings.norm_position,
        layer_norm=layer_norm,
        dropout=settings.dropout if dropout else 0.0,
        functions=unfused if settings.unfused else pyreg,
    )
    model = Transformer(config, init_rng)
    groups = decay_groups(model.params, settings.weight_decay if weight_decay else 0.0)
    split = load_split(settings.train_size, split_rng)
    if comm is None:
        return fit(model, pyreg.AdamW(groups), split, settings, fit_rng)
    from pyreg.mpi import ShardedAdamW

    optimizer, take_step = ShardedAdamW(comm, groups, op="sum"), partial(data_parallel.step, comm)
    return fit(model, optimizer, split, settings, fit_rng, take_step, comm.rank == 0)
