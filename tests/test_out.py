"""Results written into the caller's arrays: they are returned and complete, and no byte around them changes."""

import itertools

import numpy as np
import pytest
from bits import assert_same_bits
from cases import (
    LEVELS,
    Guarded,
    bytes_moved,
    cases_with,
    isa,
    kinds,
    on_every_level,
    reference,
    repeated,
    wanted_outs,
)

import pyreg
from pyreg import _core
from pyreg._cases import Of

with_out = cases_with(lambda case: case.outs)
SHAPES = [(9, 40), (67, 129), (5, 5000)]


def subsets(names):
    return [chosen for count in range(1, len(names) + 1) for chosen in itertools.combinations(names, count)]


def twins(shape):
    """The reference, for small arrays only, and pyreg at each level."""
    yield from [(pyreg.reference, LEVELS[-1])][: shape == SHAPES[0]]
    yield from ((pyreg, level) for level in LEVELS)


@with_out
@pytest.mark.parametrize("shape", SHAPES)
def test_out_is_returned_with_the_result_and_nothing_is_written_beside_it(case, dtype, shape):
    for variant in case.variants_of(shape, dtype):
        arguments = case.arguments(shape, dtype, **variant)
        expected = reference(case, arguments)
        for outs, shift in itertools.product(subsets(wanted_outs(case, variant)), (0, 1)):
            guarded = {out: Guarded(shape, expected[case.outs[out]].dtype, shift) for out in outs}
            for twin, level in twins(shape):
                with isa(level):
                    made = case.call(twin, arguments | {out: guard.array for out, guard in guarded.items()})
                assert_same_bits(made, expected, (level, outs, variant))
                for out, guard in guarded.items():
                    assert made[case.outs[out]] is guard.array
                    guard.assert_bands_untouched_and_clear((level, out, variant))


@with_out
@pytest.mark.parametrize("shape", SHAPES)
def test_out_may_be_an_input(case, dtype, shape):
    for variant in case.variants_of(shape, dtype):
        arguments = case.arguments(shape, dtype, **variant)
        expected = reference(case, arguments)
        over = [name for name in case.over if arguments[name] is not None]
        for outs in subsets(wanted_outs(case, variant)):
            for chosen, (twin, level) in itertools.product(itertools.permutations(over, len(outs)), twins(shape)):
                names = dict(zip(outs, chosen, strict=True))
                if any(arguments[name].dtype != expected[case.outs[out]].dtype for out, name in names.items()):
                    continue  # one is float32, the other has 16 bits
                copies = arguments | {name: arguments[name].copy() for name in chosen}
                given = copies | {out: copies[name] for out, name in names.items()}
                with isa(level):
                    made = case.call(twin, given)
                assert_same_bits(made, expected, (level, outs, chosen, variant))
                assert all(made[case.outs[out]] is given[out] for out in outs)


# Calls that move more than _core.most_bytes_cached write their results past the caches: whole cache lines, and
# separately the ends of rows and blocks. Calls that work in place never do, so they give the expected results.
# n = 31: rows of less than four lines. 64: rows of whole lines. 0: three long rows, which share all elements. Two
# results start at the same place in their lines, or at different ones.
@with_out
@pytest.mark.parametrize("n", [31, 64, 67, 768, 1001, 4096, 0])
def test_results_written_past_the_caches_have_the_same_bits_and_nothing_is_written_beside_them(case, dtype, n):
    elements = (_core.most_bytes_cached + 2**20) // bytes_moved(case, (1,), dtype)
    times = 8 if n else 3
    part = (elements // times // n + 1, n) if n else (1, elements // times + 1)
    arguments, shape = repeated(case, case.arguments(part, dtype), times), (times * part[0], part[1])
    assert bytes_moved(case, shape, dtype) > _core.most_bytes_cached
    over = {name: arguments[name].copy() for name in case.over[: len(case.outs)]}
    expected = case.call(pyreg, arguments | over | dict(zip(case.outs, over.values(), strict=True)))
    for shifts in ((0, 0), (1, 1), (3, 2)):
        guarded = {out: Guarded(shape, dtype, shift) for out, shift in zip(case.outs, shifts, strict=False)}
        given = arguments | {out: guard.array for out, guard in guarded.items()}
        for level, made in on_every_level(case, given):
            assert_same_bits(made, expected, (level, shifts))
            for out, guard in guarded.items():
                guard.assert_bands_untouched_and_clear((level, out, shifts))


SHAPES_WITHOUT_ELEMENTS = [(0,), (0, 5), (3, 0), (2, 0, 4), (0, 0)]


@pytest.mark.parametrize("shape", SHAPES_WITHOUT_ELEMENTS)
def test_arrays_without_elements_give_arrays_without_elements_and_sums_of_zero(case, dtype, shape):
    for variant in case.variants_of(shape, dtype):
        arguments = case.arguments(shape, dtype, **variant)
        expected = reference(case, arguments)
        for name, of in case.results.items():
            if expected[name] is not None:
                assert np.shape(expected[name]) == of.shape(shape)
                assert of not in (Of.COLUMN, Of.ALL) or not np.any(expected[name])
        for level, made in on_every_level(case, arguments):
            assert_same_bits(made, expected, (level, variant))


def test_no_rows_take_no_memory_however_long_they_are(case, dtype):
    shape = (0, 2**40)
    # An array with an element per column would itself need the memory.
    long = {name: None for name, of in case.arrays.items() if of is Of.COLUMN}
    long |= {"shape": shape} if "shape" in case.numbers else {}
    masks = [{"mask": np.zeros((1, 1), dtype)}, {"keep": np.ones((1, 1), bool)}] if "mask" in case.arrays else []
    for mask in ({}, *masks):
        for variant in case.variants_of(shape, dtype):
            short = case.arguments((0, 1), dtype, **variant)
            names = [*case.rows_of(short), *(["grad"] if short.get("rows") is not None else [])]
            rows = {name: short[name].reshape(shape) for name in names if short[name].ndim == 2}
            given = short | rows | long | (mask if "y" not in variant else {})
            made = case.call(pyreg, given)
            for name, value in made.items():
                of = kinds(case)[name]
                if of is Of.COLUMN or given.get(f"return_{name}") is False or given.get(name, 0) is None:
                    assert value is None
                else:
                    assert np.shape(value) == of.shape(shape)


@cases_with(lambda case: set(case.arrays.values()) == {Of.ELEMENT} and not case.samples)
def test_arrays_of_no_axes_are_one_element(case, dtype):
    arguments = case.arguments((), dtype)
    one = arguments | {name: arguments[name].reshape(1) for name in case.arrays}
    for twin in (pyreg, pyreg.reference):
        expected = case.call(twin, one)
        for name, value in case.call(twin, arguments).items():
            assert_same_bits(value, np.reshape(expected[name], kinds(case)[name].shape(())), name)
