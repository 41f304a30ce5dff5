"""Bad arguments: TypeError or ValueError that names the argument and the value, and nothing changed."""

import numpy as np
import pytest

import pyreg


def shown(value):
    return "huge" if isinstance(value, int) and abs(value) > 2**1000 else repr(value)


NAN, INF = float("nan"), float("inf")
F32, F64 = np.float32, np.float64


@pytest.fixture(params=["compiled", "reference"])
def impl(request):
    return pyreg if request.param == "compiled" else pyreg.reference


def refuses(error, call, *fragments):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    for fragment in fragments:
        assert fragment in message, message
    assert "\n" not in message


def ones(*shape, dtype=F32):
    return np.ones(shape, dtype)


# --- numbers

BAD_NUMBERS = [
    (-1e-9, ValueError, "-1e-09"),
    (NAN, ValueError, "nan"),
    (INF, ValueError, "inf"),
    (10**400, ValueError, "beyond"),
    (10**5000, ValueError, "beyond"),
    ("1", TypeError, "'1'"),
    (None, TypeError, "None"),
    (True, TypeError, "True"),
    (1j, TypeError, "1j"),
    (np.ones(1), TypeError, "[1.]"),
]


@pytest.mark.parametrize(("value", "error", "shown"), BAD_NUMBERS, ids=shown)
def test_eps_of_layer_norm(impl, value, error, shown):
    refuses(error, lambda: impl.layer_norm(ones(3), eps=value), "eps", shown)
    refuses(error, lambda: impl.layer_norm_forward(ones(3), eps=value), "eps", shown)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("p", "error", "shown"),
    [
        (-1e-09, ValueError, "-1e-09"),
        (1.0000001, ValueError, "1.0000001"),
        (NAN, ValueError, "nan"),
        (INF, ValueError, "inf"),
        ("0.5", TypeError, "'0.5'"),
        (None, TypeError, "None"),
    ],
    ids=repr,
)
def test_p_also_in_inference(impl, p, error, shown, training):
    refuses(error, lambda: impl.dropout(ones(3), p, key=1, training=training), "p must", shown)
    refuses(error, lambda: impl.dropout_mask(3, p, key=1), "p must", shown)


BAD_KEYS = [
    (-1, ValueError, "-1"),
    (2**64, ValueError, str(2**64)),
    (10**5000, ValueError, "bits"),
    (1.0, TypeError, "1.0"),
    (np.float32(1), TypeError, "1.0"),
    (True, TypeError, "True"),
    ("1", TypeError, "'1'"),
    (None, TypeError, "None"),
    (np.array([1, 2]), TypeError, "[1, 2]"),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("value", "error", "shown"), BAD_KEYS, ids=shown)
def test_keys_and_offsets(impl, value, error, shown, training):
    refuses(error, lambda: impl.dropout(ones(3), 0.5, key=value, training=training), "key", shown)
    refuses(error, lambda: impl.dropout_mask(3, 0.5, key=value), "key", shown)
    refuses(error, lambda: impl.dropout(ones(3), 0.5, key=1, offset=value), "offset", shown)


def test_an_offset_whose_last_element_is_beyond_the_stream(impl):
    impl.dropout(ones(3), 0.5, key=1, offset=2**64 - 3)
    refuses(ValueError, lambda: impl.dropout(ones(3), 0.5, key=1, offset=2**64 - 2), "offset")
    impl.dropout(ones(0), 0.5, key=1, offset=2**64 - 1)
    refuses(ValueError, lambda: impl.dropout(ones(0), 0.5, key=1, offset=2**64), "offset")


@pytest.mark.parametrize("value", ["no", 0, 1, None, 0.5])
def test_flags(impl, value):
    refuses(TypeError, lambda: impl.dropout(ones(3), 0.5, key=1, training=value), "training", repr(value))
    for name in UPDATES:
        refuses_update(impl, name, TypeError, ("maximize", repr(value)), state_of(name), maximize=value)
    name = "sgd_update"
    refuses_update(impl, name, TypeError, ("nesterov", repr(value)), state_of(name), nesterov=value)
    impl.adam_update(*state_of("adam_update"), step=1, maximize=np.True_)


