"""float16 and bfloat16: results are those of float32, rounded once. test_mixed_dtypes.py has their arguments."""

import math

import numpy as np
import pytest
from bits import assert_same_bits
from cases import SIXTEEN_BIT, every_case_with_sixteen_bits, info, reference, sixteen_bit

import pyreg
from pyreg._cases import CASES, Of


def widened(arguments, dtypes=SIXTEEN_BIT, wide=np.float32):
    """The arguments with every array of one of the dtypes in a wide one."""
    arrays = {name: value for name, value in arguments.items() if isinstance(value, np.ndarray)}
    return arguments | {name: array.astype(wide) for name, array in arrays.items() if array.dtype in dtypes}


def in_float64(arguments):
    return widened(arguments, (np.float32, *SIXTEEN_BIT), np.float64)


def rounded(made, like):
    """Results in the dtypes of others."""
    with np.errstate(all="ignore"):
        return {
            name: value.astype(like[name].dtype) if isinstance(value, np.ndarray) else value
            for name, value in made.items()
        }


def norm_of(case, z, arguments):
    """The norm in a fused function, and its arguments for this z."""
    norm = CASES[case.name.removeprefix("dropout_add_")]
    return norm, {name: arguments.get(name) for name in (*norm.arrays, *norm.numbers)} | {"x": z}


OF_STORED = ("ema", "max_exp_avg_sq", "param_out")  # what an update computes from arrays as they are stored


def assert_is_rounded(case, impl, arguments, context=()):
    """The results are those of the same call in float32, rounded. A fused function normalises its rounded z."""
    arguments = arguments | {name: None for name in OF_STORED if name in case.updated}
    if "rounding" in arguments:
        arguments["rounding"] = "nearest"
    made = case.call(impl, arguments)
    expected = case.call(impl, widened(arguments))
    if "z" in case.results:
        z = case.call(impl, arguments | {"return_z": True})["z"]
        norm, of_z = norm_of(case, z, arguments)
        expected |= norm.call(impl, widened(of_z))
    assert_same_bits(made, rounded(expected, made), context)


@every_case_with_sixteen_bits
def test_results_are_those_of_float32_rounded_once(case, dtype, impl):
    for shape in ((9, 37), (3, 4, 131)) if impl is pyreg.reference else ((9, 37), (3, 4, 131), (67, 1001), (2, 4103)):
        for variant in (*case.variants_of(shape, dtype), *case.other_axes):
            assert_is_rounded(case, impl, case.arguments(shape, dtype, **variant), (shape, variant))


HOSTILE = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 6e-8, -6e-5, 65504.0, -65504.0, 3.39e38, -3.39e38, 1.0]


@every_case_with_sixteen_bits
def test_hostile_values_give_what_float32_gives(case, dtype, impl):
    shape = (12, 40)
    for variant in case.variants_of(shape, dtype):
        for value in HOSTILE:
            arguments = case.arguments(shape, dtype, **variant)
            for place, (name, of) in enumerate(case.arrays.items()):
                if arguments[name] is not None and arguments[name].dtype != bool and of is not Of.ROW:
                    with np.errstate(all="ignore"):
                        arguments[name].reshape(-1)[place :: 13 + place] = value
            assert_is_rounded(case, impl, arguments, (value, variant))


@every_case_with_sixteen_bits
def test_results_are_within_half_a_unit_of_float64_mathematics(case, dtype, impl):
    stored = {name: None for name in OF_STORED if name in case.updated}
    arguments = case.arguments((70, 129), dtype, **stored)
    made, exact = case.call(impl, arguments), reference(case, in_float64(arguments))
    for name in ("applied", *stored):
        made.pop(name, None)
    if "z" in made:
        norm, of_z = norm_of(case, made["z"], arguments)
        exact |= reference(norm, in_float64(of_z))
    for name, value in made.items():
        value = np.asarray(value)
        error, size = np.abs(value.astype(np.float64) - exact[name]), np.abs(exact[name])
        unit, smallest = (float(limit) for limit in (info(value.dtype).eps, info(value.dtype).smallest_subnormal))
        # The rounding, and what float32 does before it: some tens of roundings of terms up to the largest result.
        assert (error <= size * unit / 2 + smallest / 2 + 2e-5 * size.max()).all(), name


# --- rounding


def every_value(dtype):
    """Every value but NaN, in order."""
    with np.errstate(invalid="ignore"):
        values = np.arange(2**16, dtype=np.uint16).view(dtype).astype(np.float32)
    return np.sort(values[~np.isnan(values)]).astype(dtype)


