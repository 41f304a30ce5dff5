"""Bad arguments of softmax_dropout and of the activations: named, with what was expected; and nothing changed."""

import numpy as np
import pytest
from test_bad_input import F32, F64, INF, NAN, UNWRITABLE, WRONG_KIND, ones, refuses

import pyreg
from pyreg import _core

SHAPE = (4, 6)
DROPOUT = {"p": 0.5, "key": 1}


@pytest.fixture(params=["compiled", "reference"])
def impl(request):
    return pyreg if request.param == "compiled" else pyreg.reference


def softmax_calls(impl):
    """Forward and backward of good arguments, some of them replaced."""
    forward = {"x": ones(*SHAPE), "mask": ones(6)} | DROPOUT
    backward = forward | {"dy": ones(*SHAPE), "maximum": ones(4), "rsum": ones(4)}
    return (
        lambda **changes: impl.softmax_dropout_forward(**forward | changes),
        lambda **changes: impl.softmax_dropout_backward(**backward | changes),
    )


def activation_calls(impl):
    forward = {"x": ones(*SHAPE), "bias": ones(6)} | DROPOUT
    backward = forward | {"dy": ones(*SHAPE)}
    for name in ("gelu", "relu", "silu"):
        for way, arguments in (("forward", forward), ("backward", backward)):
            function = getattr(impl, f"{name}_dropout_{way}")
            yield lambda f=function, a=arguments, **changes: f(**a | changes)


def all_calls(impl):
    return *softmax_calls(impl), *activation_calls(impl)


def backward_calls(impl):
    return softmax_calls(impl)[1], *list(activation_calls(impl))[1::2]


def test_p_key_offset_and_training(impl):
    for call in all_calls(impl):
        refuses(ValueError, lambda c=call: c(p=1.5), "p must", "1.5")
        refuses(TypeError, lambda c=call: c(p="1"), "p must", "'1'")
        refuses(TypeError, lambda c=call: c(key=1.0), "key", "1.0", "random_key")
        refuses(ValueError, lambda c=call: c(key=-1), "key", "-1")
        refuses(TypeError, lambda c=call: c(offset=0.5), "offset", "0.5")
        refuses(ValueError, lambda c=call: c(offset=2**64 - 23), "offset")  # 24 elements
    for call in (softmax_calls(impl)[0], *list(activation_calls(impl))[::2]):
        refuses(TypeError, lambda c=call: c(training=1), "training", "1")


@pytest.mark.parametrize("x", WRONG_KIND, ids=lambda x: f"{getattr(x, 'dtype', x)!s:.20}")
def test_arrays_of_another_kind(impl, x):
    for call in all_calls(impl):
        refuses(TypeError, lambda c=call: c(x=x), "x ")
    for call in backward_calls(impl):
        refuses(TypeError, lambda c=call: c(dy=x), "dy ")
    if x is not None:
        for call in softmax_calls(impl):
            refuses(TypeError, lambda c=call: c(mask=x), "mask ")
        for call in activation_calls(impl):
            refuses(TypeError, lambda c=call: c(bias=x), "bias ")
    for name in ("maximum", "rsum"):
        refuses(TypeError, lambda n=name: softmax_calls(impl)[1](**{n: x}), f"{name} ")


def test_dtypes_that_differ(impl):
    for names, calls in ((("mask",), softmax_calls(impl)), (("bias",), list(activation_calls(impl)))):
        for call in calls:
            for name in names:
                refuses(TypeError, lambda c=call, n=name: c(**{n: ones(6, dtype=F64)}), name, "float32", "float64")
    for call in backward_calls(impl):
        refuses(TypeError, lambda c=call: c(dy=ones(*SHAPE, dtype=F64)), "dy", "float32", "float64")
    for name in ("maximum", "rsum"):
        wrong = ones(2, 4, dtype=F64)
        refuses(TypeError, lambda n=name, w=wrong: softmax_calls(impl)[1](**{n: w}), name, "float32", "float64")


def test_shapes_that_do_not_match(impl):
    for call in softmax_calls(impl):
        for wrong in ((5,), (4,), (6, 4), (3, 6), (4, 6, 1), (1, 1, 6), (0,)):
            refuses(ValueError, lambda c=call, w=wrong: c(mask=ones(*w)), "mask", str(SHAPE), str(wrong))
    for call in activation_calls(impl):
        for wrong in ((5,), (1,), (4, 6), ()):
            refuses(ValueError, lambda c=call, w=wrong: c(bias=ones(*w)), "bias", "(6,)", str(wrong))
    for call in backward_calls(impl):
        refuses(ValueError, lambda c=call: c(dy=ones(6)), "dy", str(SHAPE), "(6,)")
    for name in ("maximum", "rsum"):
        for wrong in ((4, 1), (6,), ()):
            refuses(ValueError, lambda n=name, w=wrong: softmax_calls(impl)[1](**{n: ones(*w)}), name, "(4,)")
    for call in softmax_calls(impl):
        refuses(ValueError, lambda c=call: c(x=F32(1), mask=None), "x must", "axis")
    refuses(ValueError, lambda: softmax_calls(impl)[0](x=ones(6), mask=None, causal=True), "x must", "causal")
    refuses(ValueError, lambda: impl.gelu_dropout_forward(F32(1), ones(1), **DROPOUT), "x must", "bias")


