"""What is measured of ShardedAdamW: the lines of the table, and the arrays of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from pyreg._cases import Shape, sixteen_bit_dtypes

from .case import Array

NUMBERS: dict[str, Any] = {"lr": 1e-4, "weight_decay": 0.1}
WARM_UP = 2  # steps
STATES = 8  # bytes for each parameter


@dataclass(frozen=True)
class Line:
    """Dtypes, and how gradients are added. `out`: of the copies of the parameters that the ranks exchange."""

    grad: Any
    out: Any = None
    reduce: str = "ordered"
    engine: str = "pyreg"

    def bytes_sent(self, parameters: int, ranks: int) -> tuple[float, float]:
        """Return how many bytes a rank sends, and receives, in the reduction and in the gathering of a step."""
        share = parameters * (ranks - 1) / ranks
        twice = 2 if self.engine == "torch" else 1  # which sums the gradients on all ranks
        return twice * share * np.dtype(self.grad).itemsize, share * np.dtype(self.out or np.float32).itemsize

    def bytes_held(self, parameters: int, ranks: int) -> float:
        """Return the bytes of all arrays of a rank."""
        whole = 4 + np.dtype(self.grad).itemsize + (np.dtype(self.out).itemsize if self.out else 0)
        sums = 4 if ranks > 1 and self.engine == "pyreg" else 0
        return parameters * (whole + (STATES + sums) / ranks)


FLOAT32 = Line(np.float32)
LINES = {"float32": FLOAT32, "float32, MPI's reduction": Line(np.float32, reduce="mpi")}
for bfloat16 in sixteen_bit_dtypes()[1:]:  # if ml_dtypes is installed
    LINES["master"] = Line(bfloat16, bfloat16)
if find_spec("torch"):
    LINES["float32, PyTorch"] = Line(np.float32, engine="torch")


def arrays(shapes: Sequence[Shape], line: Line) -> tuple[list[Array], list[Array] | None, list[Array]]:
    """Return parameters, copies and gradients, the same on all ranks.

    Gradients have 8 bits (bfloat16's), so that sums of them are exact, and any number of ranks takes the same step.
    """
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(shape, np.float32) * np.float32(0.02) for shape in shapes]
    drawn = (rng.standard_normal(shape, np.float32) * np.float32(0.01) for shape in shapes)
    grads = [(grad.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32).astype(line.grad) for grad in drawn]
    copies = [param.astype(line.out) for param in params] if line.out else None
    return params, copies, grads


def parameters_of(shapes: Sequence[Shape]) -> int:
    return sum(map(math.prod, shapes))
