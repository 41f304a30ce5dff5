"""LayerNorm: its values, its accuracy and its gradients."""

import numpy as np
import pytest
from bits import assert_same_bits
from cases import every_dtype, info

import pyreg


def mathematics(x, weight, bias, dy, eps=1e-5, wide=np.float64):
    """y, dx, dweight and dbias in a wider type, by the plain formulas."""
    x, dy = x.astype(wide), dy.astype(wide)
    mean = x.mean(-1, keepdims=True)
    rstd = 1 / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps)
    xhat = (x - mean) * rstd
    g = dy * weight
    dx = (g - g.mean(-1, keepdims=True) - xhat * (g * xhat).mean(-1, keepdims=True)) * rstd
    return xhat * weight + bias, dx, (dy * xhat).sum(0), dy.sum(0)


@every_dtype
def test_known_values_of_a_small_row(impl, dtype):
    # mean 5, var (9 + 1 + 1 + 9) / 4 = 5, so xhat = (-3, -1, 1, 3) / sqrt(5).
    x = np.array([2, 4, 6, 8], dtype)
    weight, bias = np.array([1, 2, 1, 2], dtype), np.array([0, 0, 10, 10], dtype)
    y, mean, rstd = impl.layer_norm_forward(x, weight, bias, eps=0)
    root = 5**-0.5
    tolerance = 4 * float(info(dtype).eps)
    np.testing.assert_allclose(y.astype(float), [-3 * root, -2 * root, 10 + root, 10 + 6 * root], rtol=tolerance)
    assert mean == 5
    assert mean.shape == rstd.shape == ()
    np.testing.assert_allclose(rstd, root, rtol=tolerance)


# The promised bound is 2e-6. The largest |xhat| of 768 normal numbers is near 4, where an ulp is 4.8e-7. y comes from
# five roundings of up to half an ulp, 1.2e-6 if all go one way. dx is as large, and has three more roundings, of
# smaller terms.
@pytest.mark.parametrize("mean", [0, 1e3, 1e4, 1e6])
def test_float32_rows_far_from_zero_lose_no_accuracy(impl, rng, mean):
    x = rng.normal(mean, 1, (64, 768)).astype(np.float32)
    dy = rng.normal(size=x.shape).astype(np.float32)
    one, zero = np.ones(768, np.float32), np.zeros(768, np.float32)
    y, m, rstd = impl.layer_norm_forward(x, one, zero)
    dx, dweight, dbias = impl.layer_norm_backward(dy, x, m, rstd, one)
    expected_y, expected_dx, expected_dweight, expected_dbias = mathematics(x, one, zero, dy)
    assert np.abs(y - expected_y).max() < 2e-6
    assert np.abs(dx - expected_dx).max() < 2e-6
    # Sums of 64 terms of size 1 to 16: in the worst case, 64 roundings of half an ulp of 16.
    np.testing.assert_allclose(dweight, expected_dweight, atol=64 * 16 * 2**-24)
    np.testing.assert_allclose(dbias, expected_dbias, atol=64 * 16 * 2**-24)


