"""What an operation that run.py measures is, and how its answers are checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

import pyreg

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


def check_dropped(name: str, got: Any, full: Array, p: float, tolerance: float) -> None:
    """Raise WrongAnswer where `got` is not `full` after dropout.

    Each library draws another mask, of which only the fraction kept is known. It is counted where an entry is large
    enough to tell: not, say, where a ReLU gives 0.
    """
    got, full = np.asarray(got).ravel(), full.ravel()
    smallest = max(full.max(), -full.min()) / 1000
    told = kept = 0
    for part in slices(full.size, 2**20):
        expected = full[part] / (1 - p)
        mask = np.abs(got[part]) > np.abs(expected) / 4
        check_close(name, got[part], mask * expected, tolerance)
        large = np.abs(full[part]) > smallest
        told += np.count_nonzero(large)
        kept += np.count_nonzero(large & mask)
    if abs(kept / told - (1 - p)) > 6 * math.sqrt(p * (1 - p) / told):
        raise WrongAnswer(f"{kept / told:.2%} were kept instead of {1 - p:.2%}")


def check_same_bits(name: str, got: Any, expected: Array) -> None:
    """Raise WrongAnswer where results of pyreg are not those of pyreg.reference."""
    if not np.array_equal(np.ascontiguousarray(got).view(np.uint32), np.ascontiguousarray(expected).view(np.uint32)):
        raise WrongAnswer(f"{name} differs from pyreg.reference")


def ends(rows: int, n: int) -> Iterator[slice]:
    """Slices of the rows at both ends, which a mistake in blocks would not spare."""
    few = max(1, 2**14 // n)
    return (slice(start, min(start + few, rows)) for start in (0, max(0, rows - few)))


class Case:
    """One operation at one size.

    Attributes
    ----------
    name : str
        The operation's name in pyreg; run_<library>.py has a function of that name, which takes the
        case and returns a `Call`.
    arguments, outputs : str
        How pyreg's function is called, as one writes it down, and what is added to that for results in arrays that
        are there already. The names in it are attributes of the case.
    also_new : bool
        Whether large results are timed in new arrays too.
    row_arguments, row_results : str
        The arguments that are cut where some rows are computed alone; the results that are of rows, which are the
        first ones.
    moved_per_element : int
        The bytes that the operation must read and write for an element, if each is touched once.
    sizes : tuple of shapes
        From the overhead of a call over what fits a cache to what only memory holds; --quick takes the
        first two.
    """

    name: ClassVar[str]
    arguments: ClassVar[str]
    outputs: ClassVar[str] = ", out=out"
    also_new: ClassVar[bool] = False
    row_arguments: ClassVar[str] = "x"
    row_results: ClassVar[str] = "y"
    moved_per_element: ClassVar[int]
    # 1000 x 1001: rows that are no multiple of anything.
    sizes: ClassVar[tuple[Shape, ...]] = ((8, 768), (512, 768), (1000, 1001), (8192, 768), (8192, 4096))
    key = KEY

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.size = math.prod(shape)
        self.bytes_moved = self.moved_per_element * self.size

    def call(self, module: ModuleType, arguments: str, **others: Any) -> Call:
        """Return a call of a module's function, with `others` in place of the attributes of these names.

        It is made from its source: a call that unpacks its arguments takes a quarter of a microsecond longer.
        """
        names = {name: getattr(self, name) for name in dir(self) if not name.startswith("_")} | others
        made: Call = eval(f"lambda: function({arguments})", names | {"function": getattr(module, self.name)})
        return made

    def restore(self) -> None:
        """Undo what a call did to arrays that are updated in place."""

    def check(self, answer: Any) -> None:
        """Raise WrongAnswer where `answer`, of a call after `restore`, is wrong."""
        raise NotImplementedError

    def check_bits(self, answer: Any) -> None:
        """Raise WrongAnswer where rows at either end are not those that pyreg.reference makes of them alone."""
        rows, n = self.size // self.shape[-1], self.shape[-1]

        def flat(array: Array) -> Array:
            return array.reshape(rows, *array.shape[len(self.shape) - 1 :])

        for part in ends(rows, n):
            cut = {name: flat(getattr(self, name))[part] for name in self.row_arguments.split()}
            arguments = self.arguments + ", offset=offset" * ("key=" in self.arguments)
            expected = self.call(pyreg.reference, arguments, **cut, offset=self.offset_of_row(part.start))()
            results = zip(*(a if isinstance(a, tuple) else (a,) for a in (answer, expected)), strict=True)
            for name, (got, wanted) in zip(self.row_results.split(), results, strict=False):
                check_same_bits(name, flat(got)[part], wanted)

    def offset_of_row(self, row: int) -> int:
        """Return the place of a row in the random stream."""
        return row * self.shape[-1]
