"""Helpers for tests that run over pyreg's table of functions: levels, cuts, layouts, guarded arrays."""

import inspect
import math
from contextlib import contextmanager
from importlib import import_module

import numpy as np
import pytest

import pyreg
from pyreg import _core
from pyreg._cases import CASES, Of, sixteen_bit_dtypes

LEVELS = _core.isa_found()
# "Release", or a preset of CMakePresets.json such as "asan".
BUILD_TYPE = _core.build_type
DTYPES = [np.float32, np.float64]
SIXTEEN_BIT = list(sixteen_bit_dtypes())

every_dtype = pytest.mark.parametrize("dtype", [*DTYPES, *SIXTEEN_BIT])
sixteen_bit = pytest.mark.parametrize("dtype", SIXTEEN_BIT)


def cases_with(predicate):
    """Run a test for the functions that satisfy the predicate, instead of for all. conftest.py does that."""
    chosen = [case for case in CASES.values() if predicate(case)]
    assert chosen

    def choose(test):
        test.cases = chosen
        return test

    return choose


def every_case_with_sixteen_bits(test):
    """Run a test for the functions that take dtypes of 16 bits, and for these dtypes."""
    test.pairs = [(case, dtype) for case in CASES.values() for dtype in SIXTEEN_BIT if dtype in case.dtypes]
    return test


def dtypes_of(case):
    """The dtypes of x. A function without arrays is tested for those that tests give to others."""
    return case.dtypes if case.arrays else DTYPES


def info(dtype):
    """NumPy's finfo has no bfloat16."""
    return np.finfo(dtype) if np.dtype(dtype).kind == "f" else import_module("ml_dtypes").finfo(dtype)


def compute_type(dtype):
    """The type in which arrays of this dtype are computed."""
    return np.float32 if dtype in SIXTEEN_BIT else dtype


@contextmanager
def isa(level):
    chosen = _core.isa_chosen()
    _core.use_isa(level)
    try:
        yield
    finally:
        _core.use_isa(chosen)


def on_every_level(case, arguments):
    """Yield each level and the compiled function's results at that level."""
    for level in LEVELS:
        with isa(level):
            yield level, case.call(pyreg, arguments)


def allowed_dtypes(case, name, dtype):
    """The dtypes that this array may have beside an x of this dtype."""
    free = {name for group in case.in_float32 for name in group}
    if not case.updated or dtype == np.float64 or name not in free:
        return {dtype, compute_type(dtype)} if name in free else {dtype}
    return {np.float32, *SIXTEEN_BIT} - ({np.float16} if name in case.states else set())


def reference(case, arguments):
    """The reference's results, in new arrays."""
    with np.errstate(all="ignore"):
        return case.call(pyreg.reference, arguments | dict.fromkeys(case.outs))


def kinds(case):
    """What each result and each updated array has an element for."""
    return case.results | dict.fromkeys(case.updated, Of.ELEMENT)


def has_rows(case):
    """Whether some result or updated array has rows or elements that do not depend on the others."""
    return not {Of.ELEMENT, Of.ROW}.isdisjoint(kinds(case).values())


LISTS = ("params", "arrays", "partials")  # arguments that are an array or an iterable of arrays


def first(case):
    """The array that sets the dtype and shape of the others."""
    return next((name for name in ("z", "x", "param", *LISTS) if name in case.arrays), None)


def parameters_of(case):
    return list(inspect.signature(getattr(pyreg, case.name)).parameters)


def call_of_core(case, arguments):
    """The core function that the public one calls, and its arguments. The last argument is the check."""
    function, called = getattr(pyreg, case.name), []

    class Recorder:
        def __getattr__(self, name):
            return lambda *given: called.append((getattr(_core, name), given))

    recording = pyreg.reference._with_core(function, Recorder())
    recording(**arguments)
    ((of_core, given),) = called
    return of_core, given


def inputs(case, arguments):
    """The names of the arrays that are given and only read."""
    return [name for name in case.arrays if arguments[name] is not None and name not in case.updated]


def cut_results(case, made, part):
    """The same part of the results that have an element per row or per element of x."""
    rows = [name for name, of in kinds(case).items() if of in (Of.ELEMENT, Of.ROW)]
    return {name: made[name] if made[name] is None else made[name][part] for name in rows}


def repeated(case, arguments, times):
    """The arguments with their rows repeated `times` times."""
    return arguments | {name: np.concatenate([arguments[name]] * times) for name in case.rows_of(arguments)}


def wanted_outs(case, arguments):
    """The outs whose result is wanted with these arguments."""
    return [out for out, result in case.outs.items() if arguments.get(f"return_{result}", True)]


LIKE = {"z_out": "residual", "dresidual_out": "z"}  # the array whose dtype an out has, if it is given


def dtype_of_out(out, arguments, dtype):
    """The dtype that an out has with these arguments, for an x of this dtype."""
    like = arguments.get(LIKE.get(out))
    return np.dtype(dtype) if like is None else like.dtype


def bytes_moved(case, shape, dtype):
    """The bytes of the arrays and results that have x's shape."""
    elements = sum(of is Of.ELEMENT for of in (*case.arrays.values(), *case.results.values()))
    return elements * math.prod(shape) * np.dtype(dtype).itemsize


# --- layouts


def unaligned(x):
    raw = np.empty(x.nbytes + 1, np.uint8)
    view = raw[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def spread(x):
    if not x.ndim:
        return x
    wide = np.zeros(tuple(2 * length for length in x.shape), x.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in x.shape)]
    view[...] = x
    return view


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "transposed": lambda x: x.copy("F"),
    "strided": spread,
    "reversed": lambda x: x[..., ::-1].copy()[..., ::-1] if x.ndim else x,
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "unaligned": unaligned,
    "read-only": read_only,
}


class Guarded:
    """An array that starts `shift` elements into a cache line, between two bands that must not change."""

    BAND, PATTERN = 256, 0xA5

    def __init__(self, shape, dtype, shift=0):
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self.raw = np.full(size + 3 * self.BAND, self.PATTERN, np.uint8)
        begin = self.BAND - self.raw.ctypes.data % 64 + shift * np.dtype(dtype).itemsize
        self.array = self.raw[begin : begin + size].view(dtype).reshape(shape)
        self.bands = self.raw[:begin], self.raw[begin + size :]

    def assert_bands_untouched_and_clear(self, context=""):
        for band in self.bands:
            assert (band == self.PATTERN).all(), context
        self.raw.fill(self.PATTERN)
