"""Which elements each rank updates.

Parameters are cut into one shard for each rank, of the same length as far as possible. A parameter is cut only at
multiples of 16,384 elements, in C order, so that the norm of all gradients has the same bits for any number of ranks:
`norm_partial` sums blocks of that size. A parameter in another memory order is not cut at all.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from pyreg._results import FloatArray
from pyreg.reference.global_norm import BLOCK as BLOCK


class Part(NamedTuple):
    """A part of a parameter: its place among all, and where the part begins and ends in memory, in elements."""

    place: int
    begin: int
    end: int

    def of(self, array: FloatArray) -> FloatArray:
        """This part of an array that has one axis."""
        return array[self.begin : self.end]

    @property
    def size(self) -> int:
        return self.end - self.begin


class Shards:
    """The shards of the parameters that were given together.

    Attributes
    ----------
    first, places : the place of the first parameter, and of all
    offsets, ends : where each parameter begins and ends among the elements of these
    starts : where each rank's shard begins among them, and the end of the last
    """

    def __init__(self, first: int, params: Sequence[FloatArray], ranks: int) -> None:
        self.first, self.places = first, range(first, first + len(params))
        self.ends = list(accumulate(param.size for param in params))
        self.offsets = [0, *self.ends][: len(params)]
        total, self.starts = [0, *self.ends][-1], [0]
        for rank in range(1, ranks):
            self.starts.append(self._nearest(total * rank // ranks, params))
        self.starts.append(total)

    def _nearest(self, wanted: int, params: Sequence[FloatArray]) -> int:
        """Where a cut is allowed that is nearest to this element."""
        i = bisect_right(self.ends, wanted)
        if i == len(params):
            return wanted
        below, above = self.offsets[i], self.ends[i]
        if is_cut(params[i]):
            below += (wanted - below) // BLOCK * BLOCK
            above = min(below + BLOCK, above)
        return below if wanted - below <= above - wanted else above

    def part(self, rank: int, place: int) -> Part:
        """The rank's part of this parameter, which may be empty."""
        offset, end = self.offsets[place - self.first], self.ends[place - self.first]
        low, high = (min(max(start, offset), end) - offset for start in self.starts[rank : rank + 2])
        return Part(place, low, high)

    def parts(self, place: int) -> dict[int, Part]:
        """The parts of this parameter that are not empty, by rank."""
        offset, end = self.offsets[place - self.first], self.ends[place - self.first]
        ranks = range(bisect_right(self.starts, offset) - 1, bisect_left(self.starts, end)) if offset < end else ()
        every = {rank: self.part(rank, place) for rank in ranks}
        return {rank: part for rank, part in every.items() if part.size}


def is_cut(param: FloatArray) -> bool:
    """Whether a parameter may be cut: its memory has the order of the blocks of `norm_partial`."""
    return param.flags.c_contiguous


def piece_of(array: FloatArray, part: Part) -> FloatArray:
    """This part of an array: one axis, unless it is the whole of an array in another memory order."""
    return array.view() if not is_cut(array) and part.size == array.size else part.of(flat(array))


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
