"""Softmax with dropout of its weights: accuracy, masks, gradients."""

import numpy as np
import pytest
from bits import assert_same_bits
from cases import LAYOUTS, compute_type, every_dtype, info
from test_gradients import finite_differences

import pyreg
from pyreg import _core

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


@every_dtype
@pytest.mark.parametrize(
    "shape",
    [(), (1,), (33,), (5, 33), (5, 1), (1, 33), (3, 1, 33), (2, 1, 1, 33), (2, 1, 5, 1), (1, 3, 5, 33), SHAPE],
)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ["mask", "keep"])
def test_masks_broadcast_as_in_numpy(impl, dtype, rng, shape, causal, name):
    x, dy = rng.normal(size=(2, *SHAPE)).astype(dtype)
    keep = rng.random(shape) < 0.7
    mask = keep if name == "keep" else np.where(keep, rng.normal(size=shape), -np.inf).astype(dtype)
    options = DROPOUT | {"causal": causal, name: mask}
    whole = options | {name: np.broadcast_to(mask, SHAPE).copy()}
    expected = impl.softmax_dropout_forward(x, **whole)
    assert_same_bits(impl.softmax_dropout_forward(x, **options), expected)
    assert_same_bits(
        impl.softmax_dropout_backward(dy, x, *expected[1:], **options),
        impl.softmax_dropout_backward(dy, x, *expected[1:], **whole),
    )


LENGTHS = [
    *range(1, 41),
    63,
    64,
    65,
    95,
    97,
    127,
    129,
    1001,
    4095,
    4096,
    4097,
    5000,
]  # around vectors, groups, blocks


@every_dtype
@pytest.mark.parametrize("n", LENGTHS)
def test_keep_leaves_what_a_mask_of_minus_inf_leaves(impl, dtype, rng, n):
    x, dy = rng.normal(size=(2, 3, n)).astype(dtype)
    mask = rng.normal(size=n).astype(dtype)
    keep = rng.random((3, n)) < 0.7
    keep[0], keep[1] = True, np.arange(n) == n - 1
    expected = impl.softmax_dropout_forward(x, np.where(keep, mask, dtype(-np.inf)), scale=0.7, **DROPOUT)
    expected_dx = impl.softmax_dropout_backward(
        dy, x, *expected[1:], np.where(keep, mask, dtype(-np.inf)), scale=0.7, **DROPOUT
    )
    assert_same_bits(impl.softmax_dropout_forward(x, mask, keep=keep, scale=0.7, **DROPOUT), expected)
    for hidden in (np.nan, np.inf, -np.inf, float(info(dtype).max)):
        x[~keep], dy[~keep] = hidden, -hidden
        assert_same_bits(impl.softmax_dropout_forward(x, mask, keep=keep, scale=0.7, **DROPOUT), expected)
        dx = impl.softmax_dropout_backward(dy, x, *expected[1:], mask, keep=keep, scale=0.7, **DROPOUT)
        np.testing.assert_array_equal(dx, expected_dx)  # -0 where a finite dy is multiplied by 0


@every_dtype
@pytest.mark.parametrize("causal", [False, True, "lower_right"])
def test_a_row_that_keeps_nothing_is_zero(impl, dtype, rng, causal):
    x, dy = np.full((2, 4, 70), np.nan, dtype)
    x[::2] = rng.normal(size=(2, 70))
    keep = np.array([[True], [False], [True], [False]])
    y, maximum, rsum = impl.softmax_dropout_forward(x, keep=keep, causal=causal, **DROPOUT)
    zeros = np.zeros((2, 70), dtype), *np.zeros((2, 2), compute_type(dtype))
    assert_same_bits((y[1::2], maximum[1::2], rsum[1::2]), zeros)
    assert np.isfinite(y).all()
    for statistic in (0, 1, np.inf, np.nan):  # also of another forward pass
        maximum[1::2] = rsum[1::2] = statistic
        dx = impl.softmax_dropout_backward(dy, x, maximum, rsum, keep=keep, causal=causal, **DROPOUT)
        np.testing.assert_array_equal(dx[1::2], 0)


@every_dtype
def test_every_byte_but_0_is_true_in_keep(impl, dtype, rng):
    x, dy = rng.normal(size=(2, 3, 300)).astype(dtype)
    numbers = np.arange(300, dtype=np.uint16).astype(np.uint8)
    expected = impl.softmax_dropout_forward(x, keep=numbers != 0)
    assert_same_bits(impl.softmax_dropout_forward(x, keep=numbers.view(bool)), expected)
    assert_same_bits(
        impl.softmax_dropout_backward(dy, x, *expected[1:], keep=numbers.view(bool)),
        impl.softmax_dropout_backward(dy, x, *expected[1:], keep=numbers != 0),
    )


