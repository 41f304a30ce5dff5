"""Stochastic depth: each sample is one element of the stream of `dropout`."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from pyreg import _check
from pyreg._check import FloatArray
from pyreg._drop_path import checked_arguments
from pyreg.reference.dropout import kept


def drop_path(
    x: npt.ArrayLike,
    p: float,
    *,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    training: bool = True,
    out: FloatArray | None = None,
) -> FloatArray:
    """`pyreg.drop_path`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> pyreg.reference.drop_path(np.ones((4, 2)), 0.5, key=1)
    array([[0., 0.],
           [0., 0.],
           [2., 2.],
           [2., 2.]])
    """
    x, threshold, key, offset = checked_arguments(x, p, key, offset, training)
    y = _check.out(out, ("x",), (x,))
    if x.size == 0:
        return y
    if threshold == 2**32:
        y[...] = 0
    else:
        scale = x.dtype.type(2**32 / (2**32 - threshold))
        mask = kept(x.shape[0], threshold, key, offset).reshape(-1, *(1,) * (x.ndim - 1))
        with np.errstate(all="ignore"):
            y[...] = np.where(mask, x * scale, x.dtype.type(0))
    return y
