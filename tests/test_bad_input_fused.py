"""Bad arguments of the fused functions and of RMSNorm: named, with what was expected; and nothing changed."""

import numpy as np
import pytest
from test_bad_input import BAD_NUMBERS, F32, F64, UNWRITABLE, WRONG_KIND, ones, refuses, shown

import pyreg

SHAPE = (4, 6)
NORMS = ["layer_norm", "rms_norm"]
MODES = {
    "layer_norm": {"mean": ones(4, dtype=F64), "rstd": ones(4)},
    "rms_norm": {"rstd": ones(4)},
}


@pytest.fixture(params=["compiled", "reference"])
def impl(request):
    return pyreg if request.param == "compiled" else pyreg.reference


@pytest.fixture(params=NORMS)
def forward(impl, request):
    """The forward pass of good arguments, some of them replaced."""

    def call(**changes):
        arguments = {"x": ones(*SHAPE), "residual": ones(*SHAPE), "weight": ones(6), "p": 0.5, "key": 1}
        return getattr(impl, f"dropout_add_{request.param}_forward")(**arguments | changes)

    return call


@pytest.fixture(params=NORMS)
def backward(impl, request):
    def call(**changes):
        arguments = {"dy": ones(*SHAPE), "dz": ones(*SHAPE), "z": ones(*SHAPE), "weight": ones(6), "p": 0.5, "key": 1}
        arguments |= MODES[request.param]
        return getattr(impl, f"dropout_add_{request.param}_backward")(**arguments | changes)

    return call


@pytest.mark.parametrize(("value", "error", "shown"), BAD_NUMBERS, ids=shown)
def test_eps(impl, forward, value, error, shown):
    refuses(error, lambda: impl.rms_norm(ones(3), eps=value), "eps", shown)
    refuses(error, lambda: impl.rms_norm_forward(ones(3), eps=value), "eps", shown)
    refuses(error, lambda: forward(eps=value), "eps", shown)


def test_p_key_offset_and_training(forward, backward):
    for call in (forward, backward):
        refuses(ValueError, lambda call=call: call(p=1.5), "p must", "1.5")
        refuses(TypeError, lambda call=call: call(p="1"), "p must", "'1'")
        refuses(TypeError, lambda call=call: call(key=1.0), "key", "1.0", "random_key")
        refuses(ValueError, lambda call=call: call(key=-1), "key", "-1")
        refuses(TypeError, lambda call=call: call(offset=0.5), "offset", "0.5")
        refuses(ValueError, lambda call=call: call(offset=2**64 - 23), "offset")  # 24 elements
    refuses(TypeError, lambda: forward(training=1), "training", "1")
    with pytest.raises(TypeError, match="key"):
        backward(key=None)


@pytest.mark.parametrize("x", WRONG_KIND, ids=lambda x: f"{getattr(x, 'dtype', x)!s:.20}")
def test_arrays_of_another_kind(impl, forward, backward, x):
    refuses(TypeError, lambda: impl.rms_norm(x), "x ")
    refuses(TypeError, lambda: impl.rms_norm_backward(x, ones(3), F32(1)), "dy ")
    refuses(TypeError, lambda: forward(x=x), "x ")
    refuses(TypeError, lambda: backward(dy=x), "dy ")
    if x is not None:
        for name in ("residual", "weight", "row_scale", "layer_scale"):
            refuses(TypeError, lambda name=name: forward(**{name: x}), f"{name} ")
        for name in ("dz", "weight", "row_scale"):
            refuses(TypeError, lambda name=name: backward(**{name: x}), f"{name} ")


def test_dtypes_that_differ(forward, backward):
    for name, length in (("residual", SHAPE), ("weight", (6,)), ("row_scale", (4,)), ("layer_scale", (6,))):
        wrong = ones(*length, dtype=F64)
        refuses(TypeError, lambda name=name, wrong=wrong: forward(**{name: wrong}), name, "float32", "float64")
    for name, length in (("dy", SHAPE), ("dz", SHAPE), ("rstd", (4,)), ("row_scale", (4,))):
        wrong = ones(*length, dtype=F64)
        refuses(TypeError, lambda name=name, wrong=wrong: backward(**{name: wrong}), name, "float32", "float64")
    refuses(TypeError, lambda: backward(layer_scale=ones(6), x=ones(*SHAPE, dtype=F64)), "x ", "float64")


