"""pyreg's fused functions in separate passes: the same names, the same arguments, the same bits.

Without p, softmax and GELU drop nothing; `pyreg.dropout` runs separately.
"""

from __future__ import annotations

import numpy as np

import pyreg

from .operations import Array, sum_rows


def softmax_dropout_forward(
    x: Array, *, p: float, key: int | None, offset: int, scale: float
) -> tuple[Array, Array, Array]:
    prob, maximum, rsum = pyreg.softmax_dropout_forward(x, scale=scale)
    return pyreg.dropout(prob, p, key=key, offset=offset, out=prob), maximum, rsum


def softmax_dropout_backward(
    dy: Array,
    x: Array,
    maximum: Array,
    rsum: Array,
    *,
    p: float,
    key: int | None,
    offset: int,
    scale: float,
    out: Array,
) -> Array:
    dprob = pyreg.dropout(dy, p, key=key, offset=offset, out=out)
    return pyreg.softmax_dropout_backward(dprob, x, maximum, rsum, scale=scale, out=out)


def gelu_dropout_forward(x: Array, bias: Array, *, p: float, key: int | None, offset: int) -> Array:
    active = pyreg.gelu_dropout_forward(x, bias)
    return pyreg.dropout(active, p, key=key, offset=offset, out=active)


def gelu_dropout_backward(
    dy: Array, x: Array, bias: Array, *, p: float, key: int | None, offset: int, out: Array
) -> tuple[Array, Array]:
    # The fused function multiplies by the derivative first and by 1 / (1 - p) after it. The other order would round
    # differently.
    dx, _ = pyreg.gelu_dropout_backward(dy, x, bias, out=out)
    dx = pyreg.dropout(dx, p, key=key, offset=offset, out=out)
    return dx, sum_rows(dx)


def dropout_add_layer_norm_forward(
    x: Array, residual: Array, weight: Array, bias: Array, *, p: float, key: int | None, offset: int, out: Array
) -> tuple[Array, Array, Array, Array]:
    z = pyreg.dropout(x, p, key=key, offset=offset)
    z += residual
    y, mean, rstd = pyreg.layer_norm_forward(z, weight, bias, out=out)
    return y, z, mean, rstd


def dropout_add_layer_norm_backward(
    dy: Array,
    dz: Array | None,
    z: Array,
    mean: Array,
    rstd: Array,
    weight: Array,
    *,
    p: float,
    key: int | None,
    offset: int,
    out: Array,
    dresidual_out: Array | None,
) -> tuple[Array, Array, Array, Array, None]:
    # dresidual needs an array of its own: dz's, or a new one if there is no dz.
    through_norm, dweight, dbias = pyreg.layer_norm_backward(
        dy, z, mean, rstd, weight, out=None if dz is None else out
    )
    dresidual = through_norm if dz is None else np.add(through_norm, dz, out=dresidual_out)
    return pyreg.dropout(dresidual, p, key=key, offset=offset, out=out), dresidual, dweight, dbias, None
