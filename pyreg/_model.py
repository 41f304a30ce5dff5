"""The arrays of an update: of one parameter, or of all parameters of a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyreg import _check
from pyreg._dtypes import FLOATS, either, name_of
from pyreg._results import FloatArray

Named = Mapping[str, Any]  # arguments by their names

NARROW = ("float32", "float16", "bfloat16")  # what is computed in float32
STATES = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")


def arguments(
    needed: Named,
    optional: Named,
    grad_scale: float,
    skip_nonfinite: bool,
    ema: Any,
    ema_decay: float,
    param_out: Any,
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The arrays `needed` and `optional`, and what every update takes last, from grad_scale on."""
    every = {**needed, **optional, "ema": ema, "param_out": param_out}
    given = {name: value for name, value in every.items() if name in needed or value is not None}
    arrays = dict.fromkeys(every) | checked(given)
    scale, skip = _check.number("grad_scale", grad_scale), _check.flag("skip_nonfinite", skip_nonfinite)
    decay = _check.number("ema_decay", ema_decay, below=1.0)
    *others, ema, param_out = arrays.values()
    return tuple(others), (scale, skip, ema, decay, param_out)


def checked(arrays: Named) -> dict[str, Any]:
    """The arrays of an update, with the gradients converted: one of each, or lists with one for each parameter."""
    param = arrays["param"]
    if not isinstance(param, (list, tuple)):
        hint = "; pass list(param.values())" if isinstance(param, Mapping) else ""
        if not isinstance(param, np.ndarray):
            got = f"{_check.type_name(param)}{hint}"
            raise TypeError(f"param must be a numpy.ndarray, or a list or tuple of them, got {got}")
        one = tensor(arrays, "")
        require_disjoint([one])
        return {**arrays, "grad": one["grad"]}
    for name, value in arrays.items():
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{name} must be a list or tuple of arrays like param, got {_check.type_name(value)}")
        if len(value) != len(param):
            raise ValueError(f"{name} must have {len(param)} arrays like param, got {len(value)}")
    tensors = [tensor({name: value[i] for name, value in arrays.items()}, f"[{i}]") for i in range(len(param))]
    require_disjoint(tensors)
    grads = [one[f"grad[{i}]"] for i, one in enumerate(tensors)]
    return {**{name: list(value) for name, value in arrays.items()}, "grad": grads}


def tensor(arrays: Named, index: str) -> dict[str, FloatArray]:
    """A parameter's arrays by their names, such as "param[3]": views as plain ndarrays, the gradient converted."""
    whose = f"param{index}"
    param = _check.in_place(whose, arrays["param"], FLOATS, either(FLOATS))
    if not is_dense(param):
        raise ValueError(
            f"{whose} is written in place and must be dense, its elements side by side in memory in some order of "
            f"the axes, got strides {param.strides} for shape {param.shape}; pass a contiguous copy "
            "(np.ascontiguousarray) and copy the result back"
        )
    made = {whose: param}
    for name, value in arrays.items():
        if name == "param":
            continue
        own, (names, wanted) = f"{name}{index}", dtypes_beside(name, param, whose)
        if name == "grad":
            array = _check.array(own, value, names, wanted)
            _check.match_shape(own, array, param.shape, whose)
            made[own] = array if steps(array) == steps(param) else laid_out(array, param)
            continue
        made[own] = array = _check.in_place(own, value, names, wanted)
        _check.match_shape(own, array, param.shape, whose)
        if not is_dense(array) or steps(array) != steps(param):
            raise ValueError(
                f"{own} is written in place and must be laid out in memory as {whose} is, with strides of "
                f"{steps(param)} elements, got {steps(array)}; make it with np.zeros_like or np.empty_like"
            )
    return made


def dtypes_beside(name: str, param: FloatArray, whose: str) -> tuple[Sequence[str], str]:
    """The dtypes that an array of this name may have, and how a message says so. csrc/model.cpp has the same rule."""
    own = name_of(param.dtype)
    if own == "float64":
        return (own,), f"{own} like {whose}"
    names = [dtype for dtype in NARROW if name not in STATES or dtype != "float16"]
    return names, f"{either(names)} if {whose} is {own}"


def is_dense(array: FloatArray) -> bool:
    """Whether the elements fill a piece of memory that begins with the first, in some order of the axes."""
    if array.flags.forc or array.size == 0:
        return True
    expected = array.itemsize
    for stride, length in sorted((stride, n) for stride, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride != expected:
            return False
        expected *= length
    return True


def steps(array: FloatArray) -> tuple[int, ...]:
    """The strides, counted in elements, of the axes that have more than one."""
    if array.size == 0:
        return ()
    return tuple(stride // array.itemsize for stride, n in zip(array.strides, array.shape, strict=True) if n > 1)


def laid_out(array: FloatArray, like: FloatArray) -> FloatArray:
    """A copy of the array in the memory layout of `like`."""
    copy = np.empty_like(like, array.dtype)
    copy[...] = array
    return copy


def require_disjoint(tensors: Sequence[Mapping[str, FloatArray]]) -> None:
    """Raise if an array that is written shares memory with another. All are dense."""
    arrays = {name: array for one in tensors for name, array in one.items() if array.size}
    spans = sorted((array.ctypes.data, array.nbytes, name) for name, array in arrays.items())
    end, written_end = (0, ""), (0, "")  # the furthest of the spans so far, and of those that are written
    for begin, size, name in spans:
        is_written = not name.startswith("grad")
        furthest, other = end if is_written else written_end
        if begin < furthest:
            a, b = sorted((name, other), key=[*arrays].index)
            raise ValueError(f"{a} and {b} must not overlap, got arrays that share memory")
        end = max(end, (begin + size, name))
        if is_written:
            written_end = max(written_end, (begin + size, name))
