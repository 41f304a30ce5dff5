"""Argument checks and their messages: what passes here, the kernels trust.

Every check returns its argument in the form that the kernels take, or raises TypeError (the wrong kind
of thing) or ValueError (the right kind, a value that cannot be) with the argument's name, what was
expected and what came.
"""

import math
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from pyreg import _core

FloatArray = npt.NDArray[Any]  # float32 or float64
Shape = tuple[int, ...]

_FLOAT32 = np.dtype(np.float32)
_FLOAT64 = np.dtype(np.float64)


# --- numbers


def number(name: str, value: Any, *, low: float = 0.0, below: float = math.inf) -> float:
    """A finite float in [low, below)."""
    result = _float(name, value)
    if not low <= result < below:  # false for NaN
        wanted = f"finite and >= {low:g}" if below == math.inf else f"in [{low:g}, {below:g})"
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return result


def finite(name: str, value: Any, dtype: np.dtype[Any]) -> float:
    """A float that is finite in the dtype."""
    result = _float(name, value)
    if not abs(result) <= float(np.finfo(dtype).max):  # false for NaN
        raise ValueError(f"{name} must be finite in {dtype}, got {value!r}")
    return result


def _float(name: str, value: Any) -> float:
    if type(value) is float:
        return value
    if not isinstance(value, Real) or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type_name(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be finite in double precision, got a {type_name(value)} beyond it") from None


def integer(name: str, value: SupportsIndex, *, low: int, high: int) -> int:
    """An int in [low, high]."""
    if type(value) is not int:
        if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
            raise TypeError(f"{name} must be an integer, got {value!r} of type {type_name(value)}")
        try:
            value = operator.index(value)
        except TypeError:  # an array
            raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if not low <= value <= high:
        # Python does not print an integer of thousands of digits.
        shown = str(value) if abs(value) < 2**1000 else f"one of {value.bit_length()} bits"
        raise ValueError(f"{name} must be in [{low}, {high}], got {shown}")
    return value


def flag(name: str, value: bool) -> bool:
    if value is True or value is False:
        return value
    if not isinstance(value, np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type_name(value)}")
    return bool(value)


def key(value: SupportsIndex) -> int:
    try:
        return integer("key", value, low=0, high=2**64 - 1)
    except TypeError as error:
        raise TypeError(f"{error}; pyreg.random_key() draws one") from None


def offset(value: SupportsIndex, size: int) -> int:
    """The index in the random stream of the first of `size` elements."""
    if size > 2**64:
        raise ValueError(f"shape must have at most 2**64 elements, got {size}")
    return integer("offset", value, low=0, high=2**64 - max(1, size))


def dropout_threshold(p: float) -> int:
    """T = round(p * 2**32): an element is kept where its 32-bit number is at least T."""
    value = _float("p", p)
    if not 0.0 <= value <= 1.0:  # false for NaN
        raise ValueError(f"p must be in [0, 1], got {p!r}")
    return round(value * 2**32)


def dropout_arguments(
    p: float, key_: SupportsIndex, offset_: SupportsIndex, size: int, training: bool = True
) -> tuple[int, int, int]:
    """The threshold, 0 in inference, the key and the offset, for `size` elements."""
    threshold, key_, offset_ = dropout_threshold(p), key(key_), offset(offset_, size)
    return threshold if flag("training", training) else 0, key_, offset_


def step(value: SupportsIndex) -> int:
    return integer("step", value, low=1, high=2**63 - 1)


def betas(value: tuple[float, float]) -> tuple[float, float]:
    try:
        if not isinstance(value, (Sequence, np.ndarray)):  # a set has no order
            raise TypeError
        beta1, beta2 = value
    except (TypeError, ValueError):
        raise TypeError(f"betas must be a pair of numbers, got {value!r}") from None
    return number("betas[0]", beta1, below=1.0), number("betas[1]", beta2, below=1.0)


# --- arrays to read


def array(name: str, value: Any) -> FloatArray:
    """A float32 or float64 array that the kernels can stream, copied once where it has to be."""
    if _core.are_streamable(value, 0):
        return value
    refuse_masked(name, value)
    try:
        any_array = np.asarray(value)
    except ValueError as error:
        raise TypeError(f"{name} cannot be read as an array: {error}") from None
    if value is None:
        raise TypeError(f"{name} must be an array of float32 or float64, got None")
    native = any_array.dtype.newbyteorder("=") if any_array.dtype.kind == "f" else any_array.dtype
    if native not in (_FLOAT32, _FLOAT64):
        hint = f"; convert it, with {name}.astype(np.float32) say" if any_array.dtype.kind in "biuf" else ""
        raise TypeError(f"{name} must be float32 or float64, got {any_array.dtype}{hint}")
    result = np.asarray(any_array, dtype=native, order="C")
    return result if result.flags.aligned else result.copy()


def arrays(names: tuple[str, ...], values: tuple[Any, ...], required: int) -> tuple[Any, ...]:
    """The same for several arrays of one dtype. The first, and `required` behind it, may not be None."""
    if _core.are_streamable(values[0], required, *values[1:]):
        return values
    results: tuple[Any, ...] = tuple(
        None if value is None and i > required else array(name, value)
        for i, (name, value) in enumerate(zip(names, values, strict=True))
    )
    for name, result in zip(names, results, strict=True):
        if result is not None:
            match_dtype(name, result, results[0].dtype, names[0])
    return results


def array_like(name: str, value: npt.ArrayLike, dtype: np.dtype[Any], shape: Shape, whose: str) -> FloatArray:
    """An array to read of the given dtype and shape, those of `whose`."""
    result = array(name, value)
    if result.dtype is not dtype or result.shape != shape:
        match(name, result, dtype, shape, whose)
    return result


def refuse_masked(name: str, value: Any) -> None:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must not be a masked array, whose mask would be lost; pass its .data, or fill it first"
        )


