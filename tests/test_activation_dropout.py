"""Activations followed by dropout: values, gradients, error bounds."""

import math

import numpy as np
import pytest
from bits import assert_same_bits
from cases import every_dtype, info
from test_elementary import float32s, ulps

import pyreg

KEY = 0x0123456789ABCDEF
DROPOUT = {"p": 0.3, "key": KEY, "offset": 11}
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
    return getattr(impl, f"{name}_dropout_forward")(x, bias, **kind, **options)


def backward(impl, activation, dy, x, bias=None, **options):
    name, kind = ACTIVATIONS[activation]
    return getattr(impl, f"{name}_dropout_backward")(dy, x, bias, **kind, **options)


def exactly(activation, h):
    """The activation of a Python float, by the functions of `math`."""
    match activation:
        case "relu":
            return max(h, 0.0)
        case "silu":
            return h / (1 + math.exp(-h)) if h > -700 else 0.0
        case "gelu":
            return h * math.erfc(-h / math.sqrt(2)) / 2
        case _:
            u = math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)
            # Equal to h * (1 + tanh(u)) / 2, but that form loses digits for negative u.
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
        np.testing.assert_allclose(forward(impl, activation, h), values, rtol=1e-15, atol=0)


def test_float64_keeps_its_digits_in_both_tails(impl, activation):
    h = np.concatenate([np.linspace(-9, 9, 10_001), np.linspace(-1, 1, 10_001)])
    got = forward(impl, activation, h)
    exact = np.array([exactly(activation, value) for value in h])
    # Rounding the argument of exp costs as many ulps of the result as the argument is large, here and in `math`.
    np.testing.assert_array_less(ulps(got, exact), 10 + 2 * np.abs(h) ** 3)


# Bounds of the float32 functions in ulps: the bound of their curve in test_elementary.py, and one for the product. In
# GELU's approximation, the argument of exp has six roundings of half an ulp, two of them of constants. It is up to 88
# before the result underflows, and one ulp of it is as many ulps of the result as it is large.
BOUNDS = {"relu": 0, "silu": 4, "gelu": 7, "gelu_tanh": 3 * 88}


def test_float32_is_within_its_bound_at_every_magnitude(impl, activation):
    for sign in (1, -1):
        for x in float32s(2.0**-40, 100.0, step=4099):  # a prime, so every bit of the significand varies
            x = sign * x
            got, exact = forward(impl, activation, x), forward(pyreg.reference, activation, x.astype(float))
            large = np.abs(exact) >= np.finfo(np.float32).tiny * np.maximum(np.abs(x), 1)
            assert ulps(got, exact)[large].max(initial=0) <= BOUNDS[activation]
            # A subnormal value of the curve was rounded to a multiple of the smallest number before the product.
            np.testing.assert_allclose(got[~large], exact[~large], rtol=2e-5, atol=100 * 2.0**-149)
            dx, exact = (
                backward(i, activation, np.ones_like(h), h)[0]
                for i, h in ((impl, x), (pyreg.reference, x.astype(float)))
            )
            # The derivative crosses 0, so its error is a few ulps of 1.
            np.testing.assert_allclose(dx, exact, rtol=1e-6, atol=1e-6)


def test_dropout_comes_behind_the_activation_and_the_bias_before_it(impl, dtype, rng, activation):
    x, dy = rng.normal(0, 3, (2, 70, 129)).astype(dtype)
    bias = rng.normal(size=129).astype(dtype)
    y = forward(impl, activation, x, bias, **DROPOUT)
    assert_same_bits(y, impl.dropout(forward(impl, activation, x + bias), **DROPOUT))
    dx, dbias = backward(impl, activation, dy, x, bias, **DROPOUT)
    alone, none = backward(impl, activation, dy, x + bias)
    assert none is None
    assert_same_bits(dx, impl.dropout(alone, **DROPOUT))
    assert_same_bits(dbias + dtype(0), sum_of_70_rows(dx) + dtype(0))


def sum_of_70_rows(rows):
    """Over a block of 64 rows and a block of 6: 16 rows in order, then the sums of 16 rows in order."""

    def in_order(rows):
        return np.add.accumulate(rows, axis=0)[-1]

    first, second = (
        in_order([in_order(block[at : at + 16]) for at in range(0, len(block), 16)]).astype(np.float64)
        for block in (rows[:64], rows[64:])
    )
    return (first + second).astype(rows.dtype)


@every_dtype
def test_infinities_have_the_limits_and_nan_stays(impl, dtype, activation):
    largest = float(info(dtype).max)
    h = np.array([-np.inf, -largest, largest, np.inf, np.nan], dtype)
    y = forward(impl, activation, h)
    np.testing.assert_array_equal(y.astype(float), [0, 0, largest, np.inf, np.nan])
    dx, _ = backward(impl, activation, np.ones_like(h), h)
    expected = [0, 0, 1, 1, 1 if activation == "relu" else np.nan]
    np.testing.assert_array_equal(dx.astype(float), expected)
    assert not np.isnan(forward(impl, activation, np.full(9, np.nan, dtype), p=1, key=KEY)).any()


@every_dtype
def test_an_array_of_no_axes_is_one_element(impl, dtype, activation):
    x, one = np.ones((), dtype), np.ones(1, dtype)
    y, (dx, _) = forward(impl, activation, x, **DROPOUT), backward(impl, activation, x, x, **DROPOUT)
    assert_same_bits(y, forward(impl, activation, one, **DROPOUT).reshape(()))
    assert_same_bits(dx, backward(impl, activation, one, one, **DROPOUT)[0].reshape(()))
