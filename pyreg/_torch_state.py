"""The state of an optimiser in the form of PyTorch's: nested dicts, with numbers for the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from pyreg import _check
from pyreg import _optimizer_arguments as _arguments
from pyreg._dtypes import FLOATS, name_of
from pyreg._optimizer_state import checked, take_over
from pyreg._results import FloatArray

if TYPE_CHECKING:
    from pyreg._optimizer import Optimizer

# Options that not every version of PyTorch writes, and what they are then.
SINCE_LATER = {"maximize": False, "amsgrad": False, "nesterov": False}
OURS_ALONE = ("bias_correction", "ema_decay")


def to_torch_state_dict(optimizer: Optimizer) -> dict[str, Any]:
    groups, place = list[dict[str, Any]](), 0
    for number, options in enumerate(optimizer._options_of_groups()):
        if options.get("bias_correction") is False:
            raise ValueError(f"in param_groups[{number}]: bias_correction must be True for PyTorch, got False")
        group = {name: value for name, value in options.items() if name not in OURS_ALONE}
        how = _arguments.HOW
        of_pytorch = {name: how[name] for name in how if name != "capturable" or counts_steps(optimizer)}
        if optimizer._decoupled is not None:
            of_pytorch["decoupled_weight_decay"] = optimizer._decoupled
        kept = optimizer.param_groups[number]
        notes: dict[str, Any] = {name: kept[name] for name in _arguments.NOTES if name in kept}
        size = len(kept["params"])
        groups.append({**group, **of_pytorch, **notes, "params": list(range(place, place + size))})
        place += size
    state: dict[int, dict[str, Any]] = {}
    for i, (name, steps) in enumerate(zip(optimizer._names, optimizer._steps.tolist(), strict=True)):
        arrays = {role: as_pytorch_has_it(array) for role, array in optimizer.state[name].items()}
        if counts_steps(optimizer) and steps:
            state[i] = {"step": np.array(steps, np.float32)} | arrays
        elif arrays and not counts_steps(optimizer):
            state[i] = arrays
    return {"state": state, "param_groups": groups}


def counts_steps(optimizer: Optimizer) -> bool:
    """Whether PyTorch's state has counts: Adam's has, SGD's has not."""
    return "betas" in optimizer._option_names


def as_pytorch_has_it(array: FloatArray) -> FloatArray:
    """A copy. torch.from_numpy does not read bfloat16."""
    return array.astype(np.float32) if name_of(array.dtype) == "bfloat16" else np.copy(array)


def load_torch_state_dict(optimizer: Optimizer, state: Any) -> None:
    if not isinstance(state, Mapping) or set(state) != {"state", "param_groups"}:
        raise TypeError(f"state must be a dict with 'state' and 'param_groups' alone, got {what_came(state)}")
    groups, by_number = state["param_groups"], state["state"]
    if not isinstance(groups, (list, tuple)) or not isinstance(by_number, Mapping):
        raise TypeError("state must have a list as 'param_groups' and a dict as 'state'")
    if len(groups) != len(optimizer.param_groups):
        raise ValueError(f"state must have {len(optimizer.param_groups)} groups, got {len(groups)}")
    options, numbers = [], list[Any]()
    for number, group in enumerate(groups):
        made, of_group = options_of_group(optimizer, group, number)
        options.append(made)
        numbers += of_group
    if unknown := [number for number in by_number if number not in numbers]:
        raise ValueError(f"state['state'] must have the parameters of the groups alone, got {unknown[0]!r}")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"state['param_groups'] must have each parameter once, got {numbers}")
    steps, arrays = [], []
    for place, number in enumerate(numbers):
        counted, made = states_of(optimizer, place, by_number.get(number, {}), f"state['state'][{number!r}]")
        steps.append(counted)
        arrays.append(made)
    count = max(steps, default=0) if counts_steps(optimizer) else optimizer.step_count
    take_over(optimizer, checked(optimizer, count, optimizer.key, options, steps, arrays))


