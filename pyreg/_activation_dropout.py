"""The argument checks shared by the functions that fuse an activation with dropout."""

from __future__ import annotations

from typing import Any

from pyreg import _check
from pyreg._results import FloatArray


def forward_arguments(
    activation: str, x: Any, bias: Any, p: float, key: Any, offset: Any, training: bool, out: Any
) -> tuple[str, FloatArray, FloatArray | None, float, int, int, bool, FloatArray | None]:
    x, bias = _check.arrays({"x": x}, params={"bias": bias})
    match_bias(x, bias)
    dropout = _check.dropout(p, key, offset, x.size, training)
    return activation, x, bias, *dropout, _check.out(out, {"x": x}, {"bias": bias})


def backward_arguments(
    activation: str, dy: Any, x: Any, bias: Any, p: float, key: Any, offset: Any, out: Any, name: str = "x"
) -> tuple[str, FloatArray, FloatArray, FloatArray | None, float, int, int, FloatArray | None]:
    """name: "y" if that is given in place of x. No mask is needed then."""
    x, dy, bias = _check.arrays({name: x, "dy": dy}, params={"bias": bias})
    _check.match_shape("dy", dy, x.shape, name)
    match_bias(x, bias, name)
    p, key, offset, _ = _check.dropout(p, key, offset, x.size, has_mask=name == "x")
    return activation, dy, x, bias, p, key, offset, _check.out(out, {name: x, "dy": dy}, {"bias": bias})


def match_bias(x: FloatArray, bias: FloatArray | None, name: str = "x") -> None:
    if bias is not None and x.ndim == 0:
        raise ValueError(f"{name} must have at least one axis if bias is given, got shape {x.shape}")
    _check.match_shape("bias", bias, x.shape[-1:], f"{name}'s last axis")