@every_dtype
@pytest.mark.parametrize("causal", [True, "upper_left", "lower_right"])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 5), (7, 7), (40, 40), (3, 50), (50, 3), (150, 150)])
def test_causal_masks_the_keys_after_the_query(impl, dtype, rng, queries, keys, causal):
    x, dy = rng.normal(size=(2, 4, queries, keys)).astype(dtype)
    behind = np.triu(np.ones((queries, keys), bool), 1 + (keys - queries if causal == "lower_right" else 0))
    mask = np.where(behind, -np.inf, 0).astype(dtype)
    y, *statistics = expected = impl.softmax_dropout_forward(x, mask, **DROPOUT)
    # The keys after the query are not read.
    x[:, behind] = np.nan
    assert_same_bits(impl.softmax_dropout_forward(x, causal=causal, **DROPOUT), expected)
    dy_nan = dy.copy()
    dy_nan[:, behind] = np.nan
    dx = impl.softmax_dropout_backward(dy_nan, x, *statistics, causal=causal, **DROPOUT)
    x[:, behind] = 0
    np.testing.assert_array_equal(dx, impl.softmax_dropout_backward(dy, x, *statistics, mask, **DROPOUT))
    assert (y[:, behind] == 0).all()


def test_the_corners_are_those_of_pytorch():
    # torch.nn.attention.bias.causal_upper_left(2, 4) and causal_lower_right(2, 4), version 2.13
    seen = {"upper_left": [[1, 0, 0, 0], [1, 1, 0, 0]], "lower_right": [[1, 1, 1, 0], [1, 1, 1, 1]]}
    for causal, expected in seen.items():
        y, _, _ = pyreg.softmax_dropout_forward(np.zeros((2, 4)), causal=causal)
        np.testing.assert_array_equal(y > 0, np.array(expected, bool))


# --- the backward pass from y


def from_x_and_from_y(impl, dy, x, **options):
    y, *statistics = impl.softmax_dropout_forward(x, **options)
    return impl.softmax_dropout_backward(dy, x, *statistics, **options), {"y": y} | options


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("causal", [False, "upper_left", "lower_right"])
def test_the_gradient_from_y_has_the_bits_of_the_gradient_from_x(impl, dtype, rng, n, causal):
    x, dy = rng.normal(size=(2, 2, 3, n)).astype(dtype)
    for keep in (None, rng.random((2, 1, n)) < 0.7):
        expected, options = from_x_and_from_y(impl, dy, x, causal=causal, keep=keep, scale=-0.7)
        assert_same_bits(impl.softmax_dropout_backward(dy, **options), expected)
        for over in ("y", "dy"):
            arrays = {"y": options["y"].copy(), "dy": dy.copy()}
            assert impl.softmax_dropout_backward(**options | arrays, out=arrays[over]) is arrays[over]
            assert_same_bits(arrays[over], expected)


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"keep": lambda n: np.arange(n) % 3 > 0}])
@pytest.mark.parametrize("shape", [(5, 1031), (70, 1031), (1401, 1031), (22_000, 64), (350, 4099)])
def test_the_gradient_from_y_on_threads_and_in_memory(level, rng, dtype, options, shape):
    # The last three are written past the caches; 4099 is more than one block of a row's sum.
    assert shape[0] < 100 or 12 * np.prod(shape) > _core.most_bytes_cached
    options = options if "keep" not in options else {"keep": options["keep"](shape[1])}
    x, dy = rng.normal(size=(2, *shape)).astype(dtype)
    expected, options = from_x_and_from_y(pyreg, dy, x, **options)
    for threads in (1, 2):
        with pyreg.num_threads(threads):
            assert_same_bits(pyreg.softmax_dropout_backward(dy, **options), expected)
    between = np.full(dy.size + 2, 7, dtype)
    pyreg.softmax_dropout_backward(dy, **options, out=between[1:-1].reshape(shape))
    assert_same_bits(between, np.concatenate([[7], expected.ravel(), [7]]).astype(dtype))
    last = {name: value[-3:] if name == "y" else value for name, value in options.items()}
    if "causal" not in options:
        assert_same_bits(expected[-3:], pyreg.reference.softmax_dropout_backward(dy[-3:], **last))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_y_in_every_layout(impl, dtype, rng, layout):
    x, dy = rng.normal(size=(2, 3, 4, 41)).astype(dtype)
    expected, options = from_x_and_from_y(impl, dy, x)
    assert_same_bits(impl.softmax_dropout_backward(dy, y=LAYOUTS[layout](options["y"])), expected)
    assert_same_bits(impl.softmax_dropout_backward(LAYOUTS[layout](dy), **options), expected)


