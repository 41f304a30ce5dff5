"""Inverted dropout, every element's 32-bit number made in full."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from pyreg import _check
from pyreg._check import FloatArray
from pyreg.reference.philox import philox_bytes

DROPOUT_DOMAIN = 0
CHUNK = 2**16  # elements at once, which bounds the memory needed


def kept(size: int, threshold: int, key: int, offset: int) -> npt.NDArray[np.bool_]:
    """Which of `size` elements from `offset` on are kept: those with U >= threshold.

    U is a byte from each of four strings, the first the most significant. The compiled kernel makes the
    first byte alone, and the others where it equals the threshold's.
    """
    result = np.empty(size, np.bool_)
    for first in range(0, size, CHUNK):
        part = result[first : first + CHUNK]
        index = np.arange(part.size, dtype=np.uint64) + np.uint64(offset + first)
        number = np.zeros(part.size, np.uint64)
        for digit in range(4):
            byte = philox_bytes(index, digit, DROPOUT_DOMAIN, key)
            number = number * np.uint64(256) + byte
        part[:] = number >= np.uint64(threshold)
    return result


def dropout(
    x: npt.ArrayLike,
    p: float,
    *,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    training: bool = True,
    out: FloatArray | None = None,
) -> FloatArray:
    """`pyreg.dropout`, in Python.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> pyreg.reference.dropout(np.ones(8), 0.5, key=1)
    array([0., 0., 2., 2., 2., 0., 0., 2.])
    """
    x = _check.array("x", x)
    threshold, key, offset = _check.dropout_arguments(p, key, offset, x.size, training)
    y = _check.out(out, ("x",), (x,))
    if threshold == 0:
        y[...] = x
    elif threshold == 2**32:
        y[...] = 0
    else:
        # So that the expectation is x to the last bit: kept with probability 1 - threshold / 2**32.
        scale = x.dtype.type(2**32 / (2**32 - threshold))
        mask = kept(x.size, threshold, key, offset).reshape(x.shape)
        with np.errstate(all="ignore"):
            y[...] = np.where(mask, x * scale, x.dtype.type(0))
    return y


def dropout_mask(
    shape: SupportsIndex | Sequence[SupportsIndex],
    p: float,
    *,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
) -> npt.NDArray[np.bool_]:
    """`pyreg.dropout_mask`, in Python.

    Examples
    --------
    >>> import pyreg
    >>> pyreg.reference.dropout_mask(8, 0.5, key=1)
    array([False, False,  True,  True,  True, False, False,  True])
    """
    lengths = _check.shape("shape", shape)
    size = math.prod(lengths)
    threshold, key, offset = _check.dropout_arguments(p, key, offset, size)
    return kept(size, threshold, key, offset).reshape(lengths)
