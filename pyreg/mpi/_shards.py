"""Which elements each rank has, and the messages in which they travel.

All parameters together are cut into one shard for each rank, of the same length as far as possible. A parameter is
cut only at multiples of 16,384 elements, in C order, so that the norm of all gradients has the same bits for any
number of ranks: `norm_partial` sums blocks of that size. A parameter in another memory order is not cut at all.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from pyreg._results import FloatArray

BLOCK = 16 * 1024  # elements; as in csrc/block_squares.h
# Elements in a message: a part of a larger array is sent from where it is, smaller ones are packed side by side.
# Around 1 MiB, messages between processes of one machine are fastest. With more than 256 ranks they are smaller,
# because a rank receives one from each at a time.
MOST, LEAST, IN_FLIGHT = 2**18, BLOCK, 2**26


class Part(NamedTuple):
    """A part of a parameter: its place among all, and where the part begins and ends in memory, in elements."""

    place: int
    begin: int
    end: int


Kind = tuple[Hashable, ...]


class Message(NamedTuple):
    """Parts that travel together. In their rank's buffer of gradients, they are side by side."""

    kind: Kind  # what they have in common
    begin: int  # in the buffer
    end: int
    parts: list[Part]


class Shards:
    """The shards of some parameters. `starts` has where each rank's shard begins among all elements, and the end."""

    def __init__(self, sizes: Sequence[int], are_cut: Sequence[bool], ranks: int) -> None:
        self.ends = list(sizes)
        for place in range(1, len(sizes)):
            self.ends[place] += self.ends[place - 1]
        self.offsets = [0, *self.ends[:-1]] if sizes else []
        total = self.ends[-1] if sizes else 0
        place, self.starts = 0, [0]
        for rank in range(1, ranks):
            wanted = total * rank // ranks
            while place < len(sizes) and self.ends[place] <= wanted:
                place += 1
            self.starts.append(self._nearest(wanted, place, are_cut))
        self.starts.append(total)

    def _nearest(self, wanted: int, place: int, are_cut: Sequence[bool]) -> int:
        """Where a cut is allowed that is nearest to `wanted`, which is in this parameter."""
        if place == len(self.ends):
            return wanted
        begin, end = self.offsets[place], self.ends[place]
        below = begin + (wanted - begin) // BLOCK * BLOCK if are_cut[place] else begin
        above = min(below + BLOCK, end) if are_cut[place] else end
        return below if wanted - below <= above - wanted else above

    def part(self, rank: int, place: int) -> Part:
        """The rank's part of this parameter, which may be empty."""
        start, stop = self.starts[rank : rank + 2]
        offset, size = self.offsets[place], self.ends[place] - self.offsets[place]
        return Part(place, min(max(start - offset, 0), size), min(max(stop - offset, 0), size))

    def parts(self, place: int) -> dict[int, Part]:
        """The parts of this parameter that are not empty, by rank."""
        first = bisect_right(self.starts, self.offsets[place]) - 1
        last = bisect_left(self.starts, self.ends[place]) if self.ends[place] > self.offsets[place] else first
        every = {rank: self.part(rank, place) for rank in range(first, last)}
        return {rank: part for rank, part in every.items() if part.end > part.begin}


def most_in_message(ranks: int) -> int:
    return max(LEAST, min(MOST, IN_FLIGHT // ranks))


def messages(parts: Sequence[Part], kinds: Sequence[Kind | None], most: int) -> list[Message]:
    """The parts of a rank in messages of at most `most` elements. Parameters whose kind is None are left out.

    parts: all that the rank has, in the order of its buffer. kinds: of every parameter.
    """
    made: list[Message] = []
    at = 0
    for part in parts:
        kind, size = kinds[part.place], part.end - part.begin
        begin, at = at, at + size
        if kind is None:
            continue
        last = made[-1] if made else None
        if size < LEAST and last and last.kind == kind and last.end == begin and joins(last, size, most):
            last.parts.append(part)
            made[-1] = last._replace(end=at)
            continue
        for first in range(0, size, most):
            piece = Part(part.place, part.begin + first, part.begin + min(first + most, size))
            made.append(Message(kind, begin + first, begin + first + piece.end - piece.begin, [piece]))
    return made


def joins(last: Message, size: int, most: int) -> bool:
    """Whether a small part may be packed into the last message: one of small parts, with room left."""
    first = last.parts[0]
    return first.end - first.begin < LEAST and last.end - last.begin + size <= most


def in_buffer_order(parts: Sequence[Part]) -> list[Part]:
    """The parts that are not empty: those that travel alone before those that are packed."""
    filled = [part for part in parts if part.end > part.begin]
    return sorted(filled, key=lambda part: part.end - part.begin < LEAST)


def flat(array: FloatArray) -> FloatArray:
    """A view of a dense array as one axis, in the order of its memory."""
    if array.flags.c_contiguous:
        return array.reshape(-1)
    return array.transpose(memory_order(array)).reshape(-1)


def shaped(values: FloatArray, like: FloatArray) -> FloatArray:
    """The inverse of `flat`: a view with the shape and the memory layout of `like`."""
    if like.flags.c_contiguous:
        return values.reshape(like.shape)
    order = memory_order(like)
    back = sorted(range(like.ndim), key=order.__getitem__)
    return values.reshape([like.shape[axis] for axis in order]).transpose(back)


def memory_order(array: FloatArray) -> list[int]:
    """The axes of a dense array, from the one with the longest steps on."""
    return sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
