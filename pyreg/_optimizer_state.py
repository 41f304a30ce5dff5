"""The state of an optimiser as a flat dict of arrays, which np.savez writes and np.load reads without pickle.

The entries:

    optimizer                   the name of the class
    entries                     how many entries there are
    step_count, key             numbers; `key` is empty if there is none
    rounding                    the roles of the arrays that are rounded by chance: "param", "exp_avg", ...
    param_groups[i].params      the names in group i, in order
    param_groups[i].lr, ...     its options; `ema_decay` is empty if it is None
    <name>.step                 how often this parameter was updated
    <name>.exp_avg, ...         its states and its average, ema
    <name>.exp_avg.dtype        "bfloat16", if the entry beside it holds the bits of that dtype

What follows the last dot tells what an entry is, so no two parameters share one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile

from pyreg import _check
from pyreg import _optimizer_arguments as _arguments
from pyreg._dtypes import name_of
from pyreg._param_groups import Name
from pyreg._results import FloatArray

if TYPE_CHECKING:
    from pyreg._optimizer import Optimizer

AnyArray = npt.NDArray[Any]


def escaped(name: Name) -> str:
    """The name in an entry: what a zip file's names cannot hold is written as "%0;", by its number in hexadecimal."""
    return re.sub(r"[%\\\0\ud800-\udfff]", lambda found: f"%{ord(found[0]):x};", str(name))


def state_dict(optimizer: Optimizer) -> dict[str, AnyArray]:
    made: dict[str, AnyArray] = {
        "optimizer": np.array(optimizer._name),
        "step_count": np.array(optimizer._count(), np.int64),
        "key": optional(optimizer.key, np.uint64),
        "rounding": np.array([*optimizer._rounding], np.str_),
    }
    for i, options in enumerate(optimizer._options_of_groups()):
        made[f"param_groups[{i}].params"] = names_of_group(optimizer, i)
        for option, value in options.items():
            made[f"param_groups[{i}].{option}"] = optional(value) if option == "ema_decay" else np.array(value)
    for name, steps in zip(optimizer._names, optimizer._steps, strict=True):
        made[f"{escaped(name)}.step"] = np.array(steps, np.int64)
        for role, array in optimizer._kept_arrays(name).items():
            entry = f"{escaped(name)}.{role}"
            made[entry] = np.copy(array)
            if name_of(array.dtype) == "bfloat16":
                made[entry] = made[entry].view(np.uint16)
                made[f"{entry}.dtype"] = np.array("bfloat16")
    made["entries"] = np.array(len(made) + 1, np.int64)
    return made


def optional(value: Any, dtype: Any = np.float64) -> AnyArray:
    return np.array([] if value is None else [value], dtype)


def names_of_group(optimizer: Optimizer, number: int) -> AnyArray:
    return np.array([escaped(name) for name in optimizer.param_groups[number]["param_names"]], np.str_)


# --- reading


class State(NamedTuple):
    """A state that was read and checked. The lists have an entry for each group, or for each parameter."""

    step_count: int
    key: int | None
    options: list[dict[str, Any]]
    steps: list[int]
    arrays: list[dict[str, AnyArray]]  # the states of each parameter, and its average if that changes
    later: list[dict[str, AnyArray]]  # where those states go that are made when they are first needed


def read(optimizer: Optimizer, state: Mapping[str, AnyArray]) -> State:
    """The state, which fits the optimiser. Nothing changes yet."""
    entries = Entries(state)
    if (made_by := str(entries.read("optimizer", np.str_))) != optimizer._name:
        raise ValueError(f"state must be of {optimizer._name}, got one of {made_by}")
    step_count, key = entries.count("step_count"), entries.optional("key", np.uint64)
    require_rounding(optimizer, entries.read("rounding", np.str_, None).tolist())
    if key is None and optimizer._rounding:
        raise ValueError("state['key'] must have the key of the run if rounding is stochastic, got none")
    options = [options_of_group(optimizer, entries, i) for i in range(len(optimizer.param_groups))]
    steps, arrays = [], []
    for place, name in enumerate(optimizer._names):
        own = escaped(name)
        steps.append(entries.count(f"{own}.step"))
        wanted = optimizer._kept_arrays(name)
        for role in optimizer._later:
            wanted.pop(role, None)
            if f"{own}.{role}" in state:
                wanted[role] = optimizer._made_later(place)
        arrays.append({role: entries.like(f"{own}.{role}", array) for role, array in wanted.items()})
    entries.require_all_read()
    return checked(optimizer, step_count, optimizer.key if key is None else int(key), options, steps, arrays)


