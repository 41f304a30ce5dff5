"""The operations that run.py measures, all arrays of one dtype."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyreg._cases import CASES, Of, Shape

# From the overhead of a call, over what fits a cache, to what only memory holds. 1001: an odd length, so that every
# loop has a remainder.
ROWS: tuple[Shape, ...] = ((8, 768), (512, 768), (1000, 1001), (8192, 768), (8192, 4096))
# A GPT of 768 features has 3072 between the two linear maps of its feed-forward sublayer.
HIDDEN: tuple[Shape, ...] = ((8, 768), (512, 768), (1000, 1001), (2048, 3072), (8192, 3072))
# Attention's heads, queries and keys.
HEADS: tuple[Shape, ...] = ((8, 8, 8), (16, 64, 64), (96, 128, 128), (24, 1024, 1024))
# One query of each head and sample, and the keys of what came before.
DECODING: tuple[Shape, ...] = ((8, 64), (128, 2048))
PARAMETERS: tuple[Shape, ...] = ((1_000,), (100_000,), (1_000_000,), (25_000_000,))


@dataclass(frozen=True)
class Operation:
    """A public function and how it is called."""

    function: str
    arrays_moved: int  # arrays as large as x that it must read or write
    arguments: Mapping[str, Any] = field(default_factory=dict)  # not the defaults; an Of becomes an array
    sizes: tuple[Shape, ...] = ROWS  # of x; --quick measures the first two
    also_new: bool = False  # whether large results are also timed in new arrays

    def takes(self, dtype: np.dtype[Any]) -> bool:
        """Tell whether it is measured in this dtype. Updates of 16 bits are measured over whole models."""
        case = CASES[self.function]
        return dtype.type in case.dtypes and not (case.updated and dtype.itemsize == 2)

    @property
    def title(self) -> str:
        p = f" p={self.arguments['p']:g}" if "p" in self.arguments else ""
        given = "".join(f" {name}=" for name, value in self.arguments.items() if isinstance(value, Of))
        return self.function + p + " tanh" * (self.arguments.get("approximate") == "tanh") + given


KEY = {"key": 2024}
DROPOUT = {"p": 0.1} | KEY
SCALE = {"scale": 1 / 8}  # of 64 features: 1 / sqrt(64)
SCORES = DROPOUT | SCALE
# From what the forward pass returned.
RELU_Y = {"p": 0.1, "x": None, "y": Of.ELEMENT}
SOFTMAX_Y = SCALE | {"x": None, "maximum": None, "rsum": None, "y": Of.ELEMENT}
TANH = DROPOUT | {"approximate": "tanh"}
ADAMW = {"step": 10, "lr": 1e-2, "weight_decay": 0.1}  # a missing decay would show: it is 1e-3 of a parameter


def activation(name: str, arguments: Mapping[str, Any] = DROPOUT) -> tuple[Operation, Operation]:
    return (
        Operation(f"{name}_dropout_forward", 2, arguments, HIDDEN, also_new=True),
        Operation(f"{name}_dropout_backward", 3, arguments, HIDDEN),
    )


# By the title of their tables.
OPERATIONS = {
    operation.title: operation
    for operation in itertools.chain(
        [
            Operation("layer_norm_forward", 2, also_new=True),
            Operation("layer_norm_backward", 3),
            Operation("rms_norm_forward", 2),
            Operation("rms_norm_backward", 3),
            Operation("dropout", 2, DROPOUT, also_new=True),
            Operation("dropout", 2, KEY | {"p": 0.5}, also_new=True),  # a single random byte decides
            Operation("drop_path", 2, DROPOUT),
            Operation("dropout_add_layer_norm_forward", 4, DROPOUT),
            Operation("dropout_add_layer_norm_backward", 5, DROPOUT),
            Operation("dropout_add_rms_norm_forward", 4, DROPOUT),
            Operation("dropout_add_rms_norm_backward", 5, DROPOUT),
            Operation("softmax_dropout_forward", 2, SCORES, HEADS, also_new=True),
            Operation("softmax_dropout_forward", 2, SCALE | {"keep": Of.COLUMN}, DECODING),
            Operation("softmax_dropout_backward", 3, SCORES, HEADS),
            Operation("softmax_dropout_backward", 3, SOFTMAX_Y, HEADS),
        ],
        activation("gelu"),
        activation("gelu", TANH),
        activation("silu"),
        activation("relu"),
        [Operation("relu_dropout_backward", 3, RELU_Y, HIDDEN)],
        [Operation("adamw_update", 7, ADAMW, PARAMETERS)],  # reads four arrays, writes three
    )
}
