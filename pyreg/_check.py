"""Argument checks and their messages. The core accepts what passes here.

The core checks its arguments too, but gives no reason. If it rejects one, these functions find out why. Each returns
its argument in a form that the core accepts, or raises TypeError (the wrong kind of object) or ValueError (the right
kind, but an invalid value). The message names the argument, what was expected and what came.
"""

import math
import operator
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Literal, SupportsIndex

import numpy as np
import numpy.typing as npt

from pyreg._dtypes import FLOATS, beside, compute_dtype, either, name_of
from pyreg._results import FloatArray

Shape = tuple[int, ...]
Named = Mapping[str, Any]  # arguments by their names


# --- numbers


def number(name: str, value: Any, *, low: float = 0.0, below: float = math.inf) -> float:
    """A finite float in [low, below)."""
    result = _float(name, value)
    if not low <= result < below:  # false for NaN
        wanted = f"finite and >= {low:g}" if below == math.inf else f"in [{low:g}, {below:g})"
        raise ValueError(f"{name} must be {wanted}, got {shown(value)}")
    return result


def finite(name: str, value: Any, dtype: np.dtype[Any]) -> float:
    """A float that is finite in the dtype, float32 or float64."""
    result = _float(name, value)
    if not abs(result) <= float(np.finfo(dtype).max):  # false for NaN
        raise ValueError(f"{name} must be finite in {dtype}, got {shown(value)}")
    return result


def norm(name: str, value: Any) -> float:
    """A float that is not negative; it may be infinite or NaN."""
    result = _float(name, value)
    if result < 0:
        raise ValueError(f"{name} must be >= 0, got {shown(value)}")
    return result


def probability(name: str, value: Any) -> float:
    result = _float(name, value)
    if not 0.0 <= result <= 1.0:  # false for NaN
        raise ValueError(f"{name} must be in [0, 1], got {shown(value)}")
    return result


def _float(name: str, value: Any) -> float:
    scalar = _scalar(value)
    if not isinstance(scalar, Real) or isinstance(scalar, (bool, np.bool_, np.timedelta64)):
        raise TypeError(f"{name} must be a number, got {shown(value)} of type {type_name(value)}")
    try:
        # For a subclass of float, its stored value: the core reads that, not an overridden __float__.
        return float.__float__(scalar) if isinstance(scalar, float) else float(scalar)
    except OverflowError:
        raise ValueError(f"{name} must be finite, got a value of type {type_name(value)} beyond float64") from None


def _scalar(value: Any) -> Any:
    """The element of a 0-d array; anything else unchanged."""
    if isinstance(value, np.ndarray) and value.ndim == 0 and not isinstance(value, np.ma.MaskedArray):
        return value[()]
    return value


def integer(name: str, value: SupportsIndex, *, low: int, high: int) -> int:
    """An int in [low, high]."""
    scalar = _scalar(value)
    try:
        if isinstance(scalar, (bool, np.bool_, np.ndarray)):
            raise TypeError
        result = operator.index(scalar)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {shown(value)} of type {type_name(value)}") from None
    if not low <= result <= high:
        came = str(result) if abs(result) < 2**1000 else f"an integer of {result.bit_length()} bits"
        raise ValueError(f"{name} must be in [{low}, {high}], got {came}")
    return result


def flag(name: str, value: bool) -> bool:
    scalar = _scalar(value)
    if not isinstance(scalar, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)} of type {type_name(value)}")
    return bool(scalar)


def dropout(
    p: float,
    key: SupportsIndex | None,
    offset: SupportsIndex,
    size: int,
    training: bool = True,
    has_mask: bool = True,
) -> tuple[float, int, int, bool]:
    """The arguments of dropout on `size` elements, at the stream positions from `offset` on.

    Without a mask, the key may be None whatever p is.
    """
    p, training = probability("p", p), flag("training", training)
    if key is None and training and has_mask and drops(p):
        raise TypeError(
            "key must be given if p > 0, got None; a forward pass takes a new one, such as pyreg.random_key(), its "
            "backward pass the same"
        )
    key = 0 if key is None else random_key(key)
    return p, key, integer("offset", offset, low=0, high=2**64 - max(1, size)), training


