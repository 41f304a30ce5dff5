"""The fused functions: the bits of the separate ones, accuracy, edge cases of p, the stream and row_scale."""

from types import SimpleNamespace

import numpy as np
import pytest
from bits import assert_same_bits
from cases import every_dtype

import pyreg

P, KEY, OFFSET = 0.3, 0x0123456789ABCDEF, 11
DROPOUT = {"p": P, "key": KEY, "offset": OFFSET}
NORMS = ["dropout_add_layer_norm", "dropout_add_rms_norm"]


@pytest.fixture(params=NORMS)
def norm(request):
    return request.param


def arrays(rng, dtype, rows=70, n=129):
    """All arrays that the functions take."""
    made = {name: rng.normal(1, 2, (rows, n)).astype(dtype) for name in ("x", "residual", "dy", "dz")}
    made |= {name: rng.normal(size=n).astype(dtype) for name in ("weight", "bias", "layer_scale")}
    made["row_scale"] = rng.normal(size=rows).astype(dtype)
    return SimpleNamespace(**made)


def parameters(norm, a):
    return (a.weight, a.bias) if "layer" in norm else (a.weight,)


def forward(impl, norm, a, **options):
    """y, z and the statistics for the arrays in `a`."""
    scales = {"row_scale": a.row_scale, "layer_scale": a.layer_scale}
    function = getattr(impl, f"{norm}_forward")
    y, z, *statistics = function(a.x, a.residual, *parameters(norm, a), **DROPOUT | scales | options)
    return y, z, tuple(statistics)


def backward(impl, norm, a, z, statistics, **options):
    scales = {"row_scale": a.row_scale, "layer_scale": a.layer_scale, "x": a.x}
    function = getattr(impl, f"{norm}_backward")
    return function(a.dy, a.dz, z, *statistics, a.weight, **DROPOUT | scales | options)


def test_the_fused_functions_have_the_bits_of_the_separate_ones(impl, dtype, rng, norm):
    a = arrays(rng, dtype)
    y, z, statistics = forward(impl, norm, a)
    branch = impl.dropout(a.x, P, key=KEY, offset=OFFSET) * a.row_scale[:, None]
    assert_same_bits(z, branch * a.layer_scale + a.residual)
    alone = norm.removeprefix("dropout_add_")
    assert_same_bits((y, *statistics), getattr(impl, f"{alone}_forward")(z, *parameters(norm, a)))

    dx, dresidual, *dparams, dlayer_scale = backward(impl, norm, a, z, statistics)
    through_norm, *expected = getattr(impl, f"{alone}_backward")(a.dy, z, *statistics, a.weight)
    assert_same_bits(tuple(dparams), tuple(expected))
    assert_same_bits(dresidual, through_norm + a.dz)
    dbranch = dresidual * a.layer_scale * a.row_scale[:, None]
    assert_same_bits(dx, impl.dropout(dbranch, P, key=KEY, offset=OFFSET))
    np.testing.assert_allclose(dlayer_scale, (dresidual * branch).sum(0), rtol=0, atol=1e-4 * np.abs(branch).max())


def test_float32_is_accurate_to_float32(impl, rng, norm):
    a = arrays(rng, np.float32, rows=64, n=768)
    wide = SimpleNamespace(**{name: array.astype(np.float64) for name, array in vars(a).items()})
    _, z_wide, statistics_wide = forward(pyreg.reference, norm, wide)
    y, z, statistics = forward(impl, norm, a)
    y_wide = forward(pyreg.reference, norm, wide)[0]
    # z: four roundings of terms up to 100. y: these after the norm, and the norm's own, of values up to 10.
    np.testing.assert_allclose(z, z_wide, rtol=0, atol=4 * 100 * 2**-24)
    np.testing.assert_allclose(y, y_wide, rtol=0, atol=1e-5)
    results = backward(impl, norm, a, z, statistics)
    results_wide = backward(pyreg.reference, norm, wide, z_wide, statistics_wide)
    for actual, expected in zip(results, results_wide, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@every_dtype
@pytest.mark.parametrize(("p", "training"), [(0.0, True), (1.0, True), (0.3, False)])
def test_p_of_0_and_1_and_inference(impl, dtype, rng, norm, p, training):
    a = arrays(rng, dtype)
    a.x[3, 5] = np.inf
    _, z, _ = forward(impl, norm, a, p=p, training=training, row_scale=None, layer_scale=None)
    assert_same_bits(z, a.residual + 0 if p == 1 else a.x + a.residual)


@every_dtype
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


@every_dtype
@pytest.mark.parametrize("layer_scaled", [True, False])
@pytest.mark.parametrize("p", [0.0, P, 1.0])
@pytest.mark.parametrize("n", [129, 4097])  # a mask segment holds many rows, or part of one
def test_a_row_scale_of_0_drops_the_row_by_selection(impl, dtype, rng, norm, layer_scaled, p, n):
    a = arrays(rng, dtype, 12, n)
    dropped = np.isin(np.arange(12), (0, 3, 4, 7, 11))
    a.row_scale[dropped] = [0.0, -0.0, 0.0, -0.0, 0.0]
    a.residual[0] = -0.0  # a zero is added to it
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
