"""Inverted dropout from a counter-based random stream."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from pyreg import _check, _core
from pyreg._check import FloatArray


def dropout(
    x: npt.ArrayLike,
    p: float,
    *,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
    training: bool = True,
    out: FloatArray | None = None,
) -> FloatArray:
    """Zero elements at random with probability p and scale the rest by ``1 / (1 - p)``.

    Which elements are dropped follows from `key` and each element's place alone: the same call gives
    the same result on every machine, and no mask needs to be stored. Dropout is linear, so its backward
    pass is the same call on the gradient: ``dropout(dy, p, key=key, offset=offset)`` [1]_.

    Parameters
    ----------
    x : array_like of float32 or float64
        In any memory layout; one that cannot be streamed is copied once.
    p : float
        The probability of dropping an element, in [0, 1]; taken to the nearest multiple of 2**-32.
        ``p=0`` copies x exactly, ``p=1`` gives zeros.
    key : int
        In [0, 2**64): which random stream. See `random_key`.
    offset : int, optional
        The place in the stream of x's first element, at least 0; the others follow in C order. So
        ``dropout(x, p, key=k).ravel()[a:b]`` equals ``dropout(x.ravel()[a:b], p, key=k, offset=a)``,
        and calls with one key stay independent where their ranges of places do not overlap.
    training : bool, optional
        Where False, the result is a copy of x. The arguments are checked all the same.
    out : ndarray, optional
        Where the result goes: of x's dtype and shape, C-contiguous, aligned, writeable. It may be x
        itself, and must not overlap x otherwise.

    Returns
    -------
    ndarray
        Of x's dtype and shape; `out` where that is given. A dropped element is +0.0 also where x is
        infinite or NaN.

    Raises
    ------
    TypeError
        Where x is not float32 or float64, or `key` or `offset` is not an integer.
    ValueError
        Where p, `key` or `offset` is out of range, or `out` cannot be written.

    See Also
    --------
    dropout_mask : Which elements are kept.

    References
    ----------
    .. [1] N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
       JMLR 15, 2014. The generator is Philox4x32-10: J. Salmon et al., "Parallel Random Numbers: As
       Easy as 1, 2, 3", SC'11.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x = np.ones(8, np.float32)
    >>> pyreg.dropout(x, 0.5, key=1)
    array([0., 0., 2., 2., 2., 0., 0., 2.], dtype=float32)
    >>> pyreg.dropout(x[5:], 0.5, key=1, offset=5)
    array([0., 0., 2.], dtype=float32)
    """
    x = _check.array("x", x)
    threshold, key, offset = _check.dropout_arguments(p, key, offset, x.size, training)
    y = _check.out(out, ("x",), (x,))
    _core.dropout(x, threshold, key, offset, y)
    return y


def dropout_mask(
    shape: SupportsIndex | Sequence[SupportsIndex],
    p: float,
    *,
    key: SupportsIndex,
    offset: SupportsIndex = 0,
) -> npt.NDArray[np.bool_]:
    """Which elements `dropout` keeps.

    Parameters
    ----------
    shape : int or sequence of int
        The shape of the array that would be given to `dropout`.
    p, key, offset
        As in `dropout`.

    Returns
    -------
    ndarray of bool
        True where the element is kept.

    Raises
    ------
    TypeError
        Where `shape`, `key` or `offset` is not made of integers.
    ValueError
        Where an argument is out of range.

    Examples
    --------
    >>> import pyreg
    >>> pyreg.dropout_mask(8, 0.5, key=1)
    array([False, False,  True,  True,  True, False, False,  True])
    """
    lengths = _check.shape("shape", shape)
    threshold, key, offset = _check.dropout_arguments(p, key, offset, math.prod(lengths))
    kept = np.empty(lengths, np.bool_)
    _core.dropout_mask(kept, threshold, key, offset)
    return kept
