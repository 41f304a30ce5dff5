"""RMSNorm: its values, its accuracy and its gradients."""

import numpy as np
import pytest
from bits import assert_same_bits

import pyreg


def mathematics(x, weight, dy, eps=1e-5):
    """y, dx and dweight in double, by the plain formulas."""
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    rstd = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    xhat = x * rstd
    g = dy * weight
    return xhat * weight, (g - xhat * (g * xhat).mean(-1, keepdims=True)) * rstd, (dy * xhat).sum(0)


def test_known_values_of_a_small_row(impl, dtype):
    # mean square (1 + 4 + 4) / 3 = 3, so xhat = (1, 2, -2) / sqrt(3).
    x, weight = np.array([1, 2, -2], dtype), np.array([1, 2, 10], dtype)
    y, rstd = impl.rms_norm_forward(x, weight, eps=0)
    root = 3**-0.5
    tolerance = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(y, [root, 4 * root, -20 * root], rtol=tolerance)
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
    # A lane adds up at most 128 squares, so the mean square is off by at most 128 * 2**-24 of itself, its root by
    # half of that; rstd and y are rounded once each.
    np.testing.assert_allclose(y, expected_y, rtol=66 * 2**-24)
    # dx: the same for xhat and for its mean with g, in terms of the size of g and xhat, and a few roundings.
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


def test_a_row_of_zeros_gives_zeros(impl, dtype):
    for eps in (0.0, 1e-5):
        assert_same_bits(impl.rms_norm(np.zeros((3, 40), dtype), eps=eps), np.zeros((3, 40), dtype))


def test_a_row_with_nan_or_inf_leaves_its_neighbours_alone(impl, dtype, rng):
    x = rng.normal(size=(4, 50)).astype(dtype)
    clean = impl.rms_norm(x)
    x[1, 7], x[2, 49] = np.nan, np.inf
    y = impl.rms_norm(x)
    assert np.isnan(y[1]).all()
    assert np.isnan(y[2, 49])  # infinity over infinity
    assert (y[2, :49] == 0).all()
    assert_same_bits(y[[0, 3]], clean[[0, 3]])


def test_normalized_shape_takes_several_axes(impl, rng):
    x, weight = rng.normal(size=(3, 4, 5)), rng.normal(size=(4, 5))
    flat = impl.rms_norm(x.reshape(3, 20), weight.ravel()).reshape(x.shape)
    assert_same_bits(impl.rms_norm(x, weight), flat)
    assert_same_bits(impl.rms_norm(x, weight, normalized_shape=(4, 5)), flat)
    y, rstd = impl.rms_norm_forward(x, weight)
    assert (y.shape, rstd.shape) == ((3, 4, 5), (3,))
    dx, dweight = impl.rms_norm_backward(x, x, rstd, weight)
    assert (dx.shape, dweight.shape) == ((3, 4, 5), (4, 5))


def test_backward_matches_finite_differences(impl, rng):
    x, dy, weight = rng.normal(size=(5, 37)), rng.normal(size=(5, 37)), rng.normal(size=37)
    _, rstd = impl.rms_norm_forward(x, weight)
    gradients = impl.rms_norm_backward(dy, x, rstd, weight)
    # As in test_layer_norm.py: h**2 / 6 times a third derivative, and the rounding of the loss over h.
    h = 1e-5
    for array, gradient in zip((x, weight), gradients, strict=True):
        for i in np.ndindex(array.shape):
            kept = array[i]
            array[i] = kept + h
            above = (impl.rms_norm(x, weight) * dy).sum()
            array[i] = kept - h
            below = (impl.rms_norm(x, weight) * dy).sum()
            array[i] = kept
            assert abs((above - below) / (2 * h) - gradient[i]) < 1e-8


def test_backward_without_weight_gives_dx_alone(impl, rng):
    x, dy = rng.normal(size=(2, 3, 8))
    _, rstd = impl.rms_norm_forward(x)
    dx, dweight = impl.rms_norm_backward(dy, x, rstd)
    assert dweight is None
    assert_same_bits(dx, impl.rms_norm_backward(dy, x, rstd, np.ones(8))[0])


def test_out_is_written_and_returned_and_may_be_the_input(impl, dtype, rng):
    x, dy = rng.normal(size=(2, 9, 40)).astype(dtype)
    weight = rng.normal(size=40).astype(dtype)
    y, rstd = impl.rms_norm_forward(x, weight)
    gradients = impl.rms_norm_backward(dy, x, rstd, weight)
    out = np.empty_like(x)
    assert impl.rms_norm(x, weight, out=out) is out
    assert_same_bits(out, y)
    out = x.copy()
    assert_same_bits(impl.rms_norm_forward(out, weight, out=out), (y, rstd))
    for source in (x, dy):
        out = source.copy()
        arguments = (out, x) if source is dy else (dy, out)
        assert_same_bits(impl.rms_norm_backward(*arguments, rstd, weight, out=out), gradients)


@pytest.mark.parametrize("shape", [(0, 5), (0,), (3, 0), (2, 0, 4)])
def test_arrays_without_elements_give_arrays_without_elements(impl, dtype, shape):
    x, weight = np.empty(shape, dtype), np.ones(shape[-1], dtype)
    y, rstd = impl.rms_norm_forward(x, weight)
    assert (y.shape, rstd.shape) == (shape, shape[:-1])
    dx, dweight = impl.rms_norm_backward(x, x, rstd, weight)
    assert dx.shape == shape
    assert_same_bits(dweight, np.zeros(shape[-1], dtype))


def test_rms_norm_is_the_y_of_rms_norm_forward(rng, level):
    x = rng.normal(size=(70, 100)).astype(np.float32)
    assert_same_bits(pyreg.rms_norm(x), pyreg.rms_norm_forward(x)[0])
