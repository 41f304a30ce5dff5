"""What a sharded optimiser keeps: the parameters, and which parts of them this rank updates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, count
from typing import Any, Literal, get_args
from zlib import crc32

import numpy as np
from mpi4py import MPI

import pyreg._core as _core
from pyreg import _check, _model
from pyreg import _optimizer_arguments as _arguments
from pyreg._check import Named
from pyreg._dtypes import compute_dtype, name_of
from pyreg._optimizer import Optimizer
from pyreg._optimizer_params import Arrays, first_of
from pyreg._param_groups import Name, named
from pyreg._results import FloatArray
from pyreg.mpi._agreement import Agreement
from pyreg.mpi._cpus import share_cpus
from pyreg.mpi._exchange import Exchange
from pyreg.mpi._shards import Part, Shards, flat, piece_of, shaped

Op = Literal["mean", "sum"]
Reduce = Literal["ordered", "mpi"]

_keyval = MPI.Comm.Create_keyval(delete_fn=lambda comm, keyval, made: made[0].Free())


def own_comm(comm: Any) -> tuple[MPI.Intracomm, int]:
    """A copy of the communicator for pyreg's messages, which cannot be taken for the caller's. It is made once.

    Also returns how many optimisers have asked for it before.
    """
    if not isinstance(comm, MPI.Intracomm) or comm == MPI.COMM_NULL:
        raise TypeError(f"comm must be an mpi4py.MPI.Intracomm, such as MPI.COMM_WORLD, got {_check.type_name(comm)}")
    known: Any = comm.Get_attr(_keyval)
    if known is None:
        known = comm.Dup(), count()
        share_cpus(known[0])
        comm.Set_attr(_keyval, known)
    return known[0], next(known[1])


class ShardedParams(Optimizer):
    """Everything but the steps. The base classes keep this rank's parts, as if they were parameters."""

    @contextmanager
    def _set_up(self, comm: Any, op: Any, reduce: Any) -> Iterator[None]:
        """Around the constructor of the other base."""
        self._comm, self._number = own_comm(comm)
        self._wholes: list[FloatArray] = []  # every parameter, all of it, and its copy
        self._whole_outs: list[FloatArray] = []
        self._shards: list[Shards] = []  # of the parameters at the start, and of those that were added later
        self._summed: set[int] = set()  # the parameters of which a sum of gradients is held
        self._has_accumulated = False
        with Agreement(self._comm, (), {}) as agreed:
            self._op, self._reduce = one_of("op", op, get_args(Op)), one_of("reduce", reduce, get_args(Reduce))
            yield
            agreed.facts = self._facts(0)

    def _agreement(self, called: str) -> Agreement:
        """That of a method: if ranks call different ones, or of different optimisers, they are told so."""
        facts = {
            "the method that is called": called,
            "the optimiser (by the order in which they were made)": self._number,
        }
        return Agreement(self._comm, self._names, facts)

    def add_param_group(self, group: Mapping[str, Any], *, param_out: Arrays | None = None) -> None:
        """Add parameters, with options of their own. All ranks call this.

        As in the class that is not sharded. The new parameters are cut into shards by themselves.

        Parameters
        ----------
        group : dict
            The parameters as ``"params"``, and options that replace the constructor's.
        param_out : list or dict of ndarray, optional
            The copies of these parameters. Required if the optimiser was made with `param_out`.

        Raises
        ------
        TypeError, ValueError
            As by the constructor, or if gradients were accumulated. Nothing is added then.
        """
        before, groups, known = dict(self.__dict__), len(self.param_groups), len(self._names)
        try:
            with self._agreement("add_param_group") as agreed:
                if self._has_accumulated:
                    raise ValueError("add_param_group must be called right after a step, got accumulated gradients")
                super().add_param_group(group, param_out=param_out)
                agreed.facts |= self._facts(known)
        except Exception:
            self.__dict__.update(before)
            del self.param_groups[groups:]
            raise

    def _add_groups(self, groups: Sequence[Named], outs: Any) -> None:
        known = len(self._names)
        by_group: list[dict[Name, Any]] = []
        for group in groups:
            by_group.append(named(group.get("params", ()), known + sum(map(len, by_group))))
        params = {name: param for own in by_group for name, param in own.items()}
        copies = [] if outs is None else _arguments.in_order("param_out", outs, [*params], first_of([*params], known))
        self._require_updatable([*params], [*params.values()], copies)

        wholes, whole_outs = [plain(array) for array in params.values()], [plain(array) for array in copies]
        shards = Shards(known, wholes, self._comm.size)
        parts = [shards.part(self._comm.rank, place) for place in shards.places]
        pieces, out_pieces = (
            dict(zip(params, map(piece_of, arrays, parts), strict=True)) if arrays else None
            for arrays in (wholes, whole_outs)
        )
        cut = [
            {**group, "params": {name: pieces[name] for name in own}} if pieces and "params" in group else group
            for group, own in zip(groups, by_group, strict=True)
        ]
        super()._add_groups(cut, out_pieces)

        self._wholes, self._whole_outs = self._wholes + wholes, self._whole_outs + whole_outs
        self._shards = [*self._shards, shards]
        for group in self.param_groups[-len(groups) :]:
            group["params"] = tuple(params[name] for name in group["param_names"])
        self._kept = [group["params"] for group in self.param_groups]
        self._place_in_stream()
        self._make_exchanges()
        self._flat = [flat(array) for array in self._wholes]
        self._flat_outs = [flat(array) for array in self._whole_outs]
        self._readable = prepared(self._wholes, self._whole_outs)

    def _require_updatable(self, names: Sequence[Name], params: Sequence[Any], copies: Sequence[Any]) -> None:
        """Raise unless one step can update all parameters, these and those before, and their copies."""
        every, outs = [*self._wholes, *params], [*self._whole_outs, *copies]
        arrays = []
        for place, (name, param) in enumerate(zip([*self._names, *names], every, strict=True)):
            out = {"param_out": outs[place]} if outs else {}
            arrays.append((name, {"param": param} | out, None))
        _arguments.updatable(arrays)

    def _place_in_stream(self) -> None:
        """Where this rank's parts begin and end in the stream of random numbers: among the elements of all."""
        rank, start = self._comm.rank, 0
        self._offsets, self._ends = [], []
        for shards in self._shards:
            low, high = shards.starts[rank : rank + 2]
            # An empty part has the place where the shard begins or ends, so all are side by side.
            self._offsets += [start + min(max(offset, low), high) for offset in shards.offsets]
            self._ends += [start + min(max(end, low), high) for end in shards.ends]
            start += shards.starts[-1]

    def _make_exchanges(self) -> None:
        """By compute dtype: the exchange, and the buffer of this rank's sums of gradients. `_grads` has its parts."""
        dtypes = [compute_dtype(param.dtype) for param in self._wholes]
        self._exchanges: dict[np.dtype[Any], Exchange] = {}
        self._totals: dict[np.dtype[Any], FloatArray] = {}
        self._grads: list[FloatArray] = [
            np.zeros(piece.shape, dtype) if piece.size == 0 else np.empty(0)
            for piece, dtype in zip(self._params, dtypes, strict=True)
        ]
        for dtype in dict.fromkeys(dtypes):
            of_ranks: list[list[Part]] = [[] for _ in range(self._comm.size)]
            for shards in self._shards:
                for place in shards.places:
                    for rank, part in shards.parts(place).items() if dtypes[place] == dtype else ():
                        of_ranks[rank].append(part)
            exchange = self._exchanges[dtype] = Exchange(self._comm, of_ranks)
            total, begin = np.zeros(exchange.size, dtype), 0
            self._totals[dtype] = total
            for part in exchange.parts[self._comm.rank]:
                own, begin = total[begin : begin + part.size], begin + part.size
                self._grads[part.place] = shaped(own, self._params[part.place])

    def _shards_of(self, place: int) -> Shards:
        """The shards in which this parameter is."""
        return next(shards for shards in self._shards if place in shards.places)

    def _facts(self, first: int) -> dict[str, Any]:
        """What must be the same on all ranks. The values of parameters, from place `first` on."""
        facts: dict[str, Any] = {"the class": type(self).__name__, "op": self._op, "reduce": self._reduce}
        facts |= {"the names of params": self._names, "rounding": self._rounding, "key": self.key}
        facts |= {"state_dtype": str(self._state_dtype), "param_out": bool(self._whole_outs)}
        for i, group in enumerate(self.param_groups):
            facts[f"the names in param_groups[{i}]"] = group["param_names"]
        facts |= facts_of_groups(self._options_of_groups())
        for what, arrays in {"params": self._wholes, "param_out": self._whole_outs}.items():
            for name, array in zip(self._names, arrays, strict=False):
                facts[f"the shape of {what}[{name!r}]"] = array.shape
                facts[f"the dtype of {what}[{name!r}]"] = name_of(array.dtype)
                facts[f"the strides of {what}[{name!r}]"] = _model.strides_in_elements(array)
        for name, array in zip(self._names[first:], self._flat[first:], strict=True):
            if self._comm.size > 1:
                facts[f"the CRC of params[{name!r}]"] = crc32(array.view(np.uint8).data)
        return facts


def facts_of_groups(options: Sequence[Named]) -> dict[str, Any]:
    """The options of all groups, by what they are called in a message."""
    return {
        f"{name} of param_groups[{i}]": value for i, of_one in enumerate(options) for name, value in of_one.items()
    }


def prepared(wholes: list[FloatArray], whole_outs: list[FloatArray]) -> object:
    """What _core.with_gradients checks gradients of whole parameters with."""
    no_states, no_average = (None, None, None), None
    offsets = [0, *accumulate(array.size for array in wholes)][: len(wholes)]
    return _core.prepare(wholes, *no_states, no_average, whole_outs or None, {}, offsets)


def one_of(name: str, value: Any, names: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{name} must be {' or '.join(map(repr, names))}, got {_check.shown(value)}")
    return str(value)


def plain(array: FloatArray) -> FloatArray:
    return np.ndarray.view(array, np.ndarray)