UPDATES = {
    "adamw_update": ("lr", "eps", "weight_decay"),
    "adam_update": ("lr", "eps", "weight_decay"),
    "sgd_update": ("lr", "weight_decay", "momentum", "dampening"),
}


def state_of(name, dtype=F32, shape=(4, 6)):
    count = 3 if name == "sgd_update" else 4
    return [np.full(shape, i + 0.5, dtype) for i in range(count)]


def refuses_update(impl, name, error, fragments, state, **options):
    options = {"step": 2} | ({"momentum": 0.9} if name == "sgd_update" else {}) | options
    before = [np.array(a, copy=True) for a in state]
    refuses(error, lambda: getattr(impl, name)(*state, **options), *fragments)
    for array, was in zip(state, before, strict=True):
        np.testing.assert_array_equal(np.asarray(array), was)


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize(("value", "error", "shown"), BAD_NUMBERS, ids=shown)
def test_numbers_of_the_optimisers(impl, name, value, error, shown):
    for argument in UPDATES[name]:
        refuses_update(impl, name, error, (argument, shown), state_of(name), **{argument: value})


@pytest.mark.parametrize("name", ["adamw_update", "adam_update"])
@pytest.mark.parametrize(
    ("betas", "error", "fragments"),
    [
        ((1.0, 0.9), ValueError, ("betas[0]", "1.0")),
        ((-0.1, 0.9), ValueError, ("betas[0]", "-0.1")),
        ((0.9, 1.0), ValueError, ("betas[1]", "1.0")),
        ((0.9, NAN), ValueError, ("betas[1]", "nan")),
        ((0.9, "a"), TypeError, ("betas[1]", "'a'")),
        ({0.9, 0.99}, TypeError, ("betas", "pair")),
        ({0.9: 1, 0.99: 2}, TypeError, ("betas", "pair")),
        (0.9, TypeError, ("betas", "0.9")),
        ((0.9,), TypeError, ("betas", "(0.9,)")),
        (None, TypeError, ("betas", "None")),
    ],
)
def test_betas(impl, name, betas, error, fragments):
    refuses_update(impl, name, error, fragments, state_of(name), betas=betas)


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize(
    ("step", "error"),
    [(0, ValueError), (-1, ValueError), (2**63, ValueError), (1.0, TypeError), (True, TypeError)],
)
def test_steps(impl, name, step, error):
    refuses_update(impl, name, error, ("step", repr(step)), state_of(name), step=step)


def test_nesterov_and_momentum_need_their_company(impl):
    name, state = "sgd_update", state_of("sgd_update")
    refuses_update(impl, name, ValueError, ("nesterov", "momentum"), state, nesterov=True, momentum=0.0)
    refuses_update(impl, name, ValueError, ("nesterov", "0.5"), state, nesterov=True, dampening=0.5)
    refuses_update(impl, name, ValueError, ("momentum_buffer", "None"), state[:2])


# --- arrays to read

WRONG_KIND = [
    np.ones(3, int),
    np.ones(3, bool),
    np.ones(3, np.float16),
    np.ones(3, np.longdouble),
    np.ones(3, complex),
    np.ones(3, object),
    np.array(["1", "2", "3"]),
    [1, 2, 3],
    [[1.0], [1.0, 2.0]],
    "abc",
    None,
    object(),
]


@pytest.mark.parametrize("x", WRONG_KIND, ids=lambda x: f"{getattr(x, 'dtype', x)!s:.20}")
def test_arrays_of_another_kind(impl, x):
    good = ones(3)
    refuses(TypeError, lambda: impl.layer_norm(x), "x ")
    refuses(TypeError, lambda: impl.layer_norm_forward(x), "x ")
    refuses(TypeError, lambda: impl.dropout(x, 0.5, key=1), "x ")
    refuses(TypeError, lambda: impl.dropout(x, 0.5, key=1, training=False), "x ")
    refuses(TypeError, lambda: impl.layer_norm_backward(x, good, 1.0, np.float32(1)), "dy ")
    if x is not None:
        refuses(TypeError, lambda: impl.layer_norm(good, x), "weight ")
        refuses(TypeError, lambda: impl.layer_norm(good, None, x), "bias ")
        refuses(TypeError, lambda: impl.l2_penalty([good, x], 0.1), "params[1]")
    for name in UPDATES:
        state = state_of(name, shape=(3,))
        state[1] = x
        refuses(TypeError, lambda state=state, name=name: getattr(impl, name)(*state, step=1), "grad ")


