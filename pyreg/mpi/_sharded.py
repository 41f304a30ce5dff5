"""What the sharded optimisers share: a step over all ranks, and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

import pyreg._core as _core
from pyreg import _check, _optimizer_state
from pyreg import _optimizer_arguments as _arguments
from pyreg._dtypes import FLOATS, name_of
from pyreg._optimizer import Gradients, StepOptions
from pyreg._results import FloatArray, RowsGradient
from pyreg.mpi import _shard_files, _whole_state
from pyreg.mpi._agreement import Agreement
from pyreg.mpi._messages import Kind
from pyreg.mpi._sharded_params import ShardedParams, facts_of_groups
from pyreg.mpi._shards import flat, shaped


class Sharded(ShardedParams):
    """The base class. A subclass has one of pyreg's optimisers as its second base."""

    _meaning_of_none = "counts as zeros, or leaves a parameter out if it is None on all ranks"

    def accumulate(self, grads: Gradients) -> None:
        """Add the gradients of all ranks to those of the next step. All ranks call this.

        With ``op="mean"``, the mean is that over the ranks: it is not divided by the number of calls. A step uses the
        sums up, also one that is skipped. Loading a state drops them. They are not part of a checkpoint.

        Parameters
        ----------
        grads : dict or list of array_like
            As in `step`.

        Raises
        ------
        TypeError, ValueError
            As in `step`. Nothing is added then.
        """
        with self._agreement("accumulate") as agreed:
            every = self._readable_gradients(grads, agreed)
        with np.errstate(all="ignore"):
            self._add(every, agreed.codes, 1)
        self._has_accumulated = True

    def step(
        self,
        grads: Gradients | None = None,
        *,
        lr: float | None = None,
        max_norm: float | None = None,
        grad_scale: float = 1.0,
        skip_nonfinite: bool = False,
    ) -> float | None:
        """Update all parameters by the gradients of all ranks. All ranks call this.

        Parameters
        ----------
        grads : dict or list of array_like, optional
            This rank's gradient of each parameter by its name, in any order. A list if the parameters came in lists.
            Of float32, float16 or bfloat16, the same on all ranks; float64 if the parameter is float64. They are
            summed in float32, or in float64. None in place of a gradient counts as zeros, but if it is None on all
            ranks, the parameter is left out. Not needed if gradients were accumulated.
        lr, max_norm, grad_scale, skip_nonfinite : optional
            As in the class that is not sharded, and the same on all ranks. A gradient that is infinite or NaN on one
            rank is so for all.

        Returns
        -------
        float or None
            The norm of the mean or the sum of all ranks' gradients, as in the class that is not sharded. All ranks
            get it.

        Raises
        ------
        TypeError, ValueError
            As in the class that is not sharded, or if the ranks differ in an argument, an option or a dtype. It is
            raised on all ranks, and nothing changes then.
        """
        with self._agreement("step") as agreed:
            given = self._step_options(lr, max_norm, grad_scale, skip_nonfinite)
            agreed.facts |= ({} if lr is None else {"lr": given.of_groups[0]["lr"]}) | facts_of_step(given)
            agreed.facts |= {"key": self.key, "whether gradients were accumulated": self._has_accumulated}
            for dtype in self._exchanges:
                _check.finite("grad_scale", given.grad_scale, dtype)
            self._require_ready()
            if grads is None and not self._has_accumulated:
                raise ValueError("grads must be given, unless gradients were accumulated, got None")
            every = None if grads is None else self._readable_gradients(grads, agreed)
        with np.errstate(all="ignore"):  # of numbers beyond the dtype: skip_nonfinite sees them in the norm
            if every is not None and self._comm.size == 1 and not self._summed:
                shard = [None if grad is None else shaped(grad, self._params[i]) for i, grad in enumerate(every)]
            else:
                shard = self._reduced(every, agreed.codes)
            self._has_accumulated = False
            places: Sequence[int] = [place for place, grad in enumerate(shard) if grad is not None]
            places = range(len(shard)) if len(places) == len(shard) else places
            norm = self._take_step(places, shard, None, given)
            if self.step_count != given.step_count:
                self._all_gather(self._flat_outs or self._flat, set(places))
        return norm

    def _require_ready(self) -> None:
        """Raise if something would stop the update, once gradients were exchanged."""
        key: Any = self.key  # which anyone may have changed
        if self._rounding:
            _check.random_key(key)
        for name in self._names:
            for role, array in self._kept_arrays(name).items():
                if not array.flags.writeable:
                    raise ValueError(
                        f"{role}[{name!r}] is written in place and must be writeable, got a read-only array"
                    )

    def gather_params(self) -> None:
        """Complete the parameters on every rank, after steps with `param_out`. All ranks call this.

        Such steps exchange the copies alone, so a rank's parameters are right in its own shard only.
        """
        with self._agreement("gather_params"):
            pass
        self._all_gather(self._flat, set(range(len(self._flat))))

    def _readable_gradients(self, grads: Gradients, agreed: Agreement) -> list[Any]:
        """The gradient of every parameter, as one axis in the parameter's memory order; None where there is none.

        Their dtypes are this rank's codes.
        """
        _, every, rows = self._read(grads)
        if rows is not None:
            place = next(place for place, of_one in enumerate(rows) if of_one is not None)
            raise TypeError(
                f"grads[{self._names[place]!r}] must be an array of all rows or None for a sharded optimiser, got "
                f"{RowsGradient.__name__}"
            )
        if self._readable is None or _core.with_gradients(self._readable, every) is None:
            every = [None if grad is None else self._checked(place, grad) for place, grad in enumerate(every)]
        agreed.codes[:] = [0 if grad is None else FLOATS.index(name_of(grad.dtype)) + 1 for grad in every]
        return [None if grad is None else flat(grad) for grad in every]

    def _checked(self, place: int, grad: Any) -> FloatArray:
        """The gradient of this parameter, in the parameter's layout."""
        name, arrays = self._names[place], {"param": self._wholes[place], "grad": grad}
        if self._whole_outs:
            arrays["param_out"] = self._whole_outs[place]
        return _arguments.updatable([(name, arrays, None)])[0][f"grad[{name!r}]"]

    def _reduced(self, every: list[Any] | None, codes: npt.NDArray[np.uint8]) -> list[Any]:
        """The mean or the sum of all ranks' gradients, of this rank's parts. What was summed so far is part of it."""
        self._average(set() if every is None else self._add(every, codes, self._divisor()))
        summed, self._summed = self._summed, set()
        return [grad if place in summed else None for place, grad in enumerate(self._grads)]

    def _divisor(self) -> int:
        return self._comm.size if self._op == "mean" else 1

    def _average(self, divided: set[int]) -> None:
        """Divide the sums of all parameters but those that are divided already."""
        for place in self._summed - divided:
            self._grads[place] /= self._divisor()

    def _add(self, every: list[Any], codes: npt.NDArray[np.uint8], divisor: int) -> set[int]:
        """Add the gradients of all ranks to the sums, then divide those, and return of which parameters.

        codes: of the gradients' dtypes, if some rank has one.
        """
        kinds: list[Kind | None] = []
        for place, code in enumerate(codes.tolist()):
            kinds.append(Kind(FLOATS[code - 1], place in self._summed) if code else None)
            if code and every[place] is None:  # it has a gradient on another rank
                every[place] = np.zeros(self._flat[place].shape, dtype_named(FLOATS[code - 1]))
        for dtype, exchange in self._exchanges.items():
            ordered = self._reduce == "ordered"
            reduce_scatter = exchange.reduce_scatter if ordered else exchange.reduce_scatter_by_mpi
            reduce_scatter(every, kinds, self._totals[dtype], divisor)
        added = {place for place, kind in enumerate(kinds) if kind is not None}
        self._summed |= added
        return added

    def _norm(self, grads: Sequence[Any]) -> float:
        partials = self._functions.norm_partial(grads)
        counts = self._comm.allgather(len(partials))
        every = np.empty(sum(counts))
        self._comm.Allgatherv(partials, [every, counts])
        norm: float = self._functions.norm_combine(every)
        return norm

    def _all_gather(self, arrays: Sequence[FloatArray], places: set[int]) -> None:
        """Give all ranks this rank's parts of these parameters' arrays, and take theirs."""
        kinds = [Kind(name_of(array.dtype)) if place in places else None for place, array in enumerate(arrays)]
        for exchange in self._exchanges.values() if self._comm.size > 1 else ():
            exchange.all_gather(arrays, kinds)

    # --- checkpoints

    def state_dict(self) -> dict[str, npt.NDArray[Any]] | None:  # type: ignore[override]
        """Return the states of all ranks, on rank 0; None on the others. All ranks call this.

        Returns
        -------
        dict of ndarray or None
            What the class that is not sharded returns, with arrays of the parameters' shapes. So either class reads
            it. Rank 0 needs memory for all states; `save_shards` needs none.
        """
        return _whole_state.gathered(self)

    def load_state_dict(self, state: Mapping[str, npt.NDArray[Any]] | None) -> None:
        """Continue from a state of this class or of the one that is not sharded. All ranks call this.

        Parameters
        ----------
        state : dict of ndarray, or None
            What `state_dict` returned, or what ``np.load`` returns for a file of it: on all ranks, each of which
            takes its part; or on rank 0 alone, which sends the others their parts, and None there.

        Raises
        ------
        TypeError, ValueError
            As in the class that is not sharded, on all ranks. Nothing changes then.
        """
        with self._agreement("load_state_dict"):
            if (state is None and self._comm.rank == 0) or not isinstance(state, (Mapping, type(None))):
                raise TypeError(f"state must be a dict of arrays, on rank 0 at least, got {_check.type_name(state)}")
        if self._comm.allreduce(state is None, MPI.LOR):
            self._load(_whole_state.scattered(self, state if self._comm.rank == 0 else None))
        else:
            assert state is not None
            self._load(_whole_state.PartOfWhole(self, state))

    def save_shards(self, folder: str | PathLike[str]) -> None:
        """Write the states into a folder, each rank its own. All ranks call this.

        Parameters
        ----------
        folder : path
            On a file system that all ranks share. It is made if it does not exist. It then has a file for each
            rank, such as ``shard-00002-of-00004.npz``. They replace those of an earlier checkpoint, once all are
            written. A new folder is safer: if the job ends while files are replaced, neither checkpoint is whole.

        Raises
        ------
        ValueError
            If the folder has shards of another number of ranks, or differs from rank to rank.
        OSError
            If a file cannot be written.
        """
        _shard_files.save(self, folder)

    def load_shards(self, folder: str | PathLike[str]) -> None:
        """Continue from what `save_shards` wrote, with any number of ranks. All ranks call this.

        Parameters
        ----------
        folder : path
            The folder, on a file system that all ranks share. Each rank reads the parts that it needs.

        Raises
        ------
        TypeError, ValueError
            If a file is missing, incomplete or of another checkpoint than the others, or the state does not fit, as
            in `load_state_dict`. The message names the file. It is raised on all ranks, and nothing changes then.
        """
        files = _shard_files.found(self, folder)
        with self._agreement("load_shards"):
            state = _shard_files.PartOfShards(self, files)
        with closing(state):
            self._load(state, str(files[0].path))

    def _load(self, state: Mapping[str, npt.NDArray[Any]], where: str = "") -> None:
        """Take over a state that has this rank's parts of the arrays. where: the file that has its other entries."""
        with self._agreement("load") as agreed:
            try:
                made = _optimizer_state.read(self, state)
            except (TypeError, ValueError) as error:
                if where and ".npz" not in str(error):
                    error.args = (f"in {where}: {error}",)
                raise
            agreed.facts |= {"step_count": made.step_count, "key": made.key, "the options": made.options}
            agreed.facts |= {
                "the counts of steps": made.steps,
                "the states": [sorted(roles) for roles in made.arrays],
            }
        _optimizer_state.take_over(self, made)
        self._summed, self._has_accumulated = set(), False

    def to_torch_state_dict(self) -> dict[str, Any]:
        """Not available: load `state_dict` into the class that is not sharded, which has this method."""
        raise NotImplementedError(
            f"load state_dict() into pyreg.{self._name}, which has this method; a sharded optimiser has not"
        )

    def load_torch_state_dict(self, state: Mapping[str, Any]) -> None:
        """Not available: load PyTorch's state into the class that is not sharded, and its `state_dict` here."""
        raise NotImplementedError(f"load it into pyreg.{self._name}, and the state_dict() of that here")

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled, because it belongs to a communicator")


def facts_of_step(given: StepOptions) -> dict[str, Any]:
    """What a step was given, by what it is called in a message."""
    facts: dict[str, Any] = given._asdict()
    return facts_of_groups(facts.pop("of_groups")) | facts


def dtype_named(name: str) -> np.dtype[Any]:
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes  # another rank has arrays of it

    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16
