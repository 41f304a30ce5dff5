"""A call of a public function, described by plain values: the repr of a Call is enough to make the call again."""

from dataclasses import dataclass, field

import numpy as np
from bits import assert_same_bits
from cases import LAYOUTS, dtype_of_out, info, isa
from guard_pages import AgainstPage

import pyreg
from pyreg._cases import CASES


@dataclass(frozen=True)
class Call:
    function: str
    shape: tuple
    dtype: str
    seed: int = 0
    changes: dict = field(default_factory=dict)  # of the case's arguments
    specials: list = field(default_factory=list)  # (array, place or None for all of it, expression)
    layouts: dict = field(default_factory=dict)  # by array, out included
    outs: list = field(default_factory=list)  # the outs with memory of their own
    overlaps: dict = field(default_factory=dict)  # name: (other, shift): it begins `shift` elements after the other
    wrong: dict = field(default_factory=dict)  # argument: expression; `value` is the right one
    valid: bool = True  # whether the call must be accepted
    guards: int = 0  # bit i: whether the page after array i is inaccessible, or the one before it
    level: str = ""
    threads: int = 1

    @property
    def case(self):
        return CASES[self.function]

    @property
    def given(self):
        """The arrays that are not None."""
        return [name for name in self.case.arrays if self.changes.get(name, 0) is not None]

    def arguments(self):
        """The arguments in new contiguous arrays, without outs."""
        made = self.case.arguments(self.shape, np.dtype(self.dtype).type, self.seed, **self.changes)
        for name, place, text in self.specials:
            elements = made[name].reshape(-1)
            if elements.size:
                elements[... if place is None else place % elements.size] = special(text, elements.dtype)
        return made

    def build(self, arguments):
        """The arguments in their layouts, each array against an inaccessible page, and the memory of each array."""
        outs = [out for out in (*self.outs, *self.overlaps) if out in self.case.outs]
        dtypes = {out: dtype_of_out(out, arguments, self.dtype) for out in outs}
        arguments = arguments | {out: np.full(self.shape, 7, dtype) for out, dtype in dtypes.items()}
        arguments |= {name: LAYOUTS[layout](arguments[name]) for name, layout in self.layouts.items()}
        memory = {}
        for number, owner in enumerate(name for name in (*self.given, *self.outs) if name not in self.overlaps):
            shifts = {name: shift for name, (other, shift) in self.overlaps.items() if other == owner}
            after = bool(self.guards >> number & 1)
            if shifts:
                names = {**shifts, owner: 0}
                guarded, arrays = together([arguments[name] for name in names], [*names.values()], after)
            else:
                names, guarded = [owner], AgainstPage(arguments[owner], after)
                arrays = [guarded.array]
            arguments |= dict(zip(names, arrays, strict=True))
            memory |= dict.fromkeys(names, guarded)
        arguments |= {name: evaluate(text, value=arguments.get(name)) for name, text in self.wrong.items()}
        return arguments, memory

    def outcome(self, twin, arguments):
        """The error or None, then the results and arrays by name. Fails if the call writes where it must not."""
        given, memory = self.build(arguments)
        try:
            returned, error = getattr(twin, self.function)(**given), None
        except (TypeError, ValueError) as raised:
            error = f"{type(raised).__name__}: {raised}"
        written = set() if error else {*self.case.outs, *self.case.updated}
        for name, guarded in memory.items():
            may_change = any(memory.get(other) is guarded for other in written)
            assert guarded.is_unchanged(but_for_the_array=may_change), f"{twin.__name__} writes into or beside {name}"
        if error:
            return error, {}
        overlaps = {name: other for name, (other, _) in self.overlaps.items() if isinstance(given[other], np.ndarray)}
        for name, other in overlaps.items():
            harmless = self.may_overlap(other, given[name], given[other]) or self.is_ignored(other, arguments)
            assert harmless, f"{name} overlaps {other}, but is not refused"
        results = returned if len(self.case.results) > 1 else [returned] if self.case.results else []
        made = dict(zip(self.case.results, results, strict=True))
        for out, result in self.case.outs.items():
            assert given.get(out) is None or made[result] is given[out], f"{result} is not {out}"
        # In another dtype or byte order, the NaNs of an out that overlaps are numbers, and no payload is promised.
        right = [pair for pair in overlaps.items() if pair[0] not in self.wrong]
        others = {other for out, other in right if given[out].dtype != given[other].dtype}
        return None, made | {name: given[name] for name in memory if name not in {*self.wrong, *others}}

    def may_overlap(self, other, array, others):
        """Whether the array does not overlap the other, whose layout may cause a copy, or may replace it."""
        if not (others.flags.carray and others.dtype.isnative and np.may_share_memory(array, others)):
            return True
        same = array.ctypes.data == others.ctypes.data and array.nbytes == others.nbytes
        return same and other in self.case.over

    def is_ignored(self, name, arguments):
        """Whether the array is not used with these arguments: None gives the same results."""
        try:
            made, without = (self.case.call(pyreg.reference, a) for a in (arguments, arguments | {name: None}))
            assert_same_bits(without, made)
        except (AssertionError, TypeError, ValueError):
            return False
        return True


def evaluate(text, **names):
    return eval(text, {"np": np} | names)


def special(text, dtype):
    """The value of the expression, bit for bit. It may set the lowest bits of a NaN or infinity."""

    def plus_bits(value, low):
        return (np.array(value, dtype).view(f"u{dtype.itemsize}") | low).view(dtype)

    return np.array(evaluate(text, info=info(dtype), plus_bits=plus_bits), dtype)


def together(arrays, shifts, after):
    """Arrays that share memory, each beginning `shift` elements after the same place; the last has its values."""
    places = [(shift - min(shifts)) * arrays[0].itemsize for shift in shifts]
    end = max(place + array.nbytes for place, array in zip(places, arrays, strict=True))
    guarded = AgainstPage(np.zeros(-(-end // 8) * 8, np.uint8), after)  # whole float64s, so that all are aligned
    shared = []
    for place, array in zip(places, arrays, strict=True):
        shared.append(np.ndarray(array.shape, array.dtype, guarded.array, place))
        shared[-1][...] = array
    guarded.remember()
    return guarded, shared


def check(call):
    """Compare the call with its twin in pyreg.reference. Return whether both refuse it, with the same error."""
    arguments = call.arguments()
    with isa(call.level), pyreg.num_threads(call.threads):
        error, made = call.outcome(pyreg, arguments)
    expected_error, expected = call.outcome(pyreg.reference, arguments)
    assert error == expected_error, f"pyreg: {error or 'no error'}\nreference: {expected_error or 'no error'}"
    assert error is None or not call.valid, error
    assert_same_bits(made, expected)
    return error is not None
