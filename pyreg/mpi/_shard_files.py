"""A checkpoint in a file for each rank.

A file has the entries of `_optimizer_state`, with this rank's parts of the arrays, in C order, as one axis, and:

    shard, shards       the number of this file, and of how many
    checkpoint          a number that all files of one checkpoint have
    parts               of each parameter, where the part begins and ends in C order
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import randbits
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.lib.npyio import NpzFile

from pyreg import _optimizer_state
from pyreg._dtypes import name_of
from pyreg._optimizer_state import AnyArray
from pyreg.mpi._whole_state import ArrayEntries, PartOfState, facts_of

if TYPE_CHECKING:
    from pyreg.mpi._sharded import Sharded

OF_A_FILE = ("shard", "shards", "checkpoint", "parts")
MOST_OPEN = 16  # files


class ShardFile(NamedTuple):
    """A file of a checkpoint, and which parts it has: (parameters, 2)."""

    path: Path
    checkpoint: int
    parts: AnyArray


def path_of(folder: Path, shard: int, shards: int) -> Path:
    return folder / f"shard-{shard:05}-of-{shards:05}.npz"


def numbers_of_shards(folder: Path) -> set[int]:
    """Of how many files the checkpoints are that have a file in this folder."""
    found = (re.fullmatch(r"shard-\d{5,}-of-(\d{5,})\.npz", path.name) for path in folder.iterdir())
    return {int(match[1]) for match in found if match and int(match[1])}


# --- writing


def save(optimizer: Sharded, folder: str | os.PathLike[str]) -> None:
    comm = optimizer._comm
    with optimizer._agreement("save_shards") as agreed:
        where = Path(folder)
        agreed.facts["folder"] = str(where)
    with optimizer._agreement("save_shards"):
        if comm.rank == 0:
            where.mkdir(parents=True, exist_ok=True)
            if others := numbers_of_shards(where) - {comm.size}:
                got = f"{where} with those of {min(others)}"
                raise ValueError(f"folder must have no shards but those of {comm.size} ranks, got {got}")
    checkpoint = comm.bcast(randbits(62))
    path = path_of(where, comm.rank, comm.size)
    written = path.with_name(f".{path.name}.{checkpoint}")
    try:
        with optimizer._agreement("save_shards") as agreed, written.open("wb") as file:
            entries = entries_of_file(optimizer, checkpoint)
            agreed.facts |= facts_of(optimizer, entries)
            np.savez(file, **entries)
            file.flush()
            os.fsync(file.fileno())
        with optimizer._agreement("save_shards"):
            written.replace(path)
    finally:
        written.unlink(missing_ok=True)


def entries_of_file(optimizer: Sharded, checkpoint: int) -> dict[str, Any]:
    rank, arrays = optimizer._comm.rank, ArrayEntries(optimizer)
    state = _optimizer_state.state_dict(optimizer)
    flat = {name: array if arrays.place_of(name) is None else array.reshape(-1) for name, array in state.items()}
    parts = [optimizer._shards_of(place).part(rank, place)[1:] for place in range(len(optimizer._names))]
    own = rank, optimizer._comm.size, checkpoint, parts
    return flat | {name: np.array(value, np.int64) for name, value in zip(OF_A_FILE, own, strict=True)}


# --- reading


def found(optimizer: Sharded, folder: str | os.PathLike[str]) -> list[ShardFile]:
    """The files in this folder, by their numbers, and what they say of themselves.

    Each rank reads that of some, and tells the others.
    """
    comm = optimizer._comm
    with optimizer._agreement("load_shards") as agreed:
        where = Path(folder)
        numbers = sorted(numbers_of_shards(where))
        if len(numbers) != 1:
            got = f"those of {numbers}" if numbers else "none"
            raise ValueError(f"folder must have the shards of one checkpoint, got {where} with {got}")
        paths = [path_of(where, shard, numbers[0]) for shard in range(numbers[0])]
        if missing := [path for path in paths if not path.exists()]:
            raise ValueError(f"{missing[0]} is missing")
        agreed.facts |= {"folder": str(where), "the number of shards in the folder": len(paths)}
    with optimizer._agreement("load_shards"):
        own = {shard: header(paths, shard) for shard in range(comm.rank, len(paths), comm.size)}
    every = {shard: file for of_rank in comm.allgather(own) for shard, file in of_rank.items()}
    return [every[shard] for shard in range(len(paths))]


def header(paths: list[Path], shard: int) -> ShardFile:
    path = paths[shard]
    with opened(path) as file:
        number, numbers, checkpoint, parts = (read(path, file, name) for name in OF_A_FILE)
    shapes = [array.shape for array in (number, numbers, checkpoint)]
    if shapes != [()] * 3 or any(array.dtype != np.int64 for array in (number, numbers, checkpoint, parts)):
        raise ValueError(f"{path} must have integers as {', '.join(OF_A_FILE)}")
    if parts.ndim != 2 or parts.shape[1] != 2:
        raise ValueError(f"{path} must have two columns as parts, got shape {parts.shape}")
    if (int(number), int(numbers)) != (shard, len(paths)):
        raise ValueError(f"{path} must be shard {shard} of {len(paths)}, got {number} of {numbers}")
    return ShardFile(path, int(checkpoint), parts)


@contextmanager
def damage_is_named(path: Path) -> Iterator[None]:
    """What a damaged file raises becomes a ValueError with its name."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.filename):
            raise
        raise ValueError(f"{path} cannot be read, it is incomplete or damaged: {error}") from error


