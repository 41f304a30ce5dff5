"""What the optimiser classes share: a step over all parameters, and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from pyreg import _check, _core, _functions, _optimizer_state, _torch_state
from pyreg import _optimizer_arguments as _arguments
from pyreg._optimizer_params import OptimizerParams
from pyreg._results import FloatArray, RowsGradient

Gradient = npt.ArrayLike | RowsGradient | None
Gradients = Mapping[str, Gradient] | Mapping[int, Gradient] | Sequence[Gradient]
Options = dict[str, Any]

# The arrays that _core.prepare takes, in order. The momentum buffer has the place of the first moment.
CORE_ROLES = (
    ("param",), ("exp_avg", "momentum_buffer"), ("exp_avg_sq",), ("max_exp_avg_sq",), ("ema",), ("param_out",),
)  # fmt: skip


class Chosen(NamedTuple):
    """Parameters that one call updates: they have a group, a phase and the kinds of arrays in common."""

    group: int  # its number
    phase: int  # see Optimizer._phase
    places: list[int]  # in the order of all parameters
    offset: int  # of the first parameter's first element, among the elements of all parameters
    arrays: dict[str, list[FloatArray]]  # by role: "param", "exp_avg", ...


class StepOptions(NamedTuple):
    """What a step takes beside the gradients."""

    of_groups: list[Options]
    step_count: int  # of the steps before
    grad_scale: float
    max_norm: float | None
    skip_nonfinite: bool


class Prepared:
    """The sets of a step. They are kept, and serve the next step if it is of the same parameters.

    Attributes
    ----------
    places : the parameters, by their places in the order of all
    sets : the sets that they make up
    roles : of each set, the arrays that an update uses
    core : these arrays, which the core has read and checked; None if it has not
    """

    def __init__(self, places: Sequence[int], sets: list[Chosen]) -> None:
        self.places, self.sets = places, sets
        self.roles: list[tuple[str, ...]] = []
        self.core: object | None = None
        order = [place for chosen in sets for place in chosen.places]
        self._in_order = None if order == list(range(len(order))) or len(order) == 1 else itemgetter(*order)
        self._order = order

    def of_sets(self, values: Sequence[Any]) -> Sequence[Any]:
        """The values of the parameters of all sets, one set after the other. `values` has one for each parameter."""
        if self._in_order is not None:
            made: tuple[Any, ...] = self._in_order(values)
            return made
        return values if len(values) == len(self._order) else [values[place] for place in self._order]

    def prepare(self, roles: list[tuple[str, ...]], offsets: Sequence[int], rounding: dict[str, str]) -> None:
        """Let the core read and check all arrays with these roles, if it has not yet."""
        if roles == self.roles:
            return
        self.roles, self.core, lists = [], None, []
        for names in CORE_ROLES:
            arrays: list[FloatArray | None] = []
            for chosen, own in zip(self.sets, roles, strict=True):
                role = next((name for name in names if name in own), None)
                arrays += [None] * len(chosen.places) if role is None else chosen.arrays[role]
            lists.append(arrays if any(array is not None for array in arrays) else None)
        self.core = _core.prepare(*lists, rounding, [offsets[place] for place in self._order])
        self.roles = roles


def read_once(grad: Any) -> Any:
    """A gradient as an array; unchanged, if it cannot be read: then the update says why."""
    if grad is None or type(grad) is np.ndarray:
        return grad
    try:
        return _check.array("grad", grad, order="K")
    except (TypeError, ValueError):
        return grad


def taken(values: Sequence[Any], places: Sequence[int]) -> Sequence[Any]:
    return values if len(places) == len(values) else [values[place] for place in places]


class Optimizer(OptimizerParams):
    """The base class. A subclass says which update it makes, with which options and states."""

    _functions: ClassVar[ModuleType] = _functions  # those of pyreg.reference in its twins
    _has_core: ClassVar[bool] = True  # its twins have none
    _name: ClassVar[str]  # in a state
    _meaning_of_none: ClassVar[str] = "leaves a parameter out of this step"  # in place of a gradient
    _update_name: ClassVar[str]

    def step(
        self,
        grads: Gradients,
        *,
        lr: float | None = None,
        max_norm: float | None = None,
        grad_scale: float = 1.0,
        skip_nonfinite: bool = False,
    ) -> float | None:
        """Update all parameters by their gradients.

        Parameters
        ----------
        grads : dict or list of array_like
            A gradient for each parameter by its name, in any order. A list if the parameters came in lists. None in
            place of a gradient leaves its parameter out: its state waits, and so does its count of steps. What
            `sum_duplicate_rows` returns, in place of a gradient, updates these rows alone.
        lr : float, optional
            The learning rate of all groups in this step alone, in place of their own.
        max_norm : float, optional
            Clip the gradients: multiply them by ``clip_coefficient(norm, max_norm)``. Infinity clips none, and gives
            the norm. Where a gradient is infinite, its parameter becomes NaN, unless `skip_nonfinite` is True.
        grad_scale : float, optional
            What to multiply the gradients by, such as 1 divided by the scale of the loss.
        skip_nonfinite : bool, optional
            If True, and the norm is not finite, nothing changes and the step is not counted. A norm above float32's
            largest number counts as infinite, and is returned as inf, unless all parameters are float64.

        Returns
        -------
        float or None
            The norm of all gradients together, times `grad_scale`, before they are clipped. None without `max_norm`
            and `skip_nonfinite`. With `skip_nonfinite`, ``math.isfinite`` of it tells whether the step was taken.

        Raises
        ------
        TypeError, ValueError
            If a gradient does not fit its parameter, a name is missing or unknown, or a number is out of range, also
            one that was written into `param_groups` or `step_count`. Nothing changes then.
        """
        given = self._step_options(lr, max_norm, grad_scale, skip_nonfinite)
        return self._take_step(*self._read(grads), given)

    def _step_options(self, lr: Any, max_norm: Any, grad_scale: Any, skip_nonfinite: Any) -> StepOptions:
        """The arguments of `step` beside the gradients, checked."""
        options, count = self._options_of_groups(lr), self._count()
        scale, skip = _check.number("grad_scale", grad_scale), _check.flag("skip_nonfinite", skip_nonfinite)
        is_infinite = isinstance(max_norm, float) and max_norm == math.inf
        if max_norm is not None:
            max_norm = math.inf if is_infinite else _check.number("max_norm", max_norm)
        return StepOptions(options, count, scale, max_norm, skip)

    def _read(self, grads: Gradients) -> tuple[Sequence[int], Sequence[Any], list[Any] | None]:
        """The places of the parameters to update; and for every parameter its gradient, and the rows of that."""
        every = self._in_order(grads)
        places: Sequence[int] = range(len(every))
        if _core.are_arrays(every):
            return places, every, None
        kinds, rows = set(map(type, every)), None
        if RowsGradient in kinds:
            rows = [grad.rows if type(grad) is RowsGradient else None for grad in every]
            every = [grad.grad if type(grad) is RowsGradient else grad for grad in every]
        every = [read_once(grad) for grad in every]
        if type(None) in kinds:
            places = [place for place in places if every[place] is not None]
        return places, every, rows

    def _take_step(
        self, places: Sequence[int], every: Sequence[Any], rows: list[Any] | None, given: StepOptions
    ) -> float | None:
        """The step, with what `_read` returned."""
        norm, scale, max_norm = None, given.grad_scale, given.max_norm
        try:
            if max_norm is not None or given.skip_nonfinite:
                unclipped = self._norm(taken(every, places)) * scale
                if given.skip_nonfinite and not unclipped <= self._largest:  # true for NaN
                    return unclipped if math.isnan(unclipped) else math.inf
                norm = unclipped
                if max_norm is not None and max_norm != math.inf:
                    scale *= self._functions.clip_coefficient(norm, max_norm)
            self._update(places, every, rows, given, scale)
        except (TypeError, ValueError) as error:
            raise (self._explanation(places, every, rows) or error) from None
        if len(places) == len(every):
            self._steps += 1
        else:
            self._steps[places] += 1
        self.step_count = given.step_count + 1
        return norm

    def _norm(self, grads: Sequence[Any]) -> float:
        norm: float = self._functions.global_norm(grads)
        return norm

    def _in_order(self, grads: Gradients) -> Sequence[Any]:
        """The gradients in the order of the parameters."""
        if type(grads) is list and self._are_in_order and len(grads) == len(self._names):
            return grads.copy()
        if type(grads) is dict and len(grads) == len(self._names) > 1:
            with suppress(KeyError):
                in_order: Sequence[Any] = self._by_name(grads)
                return in_order
        hint = f"; None {self._meaning_of_none}"
        return _arguments.in_order("grads", grads, self._names, self._first, hint)  # finds out what is wrong

    def _sets(self, places: Iterable[int]) -> list[Chosen]:
        """These parameters in sets that a call can update. With random numbers, their elements are side by side."""
        latest: dict[tuple[int, int], list[int]] = {}
        sets = []
        for place in places:
            kind = self._group_of[place], self._phase(place)
            members = latest.get(kind)
            if members is None or (self._rounding and self._ends[members[-1]] != self._offsets[place]):
                members = latest[kind] = []
                sets.append((kind, members))
            members.append(place)
        return [Chosen(*kind, members, self._offsets[members[0]], self._arrays(members)) for kind, members in sets]

    def _phase(self, place: int) -> int:
        """What the parameters of a set must have in common, beside the group."""
        raise NotImplementedError

    def _step_of(self, chosen: Chosen) -> int:
        """The number of this update of these parameters."""
        raise NotImplementedError

    def _arrays(self, places: Sequence[int]) -> dict[str, list[FloatArray]]:
        """The arrays of these parameters by role. All have those that the first has."""
        names = [self._names[place] for place in places]
        arrays = {"param": [self._params[place] for place in places]}
        arrays |= {role: [self.state[name][role] for name in names] for role in self.state[names[0]]}
        if names[0] in self.ema:
            arrays["ema"] = [self.ema[name] for name in names]
        if self._outs:
            arrays["param_out"] = [self._outs[place] for place in places]
        return arrays

    def _update(
        self, places: Sequence[int], every: Sequence[Any], rows: Any, given: StepOptions, scale: float
    ) -> list[Chosen]:
        """Update these parameters, and return their sets. The lists have an entry for every parameter."""
        options = given.of_groups
        kept = self._prepared
        if kept is None or kept.places != places:
            kept = self._prepared = Prepared(places, self._sets(places))
        common: Options = {"grad_scale": scale}
        if self._rounding:
            common |= {"rounding": self._rounding, "key": self._functions.fold_in(self.key, given.step_count + 1)}
        self._make_missing(kept.sets, options)
        calls = [self._call(chosen, options[chosen.group] | common) for chosen in kept.sets]
        if self._has_core and rows is None and scale <= self._largest:
            kept.prepare([roles for roles, _ in calls], self._offsets, self._rounding)
            together = kept.core and _core.with_gradients(kept.core, kept.of_sets(every))
        else:
            together = None
        if together is None:
            self._update_lists(kept.sets, calls, every, rows, scale)
        else:
            self._update_together(kept.sets, calls, together)
        sets: list[Chosen] = kept.sets
        return sets

    def _update_together(self, sets: list[Chosen], calls: list[Any], together: object) -> None:
        """The update, if the core has read all gradients: `together` has everything."""
        update, begin = getattr(self._functions, self._update_name), 0
        no_states = dict.fromkeys(self._state_names)
        for chosen, (_, options) in zip(sets, calls, strict=True):
            step, end = self._step_of(chosen), begin + len(chosen.places)
            update(together, (begin, end), step=step, **no_states, **options)
            begin = end

    def _update_lists(
        self, sets: list[Chosen], calls: list[Any], every: Sequence[Any], rows: Any, scale: float
    ) -> None:
        """The update, if gradients are converted, or refused, or of some rows."""
        update = getattr(self._functions, self._update_name)
        grads = [taken(every, chosen.places) for chosen in sets]
        of_rows = [None if rows is None else taken(rows, chosen.places) for chosen in sets]
        if len(sets) > 1:
            self._check_together(sets, grads, of_rows, scale)
        for chosen, (roles, options), of_set, own in zip(sets, calls, grads, of_rows, strict=True):
            arrays = {role: chosen.arrays[role] for role in roles}
            place = {"offset": chosen.offset} if self._rounding else {}
            update(grad=of_set, step=self._step_of(chosen), rows=own, **arrays, **options, **place)

    def _check_together(self, sets: list[Chosen], grads: list[Sequence[Any]], rows: list[Any], scale: float) -> None:
        """Raise if the update of some set would, before the first changes anything.

        It is an update of every array that is written. It writes nothing, because its first gradient is NaN.
        """
        written, matching, of_rows = [np.zeros(1)], [np.full(1, np.nan)], [None]
        for chosen, of_set, own in zip(sets, grads, rows, strict=True):
            for arrays in chosen.arrays.values():
                written += arrays
                matching += of_set
                of_rows += own or [None] * len(arrays)
        self._functions.sgd_update(written, matching, step=1, grad_scale=scale, skip_nonfinite=True, rows=of_rows)

    def _make_missing(self, sets: list[Chosen], options: list[Options]) -> None:
        """Make the arrays that only now are needed."""

    def _call(self, chosen: Chosen, options: Options) -> tuple[tuple[str, ...], Options]:
        """The roles of the arrays that the update of a set uses, and the options that it takes."""
        unused = self._unused(options)
        if options["ema_decay"] is None:
            del options["ema_decay"]
            unused = (*unused, "ema")
        return tuple(role for role in chosen.arrays if role not in unused), options

    def _unused(self, options: Options) -> tuple[str, ...]:
        """The states that an update with these options leaves alone. Removes what is no argument of the update."""
        raise NotImplementedError

    def _explanation(self, places: Iterable[int], every: Sequence[Any], rows: Any) -> Exception | None:
        """An error that says by the parameter's name what is wrong with a gradient, if something is."""
        arrays = []
        for place in places:
            of_one = {role: values[0] for role, values in self._arrays([place]).items()}
            own = None if rows is None else rows[place]
            arrays.append((self._names[place], of_one | {"grad": every[place]}, own))
        try:
            _arguments.updatable(arrays)
        except (TypeError, ValueError) as error:
            return error
        return None

    # --- checkpoints

    def state_dict(self) -> dict[str, npt.NDArray[Any]]:
        """Return copies of the states, counts and options, for ``np.savez(file, **state)``.

        The parameters are not in it, nor `param_out`: they are yours to save.

        Returns
        -------
        dict of ndarray
            ``"w.exp_avg"`` and the like for each parameter's states, its average ``"w.ema"`` and its count of steps
            ``"w.step"``; ``"param_groups[0].params"``, the names in the group, and ``"param_groups[0].lr"`` and the
            like; ``"step_count"``, ``"key"`` and ``"rounding"``, the roles of the arrays that are rounded by chance;
            ``"optimizer"``, the name of the class, and ``"entries"``, how many entries there are. Arrays of bfloat16
            are stored as their bits, in uint16, because NumPy's files forget this dtype: then there is an entry
            ``"w.exp_avg.dtype"``, which is ``"bfloat16"``.
        """
        return _optimizer_state.state_dict(self)

    def load_state_dict(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from a state: copy its arrays in place, and take over its options, counts and key.

        Give the constructor again what it was given before: the parameters, with the same names, order and groups;
        `rounding`, with any `key` if it needs one; `state_dtype`, `param_out`, `amsgrad` and `ema_decay`. The other
        options come from the state. It does not have the parameters themselves: load them too.

        Parameters
        ----------
        state : dict of ndarray
            What `state_dict` returned, or what ``np.load`` returns for a file of it.

        Raises
        ------
        TypeError, ValueError
            If the state is incomplete, or of another class, or has another rounding, other parameters, shapes or
            dtypes, or an entry that is unknown or out of range. Nothing changes then.
        """
        _optimizer_state.take_over(self, _optimizer_state.read(self, state))

    def to_torch_state_dict(self) -> dict[str, Any]:
        """Return copies of the states, counts and options in the form that PyTorch's optimisers have.

        Its arrays are NumPy's: make tensors of them for ``load_state_dict`` of PyTorch's class of this name.

        Returns
        -------
        dict
            ``{"state": {0: {"step": ..., "exp_avg": ...}, ...}, "param_groups": [{"lr": ..., "params": [0, 1]}]}``.
            Parameters are numbered over the groups in order. States of bfloat16 are converted to float32.

        Raises
        ------
        ValueError
            If a group has ``bias_correction=False``, which PyTorch has not.
        """
        return _torch_state.to_torch_state_dict(self)

    def load_torch_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of PyTorch's optimiser of this name.

        Averages stay as they are, and so do options that PyTorch has not. Numbers are rounded to the dtype of the
        states here.

        Parameters
        ----------
        state : dict
            What ``state_dict()`` of PyTorch's optimiser returned, with tensors or arrays. As there, parameters are
            matched by their order.

        Raises
        ------
        TypeError, ValueError
            If the state is incomplete, or of another class, or has other groups or shapes, or an entry that is
            unknown or out of range. Nothing changes then.
        """
        _torch_state.load_torch_state_dict(self, state)