def require_rounding(optimizer: Optimizer, stochastic: list[str]) -> None:
    """Raise unless the same arrays are rounded by chance: the run would go on with other bits."""
    roles = optimizer._can_be_rounded()
    if unknown := [role for role in stochastic if role not in roles]:
        raise ValueError(f"state['rounding'] must have names among {', '.join(roles)}, got {unknown[0]!r}")
    if set(stochastic) != set(optimizer._rounding):
        own, came = (_arguments.shown_rounding(those, roles) for those in ([*optimizer._rounding], stochastic))
        raise ValueError(
            f"state must be of an optimiser with rounding={own}, got one with rounding={came}; pass that to the "
            "constructor"
        )


def options_of_group(optimizer: Optimizer, entries: Entries, number: int) -> dict[str, Any]:
    where = f"param_groups[{number}]"
    names = entries.read(f"{where}.params", np.str_, None).tolist()
    for came, own in zip_longest(names, names_of_group(optimizer, number).tolist()):
        if came != own:
            place = "after the last" if own is None else f"in place of {own!r}"
            got = f"{'nothing' if came is None else repr(came)} {place}"
            raise ValueError(f"state must have the parameters of {where} in their order, got {got}")
    made: dict[str, Any] = {}
    for option in optimizer._option_names:
        entry = f"{where}.{option}"
        if option == "ema_decay":
            made[option] = entries.optional(entry, np.float64)
        elif option == "betas":
            made[option] = tuple(entries.read(entry, np.float64, (2,)).tolist())
        else:
            made[option] = entries.read(entry, np.bool_ if option in _arguments.FLAGS else np.float64).item()
    return optimizer._checked_options(made, number)


def checked(
    optimizer: Optimizer,
    step_count: int,
    key: int | None,
    options: list[dict[str, Any]],
    steps: list[int],
    arrays: list[dict[str, AnyArray]],
) -> State:
    """The state, which can be taken over."""
    later = []
    for place, (name, made) in enumerate(zip(optimizer._names, arrays, strict=True)):
        new = {role: optimizer._made_later(place) for role in made if role in optimizer._later}
        later.append({role: optimizer.state[name].get(role, array) for role, array in new.items()})
        for role, array in (optimizer._kept_arrays(name) | new).items():
            if role in made and not array.flags.writeable:
                raise ValueError(f"state of params[{name!r}]: {role} is read-only here, and cannot be overwritten")
    # They might be views of this optimiser's own.
    arrays = [{role: array if array.base is None else array.copy() for role, array in a.items()} for a in arrays]
    return State(step_count, key, options, steps, arrays, later)


def take_over(optimizer: Optimizer, state: State) -> None:
    """Take over what was read. Nothing here can fail."""
    for name, made, of_one in zip(optimizer._names, state.arrays, state.later, strict=True):
        for role in optimizer._later:
            optimizer.state[name].pop(role, None)
        optimizer.state[name].update(of_one)
        kept = optimizer._kept_arrays(name)
        with np.errstate(all="ignore"):  # a cast may overflow
            for role, array in made.items():
                kept[role][...] = array
    for group, of_group in zip(optimizer.param_groups, state.options, strict=True):
        group.update(of_group)
    optimizer._steps[:] = state.steps
    optimizer._prepared = None
    optimizer.step_count, optimizer.key = state.step_count, state.key


