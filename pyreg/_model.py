"""The arrays of an update: of one parameter, or of all parameters of a model."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pyreg import _check
from pyreg._check import Named
from pyreg._dtypes import FLOATS, compute_dtype, either, name_of
from pyreg._results import FloatArray

IN_FLOAT32 = ("float32", "float16", "bfloat16")  # the dtypes that are computed in float32
STATES = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")


def arguments(
    needed: Named,
    optional: Named,
    converted: bool,
    grad_scale: float,
    skip_nonfinite: bool,
    ema: Any,
    ema_decay: float,
    param_out: Any,
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The arrays `needed` and `optional`, and what every update takes last, from grad_scale on.

    To check everything takes long, so if something can be converted, nothing more is done at first: `converted` tells
    whether the caller has. The core refuses what is still wrong, and then this function is called again.
    """
    every = {**needed, **optional, "ema": ema, "param_out": param_out}
    given = {name: value for name, value in every.items() if name in needed or value is not None}
    scale, skip = _check.number("grad_scale", grad_scale), _check.flag("skip_nonfinite", skip_nonfinite)
    decay = _check.number("ema_decay", ema_decay, below=1.0)
    converted |= _check.any_new((scale, skip, decay), (grad_scale, skip_nonfinite, ema_decay))
    readable = with_readable(given)
    arrays: dict[str, Any] = dict.fromkeys(every) | (given if readable is None else readable)
    if readable is None and not converted:
        arrays |= checked(given)
        for param in arrays["param"] if isinstance(arrays["param"], list) else [arrays["param"]]:
            _check.finite("grad_scale", scale, compute_dtype(param.dtype))
    *others, ema, param_out = arrays.values()
    return tuple(others), (scale, skip, ema, decay, param_out)


def with_readable(arrays: Named) -> dict[str, Any] | None:
    """The arrays, with those converted that the core does not read; None if there are none, or something is wrong."""
    is_list = isinstance(arrays["param"], (list, tuple))
    if is_list and not all(isinstance(value, (list, tuple)) for value in arrays.values()):
        return None
    converted = is_list and not all(type(value) in (list, tuple) for value in arrays.values())
    lists = {name: list(value) if is_list else [value] for name, value in arrays.items()}
    if any(len(values) != len(lists["param"]) for values in lists.values()):
        return None
    for name, values in lists.items():
        for i, value in enumerate(values):
            new = readable_gradient(value, lists["param"][i]) if name == "grad" else plain(value)
            if new is None:
                return None
            converted |= new is not value
            values[i] = new
    if not converted:
        return None
    return {name: values if is_list else values[0] for name, values in lists.items()}


def plain(array: Any) -> FloatArray | None:
    """An array to write as a plain ndarray, or None if it is none."""
    if type(array) is np.ndarray:
        return array
    if not issubclass(type(array), np.ndarray) or issubclass(type(array), np.ma.MaskedArray):
        return None
    return np.ndarray.view(array, np.ndarray)


def readable_gradient(grad: Any, param: Any) -> FloatArray | None:
    """The gradient, laid out in memory as the parameter is; or None if it does not belong to it."""
    if not issubclass(type(param), np.ndarray) or not is_dense(param):
        return None
    if type(grad) is np.ndarray and grad.dtype.isnative and grad.shape == param.shape:
        flags = grad.flags
        if flags.aligned and flags.c_contiguous and param.flags.c_contiguous:
            return grad
    try:
        array = _check.array("grad", grad, order="K")
    except TypeError:
        return None
    if array.shape != param.shape:
        return None
    return laid_out(array, np.ndarray.view(param, np.ndarray))


