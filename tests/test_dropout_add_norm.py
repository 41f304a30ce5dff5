"""The fused functions: the bits of the separate ones, gradients, what may be left out or written in place."""

from types import SimpleNamespace

import numpy as np
import pytest
from bits import assert_same_bits

import pyreg

P, KEY, OFFSET = 0.3, 0x0123456789ABCDEF, 11
DROPOUT = {"p": P, "key": KEY, "offset": OFFSET}
NORMS = ["layer_norm", "rms_norm"]


def arrays(rng, dtype, rows=70, n=129):
    """Everything that the functions take."""
    made = {name: rng.normal(1, 2, (rows, n)).astype(dtype) for name in ("x", "residual", "dy", "dz")}
    made |= {name: rng.normal(size=n).astype(dtype) for name in ("weight", "bias", "layer_scale")}
    made["row_scale"] = rng.normal(size=rows).astype(dtype)
    return SimpleNamespace(**made)


def forward(impl, norm, a, **options):
    """y, z and the statistics, of the arrays that `a` has."""
    function = getattr(impl, f"dropout_add_{norm}_forward")
    params = (a.weight, a.bias) if norm == "layer_norm" else (a.weight,)
    scales = {"row_scale": a.row_scale, "layer_scale": a.layer_scale}
    y, z, *statistics = function(a.x, a.residual, *params, **DROPOUT | scales | options)
    return y, z, tuple(statistics)


def backward(impl, norm, a, z, statistics, **options):
    function = getattr(impl, f"dropout_add_{norm}_backward")
    scales = {"row_scale": a.row_scale, "layer_scale": a.layer_scale, "x": a.x}
    return function(a.dy, a.dz, z, *statistics, a.weight, **DROPOUT | scales | options)


@pytest.mark.parametrize("norm", NORMS)
def test_the_fused_functions_have_the_bits_of_the_separate_ones(impl, dtype, rng, norm):
    a = arrays(rng, dtype)
    y, z, statistics = forward(impl, norm, a)
    branch = impl.dropout(a.x, P, key=KEY, offset=OFFSET) * a.row_scale[:, None] * a.layer_scale
    assert_same_bits(z, branch + a.residual)
    params = (a.weight, a.bias) if norm == "layer_norm" else (a.weight,)
    assert_same_bits((y, *statistics), getattr(impl, f"{norm}_forward")(z, *params))

    dx, dresidual, *dparams, _ = backward(impl, norm, a, z, statistics)
    through_norm, *expected = getattr(impl, f"{norm}_backward")(a.dy, z, *statistics, a.weight)
    assert_same_bits(tuple(dparams), tuple(expected))
    assert_same_bits(dresidual, through_norm + a.dz)
    dbranch = dresidual * a.layer_scale * a.row_scale[:, None]
    assert_same_bits(dx, impl.dropout(dbranch, P, key=KEY, offset=OFFSET))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("missing", ["residual", "weight", "bias", "row_scale", "layer_scale", "dz"])
def test_what_is_left_out_changes_nothing(impl, dtype, rng, norm, missing):
    a = arrays(rng, dtype)
    a.x[::2] = -0.0  # which a sum with +0 would turn into +0
    a.bias[::2] = -0.0
    a.dy[3] = -0.0
    neutral = np.ones_like(a.weight) if missing in ("weight", "layer_scale") else np.zeros_like(a.bias)
    if missing == "row_scale":
        neutral = np.ones_like(a.row_scale)
    if missing in ("residual", "dz"):
        neutral = np.zeros_like(a.x)
    setattr(a, missing, neutral)
    y, z, statistics = forward(impl, norm, a)
    gradients = backward(impl, norm, a, z, statistics)
    setattr(a, missing, None)
    y_without, z_without, statistics_without = forward(impl, norm, a)
    assert_same_bits((y_without, z_without, statistics_without), forward(pyreg.reference, norm, a))
    # Compared as numbers: without a residual, -0 stays -0.
    np.testing.assert_array_equal(y_without, y)
    np.testing.assert_array_equal(z_without, z)
    assert_same_bits(statistics_without, statistics)
    without = backward(impl, norm, a, z, statistics)
    assert_same_bits(without, backward(pyreg.reference, norm, a, z, statistics))
    np.testing.assert_array_equal(without[0], gradients[0])
    np.testing.assert_array_equal(without[1], gradients[1])
    if missing == "weight":
        assert set(without[2:-1]) == {None}
    else:
        assert_same_bits(without[2 : 2 + len(statistics)], gradients[2 : 2 + len(statistics)])
    assert len(without) == len(gradients) - (missing == "layer_scale")


