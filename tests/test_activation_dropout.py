"""Activations with dropout behind them: values, gradients, error bounds, what may be written in place."""

import math

import numpy as np
import pytest
from bits import assert_same_bits
from test_elementary import float32s, ulps

import pyreg

P, KEY, OFFSET = 0.3, 0x0123456789ABCDEF, 11
DROPOUT = {"p": P, "key": KEY, "offset": OFFSET}
ACTIVATIONS = {
    "relu": ("relu", {}),
    "silu": ("silu", {}),
    "gelu": ("gelu", {}),
    "gelu_tanh": ("gelu", {"approximate": "tanh"}),
}


@pytest.fixture(params=ACTIVATIONS)
def activation(request):
    return request.param


def forward(impl, activation, x, bias=None, **options):
    name, kind = ACTIVATIONS[activation]
    return getattr(impl, f"{name}_dropout_forward")(x, bias, **DROPOUT | kind | options)


def backward(impl, activation, dy, x, bias=None, **options):
    name, kind = ACTIVATIONS[activation]
    return getattr(impl, f"{name}_dropout_backward")(dy, x, bias, **DROPOUT | kind | options)


def exactly(activation, h):
    """By math's functions, for a Python float."""
    match activation:
        case "relu":
            return max(h, 0.0)
        case "silu":
            return h / (1 + math.exp(-h)) if h > -700 else 0.0
        case "gelu":
            return h * math.erfc(-h / math.sqrt(2)) / 2
        case _:
            u = math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)
            # (1 + tanh(u)) / 2, without the loss of digits that this has where u is negative.
            return h / (1 + math.exp(-2 * u)) if u > -350 else 0.0


def test_values_that_pytorch_prints(impl):
    # torch.nn.functional of torch.tensor([-1., 0.5, 2.], dtype=torch.float64), version 2.13
    h = np.array([-1.0, 0.5, 2.0])
    expected = {
        "relu": [0.0, 0.5, 2.0],
        "silu": [-0.2689414213699951, 0.3112296656009273, 1.7615941559557646],
        "gelu": [-0.15865525393145707, 0.34573123063700656, 1.9544997361036416],
        "gelu_tanh": [-0.15880800939172324, 0.34571400982514394, 1.9545976940877750],
    }
    for activation, values in expected.items():
        np.testing.assert_allclose(forward(impl, activation, h, p=0), values, rtol=1e-15, atol=0)


def test_float64_keeps_its_digits_in_both_tails(impl, activation):
    h = np.concatenate([np.linspace(-9, 9, 10_001), np.linspace(-1, 1, 10_001)])
    got = forward(impl, activation, h, p=0)
    exact = np.array([exactly(activation, value) for value in h])
    # The argument of an exponential is rounded: as many ulps of the result as it is large, here and in math's.
    np.testing.assert_array_less(ulps(got, exact), 10 + 2 * np.abs(h) ** 3)


# Bounds of the float32 functions in ulps: that of their curve in test_elementary.py, and one for the product. The
# argument of the exponential in GELU's approximation comes from six roundings, half an ulp each, two of constants. It
# is up to 88 before the result underflows, and an ulp of it is as many of the result.
BOUNDS = {"relu": 0, "silu": 4, "gelu": 7, "gelu_tanh": 3 * 88}


def test_float32_is_within_its_bound_at_every_magnitude(impl, activation):
    for sign in (1, -1):
        for x in float32s(2.0**-40, 100.0, step=4099):  # a prime: no bits of the significand are left out
            x = sign * x
            got, exact = forward(impl, activation, x, p=0), forward(pyreg.reference, activation, x.astype(float), p=0)
            large = np.abs(exact) >= np.finfo(np.float32).tiny * np.maximum(np.abs(x), 1)
            assert ulps(got, exact)[large].max(initial=0) <= BOUNDS[activation]
            # Where the curve is subnormal, it has been rounded to the smallest number before it is multiplied.
            np.testing.assert_allclose(got[~large], exact[~large], rtol=2e-5, atol=100 * 2.0**-149)
            dx, exact = (
                backward(i, activation, np.ones_like(h), h, p=0)[0]
                for i, h in ((impl, x), (pyreg.reference, x.astype(float)))
            )
            # The derivative crosses 0: an error of a few ulps of 1.
            np.testing.assert_allclose(dx, exact, rtol=1e-6, atol=1e-6)


def test_dropout_comes_behind_the_activation_and_the_bias_before_it(impl, dtype, rng, activation):
    x, dy = rng.normal(0, 3, (2, 70, 129)).astype(dtype)
    bias = rng.normal(size=129).astype(dtype)
    y = forward(impl, activation, x, bias)
    assert_same_bits(y, impl.dropout(forward(impl, activation, x + bias, p=0), P, key=KEY, offset=OFFSET))
    dx, dbias = backward(impl, activation, dy, x, bias)
    alone, none = backward(impl, activation, dy, x + bias, p=0)
    assert none is None
    assert_same_bits(dx, impl.dropout(alone, P, key=KEY, offset=OFFSET))
    # 70 rows: a block of 64, in order, and the rest.
    blocks = [np.add.accumulate(part, axis=0)[-1].astype(np.float64) for part in (dx[:64], dx[64:])]
    assert_same_bits(dbias + dtype(0), (blocks[0] + blocks[1]).astype(dtype) + dtype(0))


