"""The parameters of an optimiser: the groups they come in, their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from pyreg import _check
from pyreg._check import Named
from pyreg._results import FloatArray

Name: TypeAlias = str | int  # of a parameter: its key in a dict, or its place in the lists of all groups
Params: TypeAlias = Iterable[Any] | Mapping[str, FloatArray] | Mapping[int, FloatArray]  # arrays, or groups


def decay_matrices_only(params: Iterable[FloatArray] | Mapping[str, FloatArray]) -> list[dict[str, Any]]:
    """Return two groups: parameters with two or more axes, and the others, which do not decay.

    That is the usual choice: matrices, kernels of convolutions and embeddings decay, but biases and the weights of
    norms do not.

    Parameters
    ----------
    params : dict of ndarray, or iterable of ndarray
        The parameters by name, or in a list. Those of a list are named by their places in it, so gradients stay a
        list in the same order.

    Returns
    -------
    list of dict
        The groups, for an optimiser: ``{"params": {...}}`` and ``{"params": {...}, "weight_decay": 0.0}``, without
        one that would be empty. Each has its parameters by name.

    Raises
    ------
    TypeError
        If `params` is something else, or a parameter is not an array.

    See Also
    --------
    AdamW : An optimiser that takes groups.

    Examples
    --------
    >>> import numpy as np, pyreg
    >>> groups = pyreg.decay_matrices_only({"w": np.ones((2, 3)), "b": np.ones(3)})
    >>> [(list(group["params"]), group.get("weight_decay")) for group in groups]
    [(['w'], None), (['b'], 0.0)]
    >>> optimizer = pyreg.AdamW(groups, weight_decay=0.1)
    """
    by_name = named(params if isinstance(params, Mapping) else listed(params), 0)
    for name, param in by_name.items():
        if not isinstance(param, np.ndarray):
            raise TypeError(f"params[{name!r}] must be a numpy.ndarray, got {_check.type_name(param)}")
    matrices = {name: param for name, param in by_name.items() if param.ndim >= 2}
    others = {name: param for name, param in by_name.items() if param.ndim < 2}
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def groups_of(params: Any) -> list[Named]:
    """The parameters as a list of groups, in whichever form they come."""
    if isinstance(params, Mapping):
        if "params" in params and not all(isinstance(value, np.ndarray) for value in params.values()):
            raise TypeError(
                "params must be a list or dict of arrays, or a list of groups, got a dict that is a group; a group "
                "goes into a list: [group]"
            )
        groups: list[Named] = [{"params": params}]
    else:
        given = listed(params)
        of_groups: list[Named] = [entry for entry in given if isinstance(entry, Mapping)]
        if of_groups and len(of_groups) < len(given):
            raise TypeError("params must be arrays alone or groups alone, got some of both in one list")
        groups = of_groups or [{"params": given}]
    if len(groups) == 1 and isinstance(groups[0].get("params"), (list, Mapping)) and not groups[0]["params"]:
        raise ValueError("params must have at least one parameter, got none")
    return groups


def named(params: Any, start: int) -> dict[Name, Any]:
    """Parameters by their names. `start` is the place of the first, if they come without names."""
    if isinstance(params, np.ndarray):
        return {start: params}
    if not isinstance(params, Mapping):
        return dict(enumerate(listed(params), start))
    for name in params:
        if not isinstance(name, (str, int)) or isinstance(name, bool):
            raise TypeError(f"names of params must be strings or integers, got {_check.shown(name)}")
    return dict(params)


def listed(params: Any) -> list[Any]:
    refused = np.ndarray, str, bytes, bytearray, memoryview, set, frozenset  # sets have no order
    if isinstance(params, refused) or hasattr(params, "__array__") or not isinstance(params, Iterable):
        hint = "; pass [params] for one array" if isinstance(params, np.ndarray) else ""
        raise TypeError(
            "params must be a list or dict of arrays, or a list of groups, got " + _check.type_name(params) + hint
        )
    made = list(params)
    if any(isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], (str, int)) for entry in made):
        raise TypeError(
            f"params must be a list or dict of arrays, or a list of groups, got {_check.type_name(params)} of pairs; "
            "pass a dict for names"
        )
    return made


def require_distinct(names: Iterable[Name]) -> None:
    """Raise if two names are the same as text: a state's entries could not tell their parameters apart."""
    seen: set[str] = set()
    for name in names:
        if str(name) in seen:
            raise ValueError(f"names of params must differ, also as text, got {name!r} twice")
        seen.add(str(name))
