"""Bad arguments raise a TypeError or ValueError that names the argument and the value, and nothing changes."""

import itertools
import re
from functools import cache

import numpy as np
import pytest
from cases import (
    LISTS,
    SIXTEEN_BIT,
    allowed_dtypes,
    call_of_core,
    cases_with,
    first,
    inputs,
    parameters_of,
    read_only,
    unaligned,
)

import pyreg
from pyreg._cases import CASES, Of

SHAPE = (4, 6)
NAN, INF = float("nan"), float("inf")
F32, F64 = np.float32, np.float64


@cache
def good(name):
    return CASES[name].arguments(SHAPE, F32)


def refuses(error, call, *fragments):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    for fragment in fragments:
        assert re.search(rf"(?<!\w){re.escape(fragment)}(?!\w)", message), (fragment, message)
    assert "\n" not in message
    return message


def case_refuses(case, error, *fragments, **changes):
    """The good arguments with these changes are refused, and no array changes."""
    arguments = good(case.name) | changes
    arrays = {name: value for name, value in arguments.items() if isinstance(value, np.ndarray)}
    before = {name: array.tobytes() for name, array in arrays.items()}
    message = refuses(error, lambda: getattr(pyreg, case.name)(**arguments), *fragments)
    assert {name: array.tobytes() for name, array in arrays.items()} == before
    return message


SOFTMAX = [CASES["softmax_dropout_forward"], CASES["softmax_dropout_backward"]]


# --- arguments that are not arrays: bad values, the error, and what the message shows (None: the value's repr)


NO_NUMBERS = [(value, TypeError, None) for value in ("1", True, 1j, np.ones(1), np.array([1.0, 2.0]), [1.0])]
NONE = [(None, TypeError, "None")]
NOT_FINITE = [(value, ValueError, None) for value in (NAN, INF, -INF)]
BEYOND = [(10**400, ValueError, "beyond"), (10**5000, ValueError, "beyond")]
AT_LEAST_0 = [*NO_NUMBERS, *NONE, *NOT_FINITE, *BEYOND, (-1e-9, ValueError, "-1e-09")]
NO_INTEGERS = [(value, TypeError, None) for value in (1.0, F32(1), True, "1", np.array([1, 2]), np.array(1.0))]
BELOW_2_TO_64 = [*NO_INTEGERS, (-1, ValueError, "-1"), (2**64, ValueError, None), (10**5000, ValueError, "bits")]
FLAG = [(value, TypeError, None) for value in ("no", 0, 1, None, 0.5, np.array([True, False]))]