def test_what_is_left_out_of_y_and_dy_is_not_read(impl, dtype, rng):
    x, dy = rng.normal(size=(2, 4, 5, 40)).astype(dtype)
    keep = rng.random(40) < 0.7
    expected, options = from_x_and_from_y(impl, dy, x, causal=True, keep=keep)
    left_out = ~keep | np.triu(np.ones((5, 40), bool), 1)
    dy[:, left_out] = options["y"][:, left_out] = np.nan
    np.testing.assert_array_equal(impl.softmax_dropout_backward(dy, **options), expected)


@every_dtype
def test_special_values_in_y(impl, dtype, rng):
    y, dy = rng.normal(size=(2, 12, 70)).astype(dtype)
    for row, value in enumerate((np.nan, np.inf, -np.inf, -0.0, info(dtype).max)):
        y[row, 33], dy[row + 6, 69] = value, value
    with np.errstate(all="ignore"):
        for options in ({}, {"causal": True}, {"keep": np.arange(70) != 33}):
            expected = pyreg.reference.softmax_dropout_backward(dy, y=y, **options)
            assert_same_bits(impl.softmax_dropout_backward(dy, y=y, **options), expected)


def test_a_p_that_drops_nothing_is_0(impl):
    y = np.ones((2, 3))
    assert_same_bits(impl.softmax_dropout_backward(y, y=y, p=1e-12, key=0), impl.softmax_dropout_backward(y, y=y))


# --- other axes


def rows_of(axis, **arrays):
    """The arrays with this axis moved to the end, as contiguous arrays."""
    return {name: np.ascontiguousarray(np.moveaxis(array, axis, -1)) for name, array in arrays.items()}


def assert_along_axis_equals_along_rows(impl, dtype, rng, shape, axis, p=0.3, **masks):
    """masks: the mask and keep, of any shape that broadcasts."""
    x, dy = rng.normal(size=(2, *shape)).astype(dtype)
    drop = {"p": p, "key": KEY, "offset": OFFSET}
    options = {"scale": -0.7}
    given = options | masks | {"axis": axis}
    of_rows = options | rows_of(axis, **{name: np.broadcast_to(mask, shape) for name, mask in masks.items()})
    rows = rows_of(axis, x=x, dy=dy, dropped=impl.dropout(dy, **drop))
    prob, *statistics = impl.softmax_dropout_forward(rows["x"], **of_rows)
    prob = np.moveaxis(prob, -1, axis)
    dx = np.moveaxis(impl.softmax_dropout_backward(rows["dropped"], rows["x"], *statistics, **of_rows), -1, axis)

    expected = impl.dropout(prob, **drop), *statistics
    assert_same_bits(impl.softmax_dropout_forward(x, **given, **drop), expected)
    assert_same_bits(impl.softmax_dropout_forward(x, **given, **drop, training=False), (prob, *statistics))
    out = x.copy()
    assert impl.softmax_dropout_forward(out, **given, **drop, out=out).y is out
    assert_same_bits(out, expected[0])
    assert_same_bits(impl.softmax_dropout_backward(dy, x, *statistics, **given, **drop), dx)
    for over in ("x", "dy"):
        arrays = {"x": x.copy(), "dy": dy.copy(), "maximum": statistics[0], "rsum": statistics[1]}
        impl.softmax_dropout_backward(**arrays, **given, **drop, out=arrays[over])
        assert_same_bits(arrays[over], dx)
    given.pop("mask", None)
    if p == 0:
        assert_same_bits(impl.softmax_dropout_backward(dy, y=prob, **given), dx)
        for over in ("y", "dy"):
            arrays = {"y": prob.copy("C"), "dy": dy.copy()}
            impl.softmax_dropout_backward(**arrays, **given, out=arrays[over])
            assert_same_bits(arrays[over], dx)


@pytest.mark.parametrize("p", [0, 0.3, 1])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        *(((7, columns), 0) for columns in (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 100)),
        *(((3, n, 5), -2) for n in (1, 2, 15, 16, 17, 31, 32, 33, 70, 129)),
        ((2, 4099, 3), 1),
        ((1001, 3, 11), -3),
        ((2, 3, 4, 5, 6), 2),
        ((5, 4), -1),
        ((5,), -1),
        ((2, 5, 1, 1), 1),
        ((2, 0, 40), 1),
        ((0, 3, 40), 1),
        ((3, 4, 0), 1),
    ],
)
def test_softmax_along_any_axis_has_the_bits_of_the_transposed_array(impl, dtype, rng, shape, axis, p):
    assert_along_axis_equals_along_rows(impl, dtype, rng, shape, axis, p)
    keep, mask = rng.random(shape) < 0.7, rng.normal(size=shape).astype(dtype)
    assert_along_axis_equals_along_rows(impl, dtype, rng, shape, axis, p, keep=keep)
    assert_along_axis_equals_along_rows(impl, dtype, rng, shape, axis, p, mask=mask, keep=keep)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(), (1,), (33,), (5, 1), (5, 33), (3, 1, 33), (2, 1, 1, 33), (2, 3, 1, 1), SHAPE])
