"""How results are returned."""

import numpy as np

from pyreg._results import FloatArray


def written(value: FloatArray, out: FloatArray | None, shape: tuple[int, ...]) -> FloatArray:
    """The value in this shape: in `out` if given, else in a new array."""
    if out is None:
        return np.array(value).reshape(shape)
    out[...] = value.reshape(shape)
    return out
