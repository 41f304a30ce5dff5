"""The messages in which gradients and parameters travel.

A part of a larger array is sent from where it is. Smaller ones are packed side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pyreg._results import FloatArray
from pyreg.mpi._shards import BLOCK, Part

# Elements in a message. Around 1 MiB, messages between processes of one machine are fastest. With more than 256 ranks
# they are smaller, because a rank receives one from each at a time.
MOST, LEAST, IN_FLIGHT = 2**18, BLOCK, 2**26


class Kind(NamedTuple):
    """What the parts of a message have in common."""

    dtype: str
    has_sum: bool = False  # whether there are sums of gradients to add to


class Message(NamedTuple):
    """Parts that travel together. In their rank's buffer of gradients, they are side by side."""

    kind: Kind
    begin: int  # in the buffer
    end: int
    parts: list[Part]

    @property
    def size(self) -> int:
        return self.end - self.begin


def most_in_message(ranks: int) -> int:
    return max(LEAST, min(MOST, IN_FLIGHT // ranks))


def in_buffer_order(parts: Sequence[Part]) -> list[Part]:
    """The parts that are not empty: those that travel alone before those that are packed."""
    return sorted((part for part in parts if part.size), key=lambda part: part.size < LEAST)


def messages(parts: Sequence[Part], kinds: Sequence[Kind | None], most: int) -> list[Message]:
    """The parts of a rank in messages of at most `most` elements. Parameters whose kind is None are left out.

    parts: all that the rank has, in the order of its buffer. kinds: of every parameter.
    """
    made: list[Message] = []
    end = 0
    for part in parts:
        kind, begin, end = kinds[part.place], end, end + part.size
        if kind is None:
            continue
        last = made[-1] if made else None
        if last and (last.kind, last.end) == (kind, begin) and is_packed_with(part, last, most):
            last.parts.append(part)
            made[-1] = last._replace(end=end)
            continue
        for first in range(0, part.size, most):
            piece = Part(part.place, part.begin + first, min(part.begin + first + most, part.end))
            made.append(Message(kind, begin + first, begin + first + piece.size, [piece]))
    return made


def is_packed_with(part: Part, last: Message, most: int) -> bool:
    return part.size < LEAST and last.parts[0].size < LEAST and last.size + part.size <= most


def packed(message: Message, arrays: Sequence[FloatArray]) -> FloatArray:
    """What a message holds: a view, if that is one part of one array."""
    parts = [part.of(arrays[part.place]) for part in message.parts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def unpack(message: Message, values: FloatArray, arrays: Sequence[FloatArray]) -> None:
    """Copy what a message held into the arrays."""
    begin = 0
    for part in message.parts:
        part.of(arrays[part.place])[...] = values[begin : begin + part.size]
        begin += part.size
