"""How gradients and parameters travel between the ranks.

Both go straight from each rank to each other one, in rounds. A rank sends 1 / ranks of its gradients to each, and
its own shard of the parameters to all. For n bytes of either, it sends (ranks - 1) / ranks * n bytes and receives as
many. That is the least possible. Where several ranks share a machine, MPI's own collectives might send less from
machine to machine; between ranks of one machine, they took two to six times as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from mpi4py import MPI

from pyreg._functions import sgd_update
from pyreg._results import FloatArray
from pyreg.mpi._shards import Kind, Message, Part, in_buffer_order, messages, most_in_message

Plan = list[list[Message]]  # of each rank


class Round(NamedTuple):
    """What is under way: the messages that arrive, with the arrays that they arrive in."""

    arriving: list[tuple[Message, FloatArray]]
    requests: list[MPI.Request]


class Exchange:
    """The exchange of parameters that have the same compute dtype, and of their gradients.

    `parts` has each rank's parts of them, in the order of its buffer of gradients.
    """

    def __init__(self, comm: MPI.Intracomm, parts: Sequence[Sequence[Part]]) -> None:
        self.comm = comm
        self.parts = [in_buffer_order(of_rank) for of_rank in parts]
        self.size = sum(part.end - part.begin for part in self.parts[comm.rank])  # of the buffer
        self._others = [(comm.rank + i) % comm.size for i in range(1, comm.size)]
        self._plans: dict[tuple[Kind | None, ...], Plan] = {}
        self._rooms: dict[tuple[int, int], FloatArray] = {}

    def add_in_order(
        self, grads: Sequence[FloatArray], kinds: Sequence[Kind | None], total: FloatArray, divisor: int
    ) -> None:
        """Add the gradients of this rank's shard to `total`, those of rank 0 first. Then divide it.

        grads: of every parameter, as one axis. kinds: None for parameters without a gradient; else, what begins with
        whether `total` has a sum of this parameter already.
        """
        plan = self._plan(kinds)
        own = plan[self.comm.rank]
        for number, arrived in enumerate(self._rounds(plan, grads, own)):
            if number >= len(own):
                continue
            message = own[number]
            of_ranks = {rank: array for rank, (_, array) in zip(self._others, arrived, strict=True)}
            of_ranks[self.comm.rank] = gathered(message, grads)
            part = total[message.begin : message.end]
            add_all([of_ranks[rank] for rank in range(self.comm.size)], part, bool(message.kind[0]))
            divide(part, divisor)

    def add_by_mpi(
        self, grads: Sequence[FloatArray], kinds: Sequence[Kind | None], total: FloatArray, divisor: int
    ) -> None:
        """The same, in the order that MPI_Reduce_scatter chooses."""
        plan = self._plan(kinds)
        for number in range(max(map(len, plan))):
            of_ranks = [of_rank[number] if number < len(of_rank) else None for of_rank in plan]
            sent = [gathered(m, grads).astype(total.dtype, copy=False) for m in of_ranks if m]
            counts = [m.end - m.begin if m else 0 for m in of_ranks]
            sums = np.empty(counts[self.comm.rank], total.dtype)
            self.comm.Reduce_scatter(np.concatenate(sent), sums, counts, op=MPI.SUM)
            if message := of_ranks[self.comm.rank]:
                part = total[message.begin : message.end]
                add_all([sums], part, bool(message.kind[0]))
                divide(part, divisor)

    def share(self, arrays: Sequence[FloatArray], kinds: Sequence[Kind | None]) -> None:
        """Give all ranks this rank's parts of the arrays, and take theirs.

        arrays: of every parameter, as one axis. kinds: None for those that are left as they are.
        """
        if self.comm.size == 1:
            return
        for arrived in self._rounds(self._plan(kinds), arrays, None):
            for message, array in arrived:
                if len(message.parts) > 1:
                    begin = 0
                    for part in message.parts:
                        end = begin + part.end - part.begin
                        arrays[part.place][part.begin : part.end] = array[begin:end]
                        begin = end

    def _plan(self, kinds: Sequence[Kind | None]) -> Plan:
        key = tuple(kinds)
        if key not in self._plans:
            if len(self._plans) >= 8:  # which parameters have gradients may change from step to step
                self._plans.clear()
            most = most_in_message(self.comm.size)
            self._plans[key] = [messages(of_rank, kinds, most) for of_rank in self.parts]
        return self._plans[key]

    def _rounds(
        self, plan: Plan, arrays: Sequence[FloatArray], own: list[Message] | None
    ) -> Iterator[list[tuple[Message, FloatArray]]]:
        """What arrives in each round: the messages and what they hold, from the next rank to the one before.

        own: the messages that arrive from every rank, to be added up. None, if every rank receives what is another's,
        into the arrays. While one round is read, the next is under way.
        """
        rounds = max(map(len, plan))
        now = self._begun(0, plan, arrays, own) if rounds else None
        for number in range(rounds):
            assert now
            following = self._begun(number + 1, plan, arrays, own) if number + 1 < rounds else None
            MPI.Request.Waitall(now.requests)
            yield now.arriving
            now = following

    def _begun(self, number: int, plan: Plan, arrays: Sequence[FloatArray], own: list[Message] | None) -> Round:
        """A round under way."""
        arriving, requests = [], []
        for rank in reversed(self._others) if own is None else self._others:
            source = plan[rank] if own is None else own
            if number >= len(source):
                continue
            message = source[number]
            array = self._room(number, rank, message, arrays, own is None)
            arriving.append((message, array))
            requests.append(self.comm.Irecv(as_bytes(array), rank))
        mine = plan[self.comm.rank]
        data = gathered(mine[number], arrays) if own is None and number < len(mine) else None
        for rank in self._others:
            if own is not None:
                data = gathered(plan[rank][number], arrays) if number < len(plan[rank]) else None
            if data is not None:
                requests.append(self.comm.Isend(as_bytes(data), rank))
        return Round(arriving, requests)

    def _room(
        self, number: int, rank: int, message: Message, arrays: Sequence[FloatArray], in_place: bool
    ) -> FloatArray:
        """Where a message is received: in its array itself, if that is possible."""
        first = message.parts[0]
        array = arrays[first.place]
        if in_place and len(message.parts) == 1:
            return array[first.begin : first.end]
        size = (message.end - message.begin) * array.itemsize
        room = self._rooms.get((number % 2, rank))
        if room is None or room.nbytes < size:
            room = self._rooms[number % 2, rank] = np.empty(size, np.uint8)
        return room[:size].view(array.dtype)


def gathered(message: Message, arrays: Sequence[FloatArray]) -> FloatArray:
    """What a message holds: a view, if that is one part of one array."""
    parts = [arrays[part.place][part.begin : part.end] for part in message.parts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def add_all(arrays: Sequence[FloatArray], total: FloatArray, has_sum: bool) -> None:
    """Add the arrays to `total`, one after the other. Without a sum in it, begin with the first array."""
    if not has_sum and len(arrays) > 1 and arrays[0].dtype == total.dtype:
        np.add(arrays[0], arrays[1], out=total)
        arrays = arrays[2:]
    elif not has_sum:
        total.fill(-0.0)  # adding to it changes nothing, not even a zero's sign
    for array in arrays:
        # total += array, on all threads, with arrays of 16 bits widened.
        sgd_update(total, array, step=1, lr=1.0, maximize=True)


def divide(total: FloatArray, divisor: int) -> None:
    if divisor > 1:
        total /= divisor


def as_bytes(array: FloatArray) -> FloatArray:
    return array.view(np.uint8)
