"""What the fused functions have in common: their options, checks and calls of the core."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Required, SupportsIndex, TypedDict

import numpy as np
import numpy.typing as npt

from pyreg import _check, _core
from pyreg._check import FloatArray, Shape
from pyreg._layer_norm import forward_arguments


class ForwardOptions(TypedDict, total=False):
    """The keywords of a forward pass on which its return type does not depend."""

    p: Required[float]
    key: Required[SupportsIndex]
    offset: SupportsIndex
    training: bool
    normalized_shape: SupportsIndex | Sequence[SupportsIndex] | None
    eps: float
    row_scale: npt.ArrayLike | None
    layer_scale: npt.ArrayLike | None
    out: FloatArray | None


class BackwardOptions(TypedDict, total=False):
    """The same of a backward pass."""

    p: Required[float]
    key: Required[SupportsIndex]
    offset: SupportsIndex
    row_scale: npt.ArrayLike | None
    out: FloatArray | None


class Forward(NamedTuple):
    """The arguments of a forward pass, checked."""

    x: FloatArray
    residual: FloatArray | None
    weight: FloatArray | None
    bias: FloatArray | None
    row_scale: FloatArray | None
    layer_scale: FloatArray | None
    normalized: Shape
    leading: Shape
    threshold: int
    key: int
    offset: int
    eps: float
    y: FloatArray
    z: FloatArray | None


def checked_forward(
    x: Any,
    residual: Any,
    weight: Any,
    bias: Any,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex,
    training: bool,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex] | None,
    eps: float,
    row_scale: Any,
    layer_scale: Any,
    out: Any,
    z_out: Any,
) -> Forward:
    x, weight, bias, normalized, eps = forward_arguments(x, weight, bias, normalized_shape, eps)
    leading = x.shape[: -len(normalized)]
    x, residual, row_scale, layer_scale = _check.arrays(
        ("x", "residual", "row_scale", "layer_scale"), (x, residual, row_scale, layer_scale), 0
    )
    if residual is not None and residual.shape != x.shape:
        _check.match_shape("residual", residual, x.shape, "x")
    _check_scales(row_scale, layer_scale, leading, normalized, "x")
    threshold, key, offset = _check.dropout_arguments(p, key, offset, x.size, training)
    names = ("x", "residual", "weight", "bias", "row_scale", "layer_scale")
    arrays = (x, residual, weight, bias, row_scale, layer_scale)
    y = _check.out(out, names, arrays, may_be=2)
    z = None
    if z_out is not None:
        given = None if z_out is ... else z_out
        z = _check.out(given, (*names, "out"), (*arrays, y), may_be=2, name="z_out")
    return Forward(
        x, residual, weight, bias, row_scale, layer_scale, normalized, leading, threshold, key, offset, eps, y, z
    )  # fmt: skip


def run_forward(a: Forward, mean: FloatArray | None, rstd: FloatArray) -> None:
    """LayerNorm with a mean, else RMSNorm."""
    _core.dropout_add_norm_forward(
        a.x,
        a.residual,
        a.weight,
        a.bias,
        a.row_scale,
        a.layer_scale,
        math.prod(a.normalized),
        a.threshold,
        a.key,
        a.offset,
        a.eps,
        a.y,
        a.z,
        mean,
        rstd,
    )


class Backward(NamedTuple):
    """The arguments of a backward pass, checked."""

    dy: FloatArray
    dz: FloatArray | None
    z: FloatArray
    mean: FloatArray | None
    rstd: FloatArray
    weight: FloatArray | None
    x: FloatArray | None
    row_scale: FloatArray | None
    layer_scale: FloatArray | None
    normalized: Shape
    threshold: int
    key: int
    offset: int
    dx: FloatArray
    dresidual: FloatArray | None


def checked_backward(
    dy: FloatArray,
    dz: Any,
    z: FloatArray,
    mean: FloatArray | None,
    rstd: FloatArray,
    weight: FloatArray | None,
    normalized: Shape,
    p: float,
    key: SupportsIndex,
    offset: SupportsIndex,
    row_scale: Any,
    layer_scale: Any,
    x: Any,
    out: Any,
    dresidual_out: Any,
) -> Backward:
    """Behind the checks that the normalisation makes."""
    if layer_scale is None:
        x = None
    elif x is None:
        raise TypeError("x must be given where layer_scale is, for the gradient of layer_scale, got None")
    z, dz, x, row_scale, layer_scale = _check.arrays(
        ("z", "dz", "x", "row_scale", "layer_scale"), (z, dz, x, row_scale, layer_scale), 0
    )
    for name, array in (("dz", dz), ("x", x)):
        if array is not None and array.shape != z.shape:
            _check.match_shape(name, array, z.shape, "z")
    _check_scales(row_scale, layer_scale, rstd.shape, normalized, "z")
    threshold, key, offset = _check.dropout_arguments(p, key, offset, z.size)
    names = ("dy", "dz", "z", "x", "mean", "rstd", "weight", "row_scale", "layer_scale")
    arrays = (dy, dz, z, x, mean, rstd, weight, row_scale, layer_scale)
    dx = _check.out(out, names, arrays, may_be=4)
    dresidual = None
    if dresidual_out is not None:
        given = None if dresidual_out is ... else dresidual_out
        dresidual = _check.out(given, (*names, "out"), (*arrays, dx), may_be=4, name="dresidual_out")
    return Backward(
        dy, dz, z, mean, rstd, weight, x, row_scale, layer_scale, normalized, threshold, key, offset, dx, dresidual
    )  # fmt: skip


def run_backward(a: Backward, dweight: FloatArray | None, dbias: FloatArray | None) -> FloatArray | None:
    """Returns dlayer_scale."""
    dlayer_scale = empty_like(a.layer_scale, a.normalized)
    _core.dropout_add_norm_backward(
        a.dy,
        a.dz,
        a.z,
        a.mean,
        a.rstd,
        a.weight,
        a.row_scale,
        a.layer_scale,
        a.x,
        math.prod(a.normalized),
        a.threshold,
        a.key,
        a.offset,
        a.dx,
        a.dresidual,
        dweight,
        dbias,
        dlayer_scale,
    )
    return dlayer_scale


def empty_like(param: FloatArray | None, shape: Shape) -> FloatArray | None:
    """A new array for the gradient of a parameter, where there is one."""
    return None if param is None else np.empty(shape, param.dtype)


def _check_scales(
    row_scale: FloatArray | None, layer_scale: FloatArray | None, leading: Shape, normalized: Shape, whose: str
) -> None:
    if row_scale is not None and row_scale.shape != leading:
        _check.match_shape("row_scale", row_scale, leading, f"{whose} without the normalised axes")
    if layer_scale is not None and layer_scale.shape != normalized:
        _check.match_shape("layer_scale", layer_scale, normalized, f"{whose}, in the normalised axes")