def opened(path: Path) -> NpzFile:
    with damage_is_named(path):
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, NpzFile):
            raise ValueError("it is no npz file")
        return file


def read(path: Path, file: NpzFile, entry: str) -> AnyArray:
    if entry not in file.files:
        raise ValueError(f"{path} must have an entry {entry!r}, got none")
    with damage_is_named(path):
        array: AnyArray = _optimizer_state.whole_entry(file, entry)
        return array


class PartOfShards(PartOfState):
    """That of a checkpoint of any number of ranks."""

    def __init__(self, optimizer: Sharded, files: list[ShardFile]) -> None:
        super().__init__(optimizer)
        self.files = files
        self._open: dict[Path, NpzFile] = {}
        self._require_one_checkpoint()
        self.entries = dict.fromkeys(name for name in self._file(files[0].path).files if name not in OF_A_FILE)

    def _require_one_checkpoint(self) -> None:
        """Raise unless these are the files of one checkpoint, of these parameters."""
        first, sizes = self.files[0], [whole.size for whole in self.optimizer._wholes]
        for file in self.files:
            if file.checkpoint != first.checkpoint:
                raise ValueError(f"{file.path} must be of the same checkpoint as {first.path.name}, got another")
            if len(file.parts) != len(sizes):
                raise ValueError(f"{file.path} must be of {len(sizes)} parameters, got {len(file.parts)}")
        for place, (name, size) in enumerate(zip(self.optimizer._names, sizes, strict=True)):
            end = 0  # the parts of a parameter follow each other
            for file in self.files:
                begin, stop = file.parts[place].tolist()
                if begin < stop and begin != end:
                    raise ValueError(f"{file.path} must go on with {name!r} at element {end}, got {begin}")
                end = max(end, stop)
            if end != size:
                raise ValueError(f"{first.path} and the others must have {size} elements of {name!r}, got {end}")

    def __getitem__(self, entry: str) -> AnyArray:
        first = self.files[0].path
        if (place := self.place_of(entry)) is None:
            return read(first, self._file(first), entry)
        part = self.optimizer._shards_of(place).part(self.optimizer._comm.rank, place)
        pieces: list[AnyArray] = []
        for file in self.files:
            begin, end = (int(bound) for bound in file.parts[place])
            low, high = max(begin, part.begin), min(end, part.end)
            if low >= high:
                continue
            array = read(file.path, self._file(file.path), entry)
            if array.shape != (end - begin,):
                raise ValueError(f"{file.path} must have {end - begin} elements of {entry!r}, got {array.shape}")
            if pieces and array.dtype != pieces[0].dtype:
                raise ValueError(f"{file.path} must have {entry!r} in {pieces[0].dtype}, got {array.dtype}")
            pieces.append(array[low - begin : high - begin])
        return self.shaped(place, np.concatenate(pieces) if pieces else self._nothing(entry, place))

    def _nothing(self, entry: str, place: int) -> AnyArray:
        """An empty array of the dtype that this entry should have: other ranks find out whether it has."""
        if f"{entry}.dtype" in self.entries:  # the bits of bfloat16
            return np.empty(0, np.uint16)
        role = entry.rpartition(".")[2]
        kept = self.optimizer._kept_arrays(self.optimizer._names[place])
        like = kept[role] if role in kept else self.optimizer._made_later(place)
        return np.empty(0, np.float32 if name_of(like.dtype) == "bfloat16" else like.dtype)

    def _file(self, path: Path) -> NpzFile:
        if path not in self._open:
            if len(self._open) == MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            self._open[path] = opened(path)
        return self._open[path]

    def close(self) -> None:
        for file in self._open.values():
            file.close()
