"""What a sharded optimiser keeps: the parameters, and which parts of them this rank updates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
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
from pyreg._param_groups import named
from pyreg._results import FloatArray
from pyreg.mpi._agreement import Agreement
from pyreg.mpi._cpus import share_cpus
from pyreg.mpi._exchange import Exchange
from pyreg.mpi._shards import Part, Shards, flat, shaped

OPS = ("mean", "sum")
REDUCES = ("ordered", "mpi")


def own_comm(comm: Any) -> MPI.Intracomm:
    """A copy of the communicator for pyreg's messages, which cannot be taken for the caller's. It is made once."""
    if not isinstance(comm, MPI.Intracomm) or comm == MPI.COMM_NULL:
        raise TypeError(f"comm must be an mpi4py.MPI.Intracomm, such as MPI.COMM_WORLD, got {_check.type_name(comm)}")
    known: Any = comm.Get_attr(_keyval)
    made: MPI.Intracomm = comm.Dup() if known is None else known
    if known is None:
        share_cpus(made)
        comm.Set_attr(_keyval, made)
    return made


_keyval = MPI.Comm.Create_keyval()


class ShardedParams(Optimizer):
    """Everything but the steps. The base classes keep this rank's parts, as if they were parameters."""

    @contextmanager
    def _set_up(self, comm: Any, op: Any, reduce: Any) -> Iterator[None]:
        """Around the constructor of the other base."""
        self._comm = own_comm(comm)
        self._wholes: list[FloatArray] = []  # every parameter, all of it, and its copy
        self._whole_outs: list[FloatArray] = []
        self._segments: list[tuple[int, Shards]] = []  # by the place of the first parameter
        self._summed: set[int] = set()  # the parameters of which a sum of gradients is held
        with Agreement(self._comm, (), {}) as agreed:
            self._op, self._reduce = one_of("op", op, OPS), one_of("reduce", reduce, REDUCES)
            yield
            agreed.facts = self._facts()

    def _agreement(self, called: str) -> Agreement:
        """That of a method: if ranks call different ones, they are told so."""
        return Agreement(self._comm, self._names, {"the method that is called": called})

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
        before, groups = dict(self.__dict__), len(self.param_groups)
        try:
            with self._agreement("add_param_group") as agreed:
                if self._summed:
                    raise ValueError("add_param_group must be called right after a step, got accumulated gradients")
                super().add_param_group(group, param_out=param_out)
                agreed.facts |= self._facts()
        except Exception:
            self.__dict__.update(before)
            del self.param_groups[groups:]
            raise

    def _add_groups(self, groups: Sequence[Named], outs: Any) -> None:
        known = len(self._names)
        made, params = [], dict[Any, Any]()
        for group in groups:
            if "params" not in group:
                super()._add_groups(groups, outs)  # which says what is wrong
            own = named(group["params"], known + len(params))
            made.append({**group, "params": own})
            params |= own
        names = list(params)
        copies = [] if outs is None else _arguments.in_order("param_out", outs, names, first_of(names, known))
        wholes, whole_outs = [*self._wholes, *params.values()], [*self._whole_outs, *copies]
        arrays = []
        for place, (name, param) in enumerate(zip([*self._names, *names], wholes, strict=True)):
            out = {"param_out": whole_outs[place]} if whole_outs else {}
            arrays.append((name, {"param": param} | out, None))
        _arguments.updatable(arrays)

        wholes, whole_outs = ([plain(array) for array in every] for every in (wholes, whole_outs))
        new = wholes[known:]
        shards = Shards([param.size for param in new], [is_cut(param) for param in new], self._comm.size)
        own_parts = [shards.part(self._comm.rank, i) for i in range(len(new))]
        pieces = {name: piece_of(param, part) for name, param, part in zip(names, new, own_parts, strict=True)}
        for group in made:
            group["params"] = {name: pieces[name] for name in group["params"]}
        out_pieces = [piece_of(*of_one) for of_one in zip(whole_outs[known:], own_parts, strict=bool(whole_outs))]
        super()._add_groups(made, dict(zip(names, out_pieces, strict=True)) if out_pieces else None)

        self._wholes, self._whole_outs = wholes, whole_outs
        self._segments = [*self._segments, (known, shards)]
        for group in self.param_groups[-len(made) :]:
            group["params"] = tuple(params[name] for name in group["param_names"])
        self._kept = [group["params"] for group in self.param_groups]
        self._lay_out()

    def _lay_out(self) -> None:
        """Where this rank's parts are: in the stream of random numbers, and in the buffer of gradients."""
        rank, ranks, start = self._comm.rank, self._comm.size, 0
        self._parts: list[Part] = []
        of_ranks: list[list[Part]] = [[] for _ in range(ranks)]
        self._offsets, self._ends = [], []
        for first, shards in self._segments:
            low, high = shards.starts[rank : rank + 2]
            for i, offset in enumerate(shards.offsets):
                part = shards.part(rank, i)
                self._parts.append(part._replace(place=first + i))
                # An empty part has the place where the shard begins or ends, so all are side by side.
                self._offsets.append(start + min(max(offset, low), high))
                self._ends.append(self._offsets[-1] + part.end - part.begin)
                for other, of_other in shards.parts(i).items():
                    of_ranks[other].append(of_other._replace(place=first + i))
            start += shards.starts[-1]
        dtypes = [compute_dtype(param.dtype) for param in self._wholes]
        self._exchanges: dict[np.dtype[Any], Exchange] = {}
        self._totals: dict[np.dtype[Any], FloatArray] = {}
        self._grads: list[FloatArray] = [np.empty(0)] * len(dtypes)  # of this rank's parts: views of the totals
        for dtype in dict.fromkeys(dtypes):
            of_dtype = [[part for part in parts if dtypes[part.place] == dtype] for parts in of_ranks]
            exchange = self._exchanges[dtype] = Exchange(self._comm, of_dtype)
            total, begin = np.zeros(exchange.size, dtype), 0
            self._totals[dtype] = total
            for part in exchange.parts[rank]:
                end = begin + part.end - part.begin
                like = self._params[part.place]
                self._grads[part.place] = shaped(total[begin:end], like)
                begin = end
            for place, part in enumerate(self._parts):
                if dtypes[place] == dtype and part.begin == part.end:
                    self._grads[place] = np.zeros(self._params[place].shape, dtype)
        self._flat = [flat(array) for array in self._wholes]
        self._flat_outs = [flat(array) for array in self._whole_outs]
        offsets = np.cumsum([0, *[array.size for array in self._wholes]]).tolist()
        outs = self._whole_outs or None
        self._readable = _core.prepare(self._wholes, None, None, None, None, outs, {}, offsets[:-1])

    def _segment_of(self, place: int) -> tuple[int, Shards]:
        """The shards in which this parameter is, and the place that it has there."""
        first, shards = next(one for one in reversed(self._segments) if one[0] <= place)
        return place - first, shards

    def _facts(self) -> dict[str, Any]:
        """What must be the same on all ranks."""
        facts: dict[str, Any] = {"the class": type(self).__name__, "op": self._op, "reduce": self._reduce}
        facts |= {"the names of params": self._names, "rounding": self._rounding, "key": self.key}
        facts |= {"state_dtype": str(self._state_dtype), "param_out": bool(self._whole_outs)}
        for i, options in enumerate(self._options_of_groups()):
            facts[f"the names in param_groups[{i}]"] = self.param_groups[i]["param_names"]
            facts |= {f"{name} of param_groups[{i}]": value for name, value in options.items()}
        for what, arrays in {"params": self._wholes, "param_out": self._whole_outs}.items():
            for name, array in zip(self._names, arrays, strict=False):
                facts[f"the shape of {what}[{name!r}]"] = array.shape
                facts[f"the dtype of {what}[{name!r}]"] = name_of(array.dtype)
                facts[f"the strides of {what}[{name!r}]"] = _model.strides_in_elements(array)
        for name, array in zip(self._names, self._flat, strict=True):
            facts[f"the values of params[{name!r}], by their CRC,"] = crc32(array.view(np.uint8).data)
        return facts


def one_of(name: str, value: Any, names: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{name} must be {' or '.join(map(repr, names))}, got {_check.shown(value)}")
    return str(value)


def plain(array: FloatArray) -> FloatArray:
    return np.ndarray.view(array, np.ndarray)


def is_cut(param: FloatArray) -> bool:
    """Whether a parameter may be cut: its memory has the order of the blocks of `norm_partial`."""
    return param.flags.c_contiguous


def piece_of(array: FloatArray, part: Part) -> FloatArray:
    """This part of the array: one axis, unless it is the whole of an array in another memory order."""
    if not is_cut(array) and part.end - part.begin == array.size:
        return array.view()
    return flat(array)[part.begin : part.end]
