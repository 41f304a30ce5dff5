"""The states of all ranks together, in the format of `_optimizer_state`: gathered on rank 0, or divided again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from mpi4py.util import pkl5

from pyreg import _optimizer_state
from pyreg._model import STATES
from pyreg._optimizer_state import AnyArray, escaped
from pyreg.mpi._exchange import as_bytes

if TYPE_CHECKING:
    from pyreg.mpi._sharded import Sharded

ROLES = (*STATES, "ema")
MESSAGE_BYTES = 2**28


class ArrayEntries:
    """Which entries of a state are arrays of the parameters."""

    def __init__(self, optimizer: Sharded) -> None:
        self.optimizer = optimizer
        self.places = {escaped(name): place for place, name in enumerate(optimizer._names)}

    def place_of(self, entry: object) -> int | None:
        """The place of the parameter whose array this entry is; None if it is something else."""
        name, _, role = str(entry).rpartition(".")
        return self.places.get(name) if role in ROLES else None

    def shaped(self, place: int, values: AnyArray) -> AnyArray:
        """What is in C order in the shape that the optimiser has: one axis, unless the parameter is not cut."""
        whole = self.optimizer._wholes[place]
        return values if whole.flags.c_contiguous or values.size < whole.size else values.reshape(whole.shape)

    def part_of(self, entry: str, value: AnyArray, rank: int) -> AnyArray:
        """A rank's part of an entry of a whole state."""
        place = self.place_of(entry)
        if place is None or not isinstance(value, (np.ndarray, np.generic)):
            return value
        value = np.asarray(value)
        shape = self.optimizer._wholes[place].shape
        if value.shape != shape:
            raise ValueError(f"state[{entry!r}] must have shape {shape}, got {value.shape}")
        part = self.optimizer._shards_of(place).part(rank, place)
        return self.shaped(place, part.of(value.reshape(-1)).copy())


class PartOfState(ArrayEntries, Mapping[str, AnyArray]):
    """This rank's part of a state. An entry is read when it is asked for. A subclass says how, and sets `entries`."""

    entries: Mapping[str, Any]  # by name; what they are is the subclass's own

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __contains__(self, entry: object) -> bool:
        return entry in self.entries

    def __len__(self) -> int:
        return len(self.entries)


class PartOfWhole(PartOfState):
    """That of a state with whole arrays."""

    def __init__(self, optimizer: Sharded, state: Mapping[str, AnyArray]) -> None:
        super().__init__(optimizer)
        self.entries = state

    def __getitem__(self, entry: str) -> AnyArray:
        value = _optimizer_state.whole_entry(self.entries, entry)
        return self.part_of(entry, value, self.optimizer._comm.rank)


def gathered(optimizer: Sharded) -> dict[str, AnyArray] | None:
    """The whole state on rank 0."""
    comm = optimizer._comm
    with optimizer._agreement("state_dict") as agreed:
        state, arrays = _optimizer_state.state_dict(optimizer), ArrayEntries(optimizer)
        agreed.facts |= facts_of(optimizer, state)
        places = {entry: place for entry in state if (place := arrays.place_of(entry)) is not None}
        sizes = {entry: optimizer._wholes[place].size for entry, place in places.items() if comm.rank == 0}
        wholes = {entry: np.empty(size, state[entry].dtype) for entry, size in sizes.items()}
    for entry, place in places.items():
        own = state[entry].reshape(-1)  # in C order
        if comm.rank > 0:
            for begin in range(0, own.nbytes, MESSAGE_BYTES):
                comm.Send(as_bytes(own)[begin : begin + MESSAGE_BYTES], 0)
            continue
        whole = wholes[entry]
        for rank, part in optimizer._shards_of(place).parts(place).items():
            room = part.of(whole)
            if rank == 0:
                room[...] = own
            for begin in range(0, room.nbytes if rank else 0, MESSAGE_BYTES):
                comm.Recv(as_bytes(room)[begin : begin + MESSAGE_BYTES], rank)
        state[entry] = whole.reshape(optimizer._wholes[place].shape)
    return state if comm.rank == 0 else None


def facts_of(optimizer: Sharded, state: Mapping[str, AnyArray]) -> dict[str, Any]:
    """What must be the same on all ranks, if they give away a state together."""
    options = optimizer._options_of_groups()
    counts = {"step_count": optimizer.step_count, "key": optimizer.key, "the options": options}
    return counts | {"the counts of steps": optimizer._steps.tolist(), "the entries of the state": list(state)}


def scattered(optimizer: Sharded, state: Mapping[str, AnyArray] | None) -> Mapping[str, AnyArray]:
    """This rank's part of a state that rank 0 has. Each entry is read once."""
    comm, arrays, made = optimizer._comm, ArrayEntries(optimizer), dict[str, AnyArray]()
    large = pkl5.Intracomm(comm)  # sends more than 2 GiB
    entries: list[str] = []
    with optimizer._agreement("load_state_dict"):
        entries += () if state is None else state
    for entry in comm.bcast(entries):
        parts: list[Any] | None = None
        with optimizer._agreement("load_state_dict"):
            if state is not None:
                value = _optimizer_state.read_entry(state, entry)
                if value.dtype.hasobject:  # which may not be sent
                    raise TypeError(f"state[{entry!r}] must be a numpy.ndarray without objects, got {value.dtype}")
                parts = [arrays.part_of(entry, value, rank) for rank in range(comm.size)]
        made[entry] = large.scatter(parts)
    return made
