"""The argument checks shared by the functions that fuse dropout, the residual and a norm."""

from __future__ import annotations

from typing import Any

from pyreg import _check
from pyreg._check import Shape
from pyreg._layer_norm import normalized_arrays
from pyreg._results import FloatArray


def forward_arguments(
    x: Any,
    residual: Any,
    weight: Any,
    bias: Any,
    p: float,
    key: Any,
    offset: Any,
    training: bool,
    normalized_shape: Any,
    eps: float,
    row_scale: Any,
    layer_scale: Any,
    return_z: bool,
    out: Any,
    z_out: Any,
) -> tuple[Any, ...]:
    x, weight, bias, normalized = normalized_arrays(x, weight, bias, normalized_shape)
    x, residual, row_scale, layer_scale = _check.arrays(
        {"x": x}, params={"residual": residual, "row_scale": row_scale, "layer_scale": layer_scale}
    )
    _check.match_shape("residual", residual, x.shape, "x")
    match_scales(row_scale, layer_scale, "x", x.shape, normalized)
    dropout = _check.dropout(p, key, offset, x.size, training)
    eps = _check.number("eps", eps)
    avoids = {"weight": weight, "bias": bias, "row_scale": row_scale, "layer_scale": layer_scale}
    out = _check.out(out, {"x": x, "residual": residual}, avoids)
    # z is like the residual; without one, like x, or wider if z_out is.
    replaces = {"x": x} if residual is None else {"residual": residual, "x": x}
    return_z, z_out = second_out("z", return_z, z_out, replaces, avoids | {"out": out}, wide=residual is None)
    scales = row_scale, layer_scale
    return x, residual, weight, bias, *dropout, normalized, eps, *scales, return_z, out, z_out


def backward_arrays(dy: Any, z: Any, rstd: Any, weight: Any) -> tuple[Any, ...]:
    dy, rstd, weight = _check.arrays({"dy": dy}, statistics={"rstd": rstd}, params={"weight": weight})
    return dy, _check.matching("z", z, dy, "dy", wide=True), rstd, weight


def backward_arguments(
    dy: FloatArray,
    dz: Any,
    z: FloatArray,
    mean: FloatArray | None,
    rstd: FloatArray,
    weight: FloatArray | None,
    p: float,
    key: Any,
    offset: Any,
    row_scale: Any,
    layer_scale: Any,
    x: Any,
    return_dresidual: bool,
    out: Any,
    dresidual_out: Any,
) -> tuple[Any, ...]:
    """dy, z, mean, rstd and weight are converted already. mean is None for RMSNorm."""
    normalized = _check.normalized_by("rstd", rstd, "z", z)
    _check.match_shape("dy", dy, z.shape, "z")
    _check.match_shape("weight", weight, normalized, "the normalised axes of z")
    if layer_scale is None:
        x = None
    elif x is None:
        raise TypeError("x must be given if layer_scale is, for the gradient of layer_scale, got None")
    dz = None if dz is None else _check.matching("dz", dz, z, "z")
    x = None if x is None else _check.matching("x", x, dy, "dy")
    row_scale = _check.param("row_scale", row_scale, dy, "dy")
    layer_scale = _check.param("layer_scale", layer_scale, dy, "dy")
    _check.match_shape("dz", dz, z.shape, "z")
    _check.match_shape("x", x, z.shape, "z")
    match_scales(row_scale, layer_scale, "z", z.shape, normalized)
    p, key, offset, _ = _check.dropout(p, key, offset, z.size)
    avoids = {"mean": mean, "rstd": rstd, "weight": weight, "row_scale": row_scale, "layer_scale": layer_scale}
    out = _check.out(out, {"dy": dy, "z": z, "dz": dz, "x": x}, avoids)
    replaces = {"z": z, "dy": dy, "dz": dz, "x": x}
    return_dresidual, dresidual_out = second_out(
        "dresidual", return_dresidual, dresidual_out, replaces, avoids | {"out": out}
    )
    scales = row_scale, layer_scale
    return dy, dz, z, mean, rstd, weight, p, key, offset, *scales, x, return_dresidual, out, dresidual_out


def match_scales(
    row_scale: FloatArray | None, layer_scale: FloatArray | None, whose: str, shape: Shape, normalized: Shape
) -> None:
    leading = shape[: -len(normalized)]
    _check.match_shape("row_scale", row_scale, leading, f"{whose} without the normalised axes")
    _check.match_shape("layer_scale", layer_scale, normalized, f"the normalised axes of {whose}")


def second_out(
    name: str, wanted: bool, value: Any, replaces: _check.Named, avoids: _check.Named, wide: bool = False
) -> tuple[bool, FloatArray | None]:
    """Whether to return the second result, which has this name, and the array that receives it."""
    wanted = _check.flag(f"return_{name}", wanted)
    if value is not None and not wanted:
        raise ValueError(f"{name}_out must be None if return_{name} is False, got {_check.type_name(value)}")
    return wanted, _check.out(value, replaces, avoids, f"{name}_out", wide)
