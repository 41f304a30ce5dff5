"""Stochastic depth: dropout of whole samples."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy.typing as npt

from pyreg import _check, _core
from pyreg._results import FloatArray


def drop_path(
    x: npt.ArrayLike,
    p: float,
    *,
    key: SupportsIndex | None = None,
    offset: SupportsIndex = 0,
    training: bool = True,
    out: FloatArray | None = None,
) -> FloatArray:
    """Zero whole samples at random with probability p and scale the rest by ``1 / (1 - p)``.

    Stochastic depth [1]_, also called DropPath: x is the output of a branch, and a dropped sample skips it.
    The random stream is that of `dropout`, with one element for each sample, whatever the sample's size.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, shape (samples, ...)
        Any memory layout; copied once unless C-contiguous, aligned and in native byte order.
    p : float
        The probability of dropping a sample, in [0, 1], rounded as in `dropout`.
    key : int, optional
        As in `dropout`.
    offset : int, optional
        The position of the first sample in the stream, at least 0; the others follow.
    training : bool, optional
        If False, the result is a copy of x.
    out : ndarray, optional
        Array that receives the result, of x's dtype and shape, C-contiguous, aligned and writeable. It may
        be x itself, but must not partly overlap x.

    Returns
    -------
    ndarray
        Of x's dtype and shape; `out` if given. A dropped sample is +0.0, even where x is infinite or NaN.

    Raises
    ------
    TypeError
        If x has another dtype, or `key` or `offset` is not an integer.
    ValueError
        If x has no axis, if p, `key` or `offset` is out of range, or `out` cannot be written.

    See Also
    --------
    dropout_add_layer_norm_forward : Accepts the factors as its `row_scale`.

    Notes
    -----
    The function is linear, so its backward pass is the same call on the gradient.

    The factors alone are ``dropout(np.ones(samples, np.float32), p, key=key, offset=offset)``, with np.float64
    if x is float64. To use them as the `row_scale` of a fused function, for a branch of shape (samples, tokens,
    features), repeat them: ``np.repeat(factors, tokens).reshape(samples, tokens)``.

    References
    ----------
    .. [1] G. Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016, arXiv:1603.09382.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> pyreg.drop_path(np.ones((4, 3)), 0.5, key=1)
    array([[0., 0., 0.],
           [0., 0., 0.],
           [2., 2., 2.],
           [2., 2., 2.]])
    """
    y: FloatArray = _core.drop_path(x, p, key, offset, training, out, arguments)
    return y


def arguments(
    x: Any, p: float, key: Any, offset: Any, training: bool, out: Any
) -> tuple[FloatArray, float, int, int, bool, FloatArray | None]:
    x = _check.array("x", x)
    if x.ndim == 0:
        raise ValueError(f"x must have an axis of samples (the first), got shape {x.shape}")
    return x, *_check.dropout(p, key, offset, x.shape[0], training), _check.out(out, {"x": x})
