"""The gradient of some rows, with each row once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pyreg._results import FloatArray, RowsGradient
from pyreg.reference.results import wide


def sum_duplicate_rows(rows: npt.NDArray[np.int64], grad: FloatArray) -> RowsGradient:
    found, place = np.unique(rows, return_inverse=True)
    total = np.full((len(found), *grad.shape[1:]), -0.0, wide(grad).dtype)  # -0 changes nothing that is added to it
    for i, row in zip(place, wide(grad), strict=True):  # one after the other
        total[i] += row
    return RowsGradient(found, total.astype(grad.dtype))