def test_gradients_equal_finite_differences(impl, rng, activation):
    # Away from 0, where ReLU has none.
    x = rng.uniform(0.05, 3, (5, 7)) * rng.choice([-1, 1], (5, 7))
    bias, dy = np.full(7, 1e-3), rng.normal(size=(5, 7))
    dx, dbias = backward(impl, activation, dy, x, bias)

    def loss():
        return (forward(impl, activation, x, bias) * dy).sum()

    # The third derivatives are of the order of 1: h**2 / 6 and eps / h are both below 1e-10.
    h = 1e-5
    for array, gradient in ((x, dx), (bias, dbias)):
        for i in np.ndindex(array.shape):
            kept = array[i]
            array[i] = kept + h
            above = loss()
            array[i] = kept - h
            below = loss()
            array[i] = kept
            assert abs((above - below) / (2 * h) - gradient[i]) < 1e-8


def test_infinities_have_the_limits_and_nan_stays(impl, dtype, activation):
    h = np.array([-np.inf, -np.finfo(dtype).max, np.finfo(dtype).max, np.inf, np.nan], dtype)
    y = forward(impl, activation, h, p=0)
    np.testing.assert_array_equal(y, [0, 0, h[2], np.inf, np.nan])
    dx, _ = backward(impl, activation, np.ones_like(h), h, p=0)
    expected = [0, 0, 1, 1, 1 if activation == "relu" else np.nan]
    np.testing.assert_array_equal(dx, expected)
    assert not np.isnan(forward(impl, activation, np.full(9, np.nan, dtype), p=1)).any()


def test_inference_drops_nothing(impl, dtype, rng, activation):
    x = rng.normal(size=(3, 50)).astype(dtype)
    assert_same_bits(forward(impl, activation, x, training=False), forward(impl, activation, x, p=0))


@pytest.mark.parametrize("n", [3, 129, 5000])
@pytest.mark.parametrize("has_bias", [True, False])
def test_results_may_be_written_over_the_inputs(impl, dtype, rng, activation, n, has_bias):
    x, dy = rng.normal(size=(2, 67, n)).astype(dtype)
    bias = rng.normal(size=n).astype(dtype) if has_bias else None
    y, gradients = forward(impl, activation, x, bias), backward(impl, activation, dy, x, bias)
    for which in (0, 1):
        arrays = dy.copy(), x.copy()
        made = backward(impl, activation, *arrays, bias, out=arrays[which])
        assert made[0] is arrays[which]
        assert_same_bits(made, gradients)
    in_place = x.copy()
    assert_same_bits(forward(impl, activation, in_place, bias, out=in_place), y)


@pytest.mark.parametrize("rows", [9000, 1])  # one row of all elements, too
def test_results_written_past_the_caches_have_the_same_bits(level, rng, activation, rows):
    n = 9000 * 601 // rows
    x, dy = rng.standard_normal((2, rows, n), np.float32)
    bias = rng.standard_normal(n, np.float32)
    for shift in (0, 1):
        out = np.empty(x.size + shift, np.float32)[shift:].reshape(x.shape)
        in_place = x.copy()
        expected = forward(pyreg, activation, in_place, bias, out=in_place)
        assert_same_bits(forward(pyreg, activation, x, bias, out=out), expected)
        in_place = x.copy()
        expected = backward(pyreg, activation, dy, in_place, bias, out=in_place)
        assert_same_bits(backward(pyreg, activation, dy, x, bias, out=out), expected)


def test_a_part_with_its_offset_is_the_part_of_the_whole(impl, dtype, rng, activation):
    x, dy = rng.normal(size=(2, 30, 41)).astype(dtype)
    y, (dx, _) = forward(impl, activation, x), backward(impl, activation, dy, x)
    for part in (slice(0, 1), slice(7, 29)):
        offset = OFFSET + part.start * 41
        assert_same_bits(forward(impl, activation, x[part], offset=offset), y[part])
        assert_same_bits(backward(impl, activation, dy[part], x[part], offset=offset)[0], dx[part])


@pytest.mark.parametrize("shape", [(), (0,), (0, 5), (3, 0)])
def test_arrays_of_no_axes_and_of_no_elements(impl, dtype, activation, shape):
    x = np.ones(shape, dtype)
    assert forward(impl, activation, x).shape == shape
    assert backward(impl, activation, x, x)[0].shape == shape
    if shape:
        bias = np.ones(shape[-1], dtype)
        assert forward(impl, activation, x, bias).shape == shape
        assert_same_bits(backward(impl, activation, x, x, bias)[1], np.zeros_like(bias))
