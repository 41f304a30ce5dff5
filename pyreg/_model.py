"""The arrays of an update: of one parameter, or of all parameters of a model."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, SupportsIndex

import numpy as np

from pyreg import _check
from pyreg._check import Named
from pyreg._dtypes import FLOATS, compute_dtype, either, name_of
from pyreg._results import FloatArray

IN_FLOAT32 = ("float32", "float16", "bfloat16")  # the dtypes that are computed in float32
STATES = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")

Rounded = Literal["nearest", "stochastic"]
Rounding = Rounded | Mapping[str, Rounded]


def arguments(
    needed: Named,
    optional: Named,
    converted: bool,
    grad_scale: float,
    skip_nonfinite: bool,
    ema: Any,
    ema_decay: float,
    param_out: Any,
    rows: Any,
    rounding: Rounding,
    key: SupportsIndex | None,
    offset: SupportsIndex,
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The arrays `needed` and `optional`, and what every update takes last, from grad_scale on.

    To check everything takes long, so if something can be converted, nothing more is done at first: `converted` tells
    whether the caller has. The core refuses what is still wrong, and then this function is called again.
    """
    every = {**needed, **optional, "ema": ema, "param_out": param_out}
    given = {name: value for name, value in every.items() if name in needed or value is not None}
    scale, skip = _check.number("grad_scale", grad_scale), _check.flag("skip_nonfinite", skip_nonfinite)
    decay = _check.number("ema_decay", ema_decay, below=1.0)
    random = checked_rounding(rounding, [name for name in every if name not in ("grad", "max_exp_avg_sq")])
    numbers = random, *stream(random, key, offset)
    made = scale, skip, decay, *numbers
    converted |= _check.any_new(made, (grad_scale, skip_nonfinite, ema_decay, rounding, key, offset))
    indices = readable_rows(rows, given["param"])
    converted |= indices is not rows
    readable = with_readable(given, indices)
    arrays: dict[str, Any] = dict.fromkeys(every) | (given if readable is None else readable)
    if readable is None and not converted:
        arrays |= checked(given, indices)
        params = arrays["param"] if isinstance(arrays["param"], list) else [arrays["param"]]
        for param in params:
            _check.finite("grad_scale", scale, compute_dtype(param.dtype))
        size = sum(param.size for param in params)
        _check.integer("offset", offset, low=0, high=2**64 - max(1, size))
    *others, ema, param_out = arrays.values()
    return tuple(others), (scale, skip, ema, decay, param_out, indices, *numbers)


def checked_rounding(rounding: Any, names: Sequence[str]) -> Any:
    """The argument `rounding`, as a str or a dict."""
    ways = "'nearest' or 'stochastic'"
    if isinstance(rounding, str):
        if rounding not in ("nearest", "stochastic"):
            raise ValueError(f"rounding must be {ways}, or a dict of them by argument name, got {rounding!r}")
        return rounding if type(rounding) is str else str(rounding)
    if not isinstance(rounding, Mapping):
        kind = _check.type_name(rounding)
        raise TypeError(f"rounding must be {ways}, or a dict of them by argument name, got {kind}")
    for name, way in rounding.items():
        if name not in names:
            raise ValueError(f"rounding must have keys among {', '.join(names)}, got {_check.shown(name)}")
        if not isinstance(way, str) or way not in ("nearest", "stochastic"):
            raise ValueError(f"rounding[{name!r}] must be {ways}, got {_check.shown(way)}")
    same = type(rounding) is dict and all(type(text) is str for item in rounding.items() for text in item)
    return rounding if same else {str(name): str(way) for name, way in rounding.items()}


def stream(rounding: Any, key: SupportsIndex | None, offset: SupportsIndex) -> tuple[int | None, int]:
    """The key and the offset. The number of elements is not known yet."""
    ways = rounding.values() if isinstance(rounding, dict) else [rounding]
    if key is None and "stochastic" in ways:
        raise TypeError(
            "key must be given if rounding is stochastic, got None; take a new one at each step, such as "
            "pyreg.fold_in(key, step)"
        )
    made = None if key is None else _check.random_key(key)
    return made, _check.integer("offset", offset, low=0, high=2**64 - 1)


