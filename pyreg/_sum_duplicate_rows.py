"""The gradient of some rows, with each row once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyreg import _check, _core
from pyreg._results import FloatArray, RowsGradient


def sum_duplicate_rows(rows: npt.ArrayLike, grad: npt.ArrayLike) -> RowsGradient:
    """Sum the gradients of equal rows: those of an embedding, where a token occurs more than once.

    The gradient of a parameter ``table`` in ``y = table[rows]`` is 0 but for these rows. The updates of the
    optimisers take it in this form, as `rows` and `grad`, with each row once.

    Parameters
    ----------
    rows : array_like of int, (N,)
        The index of each row.
    grad : array_like of float32, float64, float16 or bfloat16, (N, ...)
        The gradient of each row: of ``y``.

    Returns
    -------
    rows : ndarray of int64, (M,)
        The different indices, ascending.
    grad : ndarray of grad's dtype, (M, ...)
        The sum over the rows that have this index, in their order. Computed in float32, or in float64 if `grad` is
        float64, and rounded once.

    Raises
    ------
    TypeError
        If `rows` are no integers, or `grad` is not of a supported floating dtype.
    ValueError
        If `rows` is not 1-D, or `grad` does not have a row for each.

    See Also
    --------
    adamw_update : Takes `rows`.

    Notes
    -----
    PyTorch's ``torch.sparse_coo_tensor(...).coalesce()`` and SciPy's ``sum_duplicates`` do the same.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> rows, grad = pyreg.sum_duplicate_rows([5, 2, 5], [[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]])
    >>> rows, grad
    (array([2, 5]), array([[ 3.,  4.],
           [11., 22.]]))
    """
    summed: RowsGradient = _core.sum_duplicate_rows(rows, grad, arguments)
    return summed


def arguments(rows: Any, grad: Any) -> tuple[npt.NDArray[np.int64], FloatArray]:
    indices, array = _check.indices("rows", rows), _check.array("grad", grad)
    if array.ndim == 0 or len(array) != len(indices):
        raise ValueError(f"grad must have {len(indices)} rows like rows, got shape {array.shape}")
    return indices, array