BAD = {
    "p": [*NO_NUMBERS, *NONE, *NOT_FINITE, (-1e-9, ValueError, "-1e-09"), (1.0000001, ValueError, None)],
    "key": [*BELOW_2_TO_64, (None, TypeError, "random_key"), (1.0, TypeError, "random_key")],
    "offset": [*BELOW_2_TO_64, *NONE, (0.5, TypeError, "0.5")],
    "rounding": [
        *((value, TypeError, "'nearest' or 'stochastic'") for value in (None, True, 1, ["stochastic"])),
        *((value, ValueError, repr(value)) for value in ("", "Nearest", "random", "\ud800")),
        *(({name: "nearest"}, ValueError, repr(name)) for name in ("grad", "max_exp_avg_sq", "lr", 1, None)),
        *(({"param": value}, ValueError, repr(value)) for value in ("", None, True)),
        ("stochastic", TypeError, "key must be given"),
        ({"param": "stochastic"}, TypeError, "key must be given"),
    ],
    "rows": [
        *((value, TypeError, "integers") for value in ([0.0, 1.0], [True] * 4, ["a"] * 4, np.ones(4), [None])),
        *((value, ValueError, "1-D") for value in (1, np.int64(1), [[0, 1], [2, 3]])),
        *((value, ValueError, "below 4") for value in ([0, 1, 2, 4], [-1, 0, 1, 2], [2**62, 0, 1, 2])),
        ([3, 1, 0, 3], ValueError, "sum_duplicate_rows"),
        (np.array([2**63, 1, 2, 3], np.uint64), ValueError, "2**63"),
        ([0, 1], ValueError, "(2, 6)"),
    ],
    "step": [*NO_INTEGERS, *NONE, (0, ValueError, "0"), (-1, ValueError, "-1"), (2**63, ValueError, None)],
    "scale": [*NO_NUMBERS, *NONE, *((value, ValueError, "finite") for value in (NAN, INF, -INF, 1e39))],
    "betas": [
        ((1.0, 0.9), ValueError, "betas[0]"),
        ((-0.1, 0.9), ValueError, "-0.1"),
        ((0.9, 1.0), ValueError, "betas[1]"),
        ((0.9, NAN), ValueError, "nan"),
        ((0.9, "a"), TypeError, "'a'"),
        ({0.9, 0.99}, TypeError, "pair"),
        ({0.9: 1, 0.99: 2}, TypeError, "pair"),
        (0.9, TypeError, "0.9"),
        ((0.9,), TypeError, "(0.9,)"),
        (None, TypeError, "None"),
    ],
    "approximate": [
        *((value, TypeError, None) for value in (None, True, 1)),
        *((value, ValueError, '"tanh"') for value in ("", "erf", "TANH")),
    ],
    "normalized_shape": [
        *(((shape), ValueError, str(shape)) for shape in ((4,), (3, 6), (4, 4), (1, 4, 6), ())),
        (-1, ValueError, "-1"),
        *((value, TypeError, None) for value in (4.0, "ab", True)),
        (np.ones(SHAPE), TypeError, "array"),
    ],
    "shape": [
        ((2, -1), ValueError, "-1"),
        *((value, TypeError, None) for value in (2.0, (2, 2.0), True, None, "ab")),
    ],
    **dict.fromkeys(("eps", "lr", "weight_decay", "momentum", "dampening", "grad_scale"), AT_LEAST_0),
    "ema_decay": [*AT_LEAST_0, (1.0, ValueError, "1.0")],
    "causal": [
        *FLAG[1:],
        *((value, ValueError, '"lower_right"') for value in ("no", "", "LOWER_RIGHT", "lower_right\0", "\ud800")),
    ],
    "axis": [*NO_INTEGERS, *NONE, *((value, ValueError, "[-2, 1]") for value in (2, -3, 10**30, -(10**5000)))],
    "y": [(np.ones(SHAPE, F32), TypeError, "x must be None"), (1.0, TypeError, "x must be None")],
    **dict.fromkeys(("training", "return_z", "return_dresidual", "maximize", "nesterov"), FLAG),
    **dict.fromkeys(("skip_nonfinite", "bias_correction"), FLAG),
}


@pytest.mark.parametrize("parameter", BAD)
def test_numbers_flags_and_shapes_are_refused_by_name_and_value(parameter):
    for case in CASES.values():
        if parameter not in case.numbers:
            continue
        # A mismatch with the weight's shape would be reported first.
        others = dict.fromkeys(case.optional) if parameter == "normalized_shape" else {}
        for value, error, shown in BAD[parameter]:
            if parameter == "key" and value is None and case.updated:  # needed for stochastic rounding alone
                continue
            named = "key" if shown == "key must be given" else "grad" if shown == "(2, 6)" else parameter
            message = case_refuses(case, error, named, **others, **{parameter: value})
            assert (shown or repr(value)) in message
            if "training" in case.numbers and parameter in ("p", "key", "offset"):
                if parameter == "key" and value is None:  # inference needs no key
                    continue
                case_refuses(case, error, parameter, training=False, **{parameter: value})


