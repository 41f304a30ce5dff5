"""An operation at one size: its arguments, its calls, and the check of an answer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
from console import WrongAnswer

import pyreg
from pyreg._cases import CASES, Arguments, Of, Shape
from pyreg._dtypes import name_of

from .measure import Call
from .operations import Operation

Array = npt.NDArray[Any]

# Relative to a result's largest entry. A float32 sum over a row of 4096, one element after the other, is off by about
# 4e-6; GELU's approximation by tanh is off by 1e-4. Each rounding to the dtype of the arrays is allowed beside it.
TOLERANCE = 2e-5
# Of other libraries, which store what one of their functions hands to the next: the product with the scale, the
# activation, the statistics.
ROUNDINGS = 4
# Left out of the calls, as most users do.
OPTIONAL = dict.fromkeys(("mask", "keep", "row_scale", "layer_scale", "max_exp_avg_sq", "ema", "param_out"))


def is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and bool(name_of(value.dtype))


def widened(array: Array) -> Array:
    """Return an array of 16 bits in float32, any other as it is."""
    return array.astype(np.float32) if array.dtype.itemsize == 2 else array


def array_of_pyreg(shape: Shape, dtype: npt.DTypeLike = np.float32) -> Array:
    """Return an array to write to. Those of pyreg begin at different places of a page, as docs/speed.md advises."""
    return pyreg.dropout(np.ones(shape, dtype), 0.0)


def digest(arrays: Sequence[Array]) -> str:
    """Return the digest of the arrays' bits."""
    sha = sha256()
    for array in arrays:
        sha.update(array.view(np.uint8))
    return sha.hexdigest()


def slices(length: int, step: int) -> Iterator[slice]:
    """Cut `length` into slices, which keeps float64 copies of large arrays small."""
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


def check_close(name: str, got: Array, expected: Array, tolerance: float) -> None:
    """Raise WrongAnswer if an entry is off by more than `tolerance` times the largest entry.

    Not times its own size: the error of an entry that is small because terms cancel is that of the terms.
    """
    got, expected = got.ravel(), expected.ravel()
    errors = [np.abs(got[part] - expected[part]).max() for part in slices(got.size, 2**20)]
    error = np.max(errors) / max(expected.max(), -expected.min())
    if not error <= tolerance:  # written this way so that NaN fails
        raise WrongAnswer(f"{name} is off by {error:.1e} of its largest entry, allowed is {tolerance:.0e}")


def check_dropped(
    name: str, got: Array, full: Array, p: float, unit: float, tolerance: float, added: Array | None = None
) -> None:
    """Raise WrongAnswer if `got` is not `full` after dropout, with `added` added to it.

    Each library draws its own mask, of which only the fraction kept is known. It is counted over the entries that are
    large enough to tell: not those that a ReLU has set to 0, nor those that are lost in the rounding of the sum, to
    this unit.
    """
    got, full = got.ravel(), full.ravel()
    smallest = max(full.max(), -full.min()) * (1e-3 + 16 * unit)
    large = kept = 0
    for part in slices(full.size, 2**20):
        expected = full[part] / (1 - p)
        rest = np.float32(0) if added is None else added.ravel()[part]
        mask = np.abs(got[part] - rest) > np.abs(expected) / 4
        check_close(name, got[part], mask * expected + rest, tolerance)
        is_large = np.abs(full[part]) > smallest
        large += np.count_nonzero(is_large)
        kept += np.count_nonzero(is_large & mask)
    check_kept(kept, large, p)


def check_kept(kept: int, of: int, p: float) -> None:
    """Raise WrongAnswer if the number kept is more than six standard deviations from ``1 - p`` of all."""
    if abs(kept / of - (1 - p)) > 6 * math.sqrt(p * (1 - p) / of):
        raise WrongAnswer(f"{kept / of:.2%} were kept instead of {1 - p:.2%}")


