"""How gradients and parameters travel between the ranks: a reduce-scatter and an all-gather.

In both, each rank sends straight to each other one, in rounds: 1 / ranks of its gradients to each, and its own shard
of the parameters to all. For n bytes of either, it sends (ranks - 1) / ranks * n bytes and receives as many, which is
the least possible. Where several ranks share a machine, MPI's own collectives might send less between machines; among
ranks of one machine, they take longer (docs/mpi.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from mpi4py import MPI

from pyreg._functions import sgd_update
from pyreg._results import FloatArray
from pyreg.mpi._messages import Kind, Message, in_buffer_order, messages, most_in_message, packed, unpack
from pyreg.mpi._shards import Part

Plan = list[list[Message]]  # of each rank
Kinds = Sequence[Kind | None]  # of every parameter; None for those that do not travel
PLANS = 8  # that are kept: which parameters have gradients may change from step to step


class Exchange:
    """The exchange of parameters that have the same compute dtype, and of their gradients.

    `parts` has each rank's parts of them, in the order of its buffer of gradients, which has `size` elements here.
    """

    def __init__(self, comm: MPI.Intracomm, parts: Sequence[Sequence[Part]]) -> None:
        self.comm = comm
        self.parts = [in_buffer_order(of_rank) for of_rank in parts]
        self.size = sum(part.size for part in self.parts[comm.rank])
        # A rank begins with the next one, so that not all send to the same.
        self._others = [(comm.rank + i) % comm.size for i in range(1, comm.size)]
        self._plans: dict[tuple[Kind | None, ...], Plan] = {}
        self._buffers: dict[tuple[int, int], FloatArray] = {}

    def reduce_scatter(self, grads: Sequence[FloatArray], kinds: Kinds, total: FloatArray, divisor: int) -> None:
        """Add all ranks' gradients of this rank's shard to `total`, those of rank 0 first. Then divide it.

        grads: of every parameter, as one axis.
        """
        plan = self._plan(kinds)
        own = plan[self.comm.rank]
        receives = [[(rank, message) for rank in self._others] for message in own]
        sends = self._by_round({rank: plan[rank] for rank in self._others})
        for number, arrived in enumerate(self._rounds(receives, sends, grads, {})):
            if number < len(own):
                arrived[self.comm.rank] = packed(own[number], grads)
                terms = [arrived[rank] for rank in range(self.comm.size)]
                add(terms, total[own[number].begin : own[number].end], own[number].kind.has_sum, divisor)

    def reduce_scatter_by_mpi(
        self, grads: Sequence[FloatArray], kinds: Kinds, total: FloatArray, divisor: int
    ) -> None:
        """The same, in the order that MPI_Reduce_scatter chooses."""
        plan = self._plan(kinds)
        for number in range(max(map(len, plan))):
            of_ranks = [of_rank[number] if number < len(of_rank) else None for of_rank in plan]
            sent = [packed(message, grads).astype(total.dtype, copy=False) for message in of_ranks if message]
            counts = [message.size if message else 0 for message in of_ranks]
            sums = np.empty(counts[self.comm.rank], total.dtype)
            self.comm.Reduce_scatter(np.concatenate(sent), sums, counts, op=MPI.SUM)
            if own := of_ranks[self.comm.rank]:
                add([sums], total[own.begin : own.end], own.kind.has_sum, divisor)

    def all_gather(self, arrays: Sequence[FloatArray], kinds: Kinds) -> None:
        """Give all ranks this rank's parts of the arrays, and take theirs.

        arrays: of every parameter, as one axis.
        """
        plan = self._plan(kinds)
        receives = self._by_round({rank: plan[rank] for rank in reversed(self._others)})
        sends = [[(rank, message) for rank in self._others] for message in plan[self.comm.rank]]
        # What is one part arrives where it belongs.
        in_place = {
            (number, rank): message.parts[0].of(arrays[message.parts[0].place])
            for number, of_round in enumerate(receives)
            for rank, message in of_round
            if len(message.parts) == 1
        }
        for number, arrived in enumerate(self._rounds(receives, sends, arrays, in_place)):
            for rank, message in receives[number] if number < len(receives) else ():
                if len(message.parts) > 1:
                    unpack(message, arrived[rank], arrays)

    def _plan(self, kinds: Kinds) -> Plan:
        key = tuple(kinds)
        if key not in self._plans:
            if len(self._plans) == PLANS:
                self._plans.clear()
            most = most_in_message(self.comm.size)
            self._plans[key] = [messages(of_rank, kinds, most) for of_rank in self.parts]
        return self._plans[key]

    def _by_round(self, of_ranks: dict[int, list[Message]]) -> list[list[tuple[int, Message]]]:
        """The first message of each of these ranks, then the second of each, and so on."""
        rounds = max(map(len, of_ranks.values()), default=0)
        return [[(rank, of[i]) for rank, of in of_ranks.items() if i < len(of)] for i in range(rounds)]

    def _rounds(
        self,
        receives: list[list[tuple[int, Message]]],
        sends: list[list[tuple[int, Message]]],
        arrays: Sequence[FloatArray],
        in_place: dict[tuple[int, int], FloatArray],
    ) -> Iterator[dict[int, FloatArray]]:
        """What arrived from each rank, round by round. While one round is read, the next is under way.

        receives, sends: ranks and messages, of each round. in_place: where to receive, by round and rank, if not in a
        buffer.
        """

        def begun(number: int) -> tuple[dict[int, FloatArray], list[MPI.Request]]:
            arriving: dict[int, FloatArray] = {}
            for rank, message in receives[number] if number < len(receives) else ():
                dtype = arrays[message.parts[0].place].dtype
                place = in_place.get((number, rank))
                arriving[rank] = self._buffer(number % 2, rank, message.size, dtype) if place is None else place
            requests = [self.comm.Irecv(as_bytes(array), rank) for rank, array in arriving.items()]
            latest: tuple[Message | None, Any] = None, None  # what is sent to all is packed once
            for rank, message in sends[number] if number < len(sends) else ():
                if message is not latest[0]:
                    latest = message, as_bytes(packed(message, arrays))
                requests.append(self.comm.Isend(latest[1], rank))
            return arriving, requests

        rounds = max(len(receives), len(sends))
        under_way = begun(0)
        for number in range(rounds):
            (arriving, requests), under_way = under_way, begun(number + 1)
            MPI.Request.Waitall(requests)
            yield arriving

    def _buffer(self, turn: int, rank: int, size: int, dtype: np.dtype[Any]) -> FloatArray:
        """Room for a message from this rank, used again two rounds later."""
        room = self._buffers.get((turn, rank))
        if room is None or room.nbytes < size * dtype.itemsize:
            room = self._buffers[turn, rank] = np.empty(size * dtype.itemsize, np.uint8)
        return room[: size * dtype.itemsize].view(dtype)


def add(terms: Sequence[FloatArray], total: FloatArray, has_sum: bool, divisor: int) -> None:
    """Add the terms to `total`, one after the other, or begin with the first of them. Then divide."""
    if not has_sum and len(terms) > 1 and terms[0].dtype == total.dtype:
        np.add(terms[0], terms[1], out=total)
        terms = terms[2:]
    elif not has_sum:
        total.fill(-0.0)  # adding to it changes nothing, not even a zero's sign
    for term in terms:
        # total += term, on all threads, with terms of 16 bits widened.
        sgd_update(total, term, step=1, lr=1.0, maximize=True)
    if divisor > 1:
        total /= divisor


def as_bytes(array: FloatArray) -> FloatArray:
    return array.view(np.uint8)
