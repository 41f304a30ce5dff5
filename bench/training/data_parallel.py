"""Data-parallel training: each rank of an MPI job computes the gradients of a part of each batch.

A batch is cut into a fixed number of parts, which the ranks take in turns. Their gradients are added in the order of
the parts, so any number of ranks that divides the number of parts ends with the same bits.
"""

from __future__ import annotations

from typing import Any

from .model import Labels, Transformer
from .operations import Array

PARTS = 4


def step(comm: Any, model: Transformer, optimizer: Any, x: Array, labels: Labels, key: int, lr: float) -> None:
    """Take a step on a batch that all ranks have. `optimizer` adds up what the ranks pass (op="sum")."""
    edges = [len(x) * i // PARTS for i in range(PARTS + 1)]
    for number in range(comm.rank, PARTS, comm.size):
        begin, end = edges[number : number + 2]
        if begin < end:
            _, saved = model.forward(x[begin:end], labels[begin:end], key, begin)
            grads = model.backward(saved, len(x))
        else:
            grads = dict.fromkeys(model.params)
        if number + comm.size < PARTS:
            optimizer.accumulate(grads)
        else:
            optimizer.step(grads, lr=lr)
