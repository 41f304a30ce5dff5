"""Stochastic rounding: the random numbers are those of the stream, and expectations are exact."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from bits import assert_same_bits
from cases import SIXTEEN_BIT, cases_with, isa, on_every_level, reference
from test_bad_input import refuses

import pyreg
from pyreg._cases import CASES
from pyreg.reference.philox import philox

F32, F64 = np.float32, np.float64
KEY = 0x123456789ABCDEF0

each_update = cases_with(lambda case: case.updated)
each_dtype = pytest.mark.parametrize("dtype", SIXTEEN_BIT)


def each_update_of_sixteen_bits(test):
    """Run a test for every update and each dtype of 16 bits."""
    test.pairs = [(case, dtype) for case in CASES.values() if case.updated for dtype in SIXTEEN_BIT]
    return test


PARAM_OUT = 4  # its digit


def number(i, digit, key):
    """The random number of element i, one at a time: two bytes of a block of 16."""
    block = i // 8
    counter = [np.uint64(word) for word in (block % 2**32, block // 2**32, digit, 1)]
    words = b"".join(int(word).to_bytes(4, "little") for word in philox(counter, (key % 2**32, key // 2**32)))
    return int.from_bytes(words[2 * (i % 8) :][:2], "little")


def rounded(x, random, dtype):
    """A float32 that is not negative, by exact arithmetic: up if the part that is cut off, plus random, carries."""
    digits, least, largest = (10, -14, 65504.0) if dtype == np.float16 else (7, -126, float.fromhex("0x1.fep127"))
    exponent = (int(F32(x).view(np.uint32)) >> 23) - 127
    unit = 2.0 ** (max(exponent, least) - digits)
    below, part = divmod(float(x) / unit, 1)
    # The part has more than 16 bits only below the smallest normal numbers: those beyond are cut.
    carry = int(part * 2**16) + random >= 2**16
    return min((below + carry) * unit, largest)


def copied(x, dtype, **options):
    """float32 values in a 16-bit dtype, by way of param_out."""
    out = np.empty(x.shape, dtype)
    with np.errstate(all="ignore"):
        pyreg.sgd_update(x.copy(), np.zeros_like(x), step=1, lr=0.0, param_out=out, rounding="stochastic", **options)
    return out


def hostile_values(rng, dtype):
    bits = rng.integers(0, 0x7F800000, 300, np.uint32)
    bits[:100] = rng.integers(0x33000000 - 0x2000000, 0x39000000, 100)  # float16's subnormal numbers, and below them
    bits[100:140] = 0x7F7F0000 + np.arange(40) * 1638  # around the largest numbers
    bits[140:180] = 0x477FE000 - 4096 + np.arange(40) * 400
    bits[180:184] = 0, 1, 0x3F800000, 0x7F7FFFFF
    return bits.view(F32)


@each_dtype
def test_every_number_is_that_of_the_stream_and_every_result_that_of_exact_arithmetic(dtype, rng):
    x = hostile_values(rng, dtype)
    for level, offset in itertools.product(pyreg._core.isa_found(), (0, 3, 2**35 - 100, 2**64 - 300)):
        with isa(level):
            made = copied(x, dtype, key=KEY, offset=offset)
        for i in range(0, 300, 7 if offset else 1):
            expected = rounded(x[i], number(offset + i, PARAM_OUT, KEY), dtype)
            assert float(made[i]) == expected, (level, offset, i, x[i])


def test_known_answers(impl):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    lines = (Path(__file__).parent / "data" / "stochastic_rounding_v1.txt").read_text().splitlines()
    rows = [[int(word, 16) for word in line.split()] for line in lines if not line.startswith("#")]
    blocks = [rows[i : i + 33] for i in range(0, len(rows), 33)]
    assert len(blocks) == 4
    for (key, offset, digit), *answers in blocks:
        assert digit == PARAM_OUT
        bits, *expected = np.array(answers, np.uint32).T
        for dtype, rounded_bits in zip((ml_dtypes.bfloat16, np.float16), expected, strict=True):
            x = np.ascontiguousarray(bits).view(F32)
            out, options = np.empty(x.shape, dtype), {"rounding": "stochastic", "key": key, "offset": offset}
            impl.sgd_update(x, np.zeros_like(x), step=1, lr=0.0, param_out=out, **options)
            np.testing.assert_array_equal(out.view(np.uint16), rounded_bits)


@each_dtype
def test_infinities_and_nans_stay_what_they_are_and_finite_numbers_stay_finite(dtype, impl):
    x = np.array([np.inf, -np.inf, np.nan, np.finfo(F32).max, -np.finfo(F32).max, 0.0, -0.0] * 30, F32)
    x[2::7].view(np.uint32)[:] = 0x7F800001  # nothing in the upper half tells this NaN from infinity
    out = np.empty(x.shape, dtype)
    impl.sgd_update(x.copy(), np.zeros_like(x), step=1, lr=0.0, param_out=out, rounding="stochastic", key=1)
    largest = F64(65504 if dtype == np.float16 else float.fromhex("0x1.fep127"))
    expected = np.array([np.inf, -np.inf, np.nan, largest, -largest, 0.0, -0.0] * 30)
    np.testing.assert_array_equal(out.astype(F64), expected)
    assert (np.signbit(out.astype(F64))[5::7] == 0).all()
    assert np.signbit(out.astype(F64))[6::7].all()


@each_dtype
@pytest.mark.parametrize("x", [1.0 + 1 / 1024 + 1 / 8192, -3.1415927, 1e-6, 1e-7])
def test_the_mean_of_a_million_draws_is_exact(dtype, x):
    x = F32(x)
    made = copied(np.full(10**6, x), dtype, key=KEY).astype(F64)
    below, above = made.min(), made.max()
    assert below <= x <= above
    unit = above - below
    # Five standard deviations of the mean; and a number of 16 bits cuts up to 2**-16 of a unit.
    tolerance = 5 * unit / 2 / 1000 + unit * 2**-16
    assert abs(made.mean() - x) < tolerance
    if abs(x) > 1e-3:
        assert abs(made.mean() / x - 1) < 3e-5


@each_dtype
def test_small_steps_move_16_bit_parameters_on_average(dtype, impl):
    size, steps, lr = 10_000 if impl is pyreg else 1000, 1000, 1e-3
    nearest, random = np.ones(size, dtype), np.ones(size, dtype)
    grad = np.ones(size, dtype)
    for step in range(1, steps + 1):
        impl.sgd_update(random, grad, step=step, lr=lr, rounding="stochastic", key=pyreg.fold_in(KEY, step))
    pyreg.sgd_update(nearest, grad, step=1, lr=lr)
    if np.dtype(dtype).name == "bfloat16":
        assert (nearest == 1).all()  # and so it stays
    moved = 1 - random.astype(F64)
    # A walk of 1000 steps, each rounded by up to a unit of 2**-8 (2**-11): a standard deviation below 0.07 (0.01).
    assert abs(moved.mean() - 1) < 5 * 0.07 / size**0.5


def test_exp_avg_sq_decays_in_bfloat16_as_it_should():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    size = 10_000
    param, grad = np.zeros((2, size), F32)
    exp_avg, exp_avg_sq = np.zeros(size, F32), np.full(size, 1e-3, ml_dtypes.bfloat16)
    nearest = exp_avg_sq.copy()
    start = exp_avg_sq.astype(F64)
    for step in range(1, 2001):
        key = pyreg.fold_in(KEY, step)
        pyreg.adam_update(param, grad, exp_avg, exp_avg_sq, step=step, rounding={"exp_avg_sq": "stochastic"}, key=key)
        pyreg.adam_update(param, grad, exp_avg, nearest, step=step)
    assert abs(exp_avg_sq.astype(F64).mean() / (start.mean() * 0.999**2000) - 1) < 0.01
    assert (nearest == start).all()


@each_update
def test_what_has_no_16_bits_is_not_rounded_by_chance(case, impl, dtype):
    if dtype in SIXTEEN_BIT:
        return
    arguments = case.arguments((300,), dtype)
    expected = case.call(impl, arguments)
    assert_same_bits(case.call(impl, arguments | {"rounding": "stochastic", "key": 5}), expected)


@each_update_of_sixteen_bits
def test_a_dict_chooses_the_arrays_and_each_has_numbers_of_its_own(case, dtype):
    if case.states and dtype == np.float16:
        return  # the states are float32
    arguments = case.arguments((1000,), dtype) | {"key": KEY}
    nearest = case.call(pyreg, arguments)
    everything = case.call(pyreg, arguments | {"rounding": "stochastic"})
    names = [name for name in case.updated if name != "max_exp_avg_sq"]
    assert_same_bits(case.call(pyreg, arguments | {"rounding": dict.fromkeys(names, "stochastic")}), everything)
    assert_same_bits(case.call(pyreg, arguments | {"rounding": dict.fromkeys(names, "nearest")}), nearest)
    for name in names:
        only = arguments | {"rounding": {name: "stochastic"}}
        made = case.call(pyreg, only)
        assert_same_bits(made, reference(case, only))
        assert name == "param_out" or not np.array_equal(made[name], nearest[name]), name  # that of a param is exact
        if name not in ("ema", "param_out"):  # which follow from the parameter
            assert_same_bits(made[name], everything[name])
        follow = {"param": ("ema", "param_out"), "exp_avg_sq": ("max_exp_avg_sq", "param", "ema", "param_out")}
        for other in set(names) - {name, *follow.get(name, ())}:
            assert_same_bits(made[other], nearest[other], (name, other))


@each_dtype
def test_max_exp_avg_sq_takes_the_rounded_exp_avg_sq(dtype, impl, rng):
    if dtype == np.float16:
        return
    arrays = [rng.random(1000).astype(dtype) for _ in range(4)] + [np.zeros(1000, dtype)]
    impl.adamw_update(*arrays[:4], step=1, max_exp_avg_sq=arrays[4], rounding="stochastic", key=3)
    assert_same_bits(arrays[4], arrays[3])


# --- places in the stream


@each_update_of_sixteen_bits
def test_arrays_of_a_list_follow_each_other_in_the_stream(case, dtype):
    sizes = [5, 0, 300, 1, 70_001, 64]
    whole = case.arguments((sum(sizes),), dtype, rounding="stochastic", key=KEY, offset=11)
    expected = case.call(pyreg, whole)
    cuts = np.cumsum(sizes)[:-1]
    parts = {name: [part.copy() for part in np.split(whole[name], cuts)] for name in case.arrays}
    for threads in (1, 3):
        for twin in (pyreg, pyreg.reference):
            with pyreg.num_threads(threads):
                copies = {name: [part.copy() for part in parts[name]] for name in case.arrays}
                getattr(twin, case.name)(**whole | copies)
            for name in case.updated:
                assert_same_bits(np.concatenate(copies[name]), expected[name], (name, threads))


ORDERS = [(1, 0), (0, 1), (2, 1, 0), (1, 0, 2), (0, 2, 1), (2, 0, 1), (1, 2, 0), (3, 1, 0, 2)]
SHAPES = {2: [(70, 130), (1, 200), (3, 5), (64, 64), (129, 65)], 3: [(9, 70, 33), (70, 3, 66)], 4: [(3, 5, 7, 67)]}


@each_update_of_sixteen_bits
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_any_order_in_memory_takes_the_places_of_c_order(case, dtype, order):
    for shape in SHAPES[len(order)]:
        arguments = case.arguments(shape, dtype, rounding="stochastic", key=KEY, offset=5)
        expected = case.call(pyreg, arguments)
        laid = {name: arguments[name].transpose(order).copy() for name in case.arrays}
        back = np.argsort(order)
        for threads in (1, 2):
            with pyreg.num_threads(threads):
                copies = {name: array.copy().transpose(back) for name, array in laid.items()}
                assert getattr(pyreg, case.name)(**arguments | copies)
            assert_same_bits({name: copies[name] for name in case.updated}, {n: expected[n] for n in case.updated})


@each_dtype
def test_fortran_order_of_a_large_array_has_the_same_bits_on_any_number_of_threads(dtype, rng):
    param, grad = (rng.normal(size=(1500, 700)).astype(dtype) for _ in range(2))
    expected = param.copy()
    pyreg.sgd_update(expected, grad, step=1, lr=0.01, rounding="stochastic", key=KEY)
    for threads in (1, 2, 3):
        for level in pyreg._core.isa_found():
            made = param.copy("F")
            with pyreg.num_threads(threads), isa(level):
                pyreg.sgd_update(made, grad, step=1, lr=0.01, rounding="stochastic", key=KEY)
            assert_same_bits(made, expected)


@each_update_of_sixteen_bits
def test_numbers_go_on_where_a_word_of_the_counter_ends(case, dtype):
    """Block 2**32 has the counter (0, 1)."""
    for offset in (8 * 2**32 - 700, 2**64 - 1000):
        arguments = case.arguments((1000,), dtype, rounding="stochastic", key=KEY, offset=offset)
        expected = reference(case, arguments)
        for level, made in on_every_level(case, arguments):
            assert_same_bits(made, expected, (level, offset))


def test_an_offset_is_that_of_all_arrays_together():
    lists = [[np.ones(4, F32)] * 1 + [np.ones(5, F32)], [np.ones(4, F32), np.ones(5, F32)]]
    call = {"step": 1, "rounding": "stochastic", "key": 1}
    pyreg.sgd_update(*lists, **call, offset=2**64 - 9)
    for twin in (pyreg, pyreg.reference):
        refuses(ValueError, lambda: twin.sgd_update(*lists, **call, offset=2**64 - 8), "offset", str(2**64 - 9))  # noqa: B023