class Unprintable:
    def __repr__(self):
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pyreg.dropout_mask((2**32, 2**32), 0.1, key=1), ValueError, "shape must have fewer than 2**63 - 1"),
        (lambda: pyreg.dropout_mask((1,) * 65, 0.1, key=1), ValueError, "at most 64 axes"),
        (lambda: pyreg.l2_penalty({"w": np.ones(3)}, 0.1), TypeError, "got dict; pass its .values()"),
        (lambda: pyreg.softmax_dropout_forward(np.ones(3), 0.1), TypeError, "pass a probability as p=0.1"),
        (lambda: pyreg.layer_norm(np.ones(3), eps=Unprintable()), TypeError, "got a Unprintable"),
    ],
)
def test_messages_for_what_is_easily_mistaken(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_every_parameter_is_in_the_table_of_cases_and_every_number_in_that_of_bad_values(case):
    assert sorted([*case.arrays, *case.numbers, *case.outs]) == sorted(parameters_of(case))
    assert case.numbers.keys() <= BAD.keys()


@cases_with(lambda case: "offset" in case.numbers)
def test_an_offset_whose_last_element_is_beyond_the_stream(case):
    size = 4 if case.samples else 24
    getattr(pyreg, case.name)(**good(case.name) | {"offset": 2**64 - size})
    case_refuses(case, ValueError, "offset", f"[0, {2**64 - size}]", offset=2**64 - size + 1)
    empty = case.arguments((0, 6), F32)
    getattr(pyreg, case.name)(**empty | {"offset": 2**64 - 1})
    with pytest.raises(ValueError, match="offset"):
        getattr(pyreg, case.name)(**empty | {"offset": 2**64})


# --- arrays that are read


NOT_FLOAT = (int, bool, np.longdouble, complex, object, "U3")
NO_ARRAY = ([1, 2, 3], [[1.0], [1.0, 2.0]], "abc", object(), 1, np.ma.masked_array(np.ones(3, F32)))


def wrong_kinds(array):
    right = array.dtype if array.dtype == bool else None
    return [*(np.ones(array.shape, dtype) for dtype in (*NOT_FLOAT, F32) if dtype not in (F32, right)), *NO_ARRAY]


@cases_with(lambda case: case.arrays)
def test_arrays_of_another_kind_are_refused(case):
    for name in inputs(case, good(case.name)):
        wrong = wrong_kinds(good(case.name)[name])
        if name in LISTS:
            for value in wrong:
                case_refuses(case, TypeError, f"{name}[1]", **{name: [np.ones(3, case.dtypes[0]), value]})
            wrong = [*wrong[: len(NOT_FLOAT)], 1, 3.0, object()]
        for value in wrong:
            case_refuses(case, TypeError, name, **{name: value})
        if name not in case.optional and name != "x":
            case_refuses(case, TypeError, name, **{name: None})
    if "x" in case.arrays and first(case) == "x":
        case_refuses(case, TypeError, "x", x=None)


class Unreadable:
    def __init__(self, error):
        self.error = error

    def __array__(self, dtype=None, copy=None):
        raise self.error


def test_all_results_of_a_function_in_place_of_one_are_an_error_that_says_so():
    results = pyreg.layer_norm_forward(np.ones((3, 4), F32))
    with pytest.raises(TypeError, match=r"cannot be read .*; pass one of the arrays in LayerNormForward"):
        pyreg.dropout(results, 0.5, key=1)


@cases_with(lambda case: case.arrays)
def test_an_array_like_that_raises_is_an_error_that_names_the_argument_and_has_the_cause(case):
    for name in inputs(case, good(case.name)):
        named, wrapped = (f"{name}[0]", lambda value: [value]) if name in LISTS else (name, lambda value: value)
        for cause in (RuntimeError("it requires grad"), AttributeError("data"), ValueError("no"), KeyError(1)):
            with pytest.raises(TypeError, match=rf"^{re.escape(named)} cannot be read") as caught:
                getattr(pyreg, case.name)(**good(case.name) | {name: wrapped(Unreadable(cause))})
            assert str(cause) in str(caught.value)
            assert caught.value.__cause__ is cause
        for error in (MemoryError(), KeyboardInterrupt()):
            with pytest.raises(type(error)) as caught:
                getattr(pyreg, case.name)(**good(case.name) | {name: wrapped(Unreadable(error))})
            assert caught.value is error


def test_a_tensor_that_requires_grad_is_an_error_with_pytorchs_advice():
    torch = pytest.importorskip("torch")
    tensor = torch.ones(SHAPE, requires_grad=True)
    refuses(TypeError, lambda: pyreg.layer_norm(tensor), "x", "tensor.detach().numpy()")


@cases_with(lambda case: len(case.arrays) > 1)
def test_dtypes_that_differ_are_refused(case):
    for name in inputs(case, good(case.name)):
        if name in ("mean", "keep"):  # may have either dtype, or has its own
            continue
        named = [name] if name != first(case) else []  # else the message names one of the others
        # Beside an x of 16 bits, the parameters of a forward pass may be float32.
        for dtype in (F64, *(SIXTEEN_BIT if name != "x" or "dy" in case.arrays else [])):
            if dtype in allowed_dtypes(case, name, F32):
                continue
            other = good(case.name)[name].astype(dtype)
            case_refuses(case, TypeError, *named, "float32", dtype.__name__, **{name: other})


WRONG_SHAPES = {
    Of.ELEMENT: [(5,), (6,), (1, 6), (6, 4), (3, 6), (4, 6, 1), ()],
    Of.ROW: [(5,), (1,), (4, 1), (6,), (4, 6), (6, 4)],
    Of.COLUMN: [(5,), (4,), (0,), (6, 4), (3, 6), (1, 4, 6), (4, 6, 1), (1, 1, 6)],
}
# More wrong shapes for the arrays of these names. Other arrays of their kind may have them: a mask broadcasts, a
# weight of x's shape means rows of two axes, and a mean of shape () belongs to a single row.
WRONG_SHAPES_OF = {"bias": [(1,), SHAPE, ()], "layer_scale": [(1,), SHAPE, ()], "row_scale": [()]}


@cases_with(lambda case: len(case.arrays) > 1)
def test_shapes_that_do_not_match_are_refused(case):
    for name, of in case.arrays.items():
        if name in (first(case), *case.updated):
            continue
        for shape in WRONG_SHAPES[of] + WRONG_SHAPES_OF.get(name, []):
            right = good(case.name)[name]
            message = case_refuses(case, ValueError, name, str(shape), **{name: np.ones(shape, right.dtype)})
            # The message has the given shape, and the expected one or x's.
            others = message.replace(str(shape), "", 1)
            assert str(right.shape) in others or str(SHAPE) in others, message


@cases_with(lambda case: "normalized_shape" in case.numbers)
def test_a_shape_in_pytorchs_place_is_an_error_that_says_where_it_belongs(case):
    for shape in (6, (6,), SHAPE):
        case_refuses(case, TypeError, "weight", f"normalized_shape={shape}", weight=shape)
    weight, bias = np.ones(6, F32), {"bias": np.ones(SHAPE, F32)} if "bias" in case.arrays else {}
    case_refuses(case, ValueError, "weight", "(6,)", weight=weight, normalized_shape=SHAPE)
    if bias:
        case_refuses(case, ValueError, "bias", "(4, 6)", "(6,)", weight=weight, **bias)


# Arguments that have to fit each other: the function, the changes, the error, what the message says.
TOGETHER = [
    ("sgd_update", {"nesterov": True, "momentum": 0.0}, ValueError, ("nesterov", "momentum")),
    ("sgd_update", {"nesterov": True, "dampening": 0.5}, ValueError, ("nesterov", "0.5")),
    ("sgd_update", {"momentum_buffer": None}, ValueError, ("momentum_buffer", "None")),
    ("layer_norm", {"x": F32(1)}, ValueError, ("x", "()")),
    ("drop_path", {"x": F32(1)}, ValueError, ("x must have an axis",)),
    ("gelu_dropout_forward", {"x": F32(1), "bias": np.ones(1, F32)}, ValueError, ("x must", "bias")),
    ("softmax_dropout_forward", {"x": F32(1), "mask": None}, ValueError, ("x must", "axis")),
    ("softmax_dropout_forward", {"x": np.ones(6, F32), "causal": True}, ValueError, ("x must", "causal")),
    ("softmax_dropout_forward", {"axis": 0, "causal": True}, ValueError, ("axis", "causal")),
    ("softmax_dropout_forward", {"axis": 0, "mask": np.ones((4, 5), F32)}, ValueError, ("mask", "(4, 5)")),
    ("softmax_dropout_backward", {"axis": 0}, ValueError, ("maximum", "(6,)", "axis 0")),
    ("l2_penalty", {"params": 3.0}, TypeError, ("params", "float")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "error", "fragments"), TOGETHER)
def test_arguments_that_do_not_go_together_are_refused(name, changes, error, fragments):
    case_refuses(CASES[name], error, *fragments, **changes)


@cases_with(lambda case: "layer_scale" in case.arrays and first(case) == "z")
def test_layer_scale_needs_x_in_the_backward_pass(case):
    case_refuses(case, TypeError, "x", "layer_scale", x=None)


@cases_with(lambda case: any(name.startswith("return_") for name in case.numbers))
def test_results_that_are_not_wanted_have_no_out(case):
    outs = {f"return_{result}": out for out, result in case.outs.items()}
    for flag in [name for name in case.numbers if name.startswith("return_")]:
        case_refuses(case, ValueError, outs[flag], flag, **{flag: False, outs[flag]: np.ones(SHAPE, F32)})


@pytest.mark.parametrize("mask", [np.ones(6, bool), np.ones(6, int), np.ones(6, np.uint8), [True] * 6])
def test_a_mask_of_what_to_keep_is_an_error_that_names_keep(mask):
    mask = np.asarray(mask)
    for case in SOFTMAX:
        message = case_refuses(case, TypeError, "mask", "keep", mask=mask)
        (hint,) = re.findall("pass keep=(.*),", message)
        case.call(pyreg, good(case.name) | {"mask": None, "keep": eval(hint, {"mask": mask})})


@pytest.mark.parametrize("keep", [np.zeros(6, F32), np.zeros(6), 0.5, np.ones(6, int), np.ones(6, np.uint8), "abc"])
def test_keep_must_be_boolean(keep):
    for case in SOFTMAX:
        message = case_refuses(case, TypeError, "keep", "bool", str(np.asarray(keep).dtype), keep=keep)
        assert ("mask=" in message) == (np.asarray(keep).dtype.kind == "f")
        assert ("!= 0" in message) == (np.asarray(keep).dtype.kind in "iu")


Y = {"x": None, "maximum": None, "rsum": None, "mask": None, "y": np.ones(SHAPE, F32), "p": 0.0}


@pytest.mark.parametrize(
    ("changes", "error", "fragments"),
    [
        *(({name: np.ones(4, F32)}, TypeError, (name, "None", "y")) for name in ("x", "maximum", "rsum", "mask")),
        ({"y": None}, TypeError, ("x", "y")),
        ({"y": None, "x": np.ones(SHAPE, F32)}, TypeError, ("maximum", "y")),
        ({"p": 0.1}, ValueError, ("p", "0.1", "y", "dropped")),
        ({"p": 0.1, "key": None}, ValueError, ("p", "0.1", "y", "dropped")),
        ({"y": np.ones((4, 5), F32), "keep": None}, ValueError, ("dy", "y", "(4, 5)")),
        ({"y": np.ones(SHAPE)}, TypeError, ("dy", "y", "float64")),
        ({"y": np.ones(SHAPE, int)}, TypeError, ("y", "int64")),
        ({"y": F32(1)}, ValueError, ("y must have an axis",)),
        ({"keep": np.ones(5, bool)}, ValueError, ("keep", "(5,)", "of y")),
        ({"out": np.ones((4, 5), F32)}, ValueError, ("out", "like y")),
    ],
)
def test_y_stands_in_place_of_what_the_weights_are_computed_from(changes, error, fragments):
    case = CASES["softmax_dropout_backward"]
    case.call(pyreg, good(case.name) | Y)
    case_refuses(case, error, *fragments, **Y | changes)
    base = np.arange(40, dtype=F32)
    overlapping = {"y": base[:24].reshape(SHAPE), "out": base[6:30].reshape(SHAPE)}
    case_refuses(case, ValueError, "out", "y", "overlap", **Y | overlapping)


# --- arrays that are written


# Arrays that cannot be written in place, the error, and what the message says.
UNWRITABLE = {
    "a list": (lambda a: a.tolist(), TypeError, ("numpy.ndarray", "list")),
    "an integer array": (lambda a: a.astype(int), TypeError, ("int64",)),
    "another float": (lambda a: a.astype(F64), TypeError, ("float64",)),
    "byte-swapped": (lambda a: a.astype(">f4"), TypeError, (">f4",)),
    "a scalar": (lambda a: F32(1), TypeError, ("numpy.ndarray", "float32")),
    "a masked array": (np.ma.masked_array, TypeError, ("masked",)),
    "another shape": (lambda a: a[:3].copy(), ValueError, ("(3, 6)", "(4, 6)")),
    "read-only": (read_only, ValueError, ("read-only",)),
    "transposed": (np.asfortranarray, ValueError, ("strides",)),
    "strided": (lambda a: np.repeat(a, 2, axis=1)[:, ::2], ValueError, ("strides",)),
    "reversed": (lambda a: a[::-1], ValueError, ("strides",)),
    "unaligned": (unaligned, ValueError, ("aligned",)),
}


@cases_with(lambda case: case.outs or case.updated)
@pytest.mark.parametrize("what", UNWRITABLE)
def test_arrays_that_cannot_be_written_are_refused(case, what):
    change, error, fragments = UNWRITABLE[what]
    for name in (*case.outs, *case.updated):
        value = change(np.full(SHAPE, 7, F32))
        if name == first(case) and what in ("a list", "another float", "another shape", "transposed"):
            case_refuses(case, error, "param", **{name: value})  # then it is the others that differ
        else:
            case_refuses(case, error, name, *fragments, **{name: value})


@cases_with(lambda case: case.updated)
def test_none_is_no_array_to_update(case):
    for name in set(case.updated) - set(case.optional):
        case_refuses(case, TypeError, name, "numpy.ndarray", "NoneType", **{name: None})


@cases_with(lambda case: case.outs)
def test_results_that_overlap_inputs_are_refused(case):
    for out in case.outs:
        for name in inputs(case, good(case.name)):
            array = good(case.name)[name]
            base = np.arange(40, dtype=F32)
            result = base[6:30].reshape(SHAPE)
            if case.arrays[name] is Of.ELEMENT:
                shared = base[:24].reshape(SHAPE)
            else:
                shared = base[16:].view(array.dtype)[: array.size].reshape(array.shape)
            case_refuses(case, ValueError, out, name, "overlap", **{out: result, name: shared})
    for out, other in itertools.combinations(case.outs, 2):
        for shift in (0, 6):
            base = np.arange(40, dtype=F32)
            changes = {out: base[:24].reshape(SHAPE), other: base[shift : shift + 24].reshape(SHAPE)}
            case_refuses(case, ValueError, out, other, "overlap", **changes)


@cases_with(lambda case: case.updated)
def test_arrays_of_an_update_that_overlap_are_refused(case):
    for one, other in itertools.combinations(case.arrays, 2):
        for shift in (0, 1, 5):
            base = np.arange(40, dtype=F32)
            changes = {one: base[:24].reshape(SHAPE), other: base[shift : shift + 24].reshape(SHAPE)}
            case_refuses(case, ValueError, one, other, "overlap", **changes)


@cases_with(lambda case: case.outs or case.updated)
def test_neighbouring_arrays_do_not_overlap(case):
    whole = [name for name, of in case.arrays.items() if of is Of.ELEMENT]
    places = iter(np.ones((len(whole) + len(case.outs), *SHAPE), F32))
    getattr(pyreg, case.name)(**good(case.name) | {name: next(places) for name in (*whole, *case.outs)})


# --- the core, threads and the rest


def test_the_core_itself_refuses_what_it_cannot_use(case, dtype):
    """A mistake above the core is an error, not a bad memory access: here the check returns what it is given."""
    arguments = case.arguments(SHAPE, dtype) | {out: np.ones(SHAPE, dtype) for out in case.outs}
    core, (*given, _) = call_of_core(case, arguments)
    names = {id(value): name for name, value in arguments.items()}

    def refused_by_core(*given):
        with pytest.raises((RuntimeError, TypeError), match=r"is refused|_core"):
            core(*given, lambda *given: given)

    governs = arguments.get(first(case))
    written = [arguments[name] for name in (*case.outs, *case.updated)]
    for place, value in enumerate(given):
        bad = ["abc", object()] if isinstance(value, (int, float, str, np.ndarray)) else []
        if isinstance(value, np.ndarray):
            bad += [np.ones(value.shape, int), np.repeat(value, 2, -1)[..., ::2], value.tolist()]
            bad += [unaligned(value)] if value.itemsize > 1 else []
            bad += [value.T] if value.ndim > 1 else []
            bad += [read_only(value)] if any(value is array for array in written) else []
            if value is not governs:
                bad.append(np.ones((3, 7), value.dtype))
                name = names[id(value)]
                allowed = {value.dtype.type, *(allowed_dtypes(case, name, dtype) if name in case.arrays else ())}
                bad += [np.ones(value.shape, other) for other in (F32, F64, *SIXTEEN_BIT) if other not in allowed]
        for wrong in bad:
            refused_by_core(*given[:place], wrong, *given[place + 1 :])
    for count in range(len(given)):
        refused_by_core(*given[:count])
    refused_by_core(*given, None)


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (None, TypeError)])
def test_thread_counts(n, error):
    before = pyreg.get_num_threads()
    refuses(error, lambda: pyreg.set_num_threads(n), "n must", repr(n))
    refuses(error, lambda: pyreg.num_threads(n), "n must", repr(n))
    assert pyreg.get_num_threads() == before


def test_show_config_modes():
    refuses(ValueError, lambda: pyreg.show_config("html"), "mode", "html")
