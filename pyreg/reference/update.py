"""What the updates of all optimisers share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pyreg._results import FloatArray
from pyreg.reference.results import wide


def tensors(*arguments: Any) -> Iterator[tuple[Any, ...]]:
    """The arrays of one parameter after the other. The arguments are arrays, or lists of arrays, or None."""
    if isinstance(arguments[0], list):
        yield from zip(*([None] * len(arguments[0]) if a is None else a for a in arguments), strict=True)
    else:
        yield arguments


def all_finite(grads: Any, grad_scale: float) -> bool:
    for (grad,) in tensors(grads):
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


def store(
    value: FloatArray, param: FloatArray, ema: FloatArray | None, ema_decay: float, param_out: FloatArray | None
) -> None:
    """Write a parameter's new value, rounded to its dtype, and what follows from it."""
    param[...] = value
    stored = wide(param)
    if ema is not None:
        ema[...] = lerp(wide(ema), stored, ema_decay)
    if param_out is not None:
        param_out[...] = stored
