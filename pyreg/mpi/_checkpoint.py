"""States of sharded optimisers: gathered on rank 0, scattered from there, or in a file for each rank.

A file has the entries of `_optimizer_state`, with this rank's parts of the arrays, in C order, as one axis, and:

    shard, shards       the number of this file, and of how many
    checkpoint          a number that all files of one checkpoint have
    parts               of each parameter, where the part begins and ends in C order
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from secrets import randbits
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from mpi4py.util import pkl5

from pyreg import _optimizer_state
from pyreg._optimizer_state import AnyArray, escaped
from pyreg.mpi._exchange import as_bytes
from pyreg.mpi._shards import Part

if TYPE_CHECKING:
    from pyreg.mpi._sharded import Sharded

ROLES = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "ema")
OF_A_FILE = ("shard", "shards", "checkpoint", "parts")
MOST = 2**28  # bytes in a message
MOST_OPEN = 16  # files


class Arrays:
    """Which entries of a state are arrays of the parameters."""

    def __init__(self, optimizer: Sharded) -> None:
        self.optimizer = optimizer
        self.places = {escaped(name): place for place, name in enumerate(optimizer._names)}

    def place_of(self, entry: str) -> int | None:
        """The place of the parameter whose array this entry is; None if it is something else."""
        name, _, role = str(entry).rpartition(".")
        return self.places.get(name) if role in ROLES else None

    def shaped(self, place: int, values: AnyArray) -> AnyArray:
        """What is in C order in the shape that the optimiser has: one axis, unless the parameter is not cut."""
        whole = self.optimizer._wholes[place]
        return values if whole.flags.c_contiguous or values.size < whole.size else values.reshape(whole.shape)


class PartOfWhole(Arrays, Mapping[str, AnyArray]):
    """A rank's parts of a state that has whole arrays."""

    def __init__(self, optimizer: Sharded, rank: int, state: Mapping[str, AnyArray]) -> None:
        super().__init__(optimizer)
        self.rank, self.state = rank, state

    def __getitem__(self, entry: str) -> AnyArray:
        value, place = self.state[entry], self.place_of(entry)
        if place is None or not isinstance(value, np.ndarray):
            return value
        shape = self.optimizer._wholes[place].shape
        if value.shape != shape:
            raise ValueError(f"it must have shape {shape}, got {value.shape}")
        part = part_of(self.optimizer, place, self.rank)
        return self.shaped(place, value.reshape(-1)[part.begin : part.end])

    def __iter__(self) -> Iterator[str]:
        return iter(self.state)

    def __contains__(self, entry: object) -> bool:
        return entry in self.state

    def __len__(self) -> int:
        return len(self.state)


def part_of(optimizer: Sharded, place: int, rank: int) -> Part:
    """The rank's part of this parameter, which may be empty."""
    within, shards = optimizer._segment_of(place)
    return shards.part(rank, within)


# --- all states on rank 0


def gathered(optimizer: Sharded) -> dict[str, AnyArray] | None:
    """The whole state on rank 0."""
    comm = optimizer._comm
    with optimizer._agreement("state_dict") as agreed:
        state, arrays = _optimizer_state.state_dict(optimizer), Arrays(optimizer)
        agreed.facts |= {"the entries of the state": list(state)}
    for entry, array in state.items():
        if (place := arrays.place_of(entry)) is None:
            continue
        own = array.reshape(-1)  # in C order
        if comm.rank > 0:
            for begin in range(0, own.nbytes, MOST):
                comm.Send(as_bytes(own)[begin : begin + MOST], 0)
            continue
        whole = np.empty(optimizer._wholes[place].size, array.dtype)
        within, shards = optimizer._segment_of(place)
        for rank, part in shards.parts(within).items():
            room = whole[part.begin : part.end]
            if rank == 0:
                room[...] = own
            for begin in range(0, room.nbytes if rank else 0, MOST):
                comm.Recv(as_bytes(room)[begin : begin + MOST], rank)
        state[entry] = whole.reshape(optimizer._wholes[place].shape)
    return state if comm.rank == 0 else None