def random_key(key: SupportsIndex) -> int:
    """The argument `key`, which is not None."""
    try:
        return integer("key", key, low=0, high=2**64 - 1)
    except TypeError as error:
        raise TypeError(f"{error}; draw one with pyreg.random_key()") from None


def drops(p: float) -> bool:
    """Whether something may be dropped: p is rounded to a multiple of 2**-32."""
    return round(p * 2**32) > 0


def nesterov(value: bool, momentum: float, dampening: float) -> None:
    """Raise if Nesterov's momentum is wanted, but the others do not fit."""
    if value and (momentum == 0 or dampening != 0):
        raise ValueError(
            "nesterov must be False unless momentum > 0 and dampening == 0, "
            f"got momentum={momentum} and dampening={dampening}"
        )


def any_new(made: Sequence[Any], given: Sequence[Any]) -> bool:
    """Whether some argument was converted: the checks return what needs no conversion as it is."""
    return any(new is not old for new, old in zip(made, given, strict=True))


def step(value: SupportsIndex) -> int:
    return integer("step", value, low=1, high=2**63 - 1)


def betas(value: tuple[float, float]) -> tuple[float, float]:
    try:
        if not isinstance(value, (Sequence, np.ndarray)):  # a set has no order
            raise TypeError
        beta1, beta2 = value
    except (TypeError, ValueError):
        raise TypeError(f"betas must be a pair of numbers, got {shown(value)}") from None
    made = number("betas[0]", beta1, below=1.0), number("betas[1]", beta2, below=1.0)
    return value if type(value) is tuple and made[0] is beta1 and made[1] is beta2 else made


# --- arrays to read


def indices(name: str, value: Any) -> npt.NDArray[np.int64]:
    """A 1-D array of indices, which may be out of range: `rows`, or one of them. Copied only if necessary."""
    refuse_masked(name, value)
    array = as_numpy(name, value)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    if array.ndim != 1:
        grad = name.replace("rows", "grad", 1)
        flat = f"; flatten it and {grad}: {name}.ravel() and {grad}.reshape(-1, *{grad}.shape[{array.ndim}:])"
        hint = flat if array.ndim > 1 else ""
        raise ValueError(f"{name} must be a 1-D array of indices, got shape {array.shape}{hint}")
    if array.dtype.kind == "u" and array.size and array.max() > 2**63 - 1:
        raise ValueError(f"{name} must be below 2**63, got {array.max()}")
    flags = array.flags
    if type(value) is np.ndarray and array.dtype == np.int64 and flags.forc and flags.aligned:
        return value
    return array.astype(np.int64)


def array(
    name: str, value: Any, names: Sequence[str] = FLOATS, wanted: str = "", order: Literal["C", "K"] = "C"
) -> FloatArray:
    """An array that the kernels can read, of a dtype with one of these names. Copied only if necessary.

    order: "K" if the elements may have any order in memory.
    """
    refuse_masked(name, value)
    any_array = as_numpy(name, value)
    wanted = wanted or either(names)
    if value is None:
        raise TypeError(f"{name} must be an array of {wanted}, got None")
    dtype = any_array.dtype
    if name_of(dtype) not in names:
        best = "float32" if "float32" in names else names[0]
        convert = f"; convert it, e.g. with np.asarray({name}, {'ml_dtypes' if best == 'bfloat16' else 'np'}.{best})"
        hint = convert if dtype.kind in "biuf" or name_of(dtype) else ""
        raise TypeError(f"{name} must be {wanted}, got {dtype}{hint}{hint_of_bits(name, dtype, names)}")
    result = np.asarray(any_array, dtype=dtype.type, order=order)  # the type's dtype is in native byte order
    return result if result.flags.aligned else result.copy(order)


