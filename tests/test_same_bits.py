"""The README's second promise: the same bits at every instruction set, thread count, layout and cut of the batch."""

import ctypes
import platform
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from bits import assert_same_bits
from cases import (
    LAYOUTS,
    LISTS,
    cases_with,
    cut_results,
    first,
    has_rows,
    info,
    inputs,
    kinds,
    on_every_level,
    reference,
)

import pyreg
from pyreg._cases import Of

# Around every lane and vector boundary, and past the blocks: 4 * 4096 is a multiple of all block sizes.
LENGTHS = [*range(1, 131), 768, 1001, 4096, 16411]


def test_every_level_equals_the_reference_at_every_length(case, dtype):
    for n in LENGTHS:
        shape = 130 if n == 1001 else 3, n  # 130 rows: more than two blocks of the backward passes
        variants = case.variants_of(shape, dtype)
        # All variants share the code for the ends of rows, so the lengths next to whole vectors are enough.
        for variant in variants if n % 8 in (0, 1, 7) or n > 130 else variants[:1]:
            arguments = case.arguments(shape, dtype, **variant)
            expected = reference(case, arguments)
            for level, made in on_every_level(case, arguments):
                assert_same_bits(made, expected, (level, n, variant))


@cases_with(lambda case: Of.COLUMN in case.results.values())
def test_every_level_equals_the_reference_where_sums_over_rows_end(case, dtype):
    # They run over 16 rows, over blocks of 64, and over the blocks.
    for rows in (1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 79, 80, 81, 127, 128, 129):
        arguments = case.arguments((rows, 9), dtype)
        expected = reference(case, arguments)
        for level, made in on_every_level(case, arguments):
            assert_same_bits(made, expected, (level, rows))


@pytest.mark.parametrize("shape", [(1001, 300), (130, 4096), (5, 100_003)])
def test_every_thread_count_equals_the_reference(case, dtype, shape):
    arguments = case.arguments(shape, dtype)
    expected = reference(case, arguments)
    for threads in (1, 2, 3):
        with pyreg.num_threads(threads):
            for level, made in on_every_level(case, arguments):
                assert_same_bits(made, expected, (level, threads))


def test_every_thread_count_equals_the_reference_for_every_variant(case, dtype):
    for variant in (*case.variants_of((257, 1001), dtype), *case.other_axes):
        arguments = case.arguments((257, 1001), dtype, **variant)
        expected = reference(case, arguments)
        for threads in (1, 2, 3):
            with pyreg.num_threads(threads):
                assert_same_bits(case.call(pyreg, arguments), expected, (threads, variant))


@cases_with(lambda case: case.arrays)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_an_input_gives_the_bits_of_a_contiguous_one(case, dtype, layout):
    shape = (4, 5, 41)
    for variant in case.variants_of(shape, dtype):
        arguments = case.arguments(shape, dtype, **variant)
        names = inputs(case, arguments)
        expected = case.call(pyreg, arguments)
        others = {name: LAYOUTS[layout](arguments[name]) for name in names}
        for twin in (pyreg, pyreg.reference):
            assert_same_bits(case.call(twin, arguments | others), expected, variant)
        for name, other in others.items():
            assert_same_bits(case.call(pyreg, arguments | {name: other}), expected, (name, variant))


@cases_with(lambda case: case.arrays and first(case) not in LISTS)
def test_lists_and_nested_lists_are_read_as_numpy_reads_them(case):
    # Python's floats are float64.
    arguments = case.arguments((3, 4), np.float64)
    expected = case.call(pyreg, arguments)
    for name in inputs(case, arguments):
        other = arguments | {name: arguments[name].tolist()}
        for twin in (pyreg, pyreg.reference):
            assert_same_bits(case.call(twin, other), expected, name)


@cases_with(has_rows)
@pytest.mark.parametrize("n", [1, 31, 32, 33, 768])
def test_a_row_does_not_depend_on_the_batch_it_stands_in(case, dtype, n):
    shape = (150, 2, n)  # two rows each, so that a causal mask matters
    for variant in case.variants_of(shape, dtype):
        arguments = case.arguments(shape, dtype, **variant)
        whole = case.call(pyreg, arguments)
        for part in (slice(0, 1), slice(31, 33), slice(149, 150), slice(5, 140)):
            expected = cut_results(case, whole, part)
            alone = case.cut(arguments, shape, part)
            for level, made in on_every_level(case, alone):
                assert_same_bits({name: made[name] for name in expected}, expected, (level, part, variant))


