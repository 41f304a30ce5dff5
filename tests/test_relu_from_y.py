"""ReLU's backward pass from y, what the forward pass returned: the bits of the one from x."""

import numpy as np
import pytest
from bits import assert_same_bits
from cases import LAYOUTS, Guarded, every_dtype
from test_bad_input import refuses

import pyreg
from pyreg import _core

KEY = 0x0123456789ABCDEF
SPECIAL = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-39, -1e-39, 3.0]  # in float32, 1e-39 is subnormal


def arrays(rng, dtype, shape):
    """dy, x and bias. Special values of each meet those of the other, and ordinary ones."""
    dy, x = rng.normal(size=(2, *shape)).astype(dtype)
    for array, places in ((x, np.arange(0, x.size, 3)), (dy, np.arange(0, x.size, 5))):
        array.reshape(-1)[places] = np.resize(np.array(SPECIAL, dtype), len(places))
    return dy, x, rng.normal(size=shape[-1:]).astype(dtype)


@pytest.fixture(params=[0.0, 1e-3, 0.3, 0.5, 1.0])
def p(request):
    return request.param


# 130 rows: more than two blocks. 1001 and 37: rows that end within a vector.
@every_dtype
@pytest.mark.parametrize("shape", [(130, 37), (9, 1001), (3, 4, 64), (5,), (0, 5)])
def test_from_y_it_has_the_bits_of_from_x(impl, dtype, rng, p, shape):
    dy, x, bias = arrays(rng, dtype, shape)
    dropout = {"p": p, "key": KEY, "offset": 11}
    for given in (None, bias):
        y = impl.relu_dropout_forward(x, given, **dropout)
        expected = impl.relu_dropout_backward(dy, x, given, **dropout)
        assert_same_bits(impl.relu_dropout_backward(dy, None, given, y=y, **dropout), expected)
        assert_same_bits(impl.relu_dropout_backward(dy, bias=given, y=y, p=p), expected)  # without a key


@every_dtype
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1001, 300), (130, 4096), (3, 100_003)])
def test_every_thread_count_gives_the_same_bits(level, dtype, rng, threads, shape):
    dy, y, bias = arrays(rng, dtype, shape)
    for given in (None, bias):
        expected = pyreg.reference.relu_dropout_backward(dy, bias=given, y=y, p=0.3)
        with pyreg.num_threads(threads):
            assert_same_bits(pyreg.relu_dropout_backward(dy, bias=given, y=y, p=0.3), expected)


@every_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_bits(impl, dtype, rng, layout):
    dy, y, bias = arrays(rng, dtype, (4, 5, 41))
    expected = impl.relu_dropout_backward(dy, bias=bias, y=y, p=0.3)
    other = LAYOUTS[layout]
    assert_same_bits(impl.relu_dropout_backward(other(dy), bias=other(bias), y=other(y), p=0.3), expected)


@every_dtype
def test_out_may_be_y_or_dy_and_nothing_is_written_beside_it(impl, dtype, rng):
    dy, y, bias = arrays(rng, dtype, (67, 129))
    for given in (None, bias):
        expected = impl.relu_dropout_backward(dy, bias=given, y=y, p=0.3)
        for name in ("dy", "y"):
            copies = {"dy": dy.copy(), "y": y.copy()}
            made = impl.relu_dropout_backward(**copies, bias=given, p=0.3, out=copies[name])
            assert made.dx is copies[name]
            assert_same_bits(made, expected)
        for shift in (0, 1, 3):
            guarded = Guarded(y.shape, dtype, shift)
            made = impl.relu_dropout_backward(dy, bias=given, y=y, p=0.3, out=guarded.array)
            assert made.dx is guarded.array
            assert_same_bits(made, expected)
            guarded.assert_bands_untouched_and_clear(shift)


# Results are written past the caches unless they replace an input.
@pytest.mark.parametrize("shape", [(1_500, 1001), (25_000, 64), (50_000, 31), (1_550_000,)])
def test_results_written_past_the_caches_have_the_same_bits(level, rng, shape):
    dy, y, bias = arrays(rng, np.float32, shape)
    assert 3 * dy.nbytes > _core.most_bytes_cached
    for given in (None, bias) if len(shape) > 1 else (None,):
        expected = pyreg.relu_dropout_backward(dy, bias=given, y=y, p=0.3, out=dy.copy())
        for shift in (0, 3):
            guarded = Guarded(shape, np.float32, shift)
            assert_same_bits(pyreg.relu_dropout_backward(dy, bias=given, y=y, p=0.3, out=guarded.array), expected)
            guarded.assert_bands_untouched_and_clear(shift)


@every_dtype
def test_the_values_of_the_bias_are_not_read(impl, dtype, rng):
    dy, y, bias = arrays(rng, dtype, (9, 40))
    expected = impl.relu_dropout_backward(dy, bias=bias, y=y, p=0.3)
    assert_same_bits(impl.relu_dropout_backward(dy, bias=np.full_like(bias, np.nan), y=y, p=0.3), expected)


@every_dtype
def test_arrays_of_no_axes_are_one_element(impl, dtype):
    dy, y = np.full((), 2, dtype), np.full((), 3, dtype)
    dx, dbias = impl.relu_dropout_backward(dy, y=y, p=0.5)
    assert (dx.shape, dx, dbias) == ((), 4, None)


def test_bad_arguments_are_refused_and_change_nothing(impl):
    memory, row = np.ones((5, 6), np.float32), np.ones(6, np.float32)
    one, out = memory[1:], np.ones((4, 6), np.float32)
    for error, fragments, arguments in (
        (TypeError, ["x must be None if y is given", "ndarray"], {"x": one, "y": one}),
        (TypeError, ["x must be given, or y=", "None"], {}),
        (TypeError, ["y must be float32, float64, float16 or bfloat16", "int64"], {"y": np.ones((4, 6), int)}),
        (TypeError, ["dy must be float32 like y", "float64"], {"dy": one.astype(float), "y": one}),
        (ValueError, ["dy must have shape", "like y"], {"dy": row, "y": one}),
        (ValueError, ["bias must have shape", "y's last axis"], {"y": one, "bias": row[:5]}),
        (ValueError, ["y must have at least one axis"], {"dy": one[0, 0], "y": one[0, 0], "bias": row}),
        (ValueError, ["p must be in [0, 1]", "2"], {"y": one, "p": 2}),
        (TypeError, ["key must be an integer", "1.5"], {"y": one, "key": 1.5}),
        (ValueError, ["offset must be in", "-1"], {"y": one, "offset": -1}),
        (ValueError, ["out must not overlap bias"], {"y": one, "bias": out[0], "out": out}),
        (ValueError, ["out must be y itself or not overlap it"], {"y": one, "out": memory[:4]}),
    ):
        given = {"dy": one, "p": 0.3, "out": out} | arguments
        before = {name: value.tobytes() for name, value in given.items() if isinstance(value, np.ndarray)}
        refuses(error, lambda given=given: impl.relu_dropout_backward(**given), *fragments)
        assert {name: given[name].tobytes() for name in before} == before