def rounded_by_pyreg(impl, values, dtype):
    """The float32 values in the dtype: 1 times a float32 layer_scale."""
    ones = np.ones((1, values.size), dtype)
    return impl.dropout_add_rms_norm_forward(ones, layer_scale=values).z[0]


@sixteen_bit
def test_every_value_is_read_and_written_exactly(impl, dtype):
    values = every_value(dtype)
    assert_same_bits(rounded_by_pyreg(impl, values.astype(np.float32), dtype), values)
    x = values.reshape(1, -1)
    assert_same_bits(impl.dropout_add_rms_norm_forward(x).z, x)


@sixteen_bit
def test_results_are_rounded_to_nearest_ties_to_even(impl, dtype):
    finite = every_value(dtype)[1:-1].astype(np.float64)
    beyond = finite[-1] + (finite[-1] - finite[-2])  # where the next value would be
    places = np.concatenate([[-beyond], finite, [beyond]])
    ties = ((places[1:] + places[:-1]) / 2).astype(np.float32)
    ties = ties[np.isfinite(ties)]
    assert ties.size > 2**16 - 2**12
    up, down = np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))
    values = np.concatenate([ties, up, down, np.array([np.inf, -np.inf, np.nan], np.float32)])
    with np.errstate(all="ignore"):
        expected = values.astype(dtype)
    assert_same_bits(rounded_by_pyreg(impl, values, dtype), expected)
    even = rounded_by_pyreg(impl, ties, dtype).view(np.uint16)
    assert not (even & 1).any()


@sixteen_bit
def test_what_overflows_is_infinite_and_subnormal_numbers_are_kept(impl, dtype):
    limits = info(dtype)
    x = np.array([limits.max, -limits.max, limits.smallest_subnormal, -limits.tiny], dtype)
    y = impl.dropout(np.repeat(x, 50), 0.5, key=1)
    kept = impl.dropout_mask(200, 0.5, key=1)
    with np.errstate(all="ignore"):
        expected = np.where(kept, np.repeat(x.astype(np.float32) * np.float32(2), 50), 0).astype(dtype)
    assert_same_bits(y, expected)
    assert np.isinf(y[:100][kept[:100]]).all()


@sixteen_bit
@pytest.mark.parametrize("magnitude", [1e-7, 1e-5, 1.0, 6e4])
def test_rows_of_any_magnitude_are_normalised(impl, dtype, rng, magnitude):
    x = (rng.uniform(-1, 1, (4, 768)) * magnitude).astype(dtype)
    wide = x.astype(np.float64)
    wide -= wide.mean(-1, keepdims=True)
    expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True))
    assert np.abs(expected).max() < 4  # where half a unit is eps
    y = impl.layer_norm(x, eps=0.0).astype(np.float64)
    np.testing.assert_allclose(y, expected, rtol=0, atol=float(info(dtype).eps) + 2e-6)


# --- sums over rows


@sixteen_bit
@pytest.mark.parametrize("rows", [1000, 100_000])
def test_gradients_of_parameters_have_no_error_but_that_of_their_dtype(impl, rng, dtype, rows):
    """The sums are float32 and double. A sum in bfloat16 would stop growing at 256 times its terms."""
    x, dy = rng.normal(0.5, 1, (2, rows, 8)).astype(dtype)
    _, mean, rstd = impl.layer_norm_forward(x)
    xhat = (x.astype(np.float64) - mean[:, None]) * rstd[:, None].astype(np.float64)
    dbias, dweight = dy.astype(np.float64), dy.astype(np.float64) * xhat
    # In float32: 19 additions in a block of 64 rows, and five roundings of each term.
    errors = [24 * 2.0**-24 * np.abs(terms).sum(0) for terms in (dweight, dbias)]
    for parameter_dtype in (dtype, np.float32):
        made = impl.layer_norm_backward(dy, x, mean, rstd, np.ones(8, parameter_dtype))
        unit = float(info(parameter_dtype).eps)
        for got, terms, error in zip(made[1:], (dweight, dbias), errors, strict=True):
            assert got.dtype == parameter_dtype
            exact = terms.sum(0)
            assert (np.abs(got.astype(np.float64) - exact) <= unit / 2 * np.abs(exact) + error).all()


@sixteen_bit
def test_l2_penalty_of_parameters_of_all_dtypes_is_summed_in_double(impl, rng, dtype):
    params = [rng.normal(size=1000).astype(t) for t in (dtype, np.float32, np.float64, *SIXTEEN_BIT)]
    exact = math.fsum(float(value) ** 2 for array in params for value in array)
    assert math.isclose(impl.l2_penalty(params, 2.0), exact, rel_tol=1e-14)