class Case:
    """An operation at one size.

    Its arguments are attributes, and so are the arrays for its results (`out`, `z_out`). `kept`, `prob` and `h` are
    what other libraries' forward passes would have stored for their backward passes.
    """

    def __init__(self, operation: Operation, shape: Shape, dtype: npt.DTypeLike = np.float32) -> None:
        self.operation = operation
        self.dtype = np.dtype(dtype)
        self.unit = float(np.spacing(self.dtype.type(1)))
        self.name = operation.function
        self.table = CASES[self.name]
        self.shape = shape
        self.size = math.prod(shape)
        self.bytes_moved = operation.arrays_moved * self.dtype.itemsize * self.size
        self.arguments = self._draw()
        vars(self).update(self.arguments)
        self.outs = {out: array_of_pyreg(shape, self.dtype) for out in self.table.outs}
        vars(self).update(self.outs)
        self.before = {name: value.copy() for name, value in self.updated().items()}

    def _draw(self) -> Arguments:
        parameters = inspect.signature(getattr(pyreg, self.name)).parameters
        numbers = {name: parameters[name].default for name in self.table.numbers}
        optional = {name: None for name in self.table.optional if name in OPTIONAL}
        if "layer_scale" in optional and "x" in self.table.arrays and "z" in self.table.arrays:
            optional["x"] = None  # the backward pass reads it for layer_scale alone
        changes = numbers | optional | dict(self.operation.arguments)
        made = self.table.arguments(self.shape, self.dtype.type, forward=pyreg, **changes)
        if "grad" in made:
            np.abs(made["grad"], out=made["grad"])  # the update loop adds it to exp_avg_sq, which stays positive
        return made

    def updated(self) -> dict[str, Array]:
        """Return the arrays that are updated in place."""
        named = {name: self.arguments[name] for name in self.table.updated}
        return {name: array for name, array in named.items() if array is not None}

    def restore(self) -> None:
        """Undo what calls did to the arrays that are updated in place."""
        for name, array in self.updated().items():
            array[...] = self.before[name]

    # --- what the forward passes of other libraries store

    @cached_property
    def kept(self) -> Array:
        return pyreg.dropout_mask(self.shape, self.p, key=self.key)

    @cached_property
    def prob(self) -> Array:
        y: Array | None = self.arguments.get("y")
        return pyreg.softmax_dropout_forward(self.x, scale=self.scale).y if y is None else y

    @cached_property
    def h(self) -> Array:
        return self.x + self.bias

    @property
    def activation(self) -> str:
        """The activation's name, for example gelu_tanh."""
        return self.name.split("_")[0] + "_tanh" * (self.operation.arguments.get("approximate") == "tanh")

    # --- pyreg's calls

    def call(self, arguments: Arguments) -> Call:
        """Return a call of pyreg's function, as a user writes it: without arguments that have their default.

        It is compiled from source, because a call that unpacks its arguments takes a quarter of a microsecond longer.
        """
        function = getattr(pyreg, self.name)
        written, by_name = [], False
        for name, parameter in inspect.signature(function).parameters.items():
            value = arguments.get(name, parameter.default)
            if not isinstance(value, np.ndarray) and value == parameter.default:
                by_name = True  # the arguments after one that is left out
                continue
            by_name |= parameter.kind is inspect.Parameter.KEYWORD_ONLY
            written.append(f"{name}={name}" if by_name else name)
        made: Call = eval(f"lambda: function({', '.join(written)})", arguments | {"function": function})
        return made

    def public_call(self) -> Call:
        """Return a call whose results go to arrays that are there already."""
        return self.call(self.arguments | self.outs)

    def new_call(self) -> Call:
        """Return a call whose results are new arrays."""
        return self.call(self.arguments)

    # --- the check of an answer

    def in_float64(self, **changes: Any) -> dict[str, Array]:
        """Return pyreg's results in float64, with some arguments changed. They are stored in float32."""
        arguments, made = self.arguments | self.before | changes, {}
        for part in slices(self.shape[0], max(1, 2**18 // math.prod(self.shape[1:]))):
            cut = self.table.cut(arguments, self.shape, part)
            wide = {n: v.astype(np.float64) if is_float(v) else v for n, v in cut.items()}
            for name, value in self.table.call(pyreg, wide).items():
                of = self.table.results.get(name, Of.ELEMENT)
                if of is Of.CALL:
                    continue
                if value is not None and of is Of.COLUMN:
                    made[name] = made.get(name, 0) + value
                elif value is not None:
                    made.setdefault(name, np.empty(of.shape(self.shape), np.float32))[part] = value
        return made

    @cached_property
    def draws_mask(self) -> bool:
        return "p" in self.arguments and "dy" not in self.arguments

    @cached_property
    def expected(self) -> dict[str, Array]:
        """The right results; before dropout, where each library draws its own mask."""
        return self.in_float64(p=0.0, key=None) if self.draws_mask else self.in_float64()

    def named(self, answer: Any) -> dict[str, Array]:
        """Return the results of an answer by their names in pyreg."""
        updated = self.updated()
        if updated and not isinstance(answer, tuple):
            return updated
        results = answer if isinstance(answer, tuple) else (answer,)
        named = zip(updated or self.table.results, results, strict=False)
        return {name: np.asarray(value) for name, value in named if value is not None}

    def check(self, answer: Any, roundings: int = ROUNDINGS) -> None:
        """Raise WrongAnswer if an answer, of a call after `restore`, is wrong.

        It is allowed to have been rounded to the dtype this many times.
        """
        tolerance = TOLERANCE + roundings * self.unit / 2
        results = {name: widened(result) for name, result in self.named(answer).items()}
        if not results:
            raise WrongAnswer("no results")
        for name, result in results.items():
            shape = self.table.results.get(name, Of.ELEMENT).shape(self.shape)
            if result.squeeze().shape != np.empty(shape).squeeze().shape:  # statistics may keep an axis of length 1
                raise WrongAnswer(f"{name} has shape {result.shape} instead of {shape}")
        if "z" in results:  # of dropout, add and norm: z has a mask of its own, and the rest follows from z
            z, x, residual = results.pop("z"), widened(self.x), widened(self.residual)
            check_dropped("z", z, x, self.p, self.unit, tolerance, residual)
            expected = self.in_float64(x=z, residual=None, p=0.0, key=None)
        elif self.table.samples:  # whole samples are dropped
            kept = (results["y"] != 0).any(axis=1, keepdims=True)
            check_kept(np.count_nonzero(kept), len(kept), self.p)
            full = self.expected["y"]
            results["y"] = results["y"] + full  # so that something is left if all are dropped
            expected = {"y": kept * (full / np.float32(1 - self.p)) + full}
        elif self.draws_mask:
            check_dropped("y", results.pop("y"), self.expected["y"], self.p, self.unit, tolerance)
            expected = self.expected
        else:
            expected = self.expected
        # PyTorch adds up rows in the dtype: of 8192 rows in bfloat16, its dbias is off by half.
        unchecked = [Of.COLUMN] if self.dtype.itemsize == 2 and roundings > 1 else []
        for name, result in results.items():
            if self.table.results.get(name) not in unchecked:
                check_close(name, result, expected[name], tolerance)

    def check_bits(self, answer: Any) -> None:
        """Raise WrongAnswer if rows at either end are not those that pyreg.reference computes of them alone.

        A mistake in how rows are divided into blocks would show there.
        """
        rows, results = self.shape[0], self.named(answer)
        if results.keys() != self.expected.keys():
            raise WrongAnswer(f"the results are {', '.join(results)} instead of {', '.join(self.expected)}")
        few = min(rows, max(1, 2**14 // math.prod(self.shape[1:])))
        for part in (slice(0, few), slice(rows - few, rows)):
            cut = self.table.cut(self.arguments | self.before, self.shape, part)
            for name, wanted in self.table.call(pyreg.reference, cut).items():
                of_rows = self.table.results.get(name, Of.ELEMENT) in (Of.ELEMENT, Of.ROW)
                if name in results and of_rows and results[name][part].tobytes() != wanted.tobytes():
                    raise WrongAnswer(f"{name} differs from pyreg.reference")