def test_scale_causal_and_approximate(impl):
    for call in softmax_calls(impl):
        for value in (NAN, INF, -INF, 1e39):
            refuses(ValueError, lambda c=call, v=value: c(scale=v), "scale", "finite", repr(value))
        for value in ("1", None, True, 1j):
            refuses(TypeError, lambda c=call, v=value: c(scale=v), "scale", repr(value))
        for value in (1, 0, None, "yes"):
            refuses(TypeError, lambda c=call, v=value: c(causal=v), "causal", repr(value))
    for call in list(activation_calls(impl))[:2]:
        for value in (None, True, 1):
            refuses(TypeError, lambda c=call, v=value: c(approximate=v), "approximate", '"tanh"', repr(value))
        for value in ("", "erf", "TANH"):
            refuses(ValueError, lambda c=call, v=value: c(approximate=v), "approximate", '"tanh"', repr(value))


@pytest.mark.parametrize("what", [w for w in UNWRITABLE if w != "None"])
def test_results_that_cannot_be_written(impl, what):
    change, error, fragments = UNWRITABLE[what]
    for call in all_calls(impl):
        out = change(np.full(SHAPE, 7, F32))
        before = np.array(out, copy=True)
        refuses(error, lambda c=call, o=out: c(out=o), "out", *fragments)
        np.testing.assert_array_equal(np.asarray(out), before)


def test_results_that_overlap(impl):
    base = np.arange(100, dtype=F32)
    before = base.copy()
    x, shifted = base[:24].reshape(SHAPE), base[6:30].reshape(SHAPE)
    for call in all_calls(impl):
        refuses(ValueError, lambda c=call: c(x=x, out=shifted), "out", "x", "overlap")
    for call in backward_calls(impl):
        refuses(ValueError, lambda c=call: c(dy=x, out=shifted), "out", "dy", "overlap")
    for call in softmax_calls(impl):
        refuses(ValueError, lambda c=call: c(mask=base[18:24], out=x), "out", "mask", "overlap")
    for call in activation_calls(impl):
        refuses(ValueError, lambda c=call: c(bias=base[16:22], out=x), "out", "bias", "overlap")
    for name in ("maximum", "rsum"):
        part = base[20:24]
        refuses(ValueError, lambda n=name, a=part: softmax_calls(impl)[1](**{n: a}, out=x), "out", name, "overlap")
    np.testing.assert_array_equal(base, before)


def test_the_core_itself_refuses_arrays_that_it_cannot_use():
    x, row, dropout = ones(4, 6), ones(4), (0, 1, 0)
    for bad in (np.ones((4, 6), int), ones(6, 4).T, ones(4, 12)[:, ::2], ones(3)):
        for call in (
            lambda bad=bad: _core.softmax_dropout_forward(x, None, (4,), (0,), 0, 1.0, *dropout, bad, row, row),
            lambda bad=bad: _core.softmax_dropout_backward(x, bad, row, row, None, (4,), (0,), 0, 1.0, *dropout, x),
            lambda bad=bad: _core.activation_dropout_forward("relu", x, None, *dropout, bad),
            lambda bad=bad: _core.activation_dropout_backward("relu", x, bad, None, *dropout, x, None),
        ):
            with pytest.raises(TypeError, match="_core"):
                call()
    for lengths, steps in (
        ((4,), (6, 6)),
        ((3,), (6,)),
        ((4,), (-6,)),
        ((4,), (7,)),
        ((4,) * 64, (0,) * 64),
        ((-4,), (0,)),
    ):
        with pytest.raises(TypeError, match="_core"):
            _core.softmax_dropout_forward(x, x, lengths, steps, 0, 1.0, *dropout, x.copy(), row, row)
    with pytest.raises(TypeError, match="_core"):
        _core.softmax_dropout_forward(x, None, (4,), (0,), -1, 1.0, *dropout, x.copy(), row, row)
    with pytest.raises(TypeError, match="activation"):
        _core.activation_dropout_forward("elu", x, None, *dropout, x.copy())
    with pytest.raises(TypeError, match="dbias"):
        _core.activation_dropout_backward("relu", x, x, row[:2], *dropout, x.copy(), None)
    with pytest.raises(TypeError, match="rows"):
        _core.activation_dropout_forward("relu", x, ones(5), *dropout, x.copy())
