"""Softmax with dropout of its weights: accuracy, masks, gradients."""

import numpy as np
import pytest
from bits import assert_same_bits
from test_gradients import finite_differences

import pyreg

P, KEY, OFFSET = 0.3, 0x0123456789ABCDEF, 11
DROPOUT = {"p": P, "key": KEY, "offset": OFFSET}


def softmax(s):
    """In the dtype of s. Rows of -inf give zeros."""
    with np.errstate(invalid="ignore"):
        e = np.exp(s - s.max(axis=-1, keepdims=True))
    e[np.isneginf(s).all(axis=-1)] = 0
    total = e.sum(axis=-1, keepdims=True)
    return e / np.where(total == 0, 1, total)


@pytest.mark.parametrize("n", [1, 7, 64, 1001, 5000])
def test_weights_are_those_of_float64_mathematics(impl, dtype, rng, n):
    x = rng.normal(0, 4, (3, n)).astype(dtype)
    y, maximum, rsum = impl.softmax_dropout_forward(x, scale=0.7)
    s = x.astype(np.longdouble) * dtype(0.7)
    # s and its distance from the maximum, up to 40, are rounded by half an ulp each. The rest is a few ulps of 1.
    np.testing.assert_allclose(y, softmax(s), rtol=50 * np.finfo(dtype).eps, atol=0)
    np.testing.assert_allclose(y.sum(axis=-1, dtype=np.float64), 1, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(maximum, (x * dtype(0.7)).max(axis=-1))
    np.testing.assert_allclose(rsum, y.max(axis=-1), rtol=np.finfo(dtype).eps)


def test_weights_that_pytorch_prints(impl):
    # torch.softmax(torch.tensor([1., 2., 3.], dtype=torch.float64), -1), version 2.13
    y, _, _ = impl.softmax_dropout_forward([1.0, 2.0, 3.0])
    np.testing.assert_allclose(y, [0.09003057317038046, 0.24472847105479764, 0.6652409557748218], rtol=4e-16, atol=0)


def test_dropout_comes_behind_softmax(impl, dtype, rng):
    x = rng.normal(size=(70, 129)).astype(dtype)
    mask = rng.normal(size=129).astype(dtype)
    y, maximum, rsum = impl.softmax_dropout_forward(x, mask, scale=0.5, **DROPOUT)
    prob, *statistics = impl.softmax_dropout_forward(x * dtype(0.5) + mask)
    assert_same_bits(y, impl.dropout(prob, **DROPOUT))
    assert_same_bits((maximum, rsum), tuple(statistics))
    inference = impl.softmax_dropout_forward(x, mask, scale=0.5, training=False, **DROPOUT)
    assert_same_bits(inference, (prob, maximum, rsum))


SHAPE = (2, 3, 5, 33)


@pytest.mark.parametrize(
    "shape",
    [(), (1,), (33,), (5, 33), (5, 1), (1, 33), (3, 1, 33), (2, 1, 1, 33), (2, 1, 5, 1), (1, 3, 5, 33), SHAPE],
)
@pytest.mark.parametrize("causal", [True, False])
def test_a_mask_broadcasts_as_in_numpy(impl, dtype, rng, shape, causal):
    x, dy = rng.normal(size=(2, *SHAPE)).astype(dtype)
    mask = np.where(rng.random(shape) < 0.3, -np.inf, rng.normal(size=shape)).astype(dtype)
    whole = np.broadcast_to(mask, SHAPE).copy()
    options = DROPOUT | {"causal": causal}
    expected = impl.softmax_dropout_forward(x, whole, **options)
    assert_same_bits(impl.softmax_dropout_forward(x, mask, **options), expected)
    assert_same_bits(
        impl.softmax_dropout_backward(dy, x, *expected[1:], mask, **options),
        impl.softmax_dropout_backward(dy, x, *expected[1:], whole, **options),
    )


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (7, 7), (40, 40), (3, 50), (50, 3), (150, 150)])
def test_causal_masks_the_keys_after_the_query(impl, dtype, rng, queries, keys):
    x, dy = rng.normal(size=(2, 4, queries, keys)).astype(dtype)
    behind = np.triu(np.ones((queries, keys), bool), 1)
    mask = np.where(behind, -np.inf, 0).astype(dtype)
    y, *statistics = expected = impl.softmax_dropout_forward(x, mask, **DROPOUT)
    # The keys after the query are not read.
    x[:, behind] = np.nan
    assert_same_bits(impl.softmax_dropout_forward(x, causal=True, **DROPOUT), expected)
    dy_nan = dy.copy()
    dy_nan[:, behind] = np.nan
    dx = impl.softmax_dropout_backward(dy_nan, x, *statistics, causal=True, **DROPOUT)
    x[:, behind] = 0
    np.testing.assert_array_equal(dx, impl.softmax_dropout_backward(dy, x, *statistics, mask, **DROPOUT))
    assert (y[:, behind] == 0).all()


