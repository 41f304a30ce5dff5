"""What an optimiser keeps: its parameters in groups, their states, and the options of each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import is_, itemgetter
from typing import Any, ClassVar, SupportsIndex

import numpy as np

from pyreg import _check, _param_groups
from pyreg import _optimizer_arguments as _arguments
from pyreg._check import Named
from pyreg._dtypes import FLOATS, compute_dtype, name_of
from pyreg._param_groups import Name, Params
from pyreg._results import FloatArray

Arrays = Mapping[str, FloatArray] | Mapping[int, FloatArray] | Sequence[FloatArray]


def first_of(names: Sequence[Name], first: int) -> int | None:
    """`first`, if the names are the integers from there on, in any order; else None."""
    return first if set(names) == set(range(first, first + len(names))) else None


def kept(arrays: Mapping[Any, FloatArray]) -> dict[Any, FloatArray]:
    """Views: nobody who has one can take the memory away, so the core need not look at each step."""
    return {key: array.view() for key, array in arrays.items()}


class OptimizerParams:
    """Everything but the steps."""

    _option_names: ClassVar[tuple[str, ...]]  # what may differ from group to group
    _state_names: ClassVar[tuple[str, ...]]  # what may be rounded at random: max_exp_avg_sq takes what is rounded
    _later: ClassVar[tuple[str, ...]] = ()  # states that are made when they are first needed
    _decoupled: ClassVar[bool | None] = None  # PyTorch's name for what tells AdamW from Adam

    param_groups: list[dict[str, Any]]
    state: dict[Name, dict[str, FloatArray]]
    ema: dict[Name, FloatArray]
    step_count: int
    key: int | None

    def __init__(
        self, params: Params, options: Named, rounding: Any, key: SupportsIndex | None, state_dtype: Any, outs: Any
    ) -> None:
        self._defaults = _arguments.checked_options(options)
        self._rounding = _arguments.rounding(rounding, self._can_be_rounded())
        if self._rounding and key is None:
            raise TypeError("key must be given if rounding is stochastic, got None; draw one with pyreg.random_key()")
        self.key = None if key is None else _check.random_key(key)
        self._state_dtype = _arguments.state_dtype(state_dtype)
        self.param_groups, self.state, self.ema, self.step_count = [], {}, {}, 0
        self._names: list[Name] = []
        self._params: list[FloatArray] = []
        self._outs: list[FloatArray] = []
        self._group_of: list[int] = []  # the number of each parameter's group
        # Where each parameter begins and ends in the stream of random numbers: among the elements of all.
        self._offsets: list[int] = []
        self._ends: list[int] = []
        self._steps = np.zeros(0, np.int64)  # how often each parameter was updated
        self._add_groups(_param_groups.groups_of(params), outs)

    def add_param_group(self, group: Mapping[str, Any], *, param_out: Arrays | None = None) -> None:
        """Add parameters, with options of their own.

        They come last: after those of all groups before, in the order of names in a list and in the stream of random
        numbers. Their states begin at zero, and their steps are counted from here on.

        Parameters
        ----------
        group : dict
            The parameters as ``"params"``, and options that replace the constructor's. See the class.
        param_out : list or dict of ndarray, optional
            The copies of these parameters. Required if the optimiser was made with `param_out`.

        Raises
        ------
        TypeError, ValueError
            As by the constructor. Nothing is added then.
        """
        if not isinstance(group, Mapping):
            raise TypeError(f"group must be a dict, got {_check.type_name(group)}")
        if (param_out is None) == bool(self._outs):
            wanted = "be given, as to the constructor" if self._outs else "be None, as it was for the constructor"
            raise TypeError(f"param_out must {wanted}, got {_check.type_name(param_out)}")
        self._add_groups([group], param_out)

    def _add_groups(self, groups: Sequence[Named], outs: Any) -> None:
        made, names, params, options_of = [], list(self._names), list[Any](), list[Named]()
        for number, group in enumerate(groups, len(self.param_groups)):
            options, own = self._group_arguments(group, number, len(names))
            made.append({"params": tuple(own.values()), "param_names": tuple(own), **options})
            names += own
            params += own.values()
            options_of += [options] * len(own)
        _param_groups.require_distinct(names)
        new = names[len(self._names) :]
        copies = [] if outs is None else _arguments.in_order("param_out", outs, new, first_of(new, len(self._names)))
        states = {one[0]: self._new_arrays(*one) for one in zip(new, params, options_of, strict=True)}
        averages = {name: arrays.pop("ema") for name, arrays in states.items() if "ema" in arrays}

        state, ema, every_out = self.state | states, self.ema | averages, self._outs + copies
        every_param = self._params + params
        arrays = []
        for place, (name, param) in enumerate(zip(names, every_param, strict=True)):
            of_one = {"param": param, **state[name]} | ({"ema": ema[name]} if name in ema else {})
            arrays.append((name, of_one | ({"param_out": every_out[place]} if every_out else {}), None))
        _arguments.updatable(arrays)

        self._group_of = self._group_of + [
            len(self.param_groups) + i for i, g in enumerate(made) for _ in g["params"]
        ]
        sizes = [np.ndarray.view(param, np.ndarray).size for param in every_param]  # a subclass may override it
        self._ends = np.cumsum(sizes, dtype=np.int64).tolist()
        self._offsets = [0, *self._ends[:-1]]
        self._steps = np.concatenate([self._steps, np.zeros(len(new), np.int64)])
        self._names, self.state, self.ema, self._outs = names, state, ema, every_out
        self._params = every_param
        self.param_groups += made
        self._kept = [group["params"] for group in self.param_groups]
        self._first = first_of(names, 0)
        self._are_in_order = names == list(range(len(names)))
        self._by_name: Any = itemgetter(*names)
        self._largest = _arguments.largest_norm(self._params)
        self._prepared: Any = None  # what a step makes and the next one uses again
        # By group: its keys, its values, and the checked options.
        self._seen: dict[int, tuple[list[str], list[Any], dict[str, Any]]] = {}

    def _group_arguments(self, group: Named, number: int, start: int) -> tuple[dict[str, Any], dict[Name, Any]]:
        """A group's options and what PyTorch has beside them; and its parameters by name, from place `start` on."""
        where = f"param_groups[{number}]"
        if "params" not in group:
            raise ValueError(f"{where} must have 'params', got {', '.join(map(repr, group)) or 'an empty dict'}")
        given = {name: value for name, value in group.items() if name != "params"}
        if self._decoupled is not None and given.pop("decoupled_weight_decay", self._decoupled) != self._decoupled:
            raise ValueError(f"{where} must have decoupled_weight_decay={self._decoupled}, got {not self._decoupled}")
        _arguments.refuse_unknown(given, ("params", *self._option_names), where)
        options = {name: given.pop(name, default) for name, default in self._defaults.items()}
        return _arguments.checked_options(options, number) | given, _param_groups.named(group["params"], start)

    def _new_arrays(self, name: Name, param: Any, options: Named) -> dict[str, FloatArray]:
        """A parameter's states at the start, and its average."""
        if not issubclass(type(param), np.ndarray) or name_of(param.dtype) not in FLOATS:
            return {}  # which is refused with its name
        dtype = _arguments.dtype_of_states(self._state_dtype, name, param)
        arrays = {role: np.zeros_like(param, dtype, subok=False) for role in self._begun(options)}
        if options["ema_decay"] is not None:
            arrays["ema"] = param.astype(compute_dtype(param.dtype), order="K", subok=False)
        return kept(arrays)

    def _made_later(self, place: int) -> FloatArray:
        """A state that is made when it is first needed."""
        param = self._params[place]
        dtype = _arguments.dtype_of_states(self._state_dtype, self._names[place], param)
        return np.zeros_like(param, dtype, subok=False).view()

    def _kept_arrays(self, name: Name) -> dict[str, FloatArray]:
        """A parameter's states, and its average."""
        return self.state[name] | ({"ema": self.ema[name]} if name in self.ema else {})

    def _can_be_rounded(self) -> Sequence[str]:
        """The roles of the arrays that `rounding` may name."""
        return "param", *self._state_names, "ema", "param_out"

    def _begun(self, options: Named) -> Sequence[str]:
        """The states that a parameter has from the start on."""
        raise NotImplementedError

    def _count(self) -> int:
        """How many steps were taken: `step_count`, which anyone may have changed."""
        return _check.integer("step_count", self.step_count, low=0, high=_arguments.MOST_STEPS)

    def _options_of_groups(self, lr: float | None = None) -> list[dict[str, Any]]:
        """The options of all groups, which anyone may have changed."""
        same = len(self.param_groups) == len(self._kept)
        if not same or any(a["params"] is not b for a, b in zip(self.param_groups, self._kept, strict=True)):
            raise ValueError("param_groups must keep their parameters, got others; add some with add_param_group")
        made = [self._options_of_group(number) for number in range(len(self.param_groups))]
        if lr is not None:
            lr = _check.number("lr", lr)
            made = [options | {"lr": lr} for options in made]
        return made

    def _options_of_group(self, number: int) -> dict[str, Any]:
        group = self.param_groups[number]
        keys, values = [*group], [*group.values()]
        seen_keys, seen, options = self._seen.get(number, ([], [], {}))
        if seen_keys == keys and all(map(is_, seen, values)):
            return options
        known = "params", "param_names", *self._option_names
        _arguments.refuse_unknown(group, known, f"param_groups[{number}]")
        if missing := [name for name in self._option_names if name not in group]:
            raise ValueError(f"param_groups[{number}] must have {missing[0]!r}, got none")
        options = self._checked_options({name: group[name] for name in self._option_names}, number)
        # What needed no conversion cannot change: numbers, and a tuple of them.
        constant = all(options[name] is group[name] for name in options)
        self._seen[number] = (keys if constant else [], values, options)
        return options

    def _checked_options(self, given: Named, number: int) -> dict[str, Any]:
        """Options for this group, each converted. Refused if they need arrays that its parameters do not have."""
        options = _arguments.checked_options(given, number)
        first = next(iter(self.param_groups[number]["param_names"]), None)
        if first is None:
            return options
        arrays = self._kept_arrays(first)
        needed = [*self._begun(options), *([] if options["ema_decay"] is None else ["ema"])]
        if missing := [name for name in needed if name not in arrays]:
            option = {"ema": "ema_decay", "max_exp_avg_sq": "amsgrad"}[missing[0]]
            raise ValueError(
                f"in param_groups[{number}]: {option} must be {None if option == 'ema_decay' else False}, as it was "
                f"at the start, got {options[option]}; pass it to the constructor"
            )
        return options

    def __getstate__(self) -> dict[str, Any]:
        # A copy has options and counts of its own.
        own = {"param_groups": [dict(group) for group in self.param_groups], "_steps": self._steps.copy()}
        own |= {"state": {name: dict(arrays) for name, arrays in self.state.items()}, "ema": dict(self.ema)}
        return self.__dict__ | own | {"_prepared": None, "_seen": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.state = {name: kept(arrays) for name, arrays in self.state.items()}
        self.ema = kept(self.ema)
