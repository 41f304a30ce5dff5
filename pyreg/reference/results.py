"""How arrays are read and results are returned.

Arrays of 16 bits are computed in float32. A result is rounded once, to nearest, when it is written.
"""

from typing import Any

import numpy as np

from pyreg._dtypes import compute_dtype
from pyreg._results import FloatArray


def wide(array: FloatArray) -> FloatArray:
    """The array in the dtype that is computed in, which holds all its values."""
    return array.astype(compute_dtype(array.dtype), copy=False)


def written(value: FloatArray, out: FloatArray | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> FloatArray:
    """The value in this shape: in `out` if given, else in a new array of this dtype."""
    if out is None:
        return np.array(value, dtype).reshape(shape)
    out[...] = value.reshape(shape)
    return out
