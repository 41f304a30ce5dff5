"""Inverted dropout from a counter-based random stream."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from pyreg import _check, _core
from pyreg._check import Shape
from pyreg._results import FloatArray


def dropout(
    x: npt.ArrayLike,
    p: float,
    *,
    key: SupportsIndex | None = None,
    offset: SupportsIndex = 0,
    training: bool = True,
    out: FloatArray | None = None,
) -> FloatArray:
    """Zero elements at random with probability p and scale the rest by ``1 / (1 - p)``.

    Whether an element is dropped depends only on `key`, `p` and the element's position in the stream [1]_.
    So the same call gives the same result on every machine, and no mask needs to be stored. Dropout is
    linear: its backward pass is the same call on the gradient, ``dropout(dy, p, key=key, offset=offset)``.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16
        Any memory layout; copied once unless C-contiguous, aligned and in native byte order.
    p : float
        The probability of dropping an element, in [0, 1], rounded to the nearest multiple of 2**-32.
        ``p=0`` copies x exactly, ``p=1`` gives zeros.
    key : int, optional
        Which random stream to use, in [0, 2**64); see `random_key`. Required if an element may be dropped: p is
        not 0 and `training` is True.
    offset : int, optional
        The position of x's first element in the stream, at least 0; the others follow in C order. So
        ``dropout(x, p, key=k).ravel()[a:b]`` equals ``dropout(x.ravel()[a:b], p, key=k, offset=a)``,
        and calls with the same key are independent if their ranges of positions do not overlap.
    training : bool, optional
        If False, the result is a copy of x. The arguments are still checked.
    out : ndarray, optional
        Array that receives the result, of x's dtype and shape, C-contiguous, aligned and writeable. It may
        be x itself, but must not partly overlap x.

    Returns
    -------
    ndarray
        Of x's dtype and shape; `out` if given. A dropped element is +0.0, even where x is infinite or NaN.

    Raises
    ------
    TypeError
        If x has another dtype, `key` or `offset` is not an integer, or a required key is missing.
    ValueError
        If p, `key` or `offset` is out of range, or `out` cannot be written.

    See Also
    --------
    dropout_mask : The elements that are kept.
    layer_norm : Its Notes say how arrays of 16 bits are computed.

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
    y: FloatArray = _core.dropout(x, p, key, offset, training, out, arguments)
    return y


def dropout_mask(
    shape: SupportsIndex | Sequence[SupportsIndex],
    p: float,
    *,
    key: SupportsIndex | None = None,
    offset: SupportsIndex = 0,
) -> npt.NDArray[np.bool_]:
    """Return which elements `dropout` keeps.

    Parameters
    ----------
    shape : int or sequence of int
        The shape of the array that would be passed to `dropout`.
    p, key, offset
        As in `dropout`.

    Returns
    -------
    ndarray of bool
        True where the element is kept.

    Raises
    ------
    TypeError
        If `shape` is not made of integers, or `key` or `offset` is not an integer.
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> import pyreg
    >>> pyreg.dropout_mask(8, 0.5, key=1)
    array([False, False,  True,  True,  True, False, False,  True])
    """
    kept: npt.NDArray[np.bool_] = _core.dropout_mask(shape, p, key, offset, mask_arguments)
    return kept


def arguments(
    x: Any, p: float, key: Any, offset: Any, training: bool, out: Any
) -> tuple[FloatArray, float, int, int, bool, FloatArray | None]:
    x = _check.array("x", x)
    return x, *_check.dropout(p, key, offset, x.size, training), _check.out(out, {"x": x})


def mask_arguments(shape: Any, p: float, key: Any, offset: Any) -> tuple[Shape, float, int, int]:
    lengths = _check.shape("shape", shape)
    size = math.prod(lengths)
    if size >= 2**63 - 1 or len(lengths) > 64:
        raise ValueError(f"shape must have fewer than 2**63 - 1 elements and at most 64 axes, got {lengths}")
    p, key, offset, _ = _check.dropout(p, key, offset, size)
    return lengths, p, key, offset