class Entries:
    """The entries of a state. Each is read once, and what is left is unknown."""

    def __init__(self, state: Mapping[str, AnyArray]) -> None:
        if not isinstance(state, Mapping):
            raise TypeError(f"state must be a dict of arrays, got {_check.type_name(state)}")
        if "param_groups" in state:
            raise TypeError(
                "state must be what state_dict returned, got PyTorch's form; load it with load_torch_state_dict"
            )
        self._state, self._unread = state, dict.fromkeys(state)

    def read(self, name: str, dtype: Any, shape: tuple[int, ...] | None = ()) -> AnyArray:
        """The array of this name, if it has this dtype and shape. None stands for any shape with one axis."""
        return matching(name, self.array(name), dtype, shape)

    def array(self, name: str) -> AnyArray:
        """The array of this name, whatever it is."""
        if name not in self._state:
            raise ValueError(f"state must have an entry {name!r}, got none")
        value = read_entry(self._state, name)
        self._unread.pop(name, None)
        return value

    def like(self, name: str, array: FloatArray) -> FloatArray:
        """The array of this name, if it has the dtype and shape of `array`."""
        value, wanted = self.array(name), name_of(array.dtype)
        are_bits = value.dtype == np.uint16 and (wanted == "bfloat16" or f"{name}.dtype" in self._state)
        got = "bfloat16" if are_bits else value.dtype.name
        if got != wanted and "bfloat16" in (got, wanted):
            chosen = {got, wanted} == {"float32", "bfloat16"} and not name.endswith(".ema")
            hint = f"; pass state_dtype={got!r} to the constructor" if chosen else ""
            raise TypeError(f"state[{name!r}] must be {as_stored(wanted)}, got {as_stored(got)}{hint}")
        if wanted != "bfloat16":
            return matching(name, value, array.dtype, array.shape)
        bits = matching(name, value, np.uint16, array.shape)
        dtype = str(self.read(f"{name}.dtype", np.str_))
        if dtype != "bfloat16":
            raise ValueError(f"state['{name}.dtype'] must be bfloat16, got {dtype}")
        return bits.astype(np.uint16, copy=False).view(array.dtype)

    def count(self, name: str) -> int:
        return _check.integer(f"state[{name!r}]", self.read(name, np.int64), low=0, high=_arguments.MOST_STEPS)

    def optional(self, name: str, dtype: Any) -> Any:
        """The number in an array of one element, or None if the array is empty."""
        array = self.read(name, dtype, None)
        if array.size > 1:
            raise ValueError(f"state[{name!r}] must have at most one element, got {array.size}")
        return array.item() if array.size else None

    def require_all_read(self) -> None:
        entries = self.count("entries")
        if self._unread:
            raise ValueError(f"state must have no entry that is unknown, got {next(iter(self._unread))!r}")
        if entries != len(self._state):
            raise ValueError(f"state must have {entries} entries, as when it was made, got {len(self._state)}")


def read_entry(state: Mapping[str, AnyArray], name: str) -> AnyArray:
    """The array of this name, which the state has."""
    try:
        value = whole_entry(state, name)
    except MemoryError:
        raise
    except Exception as error:  # what a damaged file, or one with pickled objects, raises
        raise ValueError(f"state[{name!r}] cannot be read: {error}") from error
    if not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"state[{name!r}] must be a numpy.ndarray, got {_check.type_name(value)}")
    return np.asarray(value)


def whole_entry(state: Mapping[str, Any], entry: str) -> Any:
    """An entry as it is; of an npz file with every byte read, for only then is it compared with its check sum."""
    if not isinstance(state, NpzFile):
        return state[entry]
    with state.zip.open(f"{entry}.npy") as member:  # type: ignore[union-attr]
        array = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):
            raise ValueError(f"{entry} has more bytes than its header says")
    return array


def matching(name: str, array: AnyArray, dtype: Any, shape: tuple[int, ...] | None) -> AnyArray:
    """The array, an entry of this name, if it has this dtype and shape."""
    wanted = np.dtype(dtype)
    if array.dtype.newbyteorder("=") != wanted and not (array.dtype.kind == wanted.kind == "U"):
        raise TypeError(f"state[{name!r}] must be {wanted}, got {array.dtype}")
    if array.ndim != 1 if shape is None else array.shape != shape:
        expected = "one axis" if shape is None else f"shape {shape}"
        raise ValueError(f"state[{name!r}] must have {expected}, got shape {array.shape}")
    return array


def as_stored(dtype: str) -> str:
    return f"{dtype} (as its bits)" if dtype == "bfloat16" else dtype
