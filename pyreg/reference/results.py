"""Where results go."""

import numpy as np

from pyreg._results import FloatArray


def written(value: FloatArray, out: FloatArray | None, shape: tuple[int, ...]) -> FloatArray:
    """The value in this shape: in `out` where that is given, else in a new array."""
    if out is None:
        return np.array(value).reshape(shape)
    out[...] = value.reshape(shape)
    return out
