"""What the updates of all optimisers share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pyreg._results import FloatArray
from pyreg.reference.results import wide
from pyreg.reference.stochastic_rounding import DIGITS, random_numbers, rounded_randomly

Arrays = dict[str, Any]  # by name: arrays, or None


class Writer:
    """Writes a parameter's arrays, rounded to their dtypes.

    places: of the elements in the random stream; None if nothing is rounded by random numbers.
    """

    def __init__(self, arrays: Arrays, rounding: Any, places: Any, key: int | None) -> None:
        self.arrays, self.rounding, self.places, self.key = arrays, rounding, places, key

    def write(self, name: str, value: FloatArray) -> FloatArray:
        """Write an array, and return what it then holds, in the dtype that is computed in."""
        array: FloatArray = self.arrays[name]
        way = self.rounding if isinstance(self.rounding, str) else self.rounding.get(name, "nearest")
        if way == "stochastic" and name in DIGITS and array.itemsize == 2:
            assert self.key is not None
            array[...] = rounded_randomly(value, random_numbers(self.places, name, self.key), array.dtype)
        else:
            array[...] = value
        return wide(array)

    def write_param(self, value: FloatArray, ema_decay: float) -> None:
        """Write the new param, and what follows from it as it is stored."""
        stored = self.write("param", value)
        if self.arrays["ema"] is not None:
            self.write("ema", lerp(wide(self.arrays["ema"]), stored, ema_decay))
        if self.arrays["param_out"] is not None:
            self.write("param_out", stored)


def each_parameter(
    arrays: Mapping[str, Any], rows: Any, rounding: Any, key: int | None, offset: int
) -> Iterator[tuple[Arrays, Writer]]:
    """The arrays of one parameter after the other. The arguments are arrays, or lists of arrays, or None.

    If some rows of a parameter alone are updated, the arrays are copies of these rows, and are copied back.
    """
    is_list = isinstance(arrays["param"], (list, tuple))
    for i in range(len(arrays["param"]) if is_list else 1):
        whole = {name: value[i] if is_list and value is not None else value for name, value in arrays.items()}
        chosen = rows[i] if is_list and rows is not None else rows
        shape, places = whole["param"].shape, None
        if rounding != "nearest":
            places = np.uint64(offset % 2**64) + np.arange(math.prod(shape), dtype=np.uint64).reshape(shape)
        offset += math.prod(shape)
        if chosen is None:
            yield whole, Writer(whole, rounding, places, key)
            continue
        part = {name: a if name == "grad" or a is None else a[chosen] for name, a in whole.items()}
        yield part, Writer(part, rounding, None if places is None else places[chosen], key)
        for name, array in whole.items():
            if name != "grad" and array is not None:
                array[chosen] = part[name]


def all_finite(grads: Any, grad_scale: float) -> bool:
    for grad in grads if isinstance(grads, (list, tuple)) else [grads]:
        g = wide(grad)
        if not np.isfinite(g.dtype.type(grad_scale) * g).all():
            return False
    return True


def scaled_gradient(p: FloatArray, grad: FloatArray, grad_scale: float, maximize: bool, decay: float) -> FloatArray:
    """The scaled gradient, with its sign turned to maximise, and with a coupled decay of p."""
    scalar = p.dtype.type
    g = scalar(-grad_scale if maximize else grad_scale) * wide(grad)
    made: FloatArray = g + scalar(decay) * p if decay != 0 else g
    return made


def lerp(start: FloatArray, end: FloatArray, decay: float) -> FloatArray:
    """decay * start + (1 - decay) * end, from the nearer of the two: with decay = 0 it is exactly `end`."""
    scalar = end.dtype.type
    if scalar(decay) == 0:
        return end
    way = end - start
    made: FloatArray = start + scalar(1 - decay) * way if scalar(decay) >= 0.5 else end - scalar(decay) * way
    return made