def test_dtypes_that_differ(impl):
    x, other = ones(2, 3), ones(3, dtype=F64)
    refuses(TypeError, lambda: impl.layer_norm(x, other), "weight", "float32", "float64")
    refuses(TypeError, lambda: impl.layer_norm(x, None, other), "bias", "float32", "float64")
    mean, rstd = ones(2, dtype=F64), ones(2)
    refuses(TypeError, lambda: impl.layer_norm_backward(x.astype(F64), x, mean, rstd), "dy", "float64")
    refuses(TypeError, lambda: impl.layer_norm_backward(x, x, mean, mean), "rstd", "float64")
    refuses(TypeError, lambda: impl.layer_norm_backward(x, x, mean, rstd, other), "weight", "float64")
    refuses(TypeError, lambda: impl.layer_norm_backward(x, x, mean.astype(int), rstd), "mean", "int64")


def test_shapes_that_do_not_match(impl):
    x = ones(2, 3, 4)
    for shape in ((3,), (4, 4), (2, 3), (1, 2, 3, 4), ()):
        wrong = ones(*shape)
        refuses(ValueError, lambda w=wrong: impl.layer_norm(x, w), "weight", str(shape), "(2, 3, 4)")
        refuses(ValueError, lambda b=wrong: impl.layer_norm(x, None, b), "bias", str(shape))
        refuses(
            ValueError,
            lambda shape=shape: impl.layer_norm(x, normalized_shape=shape),
            "normalized_shape",
            str(shape),
        )
    refuses(ValueError, lambda: impl.layer_norm(x, ones(4), ones(3, 4)), "bias", "(3, 4)", "(4,)")
    refuses(ValueError, lambda: impl.layer_norm(x, ones(4), normalized_shape=(3, 4)), "weight", "(4,)")
    refuses(ValueError, lambda: impl.layer_norm(x, normalized_shape=-1), "normalized_shape", "-1")
    for shape in (4, (3, 4)):  # as PyTorch has it
        refuses(TypeError, lambda shape=shape: impl.layer_norm(x, shape), "weight", f"normalized_shape={shape}")
    refuses(TypeError, lambda: impl.layer_norm(x, normalized_shape=4.0), "normalized_shape", "4.0")
    refuses(TypeError, lambda: impl.layer_norm(x, normalized_shape="ab"), "normalized_shape", "ab")
    refuses(ValueError, lambda: impl.layer_norm(np.float32(1)), "x", "()")

    dy, mean, rstd = x, ones(2, 3, dtype=F64), ones(2, 3)
    refuses(ValueError, lambda: impl.layer_norm_backward(dy[:1], x, mean, rstd), "dy", "(1, 3, 4)")
    refuses(ValueError, lambda: impl.layer_norm_backward(dy, x, mean[:1], rstd), "mean", "(1, 3)")
    refuses(ValueError, lambda: impl.layer_norm_backward(dy, x, x.astype(F64), x), "mean", "(2, 3, 4)")
    refuses(ValueError, lambda: impl.layer_norm_backward(dy, x, mean, rstd[0]), "rstd", "(3,)")
    refuses(ValueError, lambda: impl.layer_norm_backward(dy, x, mean, rstd, ones(3, 4)), "weight", "(3, 4)")


def test_shapes_of_masks(impl):
    refuses(ValueError, lambda: impl.dropout_mask((2, -1), 0.5, key=1), "shape", "-1")
    refuses(TypeError, lambda: impl.dropout_mask(2.0, 0.5, key=1), "shape", "2.0")
    refuses(TypeError, lambda: impl.dropout_mask((2, 2.0), 0.5, key=1), "shape", "2.0")
    refuses(TypeError, lambda: impl.dropout_mask(True, 0.5, key=1), "shape", "True")