def test_rows_of_only_minus_inf_give_zeros(impl, dtype, rng):
    x, dy = rng.normal(size=(2, 4, 70)).astype(dtype)
    mask = np.zeros((4, 1), dtype)
    mask[1:3] = -np.inf
    x[3] = -np.inf
    y, maximum, rsum = impl.softmax_dropout_forward(x, mask, **DROPOUT)
    assert_same_bits((y[1:], maximum[1:], rsum[1:]), tuple(np.zeros(s, dtype) for s in ((3, 70), 3, 3)))
    assert (y[0] > 0).any()
    dx = impl.softmax_dropout_backward(dy, x, maximum, rsum, mask, **DROPOUT)
    np.testing.assert_array_equal(dx[1:], 0)


def test_nan_and_inf_make_their_row_nan_and_no_other(impl, dtype, rng):
    x = rng.normal(size=(5, 70)).astype(dtype)
    expected, _, _ = impl.softmax_dropout_forward(x)
    x[1, 3], x[2, 69], x[3] = np.nan, np.inf, -np.inf
    x[3, 5] = np.nan
    y, _, _ = impl.softmax_dropout_forward(x)
    assert np.isnan(y[1:4]).all()
    assert_same_bits(y[[0, 4]], expected[[0, 4]])
    dropped = ~impl.dropout_mask(x.shape, P, key=KEY, offset=OFFSET)
    y, _, _ = impl.softmax_dropout_forward(x, **DROPOUT)
    assert (y[dropped] == 0).all()


def test_minus_inf_in_a_mask_does_not_hide_nan_or_inf(impl, dtype):
    # The mask is added, as in NumPy and PyTorch. With `causal`, the masked elements are not read.
    mask = np.array([[0, -np.inf]] * 2, dtype)
    y, _, _ = impl.softmax_dropout_forward(np.array([[1, np.nan], [1, np.inf]], dtype), mask)
    assert np.isnan(y).all()
    y, _, _ = impl.softmax_dropout_forward(np.array([[1, np.nan]], dtype), causal=True)
    assert_same_bits(y, np.array([[1, 0]], dtype))


def test_scores_of_any_magnitude(impl, dtype):
    largest = np.finfo(dtype).max
    x = np.array([[largest, 0, -largest], [1e4, 1e4 - 1, -1e4], [-1e4, -1e4, -1e4]], dtype)
    y, maximum, _ = impl.softmax_dropout_forward(x)
    third = dtype(1) / dtype(3)
    np.testing.assert_allclose(y, [[1, 0, 0], softmax(np.array([1.0, 0, -2e4])), [third] * 3], rtol=1e-6, atol=0)
    np.testing.assert_array_equal(maximum, x.max(axis=-1))
    signs, _, _ = impl.softmax_dropout_forward(x, scale=-1.0)
    assert_same_bits(signs, impl.softmax_dropout_forward(-x)[0])


@pytest.mark.parametrize("causal", [True, False])
def test_the_gradient_of_a_mask_is_that_of_the_scores_without_the_scale(impl, rng, causal):
    x, dy = rng.normal(size=(2, 2, 4, 6))
    mask = rng.normal(size=(2, 1, 6))
    mask[0, 0, 3] = -np.inf
    options = DROPOUT | {"scale": 0.6, "causal": causal}
    _, maximum, rsum = impl.softmax_dropout_forward(x, mask, **options)
    dx = impl.softmax_dropout_backward(dy, x, maximum, rsum, mask, **options)
    expected = finite_differences(lambda: (impl.softmax_dropout_forward(x, mask, **options)[0] * dy).sum(), mask)
    np.testing.assert_allclose((dx / 0.6).sum(axis=1, keepdims=True), expected, rtol=0, atol=1e-8)


def test_float32_gradients_are_accurate_to_float32(impl, rng):
    x, dy = rng.normal(size=(2, 64, 768)).astype(np.float32)
    _, *statistics = impl.softmax_dropout_forward(x, scale=2.0, **DROPOUT)
    dx = impl.softmax_dropout_backward(dy, x, *statistics, scale=2.0, **DROPOUT)
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    _, *statistics = pyreg.reference.softmax_dropout_forward(x, scale=2.0, **DROPOUT)
    exact = pyreg.reference.softmax_dropout_backward(dy, x, *statistics, scale=2.0, **DROPOUT)
    # Products of a weight, accurate to 1e-6, and a difference of numbers up to 10.
    np.testing.assert_allclose(dx, exact, rtol=0, atol=2e-6 * np.abs(exact).max())
