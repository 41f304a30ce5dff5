"""What the optimiser classes share: a step over all parameters, and checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from pyreg import _check, _functions, _optimizer_state, _torch_state
from pyreg import _optimizer_arguments as _arguments
from pyreg._optimizer_params import OptimizerParams
from pyreg._results import FloatArray

Gradients = Mapping[str, npt.ArrayLike | None] | Mapping[int, npt.ArrayLike | None] | Sequence[npt.ArrayLike | None]


class Chosen(NamedTuple):
    """Parameters that one call updates: they have a group, a phase and the kinds of arrays in common."""

    group: int  # its number
    phase: int  # see Optimizer._phase
    places: list[int]  # in the order of all parameters
    offset: int  # of the first parameter's first element, among the elements of all parameters
    arrays: dict[str, list[FloatArray]]  # by role: "param", "exp_avg", ...


def taken(values: list[Any], places: Sequence[int]) -> list[Any]:
    return values if len(places) == len(values) else [values[place] for place in places]


class Optimizer(OptimizerParams):
    """The base class. A subclass says which update it makes, with which options and states."""

    _functions: ClassVar[ModuleType] = _functions  # those of pyreg.reference in its twins
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
            place of a gradient leaves its parameter out: its state waits, and so does its count of steps.
        lr : float, optional
            The learning rate of all groups in this step alone, in place of their own.
        max_norm : float, optional
            Clip the gradients: multiply them by ``clip_coefficient(norm, max_norm)``.
        grad_scale : float, optional
            What to multiply the gradients by, such as 1 divided by the scale of the loss.
        skip_nonfinite : bool, optional
            If True, and the norm is not finite, nothing changes and the step is not counted. A norm above float32's
            largest number counts as infinite, unless all parameters are float64.

        Returns
        -------
        float or None
            The norm of all gradients together, times `grad_scale`, before they are clipped. None without `max_norm`
            and `skip_nonfinite`.

        Raises
        ------
        TypeError, ValueError
            If a gradient does not fit its parameter, a name is missing or unknown, or a number is out of range, also
            one that was written into `param_groups`. Nothing changes then.
        """
        options = self._options_of_groups(lr)
        scale, skip = _check.number("grad_scale", grad_scale), _check.flag("skip_nonfinite", skip_nonfinite)
        max_norm = None if max_norm is None else _check.number("max_norm", max_norm)
        every = _arguments.in_order("grads", grads, self._names, self._first)
        is_whole = type(None) not in set(map(type, every))
        places: Sequence[int] = (
            range(len(every)) if is_whole else [i for i, grad in enumerate(every) if grad is not None]
        )
        norm: float | None = None
        try:
            if max_norm is not None or skip:
                unclipped: float = self._functions.global_norm(taken(every, places)) * scale
                if skip and not unclipped <= self._largest:  # true for NaN
                    return unclipped
                norm = unclipped
                scale *= 1.0 if max_norm is None else self._functions.clip_coefficient(norm, max_norm)
            self._update_sets(self._whole() if is_whole else self._sets(places), every, options, scale)
        except (TypeError, ValueError) as error:
            raise (self._explanation(places, every) or error) from None
        if is_whole:
            self._steps += 1
        else:
            self._steps[places] += 1
            self._prepared = None
        self.step_count += 1
        return norm

    def _whole(self) -> list[Chosen]:
        """The sets of all parameters, which stay the same as long as nobody is left out."""
        if self._prepared is None:
            self._prepared = self._sets(range(len(self._names)))
        return self._prepared

    def _sets(self, places: Iterable[int]) -> list[Chosen]:
        """These parameters in sets that a call can update. With random numbers, their elements are side by side."""
        latest: dict[tuple[int, int], list[int]] = {}
        sets = []
        for place in places:
            kind = self._group_of[place], self._phase(place)
            members = latest.get(kind)
            if members is None or (self._rounding and members[-1] != place - 1):
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
        return {role: [np.ndarray.view(array, np.ndarray) for array in values] for role, values in arrays.items()}

    def _update_sets(self, sets: list[Chosen], every: list[Any], options: list[dict[str, Any]], scale: float) -> None:
        grads = [taken(every, chosen.places) for chosen in sets]
        common: dict[str, Any] = {"grad_scale": scale}
        if self._rounding:
            common |= {"rounding": self._rounding, "key": self._functions.fold_in(self.key, self.step_count + 1)}
        self._prepare(sets, options)
        if len(sets) > 1:
            self._check_together(sets, grads, scale)
        for chosen, of_chosen in zip(sets, grads, strict=True):
            self._update(chosen, of_chosen, self._step_of(chosen), options[chosen.group] | common)

    def _prepare(self, sets: list[Chosen], options: list[dict[str, Any]]) -> None:
        """Make the arrays that only now are needed."""

    def _check_together(self, sets: list[Chosen], grads: list[list[Any]], scale: float) -> None:
        """Raise if the update of some set would, before the first changes anything.

        It is an update of every array that is written, which reads nothing but its first gradient: NaN.
        """
        written, matching = [np.zeros(1)], [np.full(1, np.nan)]
        for chosen, of_chosen in zip(sets, grads, strict=True):
            for arrays in chosen.arrays.values():
                written += arrays
                matching += of_chosen
        self._functions.sgd_update(written, matching, step=1, grad_scale=scale, skip_nonfinite=True)

    def _update(self, chosen: Chosen, grads: list[Any], step: int, options: dict[str, Any]) -> None:
        """Update the parameters of one set. `options` has their group's, and what is common to all groups."""
        arrays, options = chosen.arrays, dict(options)
        unused = self._unused(options)
        if options["ema_decay"] is None:
            del options["ema_decay"]
            unused = (*unused, "ema")
        arrays = {role: values for role, values in arrays.items() if role not in unused}
        if self._rounding:
            options["offset"] = chosen.offset
        update = getattr(self._functions, self._update_name)
        update(grad=grads, step=step, **arrays, **options)

    def _unused(self, options: dict[str, Any]) -> tuple[str, ...]:
        """The states that an update with these options leaves alone. Removes what is no argument of the update."""
        raise NotImplementedError

    def _explanation(self, places: Iterable[int], every: list[Any]) -> Exception | None:
        """An error that says by the parameter's name what is wrong with a gradient, if something is."""
        arrays = []
        for place in places:
            of_one = {role: values[0] for role, values in self._arrays([place]).items()}
            arrays.append((self._names[place], of_one | {"grad": every[place]}))
        try:
            _arguments.require_updatable(arrays)
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
            ``"w.step"``; ``"param_groups[0].lr"`` and the like; ``"step_count"`` and ``"key"``. Those of bfloat16
            are stored as their bits, in uint16, since NumPy's files forget this dtype: ``"w.exp_avg.dtype"`` tells.
        """
        return _optimizer_state.state_dict(self)

    def load_state_dict(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from a state: copy its arrays in place, and take over its options, counts and key.

        `rounding`, `state_dtype` and `param_out` are the constructor's.

        Parameters
        ----------
        state : dict of ndarray
            What `state_dict` returned, or what ``np.load`` returns for a file of it.

        Raises
        ------
        TypeError, ValueError
            If the state is incomplete, or of another class, or has other parameters, shapes or dtypes, or an entry
            that is unknown or out of range. Nothing changes then.
        """
        _optimizer_state.load_state_dict(self, state)

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