# Bits of MXCSR: flush to zero and denormals are zero, and the other directions of rounding.
MODES = {"flushing": 0x8040, "rounding up": 0x4000, "rounding down": 0x2000, "rounding to zero": 0x6000}


@contextmanager
def floating_point_mode(bits):
    """Sets these bits of MXCSR in the calling thread."""
    libc = ctypes.CDLL(None)
    environment = (ctypes.c_uint8 * 64)()  # glibc's fenv_t has 32 bytes on x86-64, with MXCSR in the last four
    assert libc.fegetenv(environment) == 0
    mxcsr = ctypes.c_uint32.from_buffer(environment, 28)
    before = mxcsr.value
    try:
        mxcsr.value = before | bits
        libc.fesetenv(environment)
        yield
    finally:
        mxcsr.value = before
        libc.fesetenv(environment)


def with_small_arrays(case, arguments):
    """The arguments as they are, with each array scaled into the subnormal numbers, and with all of them."""
    arrays = [name for name in case.arrays if arguments[name] is not None and arguments[name].dtype != bool]
    for names in ([], *([name] for name in arrays), arrays):
        small = {name: arguments[name] * (info(arguments[name].dtype).tiny / 8) for name in names}
        yield arguments | small
        if "mean" in small:  # of the backward passes, which convert it to float64
            yield arguments | small | {"mean": (arguments["mean"] * 1e-39).astype(np.float32)}


def with_small_numbers(case, arguments):
    """The arguments as they are, and with each number subnormal: a float, and a float32 that has to be converted."""
    yield arguments
    for name, value in case.numbers.items():
        if type(value) is float:
            yield from (arguments | {name: small} for small in (1e-310, np.float32(1e-42)))


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="needs glibc's x86-64 fenv_t")
@pytest.mark.parametrize("mode", MODES)
def test_the_callers_floating_point_mode_does_not_matter(case, dtype, mode):
    arguments = case.arguments((300, 300), dtype)  # enough for two threads
    choices = [c for small in with_small_arrays(case, arguments) for c in with_small_numbers(case, small)]
    for number, choice in enumerate(choices):
        expected = case.call(pyreg, choice)
        for threads in (1, 2):
            with pyreg.num_threads(threads):
                with floating_point_mode(MODES[mode]):
                    made = case.call(pyreg, choice)
                assert_same_bits(made, expected, (number, threads))


def nan_with_payload(dtype):
    nan = np.full(1, np.nan, dtype)
    nan.view(np.uint8)[0] = 0xFF
    return nan[0]


SPECIAL = {
    "nan": lambda info: np.nan,
    "nan with a payload": lambda info: nan_with_payload(info.dtype),
    "inf": lambda info: np.inf,
    "-inf": lambda info: -np.inf,
    "0": lambda info: 0.0,
    "-0": lambda info: -0.0,
    "subnormal": lambda info: 37 * info.smallest_subnormal,
    "huge": lambda info: info.max / 2,
    "least": lambda info: -info.max,
}


@cases_with(lambda case: case.arrays)
@pytest.mark.parametrize("special", SPECIAL)
def test_special_values_come_out_alike_everywhere_and_stay_in_their_rows(case, dtype, special):
    """One array at a time gets the value: in one element of every second row, and in all of row 1."""
    value, shape, others = SPECIAL[special](info(dtype)), (8, 70), [3, 5, 7]
    for variant in case.variants_of(shape, dtype):
        clean = case.arguments(shape, dtype, **variant)
        untouched = case.call(pyreg, clean)
        for name, of in case.arrays.items():
            if clean[name] is None:
                continue
            array = clean[name].copy()
            if of is Of.COLUMN:
                array[33] = value
            else:
                array[1] = value
                array[(slice(None, None, 2), 33)[: array.ndim]] = value
            arguments = clean | {name: array}
            expected = reference(case, arguments)
            for level, made in on_every_level(case, arguments):
                assert_same_bits(made, expected, (level, name, variant))
            if of is not Of.COLUMN and not variant.get("skip_nonfinite"):
                for result, kind in kinds(case).items():
                    if kind in (Of.ELEMENT, Of.ROW) and made[result] is not None:
                        assert_same_bits(made[result][others], untouched[result][others], (name, result, variant))