def own_part(optimizer: Sharded, state: Mapping[str, AnyArray] | None) -> Mapping[str, AnyArray]:
    """This rank's part of a state that every rank has, or else rank 0."""
    comm = optimizer._comm
    some_lack = not all(comm.allgather(state is not None))
    large = pkl5.Intracomm(comm)  # sends more than 2 GiB
    for rank in range(1, comm.size if some_lack and comm.rank == 0 else 1):
        try:
            part = dict(PartOfWhole(optimizer, rank, state or {}))
        except Exception:
            part = {}  # this rank finds the same error, and tells the others
        large.send(part, dest=rank)
    if some_lack and comm.rank > 0:
        received: dict[str, AnyArray] = large.recv(source=0)
        return received
    return PartOfWhole(optimizer, comm.rank, state or {})


# --- a file for each rank


class Shard(NamedTuple):
    """A file of a checkpoint, and which parts it has: (parameters, 2)."""

    path: Path
    checkpoint: int
    parts: AnyArray


def path_of(folder: Path, shard: int, shards: int) -> Path:
    return folder / f"shard-{shard:05}-of-{shards:05}.npz"


def numbers_of_shards(folder: Path) -> set[int]:
    """Of how many files the checkpoints are that have a file in this folder."""
    found = (re.fullmatch(r"shard-\d{5,}-of-(\d{5,})\.npz", path.name) for path in folder.iterdir())
    return {int(match[1]) for match in found if match}


def save_shards(optimizer: Sharded, folder: str | os.PathLike[str]) -> None:
    comm, where = optimizer._comm, Path(folder)
    path = path_of(where, comm.rank, comm.size)
    with optimizer._agreement("save_shards"):
        if comm.rank == 0:
            where.mkdir(parents=True, exist_ok=True)
            if others := numbers_of_shards(where) - {comm.size}:
                raise ValueError(
                    f"folder must have no shards but those of {comm.size} ranks, got {where} with those of "
                    f"{min(others)}"
                )
    checkpoint = comm.bcast(randbits(62))
    with optimizer._agreement("save_shards"):
        state, arrays = _optimizer_state.state_dict(optimizer), Arrays(optimizer)
        flat = {name: array if arrays.place_of(name) is None else array.reshape(-1) for name, array in state.items()}
        parts = [part_of(optimizer, place, comm.rank)[1:] for place in range(len(optimizer._names))]
        own = {"shard": comm.rank, "shards": comm.size, "checkpoint": checkpoint, "parts": parts}
        entries: dict[str, Any] = flat | {name: np.array(value, np.int64) for name, value in own.items()}
        written = path.with_name(f".{path.name}.{checkpoint}")
        try:
            with written.open("wb") as file:
                np.savez(file, **entries)
                os.fsync(file.fileno())
            written.replace(path)
        finally:
            written.unlink(missing_ok=True)


def found(optimizer: Sharded, folder: str | os.PathLike[str]) -> list[Path]:
    """The files in this folder, by their numbers."""
    with optimizer._agreement("load_shards") as agreed:
        where = Path(folder)
        numbers = sorted(numbers_of_shards(where))
        if len(numbers) != 1:
            got = f"those of {numbers}" if numbers else "none"
            raise ValueError(f"folder must have the shards of one checkpoint, got {where} with {got}")
        paths = [path_of(where, shard, numbers[0]) for shard in range(numbers[0])]
        if missing := [path for path in paths if not path.exists()]:
            raise ValueError(f"{missing[0]} is missing")
        agreed.facts |= {"the number of shards in the folder": len(paths)}
    return paths


def headers(optimizer: Sharded, paths: list[Path]) -> list[Shard]:
    """What all files say of themselves. Each rank reads some, and tells the others."""
    comm = optimizer._comm
    with optimizer._agreement("load_shards"):
        read = {shard: header(paths, shard) for shard in range(comm.rank, len(paths), comm.size)}
    every = {shard: one for of_rank in comm.allgather(read) for shard, one in of_rank.items()}
    return [every[shard] for shard in range(len(paths))]