def hint_of_bits(name: str, dtype: np.dtype[Any], names: Sequence[str]) -> str:
    """What to do if the array holds the bits of bfloat16: as integers, or as np.load returns them."""
    if dtype.kind not in "iuV" or dtype.itemsize != 2 or "bfloat16" not in names:
        return ""
    return f"; if it holds the bits of bfloat16, pass {name}.view(ml_dtypes.bfloat16)"


def listed(name: str, value: Any, names: Sequence[str] = FLOATS) -> list[FloatArray]:
    """An array, or all arrays of an iterable, as a list."""
    if isinstance(value, np.ndarray) or hasattr(value, "__array__"):  # such as a tensor of PyTorch
        return [array(name, value, names)]
    hint = "; pass its .values()" if isinstance(value, Mapping) else ""
    try:
        if hint or isinstance(value, (str, bytes, bytearray, memoryview)):
            raise TypeError
        values = list(value)
    except TypeError:
        raise TypeError(f"{name} must be an array or an iterable of arrays, got {type_name(value)}{hint}") from None
    return [array(f"{name}[{i}]", item, names) for i, item in enumerate(values)]


def as_numpy(name: str, value: Any) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(value)
    except MemoryError:
        raise
    except Exception as error:  # whatever the array-like raises: PyTorch's RuntimeError for one that requires grad
        is_results = isinstance(value, tuple) and hasattr(value, "_fields")  # of a function that returns several
        hint = f"; pass one of the arrays in {type_name(value)}, by its name" if is_results else ""
        raise TypeError(f"{name} cannot be read as an array: {error}{hint}") from error


def arrays(needed: Named, *, statistics: Named | None = None, params: Named | None = None) -> tuple[Any, ...]:
    """The needed arrays, the statistics and the params.

    The needed arrays have the dtype of the first, the statistics its compute dtype, and each of the params either.
    A param may be None.
    """
    (first, value), *others = needed.items()
    main = array(first, value)
    results = [main, *(matching(name, value, main, first) for name, value in others)]
    results += [statistic(name, value, main, first) for name, value in (statistics or {}).items()]
    return *results, *(param(name, value, main, first) for name, value in (params or {}).items())


def matching(name: str, value: Any, main: FloatArray, whose: str, wide: bool = False) -> FloatArray:
    """An array of the dtype of `main`, an array called `whose`; or, if `wide`, of its compute dtype."""
    return array(name, value, *beside(main.dtype, whose, wide))


def param(name: str, value: Any, main: FloatArray, whose: str) -> FloatArray | None:
    return None if value is None else matching(name, value, main, whose, wide=True)


def statistic(name: str, value: Any, main: FloatArray, whose: str) -> FloatArray:
    """What a forward pass returned for each row of `main`, in the compute dtype."""
    own, computed = name_of(main.dtype), compute_dtype(main.dtype).name
    reason = f"like {whose}" if own == computed else f"if {whose} is {own}"
    return array(name, value, [computed], f"{computed} {reason}")


def refuse_masked(name: str, value: Any) -> None:
    if issubclass(type(value), np.ma.MaskedArray):
        raise TypeError(
            f"{name} must not be a masked array, because its mask would be lost; pass its .data, or fill it first"
        )


def match_shape(name: str, value: FloatArray | None, shape: Shape, whose: str) -> None:
    """Raise unless `value` is None or has this shape, which is that of `whose`."""
    if value is not None and value.shape != shape:
        raise ValueError(f"{name} must have shape {shape} like {whose}, got {value.shape}")


def normalized_by(name: str, statistic: FloatArray, of: str, x: FloatArray) -> Shape:
    """The normalised shape of x, an array called `of`: its axes after those of the statistic."""
    axis = statistic.ndim
    if axis >= x.ndim or x.shape[:axis] != statistic.shape:
        raise ValueError(
            f"{name} must have the shape {x.shape} of {of} without the normalised axes, got {statistic.shape}"
        )
    return x.shape[axis:]


# --- arrays to write


