"""What an operation that run.py measures is, and how its answers are checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Call = Callable[[], Any]  # does the operation once and returns its answer

FLOAT = 4  # bytes of a float32
KEY = 2024


class WrongAnswer(Exception):
    """A library's answer is not what its operation should give."""


def slices(length: int, step: int) -> Iterator[slice]:
    """Cut `length` into slices, so that float64 copies of large arrays stay small."""
    return (slice(start, start + step) for start in range(0, length, step))


def check_close(name: str, got: Any, expected: Array, tolerance: float) -> None:
    """Raise WrongAnswer where an entry is off by more than `tolerance` times the largest entry."""
    got, expected = np.asarray(got).ravel(), expected.ravel()
    if got.size != expected.size:
        raise WrongAnswer(f"{name} has {got.size} entries instead of {expected.size}")
    errors = [np.abs(got[part] - expected[part]).max() for part in slices(got.size, 2**20)]
    error = np.max(errors) / max(expected.max(), -expected.min())
    if not error <= tolerance:  # true for NaN
        raise WrongAnswer(f"{name} is off by {error:.1e} of its largest entry, allowed is {tolerance:.0e}")


class Case:
    """One operation at one size.

    Attributes
    ----------
    name : str
        The operation's name in pyreg; run_<library>.py has a function of that name, which takes the
        case and returns a `Call`.
    moved_per_element : int
        The bytes that the operation must read and write for an element, if each is touched once.
    sizes : tuple of shapes
        From the overhead of a call over what fits a cache to what only memory holds; --quick takes the
        first two.
    """

    name: ClassVar[str]
    moved_per_element: ClassVar[int]
    # 1000 x 1001: rows that are no multiple of anything.
    sizes: ClassVar[tuple[Shape, ...]] = ((8, 768), (512, 768), (1000, 1001), (8192, 768), (8192, 4096))

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.size = math.prod(shape)
        self.bytes_moved = self.moved_per_element * self.size

    def restore(self) -> None:
        """Undo what a call did to arrays that are updated in place."""

    def check(self, answer: Any) -> None:
        """Raise WrongAnswer where `answer`, of a call after `restore`, is wrong."""
        raise NotImplementedError

    def check_bits(self, answer: Any) -> None:
        """Raise WrongAnswer where `answer` is not what pyreg alone promises."""