def test_masks_broadcast_along_any_axis(impl, dtype, rng, shape, axis):
    mask, keep = rng.normal(size=shape).astype(dtype), rng.random(shape) < 0.7
    assert_along_axis_equals_along_rows(impl, dtype, rng, SHAPE, axis, mask=mask)
    assert_along_axis_equals_along_rows(impl, dtype, rng, SHAPE, axis, p=0, keep=keep)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("p", [0, 0.3])
def test_another_axis_on_threads(level, dtype, rng, number_of_threads_restored, threads, p):
    pyreg.set_num_threads(threads)
    assert_along_axis_equals_along_rows(pyreg, dtype, rng, (40, 70, 67), 1, p)
    assert_along_axis_equals_along_rows(pyreg, dtype, rng, (300, 1031), 0, p, keep=rng.random((300, 1)) < 0.7)


@every_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_along_another_axis(impl, dtype, rng, layout):
    change, shape = LAYOUTS[layout], (3, 20, 18)
    x, dy, mask = rng.normal(size=(3, *shape)).astype(dtype)
    keep, options = rng.random(shape) < 0.7, DROPOUT | {"axis": 1}
    expected = impl.softmax_dropout_forward(x, mask, keep=keep, **options)
    assert_same_bits(impl.softmax_dropout_forward(change(x), change(mask), keep=change(keep), **options), expected)
    assert_same_bits(
        impl.softmax_dropout_backward(*map(change, (dy, x, *expected[1:], mask)), keep=change(keep), **options),
        impl.softmax_dropout_backward(dy, x, *expected[1:], mask, keep=keep, **options),
    )


@every_dtype
def test_special_values_along_another_axis_stay_in_their_columns(impl, dtype, rng):
    x, dy = rng.normal(size=(2, 20, 18)).astype(dtype)
    clean, *_ = impl.softmax_dropout_forward(x, axis=0)
    x[3, 3], x[4, 7], x[:, 9] = np.nan, np.inf, -np.inf
    with np.errstate(all="ignore"):
        y, *statistics = impl.softmax_dropout_forward(x, axis=0)
        expected = pyreg.reference.softmax_dropout_backward(dy, x, *statistics, axis=0)
        assert_same_bits(impl.softmax_dropout_backward(dy, x, *statistics, axis=0), expected)
    assert np.isnan(y[:, [3, 7]]).all()
    assert (y[:, 9] == 0).all()
    others = [column for column in range(18) if column not in (3, 7, 9)]
    assert_same_bits(y[:, others], clean[:, others])


# --- special values and accuracy


@every_dtype
def test_rows_of_only_minus_inf_give_zeros(impl, dtype, rng):
    x, dy = rng.normal(size=(2, 4, 70)).astype(dtype)
    mask = np.zeros((4, 1), dtype)
    mask[1:3] = -np.inf
    x[3] = -np.inf
    y, maximum, rsum = impl.softmax_dropout_forward(x, mask, **DROPOUT)
    zeros = np.zeros((3, 70), dtype), *np.zeros((2, 3), compute_type(dtype))
    assert_same_bits((y[1:], maximum[1:], rsum[1:]), zeros)
    assert (y[0] > 0).any()
    dx = impl.softmax_dropout_backward(dy, x, maximum, rsum, mask, **DROPOUT)
    np.testing.assert_array_equal(dx[1:], 0)


@every_dtype
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


@every_dtype
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


@pytest.mark.parametrize("causal", [False, True, "lower_right"])
def test_the_gradient_of_a_mask_is_that_of_the_scores_without_the_scale(impl, rng, causal):
    x, dy = rng.normal(size=(2, 2, 4, 6))
    mask = rng.normal(size=(2, 1, 6))
    mask[0, 0, 3] = -np.inf
    options = DROPOUT | {"scale": 0.6, "causal": causal, "keep": np.arange(6) != 1}
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


@pytest.mark.parametrize(("shape", "axis"), [((1,) * 64, -1), ((1,) * 64, 0), ((0, 2**40), 1)])
def test_shapes_of_many_axes_and_of_no_elements(impl, shape, axis):
    x = np.zeros(shape, np.float32)
    y, maximum, _ = impl.softmax_dropout_forward(x, axis=axis)
    assert impl.softmax_dropout_backward(x, y=y, axis=axis).shape == y.shape == shape
    assert maximum.ndim == x.ndim - 1