def checked(arrays: Named) -> dict[str, Any]:
    """The arrays of an update, with the gradients converted: one of each, or lists with one for each parameter."""
    param = arrays["param"]
    if not isinstance(param, (list, tuple)):
        if not isinstance(param, np.ndarray):
            got = no_list("param", param)
            raise TypeError(f"param must be a numpy.ndarray, or a list or tuple of them, got {got}")
        one = tensor(arrays, "")
        require_disjoint([one])
        return {**arrays, "grad": one["grad"]}
    for i, value in enumerate(param):
        if not isinstance(value, np.ndarray):
            raise TypeError(f"param[{i}] must be a numpy.ndarray, got {_check.type_name(value)}")
    for name, value in arrays.items():
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{name} must be a list or tuple of arrays like param, got {no_list(name, value)}")
        if len(value) != len(param):
            raise ValueError(f"{name} must have {len(param)} arrays like param, got {len(value)}")
    lists = {name: list(value) for name, value in arrays.items()}  # copies, which no other thread can change
    tensors = [tensor({name: lists[name][i] for name in lists}, f"[{i}]") for i in range(len(lists["param"]))]
    require_disjoint(tensors)
    return {**lists, "grad": [one[f"grad[{i}]"] for i, one in enumerate(tensors)]}


def no_list(name: str, value: Any) -> str:
    """The type of what should be a list, and how to make one of it."""
    if isinstance(value, Mapping):
        hint = f"; pass lists in one order, such as [{name}[key] for key in keys]"
    elif isinstance(value, Iterable) and not isinstance(value, (np.ndarray, str)):
        hint = f"; pass list({name})"
    else:
        hint = ""
    return f"{_check.type_name(value)}{hint}"


def tensor(arrays: Named, index: str) -> dict[str, FloatArray]:
    """A parameter's arrays by their names, such as "param[3]": views as plain ndarrays, the gradient converted."""
    whose = f"param{index}"
    hint = (
        "leave arrays of other numbers out of all lists" if index else f"convert it, e.g. with {whose}.astype('f4')"
    )
    param = _check.in_place(whose, arrays["param"], FLOATS, either(FLOATS), hint)
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
        if value is None and index:
            raise TypeError(f"{own} must be an array, got None; leave the parameter out of all lists")
        if name == "grad":
            array = _check.array(own, value, names, wanted, order="K")
            _check.match_shape(own, array, param.shape, whose)
            made[own] = laid_out(array, param)
            continue
        hint = f"it is written in place: make it with np.zeros_like({whose}, np.{names[0]})"
        made[own] = array = _check.in_place(own, value, names, wanted, hint)
        _check.match_shape(own, array, param.shape, whose)
        expected, got = strides_in_elements(param), strides_in_elements(array)
        if not is_dense(array) or got != expected:
            raise ValueError(
                f"{own} is written in place and must be laid out in memory as {whose} is, with strides of {expected} "
                f"elements, got {got}; np.zeros_like, np.empty_like and np.copy keep them"
            )
    return made


def dtypes_beside(name: str, param: FloatArray, whose: str) -> tuple[Sequence[str], str]:
    """The dtypes that an array of this name may have, and how a message says so. csrc/model.cpp has the same rule."""
    own = name_of(param.dtype)
    if own == "float64":
        return (own,), f"{own} like {whose}"
    names = [dtype for dtype in IN_FLOAT32 if name not in STATES or dtype != "float16"]
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


def strides_in_elements(array: FloatArray) -> tuple[int, ...]:
    """The strides, counted in elements, of the axes that have more than one."""
    if array.size == 0:
        return ()
    return tuple(stride // array.itemsize for stride, n in zip(array.strides, array.shape, strict=True) if n > 1)


def laid_out(array: FloatArray, like: FloatArray) -> FloatArray:
    """The array in the memory layout of `like`. Copied only if necessary."""
    if strides_in_elements(array) == strides_in_elements(like):
        return array
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
            same = begin == arrays[other].ctypes.data and size == arrays[other].nbytes
            hint = "; list an array once" if same else ""
            raise ValueError(f"{a} and {b} must not overlap, got arrays that share memory{hint}")
        end = max(end, (begin + size, name))
        if is_written:
            written_end = max(written_end, (begin + size, name))