def test_penalties(impl):
    for value, error, shown in BAD_NUMBERS:
        refuses(error, lambda value=value: impl.l2_penalty([ones(3)], value), "weight_decay", shown)
    refuses(TypeError, lambda: impl.l2_penalty(3.0, 0.1), "params", "float")


# --- arrays to write


def read_only(array):
    array.flags.writeable = False
    return array


def unaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


# What makes an array of shape (4, 6) one that cannot be written in place, and what the message says.
UNWRITABLE = {
    "a list": (lambda a: a.tolist(), TypeError, ("numpy.ndarray", "list")),
    "None": (lambda a: None, TypeError, ("numpy.ndarray", "NoneType")),
    "an integer array": (lambda a: a.astype(int), TypeError, ("int64",)),
    "another float": (lambda a: a.astype(F64), TypeError, ("float64",)),
    "byte-swapped": (lambda a: a.astype(">f4"), TypeError, (">f4",)),
    "a scalar": (lambda a: F32(1), TypeError, ("numpy.ndarray", "float32")),
    "another shape": (lambda a: a[:3].copy(), ValueError, ("(3, 6)", "(4, 6)")),
    "read-only": (read_only, ValueError, ("read-only",)),
    "transposed": (np.asfortranarray, ValueError, ("C-contiguous", "strides")),
    "strided": (lambda a: np.repeat(a, 2, axis=1)[:, ::2], ValueError, ("C-contiguous", "strides")),
    "reversed": (lambda a: a[::-1], ValueError, ("C-contiguous", "strides")),
    "unaligned": (unaligned, ValueError, ("aligned",)),
}


@pytest.mark.parametrize("what", UNWRITABLE)
@pytest.mark.parametrize("name", UPDATES)
def test_arrays_that_cannot_be_updated_in_place(impl, name, what):
    change, error, fragments = UNWRITABLE[what]
    written = {"sgd_update": {0: "param", 2: "momentum_buffer"}}
    arguments = written.get(name, {0: "param", 2: "exp_avg", 3: "exp_avg_sq", 4: "max_exp_avg_sq"})
    for place, argument in arguments.items():
        if what == "None" and argument in ("max_exp_avg_sq", "momentum_buffer"):
            continue
        state, options = state_of(name), {}
        if place == 4:
            options["max_exp_avg_sq"] = change(np.ones((4, 6), F32))
        else:
            state[place] = change(state[place])
        if place == 0 and what in ("another float", "another shape"):
            # param sets what is expected: the others are the ones that differ.
            refuses_update(impl, name, error, ("grad",), state)
        else:
            refuses_update(impl, name, error, (argument, *fragments), state, **options)


@pytest.mark.parametrize("what", [w for w in UNWRITABLE if w != "None"])
def test_out_that_cannot_be_written(impl, what):
    change, error, fragments = UNWRITABLE[what]
    x, mean, rstd = ones(4, 6), ones(4, dtype=F64), ones(4)
    for call in (
        lambda out: impl.layer_norm(x, out=out),
        lambda out: impl.layer_norm_forward(x, out=out),
        lambda out: impl.layer_norm_backward(x, x, mean, rstd, out=out),
        lambda out: impl.dropout(x, 0.5, key=1, out=out),
        lambda out: impl.dropout(x, 0.5, key=1, training=False, out=out),
    ):
        out = change(np.full((4, 6), 7, F32))
        before = np.array(out, copy=True)
        refuses(error, lambda call=call, out=out: call(out), "out", *fragments)
        np.testing.assert_array_equal(np.asarray(out), before)


def test_out_that_overlaps(impl):
    base = np.arange(36, dtype=F32)
    x, out = base[:24].reshape(4, 6), base[6:30].reshape(4, 6)
    mean, rstd, clear = ones(4, dtype=F64), ones(4), ones(4, 6)
    before = base.copy()
    calls = {
        "x": [
            lambda: impl.layer_norm(x, out=out),
            lambda: impl.layer_norm_backward(clear, x, mean, rstd, out=out),
            lambda: impl.dropout(x, 0.5, key=1, out=out),
        ],
        "dy": [lambda: impl.layer_norm_backward(x, clear, mean, rstd, out=out)],
        "weight": [
            lambda: impl.layer_norm(clear, base[:6], out=x),
            lambda: impl.layer_norm_backward(clear, clear, mean, rstd, out[0], out=out),
        ],
        "bias": [lambda: impl.layer_norm(clear, None, out[3], out=out)],
        "rstd": [lambda: impl.layer_norm_backward(clear, clear, mean, base[8:12], out=out)],
    }
    for name, named in calls.items():
        for call in named:
            refuses(ValueError, call, "out", name, "overlap")
    np.testing.assert_array_equal(base, before)