def what_came(state: Any) -> str:
    """What is not in PyTorch's form, for a message."""
    if not isinstance(state, Mapping):
        return _check.type_name(state)
    if "optimizer" in state and "entries" in state:
        return "what state_dict returned; load it with load_state_dict"
    shown = [repr(name) for name in islice(state, 5)]
    more = len(state) - len(shown)
    return f"one with {', '.join(shown) or 'nothing'}" + (f" and {more} more" if more else "")


def options_of_group(optimizer: Optimizer, group: Any, number: int) -> tuple[dict[str, Any], list[Any]]:
    """A group's options, and the numbers of its parameters."""
    where, kept = f"state['param_groups'][{number}]", optimizer.param_groups[number]
    if not isinstance(group, Mapping) or not isinstance(group.get("params"), (list, tuple)):
        raise TypeError(f"{where} must be a dict with a list as 'params', got {_check.shown(group)}")
    if len(group["params"]) != len(kept["params"]):
        raise ValueError(f"{where} must have {len(kept['params'])} parameters, got {len(group['params'])}")
    if group.get("decoupled_weight_decay", optimizer._decoupled) != optimizer._decoupled:
        raise ValueError(
            f"{where} must have decoupled_weight_decay={optimizer._decoupled}, as {type(optimizer).__name__}"
        )
    known = [name for name in optimizer._option_names if name not in OURS_ALONE]
    _arguments.refuse_unknown(group, ("params", "param_names", "decoupled_weight_decay", *known), where)
    made = {name: kept[name] for name in optimizer._option_names if name in OURS_ALONE}
    for name in known:
        if name not in group and name not in SINCE_LATER:
            raise ValueError(f"{where} must have {name!r}, got none")
        made[name] = as_number(group.get(name, SINCE_LATER.get(name)))
    return optimizer._checked_options(made, number), list(group["params"])


def as_number(value: Any) -> Any:
    """An option, which PyTorch may hold in a tensor with one element."""
    if isinstance(value, (list, tuple)):
        return tuple(as_number(entry) for entry in value)
    return value.item() if hasattr(value, "detach") and value.numel() == 1 else value


def states_of(optimizer: Optimizer, place: int, given: Any, where: str) -> tuple[int, dict[str, FloatArray]]:
    """A parameter's count of steps, and its states. Those that PyTorch has not made yet are zeros."""
    name = optimizer._names[place]
    if not isinstance(given, Mapping):
        raise TypeError(f"{where} must be a dict, got {_check.type_name(given)}")
    given = {role: value for role, value in given.items() if value is not None}
    kept, expected = optimizer.state[name], [role for role in optimizer.state[name] if role not in optimizer._later]
    old = int(optimizer._steps[place])
    if not given:
        return 0 if counts_steps(optimizer) else old, {role: np.zeros_like(kept[role]) for role in expected}
    known = [*expected, "step"] if counts_steps(optimizer) else [*optimizer._later]
    if unknown := [role for role in given if role not in known]:
        raise ValueError(f"{where} must have {', '.join(known)}, got {unknown[0]!r}")
    if missing := [role for role in known if role not in given]:
        raise ValueError(f"{where} must have {missing[0]!r}, got none")
    arrays = {role: as_array(f"{where}[{role!r}]", given[role]) for role in given if role != "step"}
    shape = optimizer._params[place].shape
    for role, array in arrays.items():
        _check.match_shape(f"{where}[{role!r}]", array, shape, f"params[{name!r}]")
    if "step" not in given:
        return old, arrays
    return whole_number(f"{where}['step']", as_array(f"{where}['step']", given["step"])), arrays


def as_array(name: str, value: Any) -> FloatArray:
    """An array, or a tensor on any device."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value  # NumPy reads no bfloat16 tensor
    return _check.array(name, value, FLOATS, order="K")


def whole_number(name: str, array: FloatArray) -> int:
    value = float(array) if array.ndim == 0 else -1.0
    if not (0 <= value <= _arguments.MOST_STEPS and value.is_integer()):
        raise ValueError(f"{name} must be a whole number, at least 0, got {_check.shown(array)}")
    return int(value)
