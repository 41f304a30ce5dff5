"""RMSNorm: its values, its accuracy and its gradients."""

import numpy as np
import pytest
from bits import assert_same_bits
from cases import every_dtype, info


def mathematics(x, weight, dy, eps=1e-5):
    """y, dx and dweight in double, by the plain formulas."""
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    rstd = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    xhat = x * rstd
    g = dy * weight
    return xhat * weight, (g - xhat * (g * xhat).mean(-1, keepdims=True)) * rstd, (dy * xhat).sum(0)


@every_dtype
def test_known_values_of_a_small_row(impl, dtype):
    # mean square (1 + 4 + 4) / 3 = 3, so xhat = (1, 2, -2) / sqrt(3).
    x, weight = np.array([1, 2, -2], dtype), np.array([1, 2, 10], dtype)
    y, rstd = impl.rms_norm_forward(x, weight, eps=0)
    root = 3**-0.5
    tolerance = 4 * float(info(dtype).eps)
    np.testing.assert_allclose(y.astype(float), [root, 4 * root, -20 * root], rtol=tolerance)
    assert rstd.shape == ()
    np.testing.assert_allclose(rstd, root, rtol=tolerance)


@pytest.mark.parametrize("mean", [0, 1e3, 1e6])
@pytest.mark.parametrize("n", [768, 4099, 2**18])
def test_float32_rows_are_accurate_to_float32(impl, rng, n, mean):
    x = rng.normal(mean, 1, (4, n)).astype(np.float32)
    dy = rng.normal(size=x.shape).astype(np.float32)
    one = np.ones(n, np.float32)
    y, rstd = impl.rms_norm_forward(x, one)
    dx, dweight = impl.rms_norm_backward(dy, x, rstd, one)
    expected_y, expected_dx, expected_dweight = mathematics(x, one, dy)
    # A lane adds up at most 128 squares, so the mean square is off by at most 128 * 2**-24 of itself, and its root by
    # half of that. rstd and y are rounded once each.
    np.testing.assert_allclose(y, expected_y, rtol=66 * 2**-24)
    # dx: the same error in xhat and in the mean of g * xhat, relative to g and xhat, and a few roundings.
    size = np.abs(dy).max() + np.abs(expected_y).max()
    assert np.abs(dx - expected_dx).max() <= 2 * 66 * 2**-24 * size * np.abs(rstd).max()
    np.testing.assert_allclose(dweight, expected_dweight, rtol=70 * 2**-24, atol=70 * 2**-24 * size)


@pytest.mark.parametrize("magnitude", [1e30, 1e38, 1e-30, 1e-40])
@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_rows_of_any_magnitude_are_normalised(impl, rng, magnitude, eps):
    x = (rng.uniform(-1, 1, (4, 768)) * magnitude).astype(np.float32)
    wide = x.astype(np.float64) / magnitude
    y, rstd = impl.rms_norm_forward(x, eps=eps)
    expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + eps / magnitude / magnitude)
    np.testing.assert_allclose(y, expected, atol=2e-6)
    assert (rstd > 0).all()


@every_dtype
def test_a_row_of_zeros_gives_zeros(impl, dtype):
    for eps in (0.0, 1e-5):
        assert_same_bits(impl.rms_norm(np.zeros((3, 40), dtype), eps=eps), np.zeros((3, 40), dtype))


@every_dtype
def test_a_row_with_nan_or_inf_leaves_its_neighbours_alone(impl, dtype, rng):
    x = rng.normal(size=(4, 50)).astype(dtype)
    clean = impl.rms_norm(x)
    x[1, 7], x[2, 49] = np.nan, np.inf
    y = impl.rms_norm(x)
    assert np.isnan(y[1]).all()
    assert np.isnan(y[2, 49])  # infinity over infinity
    assert (y[2, :49] == 0).all()
    assert_same_bits(y[[0, 3]], clean[[0, 3]])
