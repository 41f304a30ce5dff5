"""The global norm: values, the same bits however a model is split, and clipping."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from bits import assert_same_bits
from cases import every_dtype, on_every_level
from test_bad_input import refuses

import pyreg
from pyreg._cases import CASES

BLOCK = 2**14


@every_dtype
@pytest.mark.parametrize("n", [0, 1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 3])
def test_it_is_the_root_of_the_sum_of_squares(impl, rng, dtype, n):
    x = rng.normal(size=n).astype(dtype)
    exact = math.sqrt(sum(Fraction(float(value)) ** 2 for value in x))
    norm = impl.global_norm(x)
    assert type(norm) is float
    # Each lane of a block adds 1024 squares, so the sum may be off by 1028 units at the most, and the root by half of
    # it. The errors of random numbers add up like their roots: 16.
    assert math.isclose(norm, exact, rel_tol=16 * 2**-53)
    partials = impl.norm_partial(x)
    assert (partials.dtype, partials.shape) == (np.float64, (-(-n // BLOCK),))
    assert impl.norm_combine(partials) == norm


def test_arrays_of_all_dtypes_count_together(impl):
    arrays = [np.array([3.0, 0.0]), np.array([[4.0]], np.float32), np.array(12.0, np.float16)]
    for given in (arrays, tuple(arrays), iter(arrays), dict(enumerate(arrays)).values()):
        assert impl.global_norm(given) == 13.0
    assert impl.global_norm([]) == impl.norm_combine([]) == impl.norm_combine(np.zeros((2, 3))) == 0.0
    assert impl.norm_partial([]).shape == (0,)
    assert impl.norm_partial(arrays).tolist() == [9.0, 16.0, 144.0]


@pytest.mark.parametrize(
    ("x", "norm"),
    [
        (np.full(4, 1e30, np.float32), 2e30),
        (np.full(4, 2.0**120, np.float32), 2.0**121),
        (np.full(4, 2.0**-140, np.float32), 2.0**-139),
        (np.full(4, 1e200), 2e200),
        (np.full(4, 2.0**1000), 2.0**1001),
        (np.full(4 * BLOCK, 2.0**1000), 2.0**1008),
        (np.array([2.0**1023, 1.0, 2.0**1023]), 2.0**1023 * 2**0.5),
        (np.array([1e200, 1e-300] * BLOCK), 1e202 * 1.28),
        (np.full(4, 1.7e308), math.inf),  # beyond float64
        (np.array([1.0, np.inf]), math.inf),
        (np.array([np.inf, -np.inf, 1e200]), math.inf),
        (np.full(4, 6e4, np.float16), 2 * float(np.float16(6e4))),
    ],
)
def test_extreme_elements_are_right(impl, x, norm):
    assert math.isclose(impl.global_norm(x), norm, rel_tol=1e-6 if x.dtype == np.float32 else 1e-15)
    assert impl.norm_combine(impl.norm_partial([x, x[:0]])) == impl.global_norm(x)


def test_nan_wins(impl, dtype):
    for others in ([1.0], [np.inf], [np.finfo(dtype).max] * 4):
        assert math.isnan(impl.global_norm(np.array([np.nan, *others], dtype)))
        assert math.isnan(impl.global_norm([np.array([np.nan], dtype), np.array(others, dtype)]))


def test_partial_sums_are_added_exactly_in_any_order(impl, rng):
    partials = rng.normal(size=400) ** 2 * 10.0 ** rng.uniform(-320, 307, 400)
    partials[:8] = 1e308, 1e308, 1e308, 1e308, 5e-324, 2.0**-1022, 2.0**-1022 - 5e-324, 0.0
    partials[8:200:2] *= -1  # beyond float64's range: its negative times 2**1040
    total = sum(-Fraction(p) * 2**1040 if p < 0 else Fraction(p) for p in partials)
    norm = impl.norm_combine(partials)
    exact = math.sqrt(Fraction(total, 4**600)) * 2.0**600  # math.sqrt rounds the fraction to a float first
    assert math.isclose(norm, exact, rel_tol=2**-52)
    for _ in range(20):
        rng.shuffle(partials)
        assert impl.norm_combine(partials) == norm
        cut = rng.integers(400)
        assert impl.norm_combine([partials[cut:], partials[:cut]]) == norm
    assert impl.norm_combine([1e308] * 4) == 2e154
    assert impl.norm_combine([2.0**-1074] * 4) == 2.0**-536


@pytest.mark.parametrize("power", [-1074, -1022, -3, 0, 1, 52, 53, 1000, 1023])
def test_the_exact_sum_is_rounded_to_nearest_with_ties_to_even(power):
    """1 + half a unit in the last place is a tie; anything above it is not."""
    unit = 2.0**power
    for least in (0.0, 5e-324):
        if power - 53 >= -1074:
            partials = [unit, unit * 2.0**-53, least]
            assert pyreg.norm_combine(partials) == pyreg.reference.norm_combine(partials)
            partials = [unit, unit * 2.0**-52, unit * 2.0**-53, least]
            assert pyreg.norm_combine(partials) == pyreg.reference.norm_combine(partials)
    for count in (1, 2, 3, 5, 1025):
        assert pyreg.norm_combine([unit] * count) == pyreg.reference.norm_combine([unit] * count)


def test_a_tie_is_rounded_to_even_and_the_least_bit_decides(impl):
    x = float.fromhex("0x1.0000000000002p+1")  # even; a unit in its last place is 2**-51
    assert impl.norm_combine([x, 2.0**-52]) == math.sqrt(x)
    assert impl.norm_combine([x, 2.0**-52, 5e-324]) == math.sqrt(x + 2.0**-51)


def test_any_split_between_arrays_or_at_blocks_has_the_same_bits(rng):
    arrays = [rng.normal(size=size).astype(np.float32) for size in (5, 3 * BLOCK + 7, 0, 2 * BLOCK, 100)]
    norm = pyreg.reference.global_norm(arrays)
    for threads in (1, 2, 3):
        with pyreg.num_threads(threads):
            assert pyreg.global_norm(arrays) == pyreg.global_norm(arrays[::-1]) == norm
            parts = [pyreg.norm_partial(arrays[i::2]) for i in range(2)]
            assert pyreg.norm_combine(parts) == pyreg.norm_combine(np.concatenate(parts)) == norm
            cuts = itertools.pairwise([0, BLOCK, 3 * BLOCK, 3 * BLOCK + 7])
            parts = [pyreg.norm_partial([arrays[1][a:b] for a, b in cuts]), pyreg.norm_partial(arrays[0])]
            assert pyreg.norm_combine([*parts, pyreg.norm_partial(arrays[2:])]) == norm


def test_a_layout_does_not_matter(rng, dtype):
    case = CASES["norm_partial"]
    x = rng.normal(size=(300, 200)).astype(dtype)
    for level, made in on_every_level(case, {"arrays": [np.asfortranarray(x)]}):
        assert_same_bits(made, {"partials": pyreg.reference.norm_partial(x)}, level)


# --- clipping


@pytest.mark.parametrize(
    ("norm", "max_norm", "expected"),
    [
        (0.0, 1.0, 1.0),
        (0.5, 1.0, 1.0),
        (1.0, 1.0, 1 / (1 + 1e-6)),
        (8.0, 2.0, 2 / (8 + 1e-6)),
        (8.0, 0.0, 0.0),
        (np.float32(8), np.float64(2), 2 / (8 + 1e-6)),
        (math.inf, 1.0, 0.0),
        (math.nan, 1.0, 0.0),
        (1e308, 1e308, 1.0),
    ],
)
def test_clip_coefficient(impl, norm, max_norm, expected):
    made = impl.clip_coefficient(norm, max_norm)
    assert (type(made), made) == (float, expected)


def test_clip_coefficient_refuses_what_is_no_norm(impl):
    for value, error in ((-1.0, ValueError), ("1", TypeError), (None, TypeError), (True, TypeError)):
        refuses(error, lambda value=value: impl.clip_coefficient(value, 1.0), "norm", repr(value))
    for value, error in ((-1.0, ValueError), (math.nan, ValueError), (math.inf, ValueError), (None, TypeError)):
        refuses(error, lambda value=value: impl.clip_coefficient(1.0, value), "max_norm", repr(value))


def test_it_clips_as_pytorch_does(rng):
    torch = pytest.importorskip("torch")
    arrays = [rng.normal(size=size).astype(np.float32) for size in (70_000, 3, 500)]
    params = [torch.zeros(array.shape, requires_grad=True) for array in arrays]
    for param, array in zip(params, arrays, strict=True):
        param.grad = torch.from_numpy(array.copy())
    for max_norm in (1e3, 1.0):
        theirs = torch.nn.utils.clip_grad_norm_(params, max_norm)
        norm = pyreg.global_norm(arrays)
        assert math.isclose(norm, theirs, rel_tol=1e-5)
        coefficient = np.float32(pyreg.clip_coefficient(norm, max_norm))
        for param, array in zip(params, arrays, strict=True):
            np.testing.assert_allclose(array * coefficient, param.grad.numpy(), rtol=1e-5)
