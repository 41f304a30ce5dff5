"""The explicit L2 penalty."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from pyreg import _check, _core
from pyreg._results import FloatArray


def l2_penalty(params: npt.NDArray[np.floating[Any]] | Iterable[npt.ArrayLike], weight_decay: float) -> float:
    """Return the L2 penalty that weight decay represents, ``weight_decay / 2 * sum(p**2)``.

    As a term of the loss, its gradient with respect to a parameter is ``weight_decay * p``. `sgd_update` and
    `adam_update` add this term to the gradient.

    Parameters
    ----------
    params : ndarray, or iterable of array_like, of float32, float64, float16 or bfloat16
        The parameters. Their dtypes may differ. Any memory layout; copied once unless C-contiguous, aligned and in
        native byte order.
    weight_decay : float
        The coefficient, at least 0.

    Returns
    -------
    float
        The penalty, summed in double precision whatever the dtypes.

    Raises
    ------
    TypeError
        If a parameter has another dtype.
    ValueError
        If `weight_decay` is negative or not finite.

    References
    ----------
    A. Krogh, J. A. Hertz, "A Simple Weight Decay Can Improve Generalization", NIPS 1991.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> pyreg.l2_penalty([np.array([3.0, 4.0]), np.array([1.0])], 0.1)
    1.3
    """
    penalty: float = _core.l2_penalty(params, weight_decay, arguments)
    return penalty


def arguments(params: Any, weight_decay: float) -> tuple[list[FloatArray], float]:
    return _check.listed("params", params), _check.number("weight_decay", weight_decay)