@pytest.mark.parametrize("name", UPDATES)
def test_arrays_of_an_update_that_overlap(impl, name):
    names = ["param", "grad", "momentum_buffer"]
    if name != "sgd_update":
        names = ["param", "grad", "exp_avg", "exp_avg_sq"]
    for i in range(len(names)):
        for j in range(i):
            for shift in (0, 1, 5):
                base = np.arange(20, dtype=F32)
                state = [np.full(10, k, F32) for k in range(len(names))]
                state[i], state[j] = base[:10], base[shift : shift + 10]
                refuses_update(impl, name, ValueError, (names[i], names[j], "overlap"), state)
    if name != "sgd_update":
        state = state_of(name)
        refuses_update(impl, name, ValueError, ("exp_avg_sq", "max_exp_avg_sq"), state, max_exp_avg_sq=state[3])


def test_neighbouring_arrays_do_not_overlap(impl):
    base = np.ones(40, F32)
    impl.adamw_update(*base.reshape(4, 10), step=1)
    x, out = np.ones((2, 3, 6), F32)
    impl.layer_norm(x, out=out)


# --- threads and the rest


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (None, TypeError)])
def test_thread_counts(n, error):
    before = pyreg.get_num_threads()
    refuses(error, lambda: pyreg.set_num_threads(n), "n must", repr(n))
    refuses(error, lambda: pyreg.num_threads(n), "n must", repr(n))
    assert pyreg.get_num_threads() == before


def test_show_config_modes():
    refuses(ValueError, lambda: pyreg.show_config("html"), "mode", "html")


@pytest.mark.parametrize("name", ["layer_norm_forward", "dropout", "adam", "sgd", "sum_of_squares"])
def test_the_core_itself_refuses_arrays_that_it_cannot_use(name):
    """A mistake above the core ends in an error, not in memory."""
    from pyreg import _core

    x, small, ints = ones(4, 6), ones(3), np.ones((4, 6), int)
    for bad in (ints, x.T, x[:, ::2], small, read_only(ones(4, 6))):
        calls = {
            "layer_norm_forward": lambda bad=bad: _core.layer_norm_forward(x, 6, None, None, 0.0, bad, None, None),
            "dropout": lambda bad=bad: _core.dropout(x, 1, 1, 0, bad),
            "adam": lambda bad=bad: _core.adam(x, x, bad, x, None, 1, 0.1, 0.9, 0.9, 0.1, 0.1, True, False),
            "sgd": lambda bad=bad: _core.sgd(x, x, bad, True, 0.1, 0.9, 0.0, 0.0, False, False),
            "sum_of_squares": lambda: _core.sum_of_squares(ints),
        }
        with pytest.raises(TypeError, match="_core"):
            calls[name]()


def test_masked_arrays_are_not_written_to(impl):
    masked = np.ma.masked_array(np.ones(3, np.float32), mask=[True, False, False])
    plain = [np.ones(3, np.float32) for _ in range(3)]
    calls = {
        "out": lambda: impl.dropout(plain[0], 0.5, key=1, out=masked),
        "param": lambda: impl.sgd_update(masked, plain[0], step=1),
        "exp_avg": lambda: impl.adamw_update(plain[0], plain[1], masked, plain[2], step=1),
    }
    for name, call in calls.items():
        refuses(TypeError, call, name, "masked")
    assert (masked.data == 1).all()


def test_nesterov_of_another_kind(impl):
    for value in (np.array([True, False]), "yes", 1):
        call = lambda value=value: impl.sgd_update(np.ones(3), np.ones(3), step=1, nesterov=value)  # noqa: E731
        refuses(TypeError, call, "nesterov", "True or False")