@pytest.mark.parametrize(("rows", "n"), [(64, 1000), (1000, 1000), (10_000, 500)])
def test_sums_over_float32_rows_have_the_error_of_16_and_4_additions(impl, rng, rows, n):
    x, dy = rng.normal(size=(2, rows, n)).astype(np.float32)
    one = np.ones(n, np.float32)
    _, mean, rstd = impl.layer_norm_forward(x)
    _, dweight, dbias = impl.layer_norm_backward(dy, x, mean, rstd, one)
    _, _, expected_dweight, expected_dbias = mathematics(x, one, one, dy)
    # The variance of a rounding to s is at most s**2 / 3, in units of 2**-24, and the mean square of a sum of k terms
    # is k. In a block of 64 rows, 4 inner sums are rounded 15 times each, and their sum 3 times: that is
    # 4 * (2 + 3 + ... + 16) and 32 + 48 + 64, together 10.7 for each row. (64 additions one after the other: 32.) The
    # sum over the blocks is rounded once: 1 for each row. A term of dweight has been rounded 5 times before.
    for got, expected, roundings in ((dbias, expected_dbias, 10.7 + 1), (dweight, expected_dweight, 10.7 + 1 + 5)):
        error = np.sqrt(np.mean((got - expected) ** 2))
        assert error < np.sqrt(rows * roundings / 3) * 2**-24


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="longdouble is no wider than float64")
@pytest.mark.parametrize("mean", [0, 1e6])
def test_float64_rows_are_accurate_to_float64(impl, rng, mean):
    x, dy = rng.normal(mean, 1, (16, 768)), rng.normal(size=(16, 768))
    weight, bias = rng.normal(size=768), rng.normal(size=768)
    y, m, rstd = impl.layer_norm_forward(x, weight, bias)
    dx, dweight, dbias = impl.layer_norm_backward(dy, x, m, rstd, weight)
    expected = mathematics(x, weight, bias, dy, wide=np.longdouble)
    # Some ten roundings of values up to 16, where an ulp is 3.6e-15. At mean 1e6, the forward pass has shift + lo,
    # but the backward pass gets a float64 mean, known to half an ulp of 1e6, 5.8e-11.
    forward, backward = 1e-13, 1e-13 if mean == 0 else 1e-9
    np.testing.assert_allclose(y, expected[0].astype(float), atol=forward)
    for actual, exact in zip((dx, dweight, dbias), expected[1:], strict=True):
        np.testing.assert_allclose(actual, exact.astype(float), atol=backward)


@pytest.mark.parametrize("mean", [0, 1e4, 1e6])
@pytest.mark.parametrize("n", [4096, 4097, 2**18, 10**6])
def test_long_float32_rows_are_as_accurate_as_short_ones(impl, rng, n, mean):
    x, dy = rng.normal(mean, 1, (2, n)).astype(np.float32), rng.normal(size=(2, n)).astype(np.float32)
    one, zero = np.ones(n, np.float32), np.zeros(n, np.float32)
    y, m, rstd = impl.layer_norm_forward(x)
    dx, _, _ = impl.layer_norm_backward(dy, x, m, rstd)
    expected_y, expected_dx, _, _ = mathematics(x, one, zero, dy)
    assert np.abs(y - expected_y).max() < 2e-6
    assert np.abs(dx - expected_dx).max() < 2e-6


