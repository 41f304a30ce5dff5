"""The norm of a model's gradients, and clipping by it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from pyreg import _check, _core
from pyreg._results import Float64Array, FloatArray

Arrays = npt.NDArray[np.floating[Any]] | Iterable[npt.ArrayLike]


def global_norm(arrays: Arrays) -> float:
    """Return the Euclidean norm of all elements of all arrays together, ``sqrt(sum(x**2))``.

    The squares are summed in double precision whatever the dtypes. The result has the same bits for any number of
    threads. `norm_partial` and `norm_combine` compute the same norm of arrays that are held by several processes.

    Parameters
    ----------
    arrays : ndarray, or iterable of array_like, of float32, float64, float16 or bfloat16
        The arrays, such as the gradients of a model. Their dtypes may differ. Any memory layout; copied once unless
        C-contiguous, aligned and in native byte order.

    Returns
    -------
    float
        The norm: infinite if it is beyond float64's range or some element is infinite, NaN if some element is NaN.

    Raises
    ------
    TypeError
        If an array has another dtype.

    See Also
    --------
    clip_coefficient : What to multiply gradients by, so that their norm is bounded.

    Notes
    -----
    The squares of float64 elements below 1e-154 lose digits; of those below 1e-162, all.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> pyreg.global_norm([np.array([3.0, 0.0]), np.array([[4.0]])])
    5.0
    """
    norm: float = _core.global_norm(arrays, arrays_argument)
    return norm


def norm_partial(arrays: Arrays) -> Float64Array:
    """Return sums of squares from which `norm_combine` computes the norm of all arrays.

    Several processes can compute the norm of arrays of which each holds a part. Its bits do not depend on the split
    if arrays are cut only at multiples of 16,384 elements, counted from the start of the array in C order. An array
    that several processes hold must be counted by one of them.

    Parameters
    ----------
    arrays : ndarray, or iterable of array_like, of float32, float64, float16 or bfloat16
        As in `global_norm`.

    Returns
    -------
    ndarray of float64, 1-D
        One number for each block of 16,384 elements of each array, from its start, and for what is left: the sum of
        squares of the block. Leave adding them up to `norm_combine`: a sum beyond float64's range, which only float64
        elements can have, is written as the negative of ``sum * 2**-1040``.

    Raises
    ------
    TypeError
        If an array has another dtype.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> pyreg.norm_partial([np.ones(20000), np.full(10, 2.0)])
    array([16384.,  3616.,    40.])
    """
    partials: Float64Array = _core.norm_partial(arrays, arrays_argument)
    return partials


def norm_combine(partials: Arrays) -> float:
    """Return the norm of arrays from what `norm_partial` returned for them.

    The partial sums are added without rounding, so their order does not matter, nor how they are divided among
    arrays. Only the total is rounded, and then its square root.

    Parameters
    ----------
    partials : ndarray of float64, or iterable of them
        The partial sums of squares (not norms) of all processes, in any order and of any shape. Zeros change nothing.

    Returns
    -------
    float
        The norm. It has the bits of `global_norm` of all arrays at once, if `norm_partial` got whole arrays or parts
        cut at multiples of 16,384 elements.

    Raises
    ------
    TypeError
        If the partial sums are not float64.

    References
    ----------
    U. Kulisch, "Computer Arithmetic and Validity", de Gruyter, 2nd ed. 2013, chapter 8: exact sums in fixed-point
    accumulators.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> x = np.arange(40000.0)
    >>> parts = [pyreg.norm_partial(x[16384:]), pyreg.norm_partial(x[:16384])]  # of two processes
    >>> pyreg.norm_combine(parts) == pyreg.global_norm(x)
    True
    """
    norm: float = _core.norm_combine(partials, partials_argument)
    return norm


def clip_coefficient(norm: float, max_norm: float) -> float:
    """Return what to multiply gradients of this norm by, so that their norm is at most `max_norm`.

    It is ``min(1, max_norm / (norm + 1e-6))``, as in PyTorch's ``clip_grad_norm_`` [1]_. Pass it to an update as
    ``grad_scale``: the gradients are multiplied as they are read.

    Parameters
    ----------
    norm : float
        The norm of the gradients, at least 0, infinite or NaN; see `global_norm`.
    max_norm : float
        The largest norm to allow, at least 0.

    Returns
    -------
    float
        The coefficient, in [0, 1]. 0 if `norm` is infinite or NaN. Then take no step, or pass
        ``skip_nonfinite=True``: an infinite gradient times 0 is NaN.

    Raises
    ------
    TypeError
        If an argument is not a number.
    ValueError
        If an argument is negative, or `max_norm` is not finite.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.

    Examples
    --------
    >>> import pyreg
    >>> pyreg.clip_coefficient(0.5, 1.0)
    1.0
    >>> round(pyreg.clip_coefficient(8.0, 1.0), 6)
    0.125
    """
    norm, max_norm = _check.norm("norm", norm), _check.number("max_norm", max_norm)
    return min(1.0, max_norm / (norm + 1e-6)) if norm < float("inf") else 0.0


def arrays_argument(arrays: Any) -> tuple[list[FloatArray]]:
    return (_check.listed("arrays", arrays),)


def partials_argument(partials: Any) -> tuple[list[FloatArray]]:
    return (_check.listed("partials", partials, ("float64",)),)