def test_shapes_that_do_not_match(impl, forward, backward):
    for name, good in (("residual", SHAPE), ("row_scale", (4,)), ("layer_scale", (6,))):
        for wrong in ((5,), (1,), (1, 6), (6, 4), ()):
            fragments = (name, str(good), str(wrong))
            refuses(ValueError, lambda n=name, w=wrong: forward(**{n: ones(*w)}), *fragments)
    for name, good in (("dy", SHAPE), ("dz", SHAPE), ("row_scale", (4,)), ("weight", (6,))):
        for wrong in ((5,), (1, 6), (6, 4)):
            fragments = (name, str(good), str(wrong))
            refuses(ValueError, lambda n=name, w=wrong: backward(**{n: ones(*w)}), *fragments)
    refuses(ValueError, lambda: backward(layer_scale=ones(6), x=ones(3, 6)), "x ", "(3, 6)")
    refuses(ValueError, lambda: backward(layer_scale=ones(5), x=ones(*SHAPE)), "layer_scale", "(5,)")
    refuses(ValueError, lambda: impl.rms_norm_backward(ones(2, 3), ones(2, 3), ones(3)), "rstd", "(3,)")
    refuses(TypeError, lambda: impl.rms_norm(ones(2, 3), (3,)), "weight", "normalized_shape=(3,)")


def test_layer_scale_without_x(backward):
    refuses(TypeError, lambda: backward(layer_scale=ones(6)), "x must", "layer_scale")


@pytest.mark.parametrize("what", [w for w in UNWRITABLE if w != "None"])
def test_results_that_cannot_be_written(impl, forward, backward, what):
    change, error, fragments = UNWRITABLE[what]
    x, rstd = ones(*SHAPE), ones(4)
    calls = [
        ("out", lambda out: impl.rms_norm(x, out=out)),
        ("out", lambda out: impl.rms_norm_backward(x, x, rstd, out=out)),
        ("out", lambda out: forward(out=out)),
        ("z_out", lambda out: forward(z_out=out)),
        ("out", lambda out: backward(out=out)),
        ("dresidual_out", lambda out: backward(dresidual_out=out)),
    ]
    for name, call in calls:
        out = change(np.full(SHAPE, 7, F32))
        before = np.array(out, copy=True)
        refuses(error, lambda call=call, out=out: call(out), name, *fragments)
        np.testing.assert_array_equal(np.asarray(out), before)


def test_results_that_overlap(impl, forward, backward):
    base = np.arange(60, dtype=F32)
    before = base.copy()
    a, shifted = base[:24].reshape(SHAPE), base[6:30].reshape(SHAPE)
    for result in ("out", "z_out"):
        for name in ("x", "residual"):
            refuses(ValueError, lambda r=result, n=name: forward(**{n: a, r: shifted}), result, name, "overlap")
        for name, part in (("weight", base[:6]), ("row_scale", base[:4]), ("layer_scale", base[8:14])):
            refuses(ValueError, lambda r=result, n=name, p=part: forward(**{n: p, r: a}), result, name, "overlap")
    refuses(ValueError, lambda: forward(out=a, z_out=a), "z_out", "out", "overlap")
    refuses(ValueError, lambda: forward(out=a, z_out=shifted), "z_out", "out", "overlap")
    for result in ("out", "dresidual_out"):
        for name in ("dy", "dz", "z"):
            refuses(ValueError, lambda r=result, n=name: backward(**{n: a, r: shifted}), result, name, "overlap")
        for name, part in (("weight", base[:6]), ("row_scale", base[:4]), ("rstd", base[8:12])):
            refuses(ValueError, lambda r=result, n=name, p=part: backward(**{n: p, r: a}), result, name, "overlap")
    refuses(ValueError, lambda: backward(out=a, dresidual_out=a), "dresidual_out", "out", "overlap")
    refuses(ValueError, lambda: impl.rms_norm(a, out=shifted), "out", "x", "overlap")
    refuses(ValueError, lambda: impl.rms_norm(ones(*SHAPE), base[:6], out=a), "out", "weight", "overlap")
    np.testing.assert_array_equal(base, before)


@pytest.mark.parametrize("name", ["rms_norm_forward", "rms_norm_backward", "dropout_add_norm_forward"])
def test_the_core_itself_refuses_arrays_that_it_cannot_use(name):
    from pyreg import _core

    x, rstd = ones(*SHAPE), ones(4)
    for bad in (np.ones(SHAPE, int), x.T, x[:, ::2], ones(3)):
        calls = {
            "rms_norm_forward": lambda bad=bad: _core.rms_norm_forward(x, 6, None, 0.0, bad, None),
            "rms_norm_backward": lambda bad=bad: _core.rms_norm_backward(x, x, rstd, None, 6, bad, None),
            "dropout_add_norm_forward": lambda bad=bad: _core.dropout_add_norm_forward(
                x, None, None, None, None, None, 6, 1, 1, 0, 0.0, x, bad, None, rstd
            ),
        }
        with pytest.raises(TypeError, match="_core"):
            calls[name]()