def writable(name: str, value: Any, first: str, like: FloatArray, wide: bool = False) -> FloatArray:
    """An array to write in place, never a copy, with the dtype and shape of `like`, called `first`.

    wide: it may have the compute dtype too.
    """
    names, wanted = beside(like.dtype, first, wide)
    array = in_place(name, value, names, wanted, "it is written in place, so it cannot be converted")
    match_shape(name, array, like.shape, first)
    if not array.flags.c_contiguous:
        raise ValueError(
            f"{name} is written in place and must be C-contiguous, got strides {array.strides} "
            f"for shape {array.shape}; pass a contiguous copy (np.ascontiguousarray) and copy the result back"
        )
    result: FloatArray = value
    return result


def in_place(name: str, value: Any, names: Sequence[str], wanted: str, hint: str) -> FloatArray:
    """An array that can be written in place, of a dtype with one of these names: a view of it as a plain ndarray.

    hint: what to do if it has another dtype.
    """
    if not issubclass(type(value), np.ndarray):  # isinstance would trust a false __class__
        raise TypeError(f"{name} must be a numpy.ndarray, got {type_name(value)}")
    refuse_masked(name, value)
    array = np.ndarray.view(value, np.ndarray)  # a subclass may override attributes
    if name_of(array.dtype) not in names or not array.dtype.isnative:
        native = "" if array.dtype.isnative else ", in native byte order"
        bits = hint_of_bits(name, array.dtype, names)
        raise TypeError(f"{name} must be {wanted}{native}, got {array.dtype}; {hint}{bits}")
    if not array.flags.writeable:
        raise ValueError(f"{name} is written in place and must be writeable, got a read-only array")
    if not array.flags.aligned:
        raise ValueError(f"{name} is written in place and must be aligned, got an unaligned array")
    return array


def y_instead_of(y: Any, needed: Named, optional: Named) -> None:
    """Raise unless either y is given, or all the `needed` that it is computed from. y replaces the `optional` too."""
    given = {name: value for name, value in (dict(needed) | dict(optional)).items() if value is not None}
    missing = [name for name in needed if name not in given]
    if y is not None and given:
        name, value = next(iter(given.items()))
        raise TypeError(f"{name} must be None if y is given, got {type_name(value)}")
    if y is None and missing:
        raise TypeError(f"{', '.join(needed)} must be given, or y=, got None for {missing[0]}")


def out(
    value: Any, replaces: Named, avoids: Named | None = None, name: str = "out", wide: bool = False
) -> FloatArray | None:
    """The argument `out`, or another of this `name`: None, or an array like the first in `replaces`.

    It may be one of the arrays in `replaces`, but must not partly overlap them, nor overlap any in `avoids`. wide: it
    may have the compute dtype too.
    """
    if value is None:
        return None
    first, like = next(iter(replaces.items()))
    result = writable(name, value, first, like, wide)
    for other, array in (*replaces.items(), *(avoids or {}).items()):
        if array is None or not np.may_share_memory(result, array):  # exact for contiguous arrays
            continue
        if other not in replaces:
            raise ValueError(f"{name} must not overlap {other}, got arrays that share memory")
        if result.ctypes.data != array.ctypes.data or result.nbytes != array.nbytes:
            raise ValueError(f"{name} must be {other} itself or not overlap it, got arrays that partly overlap")
    return result


# --- shapes


def shape(name: str, value: SupportsIndex | Sequence[SupportsIndex]) -> Shape:
    """A shape as a tuple of ints."""
    scalar: Any = _scalar(value)
    if isinstance(scalar, np.ndarray):
        if scalar.ndim != 1:
            raise TypeError(f"{name} must be a shape, got an array; pass its .shape")
    elif hasattr(scalar, "__index__"):
        scalar = (scalar,)
    try:
        return tuple(integer(name, n, low=0, high=2**63 - 1) for n in scalar)
    except TypeError:
        raise TypeError(f"{name} must be an integer or a sequence of integers, got {shown(value)}") from None


def type_name(value: object) -> str:
    return type(value).__name__


def shown(value: object) -> str:
    """The value as text, for a message."""
    try:
        return repr(value)
    except Exception:  # for example, an integer of too many digits for Python to print
        return f"a {type_name(value)}"
