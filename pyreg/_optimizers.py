"""The optimiser classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, SupportsIndex

import numpy.typing as npt

from pyreg._optimizer import Chosen, Optimizer, StepOptions
from pyreg._optimizer_params import Arrays
from pyreg._param_groups import Params


class Adam(Optimizer):
    """Classic Adam over a model's parameters, with coupled weight decay: `adam_update` with its states.

    Parameters
    ----------
    params
        As in `AdamW`.
    lr, betas, eps : optional
        As in `adam_update`.
    weight_decay : float, optional
        The coefficient of the L2 penalty, at least 0.
    amsgrad, maximize, bias_correction, rounding, key, state_dtype, ema_decay, param_out
        As in `AdamW`.

    Attributes
    ----------
    param_groups, state, ema, step_count, key
        As in `AdamW`.

    Raises
    ------
    TypeError, ValueError
        As in `AdamW`.

    See Also
    --------
    AdamW : Adam with decoupled weight decay, which has an example with groups.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> param = np.array([1.0, -2.0])
    >>> optimizer = pyreg.Adam([param], lr=0.1)
    >>> optimizer.step([np.array([0.5, 0.5])])
    >>> param.round(6)
    array([ 0.9, -2.1])
    """

    _name = "Adam"
    _update_name = "adam_update"
    _option_names = (
        "lr", "betas", "eps", "weight_decay", "amsgrad", "maximize", "bias_correction", "ema_decay",
    )  # fmt: skip
    _state_names = ("exp_avg", "exp_avg_sq")
    _decoupled: ClassVar[bool | None] = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        bias_correction: bool = True,
        rounding: str | Mapping[str, str] = "nearest",
        key: SupportsIndex | None = None,
        state_dtype: npt.DTypeLike | None = None,
        ema_decay: float | None = None,
        param_out: Arrays | None = None,
    ) -> None:
        numbers = lr, betas, eps, weight_decay, amsgrad, maximize, bias_correction, ema_decay
        options = dict(zip(self._option_names, numbers, strict=True))
        super().__init__(params, options, rounding, key, state_dtype, param_out)

    def _begun(self, options: Mapping[str, Any]) -> Sequence[str]:
        return "exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if options["amsgrad"] else [])

    def _phase(self, place: int) -> int:
        return int(self._steps[place])  # which bias_correction needs

    def _step_of(self, chosen: Chosen) -> int:
        return int(self._steps[chosen.places[0]]) + 1

    def _unused(self, options: dict[str, Any]) -> tuple[str, ...]:
        return () if options.pop("amsgrad") else ("max_exp_avg_sq",)


class AdamW(Adam):
    """AdamW over a model's parameters: `adamw_update` with its states, a step for each call of `step`.

    Parameters
    ----------
    params : list or dict of ndarray, or list of dict
        The parameters, which are updated in place: a list or another iterable, or a dict with their names; or groups
        of them, as in PyTorch. A group is a dict with its parameters as ``"params"``, and with options that replace
        those below: `lr`, `betas`, `eps`, `weight_decay`, `amsgrad`, `maximize`, `bias_correction`, `ema_decay`. In
        lists, a parameter's name is its place, counted over all groups in order. See `decay_matrices_only`.
    lr, betas, eps, weight_decay : optional
        As in `adamw_update`.
    amsgrad : bool, optional
        Keep the largest `exp_avg_sq` so far, and divide by it: AMSGrad.
    maximize, bias_correction : bool, optional
        As in `adamw_update`.
    rounding : str or dict, optional
        As in `adamw_update`.
    key : int, optional
        A key for the random numbers, in [0, 2**64). Step n uses ``fold_in(key, n)``. Required if something is
        rounded at random.
    state_dtype : dtype, optional
        The dtype of the states. By default float32, or float64 beside float64. It may be bfloat16.
    ema_decay : float, optional
        If given, `ema` has an average of each parameter, which decays at this rate, in [0, 1).
    param_out : list or dict of ndarray, optional
        For each parameter an array that receives a copy of it, rounded to its dtype, at each step.

    Attributes
    ----------
    param_groups : list of dict
        The options of each group, beside its ``"params"`` and ``"param_names"``. An option that is changed here
        counts from the next step on.
    state : dict of dict of ndarray
        The states of each parameter by its name: ``state["w"]["exp_avg"]``. Write into them, but do not replace them.
    ema : dict of ndarray
        The averages by name, if `ema_decay` is given.
    step_count : int
        How many steps were taken. A step that `skip_nonfinite` skips does not count.
    key : int or None
        The key, as given.

    Raises
    ------
    TypeError
        If an argument has the wrong type or dtype, or there is no key but something is rounded at random.
    ValueError
        If a number is out of range, an array cannot be updated in place, two arrays overlap, an array is listed
        twice, two names are equal as text, or a group has an unknown option.

    See Also
    --------
    adamw_update : The formula, and one step without a class.
    decay_matrices_only : The usual groups.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> model = {"w": np.ones((2, 3)), "b": np.ones(3)}
    >>> groups = [{"params": {"w": model["w"]}}, {"params": {"b": model["b"]}, "weight_decay": 0.0}]
    >>> optimizer = pyreg.AdamW(groups, lr=0.1, weight_decay=0.1)
    >>> grads = {"b": np.full(3, 0.5), "w": np.full((2, 3), 0.5)}
    >>> round(optimizer.step(grads, max_norm=1.0), 4)  # the norm before it is clipped
    1.5
    >>> model["w"][0].round(4), model["b"].round(4)
    (array([0.89, 0.89, 0.89]), array([0.9, 0.9, 0.9]))
    >>> optimizer.param_groups[1]["lr"] = 0.05  # from the next step on
    """

    _name = "AdamW"
    _update_name = "adamw_update"
    _decoupled = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        bias_correction: bool = True,
        rounding: str | Mapping[str, str] = "nearest",
        key: SupportsIndex | None = None,
        state_dtype: npt.DTypeLike | None = None,
        ema_decay: float | None = None,
        param_out: Arrays | None = None,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, bias_correction=bias_correction,
            rounding=rounding, key=key, state_dtype=state_dtype, ema_decay=ema_decay, param_out=param_out,
        )  # fmt: skip


class SGD(Optimizer):
    """Stochastic gradient descent over a model's parameters: `sgd_update` with its momentum buffers.

    Parameters
    ----------
    params
        As in `AdamW`, but a group's options are these: `lr`, `momentum`, `dampening`, `weight_decay`, `nesterov`,
        `maximize`, `ema_decay`.
    lr, momentum, dampening, weight_decay, nesterov, maximize : optional
        As in `sgd_update`.
    rounding, key, state_dtype, ema_decay, param_out
        As in `AdamW`.

    Attributes
    ----------
    param_groups, state, ema, step_count, key
        As in `AdamW`. A parameter's ``momentum_buffer`` is made at its first step with a momentum, which fills it
        with the gradient.

    Raises
    ------
    TypeError, ValueError
        As in `AdamW`.

    See Also
    --------
    sgd_update : The formula, and one step without a class.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> param, grad = np.array([1.0, -2.0]), np.array([0.5, 0.5])
    >>> optimizer = pyreg.SGD([param], lr=0.1, momentum=0.9)
    >>> for _ in range(2):
    ...     optimizer.step([grad])
    >>> param
    array([ 0.855, -2.145])
    """

    _name = "SGD"
    _update_name = "sgd_update"
    _option_names = "lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize", "ema_decay"
    _state_names = _later = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        rounding: str | Mapping[str, str] = "nearest",
        key: SupportsIndex | None = None,
        state_dtype: npt.DTypeLike | None = None,
        ema_decay: float | None = None,
        param_out: Arrays | None = None,
    ) -> None:
        numbers = lr, momentum, dampening, weight_decay, nesterov, maximize, ema_decay
        options = dict(zip(self._option_names, numbers, strict=True))
        super().__init__(params, options, rounding, key, state_dtype, param_out)

    def _begun(self, options: Mapping[str, Any]) -> Sequence[str]:
        return ()

    def _phase(self, place: int) -> int:
        return int("momentum_buffer" in self.state[self._names[place]])

    def _step_of(self, chosen: Chosen) -> int:
        return 1 + chosen.phase  # step 1 fills the buffer with the gradient

    def _unused(self, options: dict[str, Any]) -> tuple[str, ...]:
        return () if options["momentum"] else ("momentum_buffer",)

    def _make_missing(self, sets: list[Chosen], options: list[dict[str, Any]]) -> None:
        for chosen in sets:
            if options[chosen.group]["momentum"] and "momentum_buffer" not in chosen.arrays:
                chosen.arrays["momentum_buffer"] = [self._made_later(place) for place in chosen.places]

    def _update(
        self, places: Sequence[int], every: Sequence[Any], rows: Any, given: StepOptions, scale: float
    ) -> list[Chosen]:
        sets = super()._update(places, every, rows, given, scale)
        filled = [chosen for chosen in sets if given.of_groups[chosen.group]["momentum"] and not chosen.phase]
        for chosen in filled:
            for place, buffer in zip(chosen.places, chosen.arrays["momentum_buffer"], strict=True):
                self.state[self._names[place]]["momentum_buffer"] = buffer
        if filled:
            self._prepared = None
        return sets