@pytest.mark.parametrize("norm", NORMS)
def test_backward_matches_finite_differences(impl, rng, norm):
    a = arrays(rng, np.float64, rows=4, n=19)
    _, z, statistics = forward(impl, norm, a)
    dx, dresidual, dweight, *dbias, dlayer_scale = backward(impl, norm, a, z, statistics)
    gradients = {"x": dx, "residual": dresidual, "weight": dweight, "layer_scale": dlayer_scale}
    if dbias:
        (gradients["bias"],) = dbias

    def loss():
        y, z, _ = forward(impl, norm, a)
        return (y * a.dy).sum() + (z * a.dz).sum()

    # The third derivatives are larger where a row of z has a small deviation, else as in test_layer_norm.py.
    h = 1e-5
    for name, gradient in gradients.items():
        array = getattr(a, name)
        for i in np.ndindex(array.shape):
            kept = array[i]
            array[i] = kept + h
            above = loss()
            array[i] = kept - h
            below = loss()
            array[i] = kept
            assert abs((above - below) / (2 * h) - gradient[i]) < 1e-7, name


@pytest.mark.parametrize("norm", NORMS)
def test_float32_is_accurate_to_float32(impl, rng, norm):
    a = arrays(rng, np.float32, rows=64, n=768)
    wide = SimpleNamespace(**{name: array.astype(np.float64) for name, array in vars(a).items()})
    _, z_wide, statistics_wide = forward(pyreg.reference, norm, wide)
    y, z, statistics = forward(impl, norm, a)
    y_wide = forward(pyreg.reference, norm, wide)[0]
    # z: four roundings of terms up to 100. y: those, seen through the norm, and its own, of values up to 10.
    np.testing.assert_allclose(z, z_wide, rtol=0, atol=4 * 100 * 2**-24)
    np.testing.assert_allclose(y, y_wide, rtol=0, atol=1e-5)
    results = backward(impl, norm, a, z, statistics)
    results_wide = backward(pyreg.reference, norm, wide, z_wide, statistics_wide)
    for actual, expected in zip(results, results_wide, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("p", "training"), [(0.0, True), (1.0, True), (0.3, False)])
def test_p_of_0_and_1_and_inference(impl, dtype, rng, norm, p, training):
    a = arrays(rng, dtype)
    a.x[3, 5] = np.inf
    _, z, _ = forward(impl, norm, a, p=p, training=training, row_scale=None, layer_scale=None)
    assert_same_bits(z, a.residual + 0 if p == 1 else a.x + a.residual)


@pytest.mark.parametrize("norm", NORMS)
def test_z_and_dresidual_are_left_out_where_they_are_not_wanted(impl, dtype, rng, norm):
    a = arrays(rng, dtype)
    y, z, statistics = forward(impl, norm, a)
    assert_same_bits(forward(impl, norm, a, z_out=None), (y, None, statistics))
    dx, dresidual, *rest = backward(impl, norm, a, z, statistics)
    assert_same_bits(backward(impl, norm, a, z, statistics, dresidual_out=None), (dx, None, *rest))
    assert dresidual is not None


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("rows", [70, 9000])  # the larger ones leave the caches where they are not in place
def test_results_may_be_written_over_the_inputs(impl, rng, norm, rows):
    if impl is pyreg.reference and rows > 70:
        pytest.skip("slow, and NumPy's business")
    a = arrays(rng, np.float32, rows, 501)
    y, z, statistics = forward(impl, norm, a)
    for first, second in (("x", "residual"), ("residual", "x")):
        b = SimpleNamespace(**{name: array.copy() for name, array in vars(a).items()})
        options = {"out": getattr(b, first), "z_out": getattr(b, second)}
        assert_same_bits(forward(impl, norm, b, **options), (y, z, statistics))
        assert_same_bits(options["out"], y)
        assert_same_bits(options["z_out"], z)
    gradients = backward(impl, norm, a, z, statistics)
    for first, second in (("dy", "dz"), ("z", "x"), ("x", "dy"), ("dz", "z")):
        b = SimpleNamespace(**{name: array.copy() for name, array in vars(a).items()}, z=z.copy())
        options = {"out": getattr(b, first), "dresidual_out": getattr(b, second)}
        assert_same_bits(backward(impl, norm, b, b.z, statistics, **options), gradients)