def readable_rows(rows: Any, params: Any) -> Any:
    """The argument `rows`, with indices that are not int64 converted."""
    if rows is None or not isinstance(params, (list, tuple)):
        return None if rows is None else _check.indices("rows", rows)
    if not isinstance(rows, (list, tuple)):
        raise TypeError(
            f"rows must be a list like param, with indices or None for each, got {_check.type_name(rows)}"
        )
    if len(rows) != len(params):
        raise ValueError(f"rows must have {len(params)} entries like param, got {len(rows)}")
    made = [None if value is None else _check.indices(f"rows[{i}]", value) for i, value in enumerate(rows)]
    return made if _check.any_new(made, rows) or type(rows) not in (list, tuple) else rows


def with_readable(arrays: Named, rows: Any) -> dict[str, Any] | None:
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
            of_rows = rows[i] if is_list and rows is not None else rows
            new = readable_gradient(value, lists["param"][i], of_rows) if name == "grad" else plain(value)
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


def readable_gradient(grad: Any, param: Any, rows: Any) -> FloatArray | None:
    """The gradient, laid out in memory as the parameter is; or None if it does not belong to it."""
    if not issubclass(type(param), np.ndarray) or not is_dense(param) or (rows is not None and param.ndim == 0):
        return None
    shape = shape_of_gradient(param, rows)
    if type(grad) is np.ndarray and grad.dtype.isnative and grad.shape == shape:
        flags = grad.flags
        if flags.aligned and flags.c_contiguous and param.flags.c_contiguous:
            return grad
    try:
        array = _check.array("grad", grad, order="K")
    except TypeError:
        return None
    if array.shape != shape:
        return None
    return np.ascontiguousarray(array) if rows is not None else laid_out(array, np.ndarray.view(param, np.ndarray))


def shape_of_gradient(param: FloatArray, rows: Any) -> tuple[int, ...]:
    return param.shape if rows is None else (len(rows), *param.shape[1:])


def checked(arrays: Named, rows: Any) -> dict[str, Any]:
    """The arrays of an update, with the gradients converted: one of each, or lists with one for each parameter."""
    param = arrays["param"]
    if not isinstance(param, (list, tuple)):
        if not isinstance(param, np.ndarray):
            got = no_list("param", param)
            raise TypeError(f"param must be a numpy.ndarray, or a list or tuple of them, got {got}")
        one = tensor(arrays, "", rows)
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
    every = [None] * len(param) if rows is None else list(rows)
    tensors = [tensor({name: lists[name][i] for name in lists}, f"[{i}]", every[i]) for i in range(len(every))]
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


def tensor(arrays: Named, index: str, rows: Any) -> dict[str, FloatArray]:
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
    if rows is not None:
        require_rows(f"rows{index}", rows, whose, param)
    made = {whose: param}
    for name, value in arrays.items():
        if name == "param":
            continue
        own, (names, wanted) = f"{name}{index}", dtypes_beside(name, param, whose)
        if value is None and index:
            raise TypeError(f"{own} must be an array, got None; leave the parameter out of all lists")
        if name == "grad":
            array = _check.array(own, value, names, wanted, order="K")
            shape = shape_of_gradient(param, rows)
            _check.match_shape(own, array, shape, whose if rows is None else f"the rows of {whose}")
            made[own] = laid_out(array, param) if rows is None else np.ascontiguousarray(array)
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


def require_rows(name: str, rows: Any, whose: str, param: FloatArray) -> None:
    """Raise unless these are indices of different rows of param, which has rows that are side by side in memory."""
    if param.ndim == 0 or not param.flags.c_contiguous:
        came = "a 0-d array" if param.ndim == 0 else f"strides {param.strides} for shape {param.shape}"
        raise ValueError(f"{whose} must have rows and be in C order if rows is given, got {came}")
    outside = rows[(rows < 0) | (rows >= len(param))]
    if outside.size:
        raise ValueError(
            f"{name} must be >= 0 and below {len(param)}, the number of rows of {whose}, got {outside[0]}"
        )
    found, counts = np.unique(rows, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"{name} must have each index once, got {found[counts > 1][0]} several times; sum the gradients of equal "
            "rows first, with pyreg.sum_duplicate_rows"
        )


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