def header(paths: list[Path], shard: int) -> Shard:
    path = paths[shard]
    with opened(path) as file:
        numbers = [int(read(path, file, name)) for name in OF_A_FILE[:3]]
        parts = read(path, file, "parts")
    if numbers[:2] != [shard, len(paths)]:
        raise ValueError(f"{path} must be shard {shard} of {len(paths)}, got {numbers[0]} of {numbers[1]}")
    return Shard(path, numbers[2], parts)


def opened(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read, it is incomplete or damaged: {error}") from error


def read(path: Path, file: Mapping[str, AnyArray], entry: str) -> AnyArray:
    try:
        return file[entry]
    except KeyError:
        raise ValueError(f"{path} must have an entry {entry!r}, got none") from None
    except Exception as error:  # what a damaged file raises
        raise ValueError(f"{path} cannot be read, it is incomplete or damaged: {error}") from error


class Assembled(Arrays, Mapping[str, AnyArray]):
    """This rank's parts, read from the files of a checkpoint of any number of ranks."""

    def __init__(self, optimizer: Sharded, shards: list[Shard]) -> None:
        super().__init__(optimizer)
        self.rank, self.shards = optimizer._comm.rank, shards
        self._open: dict[Path, Any] = {}
        self.entries: dict[str, None] = {}

    def check(self) -> None:
        """Raise unless these are the files of one checkpoint, of these parameters."""
        first, sizes = self.shards[0], [whole.size for whole in self.optimizer._wholes]
        for shard in self.shards:
            if shard.checkpoint != first.checkpoint:
                raise ValueError(f"{shard.path} must be of the same checkpoint as {first.path.name}, got another")
            if shard.parts.shape != (len(sizes), 2):
                raise ValueError(f"{shard.path} must be of {len(sizes)} parameters, got {len(shard.parts)}")
        held = np.sum([shard.parts[:, 1] - shard.parts[:, 0] for shard in self.shards], axis=0)
        for name, size, came in zip(self.optimizer._names, sizes, held.tolist(), strict=True):
            if size != came:
                raise ValueError(f"{first.path} and the others must have {size} elements of {name!r}, got {came}")
        self.entries = dict.fromkeys(name for name in self._file(first.path) if name not in OF_A_FILE)

    def __getitem__(self, entry: str) -> AnyArray:
        first = self.shards[0].path
        if (place := self.place_of(entry)) is None:
            return read(first, self._file(first), entry)
        part = part_of(self.optimizer, place, self.rank)
        made = None
        for shard in self.shards:
            begin, end = (int(bound) for bound in shard.parts[place])
            low, high = max(begin, part.begin), min(end, part.end)
            if low >= high:
                continue
            array = read(shard.path, self._file(shard.path), entry)
            if array.shape != (end - begin,):
                raise ValueError(f"{shard.path} must have {end - begin} elements of {entry!r}, got {array.shape}")
            if made is None:
                made = np.empty(part.end - part.begin, array.dtype)
            made[low - part.begin : high - part.begin] = array[low - begin : high - begin]
        if made is None:  # nothing of it is here
            made = self._nothing(entry, place)
        return self.shaped(place, made)

    def _nothing(self, entry: str, place: int) -> AnyArray:
        """An empty array of the dtype that this entry should have: other ranks find out whether it has."""
        role = entry.rpartition(".")[2]
        kept = self.optimizer._kept_arrays(self.optimizer._names[place])
        like = kept[role] if role in kept else self.optimizer._made_later(place)
        return np.empty(0, np.uint16 if f"{entry}.dtype" in self.entries else like.dtype)

    def _file(self, path: Path) -> Any:
        if path not in self._open:
            if len(self._open) == MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            self._open[path] = opened(path)
        return self._open[path]

    def close(self) -> None:
        for file in self._open.values():
            file.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __contains__(self, entry: object) -> bool:
        return entry in self.entries

    def __len__(self) -> int:
        return len(self.entries)