@pytest.mark.parametrize("norm", NORMS)
def test_a_part_of_the_rows_with_its_offset_is_the_part_of_the_whole(impl, dtype, rng, norm):
    a = arrays(rng, dtype, 150, 77)
    y, z, statistics = forward(impl, norm, a)
    dx, dresidual, *_ = backward(impl, norm, a, z, statistics)
    for part in (slice(0, 1), slice(63, 66), slice(5, 140)):
        rows = ("x", "residual", "dy", "dz", "row_scale")
        b = SimpleNamespace(**{name: array[part] if name in rows else array for name, array in vars(a).items()})
        offset = OFFSET + part.start * 77
        alone = forward(impl, norm, b, offset=offset)
        assert_same_bits(alone, (y[part], z[part], tuple(s[part] for s in statistics)))
        gradients = backward(impl, norm, b, z[part], alone[2], offset=offset)
        assert_same_bits(gradients[:2], (dx[part], dresidual[part]))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("p", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("n", [77, 4097, 4160, 9000])
def test_at_the_ends_of_the_stream_and_of_the_masks_segments(level, dtype, rng, norm, n, p):
    a = arrays(rng, dtype, 3, n)
    for offset in (2**64 - 3 * n, 2**36 - 100, 9):
        made = forward(pyreg, norm, a, offset=offset, p=p)
        expected = _, z, statistics = forward(pyreg.reference, norm, a, offset=offset, p=p)
        assert_same_bits(made, expected)
        assert_same_bits(
            backward(pyreg, norm, a, z, statistics, offset=offset, p=p),
            backward(pyreg.reference, norm, a, z, statistics, offset=offset, p=p),
        )


@pytest.mark.parametrize("norm", NORMS)
def test_normalized_shape_takes_several_axes(impl, rng, norm):
    a = arrays(rng, np.float64, 6, 20)
    y, z, statistics = forward(impl, norm, a)
    gradients = backward(impl, norm, a, z, statistics)
    shapes = {"x": (2, 3, 4, 5), "row_scale": (2, 3), "weight": (4, 5)}
    shapes |= dict.fromkeys(("residual", "dy", "dz"), (2, 3, 4, 5)) | dict.fromkeys(("bias", "layer_scale"), (4, 5))
    b = SimpleNamespace(**{name: array.reshape(shapes[name]) for name, array in vars(a).items()})
    y_b, z_b, statistics_b = forward(impl, norm, b)
    assert_same_bits(y_b, y.reshape(2, 3, 4, 5))
    assert [s.shape for s in statistics_b] == [(2, 3)] * len(statistics)
    for got, flat in zip(backward(impl, norm, b, z_b, statistics_b), gradients, strict=True):
        assert_same_bits(got.ravel(), flat.ravel())
        assert got.shape in ((2, 3, 4, 5), (4, 5))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("layer_scaled", [True, False])
@pytest.mark.parametrize("p", [0.0, P, 1.0])
@pytest.mark.parametrize("n", [129, 4097])  # masks of many rows at once, and of a part of one
def test_a_row_scale_of_0_drops_the_row_by_selection(impl, dtype, rng, norm, layer_scaled, p, n):
    a = arrays(rng, dtype, 12, n)
    dropped = np.isin(np.arange(12), (0, 3, 4, 7, 11))
    a.row_scale[dropped] = [0.0, -0.0, 0.0, -0.0, 0.0]
    a.residual[0] = -0.0  # to which a zero is added
    nothing = np.zeros(n, dtype) * a.layer_scale if layer_scaled else np.zeros(n, dtype)
    if not layer_scaled:
        a.layer_scale = None
    options = {"p": p} if layer_scaled else {"p": p, "x": None}
    b = SimpleNamespace(**vars(a))
    b.x = a.x.copy()
    b.x[dropped] = rng.choice(np.array([np.inf, -np.inf, np.nan, 1.0], dtype), (dropped.sum(), n))
    y, z, statistics = forward(impl, norm, b, p=p)
    assert_same_bits((y, z, statistics), forward(pyreg.reference, norm, b, p=p))
    assert_same_bits(z[dropped], nothing + a.residual[dropped])
    assert_same_bits((y, z, statistics), forward(impl, norm, a, p=p))  # the other rows keep their masks

    gradients = backward(impl, norm, b, z, statistics, **options)
    assert_same_bits(gradients, backward(pyreg.reference, norm, b, z, statistics, **options))
    assert_same_bits(gradients, backward(impl, norm, a, z, statistics, **options))
    assert_same_bits(gradients[0][dropped], np.zeros((dropped.sum(), n), dtype))
    b.dz = a.dz.copy()
    b.dz[dropped] = rng.choice(np.array([np.inf, np.nan], dtype), (dropped.sum(), n))
    gradients = backward(impl, norm, b, z, statistics, **options)
    assert_same_bits(gradients, backward(pyreg.reference, norm, b, z, statistics, **options))
    assert_same_bits(gradients[0][dropped], np.zeros((dropped.sum(), n), dtype))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("rows", "n"), [(0, 5), (3, 0)])
def test_arrays_without_elements_give_arrays_without_elements(impl, dtype, rng, norm, rows, n):
    a = arrays(rng, dtype, rows, n)
    y, z, statistics = forward(impl, norm, a)
    assert y.shape == z.shape == (rows, n)
    dx, dresidual, *sums = backward(impl, norm, a, z, statistics)
    assert dx.shape == dresidual.shape == (rows, n)
    for total in sums:
        assert_same_bits(total, np.zeros(n, dtype))