def refuse_shape(name: str, value: Any) -> None:
    """PyTorch has the normalised shape where the weight stands here."""
    if isinstance(value, int) or (isinstance(value, tuple) and value and all(isinstance(n, int) for n in value)):
        raise TypeError(f"{name} must be an array, got {value!r}; a shape is normalized_shape={value!r}")


def match(name: str, value: FloatArray, dtype: np.dtype[Any], shape: Shape, whose: str | None) -> None:
    match_dtype(name, value, dtype, whose)
    match_shape(name, value, shape, whose)


def match_dtype(name: str, value: FloatArray, dtype: np.dtype[Any], whose: str | None) -> None:
    if value.dtype != dtype:
        like = f" like {whose}" if whose else ""
        raise TypeError(f"{name} must be {dtype}{like}, got {value.dtype}; convert it with .astype(np.{dtype})")


def match_shape(name: str, value: FloatArray, shape: Shape, whose: str | None) -> None:
    if value.shape != shape:
        like = f" like {whose}" if whose else ""
        raise ValueError(f"{name} must have shape {shape}{like}, got {value.shape}")


def normalized_by(name: str, statistic: FloatArray, of: str, x: FloatArray) -> Shape:
    """The normalised shape of x: what is behind the leading shape that the statistic has."""
    axis = statistic.ndim
    if axis >= x.ndim or x.shape[:axis] != statistic.shape:
        raise ValueError(
            f"{name} must have the leading shape of {of}, which has shape {x.shape}, got {statistic.shape}"
        )
    return x.shape[axis:]


# --- arrays to write


def writable(name: str, value: Any, dtype: np.dtype[Any], shape: Shape, whose: str | None = None) -> FloatArray:
    """An array to write into: exactly this dtype and shape, never a copy."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a numpy.ndarray, got {type_name(value)}")
    refuse_masked(name, value)
    if value.dtype is not dtype or value.shape != shape:
        match(name, value, dtype, shape, whose)
    flags = value.flags
    if flags.carray:
        return value
    if not flags.writeable:
        raise ValueError(f"{name} is written in place and must be writeable, got a read-only array")
    if not flags.c_contiguous:
        raise ValueError(
            f"{name} is written in place and must be C-contiguous, got strides {value.strides} "
            f"for shape {value.shape}; pass np.ascontiguousarray of it and copy the result back"
        )
    raise ValueError(f"{name} is written in place and must be aligned, got an unaligned array")


def updatable(name: str, value: Any) -> FloatArray:
    """An array to update in place, of a dtype and shape of its own."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a numpy.ndarray, got {type_name(value)}")
    refuse_masked(name, value)
    if value.dtype is not _FLOAT32 and value.dtype not in (_FLOAT32, _FLOAT64):
        raise TypeError(f"{name} must be float32 or float64 in native byte order, got {value.dtype}")
    return writable(name, value, value.dtype, value.shape)


def disjoint(**arrays: FloatArray | None) -> None:
    """Refuses arrays of which two share memory."""
    pair = _core.first_overlap(*arrays.values())
    if pair is not None:
        first, second = (list(arrays)[i] for i in pair)
        raise ValueError(f"{first} and {second} must not overlap, got arrays that share memory")


def out(
    value: Any, names: tuple[str, ...], arrays: tuple[FloatArray | None, ...], may_be: int = 1, name: str = "out"
) -> FloatArray:
    """`out=` (or of another `name`), or a new array like the first of `arrays` where it is None.

    It may be one of the first `may_be` arrays from end to end, and must not overlap any otherwise.
    """
    like = arrays[0]
    assert like is not None
    if value is None:
        return np.empty(like.shape, like.dtype)
    if _core.is_good_out(value, arrays, may_be):
        return value
    result = writable(name, value, like.dtype, like.shape, names[0])
    conflict = _core.first_conflict(result, arrays, may_be)
    if conflict is not None:
        alternative = " or be it from end to end" if conflict < may_be else ""
        raise ValueError(f"{name} must not overlap {names[conflict]}{alternative}, got arrays that share memory")
    return result


# --- shapes


def shape(name: str, value: SupportsIndex | Sequence[SupportsIndex]) -> Shape:
    """A shape as a tuple of ints."""
    if isinstance(value, np.ndarray) and value.ndim != 1:
        raise TypeError(f"{name} must be a shape, got an array; pass its .shape")
    lengths: Any = (value,) if hasattr(value, "__index__") and not isinstance(value, np.ndarray) else value
    try:
        return tuple(integer(name, n, low=0, high=2**63 - 1) for n in lengths)
    except TypeError:
        raise TypeError(f"{name} must be an integer or integers, got {value!r}") from None


def type_name(value: object) -> str:
    return type(value).__name__
