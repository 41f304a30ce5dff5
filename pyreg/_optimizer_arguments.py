"""Checks of what the optimiser classes take, and their messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pyreg import _check, _model
from pyreg._check import Named
from pyreg._dtypes import compute_dtype, name_of
from pyreg._param_groups import Name
from pyreg._results import FloatArray

# What a group made for PyTorch may have beside its options. It is kept, and means nothing here: notes, and how it
# computes, with PyTorch's defaults.
NOTES = ("name", "initial_lr")
HOW = {"foreach": None, "capturable": False, "differentiable": False, "fused": None}
OF_PYTORCH = (*NOTES, *HOW)
MOST_STEPS = 2**62  # of a state that is read: far below the largest step, so no step of a run reaches that
FLAGS = ("amsgrad", "maximize", "bias_correction", "nesterov")


# --- arrays


def in_order(
    what: str, values: Any, names: Sequence[Name], start: int | None = None, if_missing: str = ""
) -> list[Any]:
    """A value for each parameter, in the order of the names.

    values: a dict by name; or a list, if the names are the integers from `start` on. if_missing: a hint.
    """
    if isinstance(values, Mapping):
        by_name: Any = values if type(values) is dict else dict(values)
    elif isinstance(values, (list, tuple)) and start is not None:
        by_name = values if start == 0 else dict(enumerate(values, start))
    else:
        also = "" if start is None else "a list in the order of params, or "
        hint = "" if isinstance(values, (list, tuple, str, np.ndarray)) else hint_of_iterable(what, values)
        got = _check.type_name(values)
        raise TypeError(f"{what} must be {also}a dict by the names of params, got {got}{hint}")
    if len(by_name) == len(names):
        try:
            return list(map(by_name.__getitem__, names))
        except KeyError:
            pass
    if not isinstance(by_name, dict):
        raise ValueError(f"{what} must have {len(names)} arrays like params, got {len(by_name)}")
    missing = [name for name in names if name not in by_name]
    unknown = [name for name in by_name if name not in set(names)]
    got = f"nothing for {missing[0]!r}" if missing else f"{unknown[0]!r} too"
    hint = if_missing if missing else ""
    raise ValueError(f"{what} must have an entry for each name of params, and no other, got {got}{hint}")


def hint_of_iterable(what: str, values: Any) -> str:
    return f"; pass list({what})" if isinstance(values, Iterable) else ""


def state_dtype(value: Any) -> np.dtype[Any] | None:
    """The dtype of the states, or None: that in which the parameter is computed."""
    if value is None:
        return None
    if isinstance(value, str) and value == "bfloat16":
        import ml_dtypes  # who does not ask for it does not need the package

        value = ml_dtypes.bfloat16
    try:
        dtype: np.dtype[Any] | None = np.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or name_of(dtype) not in ("float32", "float64", "bfloat16") or not dtype.isnative:
        got = _check.shown(value) if dtype is None else str(dtype)
        raise TypeError(f"state_dtype must be float32, float64 or bfloat16, got {got}")
    return dtype


def dtype_of_states(dtype: np.dtype[Any] | None, name: Name, param: FloatArray) -> np.dtype[Any]:
    if dtype is None:
        return compute_dtype(param.dtype)
    names, wanted = _model.dtypes_beside("exp_avg", param, f"params[{name!r}]")
    if name_of(dtype) not in names:
        raise TypeError(f"state_dtype must be {wanted}, got {dtype}")
    return dtype


def tensor(name: Name, arrays: Named, rows: Any) -> dict[str, FloatArray]:
    """A parameter's arrays as `_model.tensor` returns them."""
    indices = None if rows is None else _check.indices(f"rows[{name!r}]", rows)
    try:
        return _model.tensor(arrays, f"[{name!r}]", indices)
    except (TypeError, ValueError) as error:
        if is_pair(arrays.get("grad")) and str(error).startswith("grad["):
            wanted = "an array, or what pyreg.sum_duplicate_rows(rows, grad) returns"
            raise TypeError(f"grad[{name!r}] must be {wanted}, got a tuple of two") from None
        raise


def is_pair(grad: Any) -> bool:
    """Whether a gradient looks like rows and their gradient."""
    return type(grad) is tuple and len(grad) == 2 and all(hasattr(value, "__len__") for value in grad)


def largest_norm(params: Sequence[FloatArray]) -> float:
    """The largest norm that counts as finite."""
    is_double = all(param.dtype == np.float64 for param in params)
    return float(np.finfo(np.float64 if is_double else np.float32).max)


def updatable(arrays: Iterable[tuple[Name, Named, Any]]) -> list[dict[str, FloatArray]]:
    """The arrays as `_model.tensor` returns them. Raises unless one step can update all these parameters.

    Each is a name, the arrays by role ("param", "ema"), and the rows that are updated, or None for all.
    """
    try:
        tensors = [tensor(*of_one) for of_one in arrays]
        _model.require_disjoint(tensors)
    except (TypeError, ValueError) as error:
        error.args = (re.sub(r"\b(param|grad)\[", r"\1s[", str(error)),)  # as the arguments of the classes are called
        raise
    return tensors


# --- options


def checked_options(options: Named, group: int | None = None) -> dict[str, Any]:
    """A group's options, each converted. The messages speak of the group, if its number is given."""
    try:
        made = {name: checked_option(name, value) for name, value in options.items()}
        if "nesterov" in made:
            _check.nesterov(made["nesterov"], made["momentum"], made["dampening"])
    except (TypeError, ValueError) as error:
        if group is not None:
            error.args = (f"in param_groups[{group}]: {error}",)
        raise
    return made


def checked_option(name: str, value: Any) -> Any:
    if name in FLAGS:
        return _check.flag(name, value)
    if name == "betas":
        return _check.betas(value)
    if name == "ema_decay":
        return None if value is None else _check.number(name, value, below=1.0)
    return _check.number(name, value)


def refuse_unknown(keys: Iterable[str], known: Sequence[str], where: str) -> None:
    for key in keys:
        if key not in known and key not in OF_PYTORCH:
            raise ValueError(f"{where} may have {', '.join(known)}, got {key!r}")


def rounding(value: Any, roles: Sequence[str]) -> dict[str, str]:
    """Which of the arrays with these roles are rounded by chance. Empty if none is."""
    made = _model.checked_rounding(value, roles)
    by_role = made if isinstance(made, dict) else dict.fromkeys(roles, made)
    return {role: by_role[role] for role in roles if by_role.get(role) == "stochastic"}


def shown_rounding(stochastic: Sequence[str], roles: Sequence[str]) -> str:
    """The argument `rounding` that rounds these of the roles by chance."""
    if not stochastic:
        return "'nearest'"
    return "'stochastic'" if set(stochastic) == set(roles) else str(dict.fromkeys(stochastic, "stochastic"))