def rows_that_begin_far_from_their_mean(rng, n):
    """The moments are summed about the mean of a row's first elements, which says little about these rows."""
    noise = rng.normal(size=n)
    first = (np.arange(n) < 16).astype(float)
    last = (np.arange(n) >= n // 2).astype(float)
    return np.stack(
        [np.linspace(-1, 1, n), np.sort(noise)]
        + [noise + size * first for size in (0.5, 1, 2, 10, 1e3, 1e5)]
        + [1e6 + noise + size * first for size in (1, 10, 1e3)]
        + [noise + size * last for size in (1, 4, 1e3, 1e6)]
        + [noise * last, 1e5 * first, 1e30 * first]
    ).astype(np.float32)


@pytest.mark.parametrize("n", [33, 64, 768, 4099, 20000])
def test_rows_that_begin_far_from_their_mean_are_as_accurate(impl, rng, n):
    x = rows_that_begin_far_from_their_mean(rng, n)
    y, mean, rstd = impl.layer_norm_forward(x)
    wide = x.astype(np.float64)
    expected = mathematics(wide, 1.0, 0.0, np.ones_like(wide))[0]
    # A lane adds up min(n, 4096) / 32 squares, and each addition may be off by 2**-24 of the sum. The mean of the
    # squares is at most twice the variance, and the square root halves the error. Five more roundings follow.
    bound = (-(-min(n, 4096) // 32) + 5) * 2.0**-24
    largest = np.abs(expected).max(-1, keepdims=True)
    assert (np.abs(y - expected) <= bound * np.maximum(largest, 1)).all()
    np.testing.assert_allclose(rstd, 1 / np.sqrt(wide.var(-1) + 1e-5), rtol=bound)
    np.testing.assert_array_less(np.abs(mean - wide.mean(-1)), bound * wide.std(-1) + 1e-30)
    assert_same_bits((y, mean, rstd), pyreg.reference.layer_norm_forward(x))


@every_dtype
@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 1e6 + 0.1, 1e30, 1e-30, 1e38, -3.4e38])
@pytest.mark.parametrize("n", [1, 2, 31, 33, 768, 1001, 10**6])
@pytest.mark.parametrize("eps", [1e-5, 0.0])
def test_a_constant_row_gives_the_bias(impl, dtype, rng, value, n, eps):
    if impl is pyreg.reference and n > 1001:
        return  # slow, and has the same bits
    if abs(value) > float(info(dtype).max):
        return
    bias = rng.normal(size=n).astype(dtype)
    weight = rng.normal(size=n).astype(dtype)
    y = impl.layer_norm(np.full((3, n), value, dtype), weight, bias, eps=eps)
    assert np.abs(y - bias).max() <= 1e-9


@pytest.mark.parametrize(
    ("magnitude", "dtype_name"),
    [*((m, "float32") for m in (1e30, 1e38, 1e-30, 1e-40)), *((m, "float64") for m in (1e200, 1e308, 1e-200))],
)
@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_rows_of_any_magnitude_are_normalised(impl, rng, magnitude, dtype_name, eps):
    unit = rng.uniform(-1, 1, (4, 768))
    x = (unit * magnitude).astype(dtype_name)
    wide = x.astype(np.float64) / magnitude  # `unit`, but for the rounding of subnormal x
    wide -= wide.mean(-1, keepdims=True)
    if dtype_name == "float64" and 0 < magnitude < 1e-100 and eps:
        expected = np.zeros_like(wide)  # about 1e-198
    else:
        expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + eps / magnitude / magnitude)
    y, mean, rstd = impl.layer_norm_forward(x, eps=eps)
    np.testing.assert_allclose(y, expected, atol=2e-6)
    assert np.isfinite(mean).all()
    assert (rstd > 0).all()


@every_dtype
def test_a_row_with_nan_or_inf_is_nan_and_leaves_its_neighbours_alone(impl, dtype, rng):
    x = rng.normal(size=(4, 50)).astype(dtype)
    clean = impl.layer_norm(x)
    x[1, 7], x[2, 49] = np.nan, np.inf
    y = impl.layer_norm(x)
    assert np.isnan(y[1:3]).all()
    assert_same_bits(y[[0, 3]], clean[[0, 3]])


def test_normalized_shape_takes_several_axes_and_defaults_to_weight_then_bias_then_last(impl, rng):
    x = rng.normal(size=(3, 4, 5))
    weight, bias = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    flat = impl.layer_norm(x.reshape(3, 20), weight.ravel(), bias.ravel()).reshape(x.shape)
    assert_same_bits(impl.layer_norm(x, weight, bias), flat)
    assert_same_bits(impl.layer_norm(x, weight, bias, normalized_shape=(4, 5)), flat)
    plain = impl.layer_norm(x.reshape(3, 20)).reshape(x.shape)
    assert_same_bits(impl.layer_norm(x, None, np.zeros((4, 5))), plain + 0)
    assert_same_bits(impl.layer_norm(x, normalized_shape=(4, 5)), plain)
    last = impl.layer_norm(x)
    assert_same_bits(last, impl.layer_norm(x, normalized_shape=5))
    assert_same_bits(last, impl.layer_norm(x, normalized_shape=[5]))


def test_backward_takes_a_float32_mean(impl, rng):
    x, dy = rng.normal(size=(2, 3, 8)).astype(np.float32)
    _, mean, rstd = impl.layer_norm_forward(x)
    rounded = mean.astype(np.float32)
    assert_same_bits(
        impl.layer_norm_backward(dy, x, rounded, rstd),
        impl.layer_norm_backward(dy, x, rounded.astype(np.float64), rstd),
    )
