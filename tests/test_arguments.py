"""What every function takes and returns: signatures, keys, numbers, tuples of a fixed length."""

import inspect
from functools import cache

import numpy as np
import pytest
from bits import assert_same_bits
from cases import LISTS, call_of_core, cases_with, first, parameters_of

import pyreg
from pyreg._cases import CASES, Of

SHAPE = (5, 7)


@cache
def good(name):
    return CASES[name].arguments(SHAPE, np.float64)


def call(case, twin=pyreg, **changes):
    return case.call(twin, good(case.name) | changes)


# Arguments that have a default because others may stand in their place.
NEEDED = {"softmax_dropout_backward": ["x", "maximum", "rsum"], "relu_dropout_backward": ["x"]}


def call_with_the_least(case):
    """Call with only the arguments that have no default, or are needed."""
    parameters = inspect.signature(getattr(pyreg, case.name)).parameters.values()
    required = [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]
    required += NEEDED.get(case.name, [])
    return getattr(pyreg, case.name)(**{name: good(case.name)[name] for name in required})


def test_the_table_has_every_function_on_arrays():
    others = {"random_key", "fold_in", "clip_coefficient", "sum_duplicate_rows", "AdamW", "Adam", "SGD"}
    assert set(CASES) == set(pyreg.reference.__all__) - others


def test_the_core_is_called_once_with_the_arguments_in_their_order_and_what_checks_them(case):
    arguments = good(case.name) | dict.fromkeys(case.outs)
    core, (*given, check) = call_of_core(case, arguments)
    in_order = [arguments[name] for name in parameters_of(case) if name != "approximate"]
    assert [id(value) for value in given[-len(in_order) :]] == [id(value) for value in in_order]
    # The core hands the arguments that it rejects to the check unchanged. What the check raises reaches the caller.
    seen = []

    def refuse(*given):
        seen.append(given)
        raise KeyError

    bad = [object() if value is in_order[0] else value for value in given]
    with pytest.raises(KeyError):
        core(*bad, refuse)
    assert [tuple(map(id, given)) for given in seen] == [tuple(map(id, bad))]
    assert callable(check)


@cases_with(lambda case: f"{case.name}_forward" in CASES)
def test_a_function_returns_the_first_of_the_results_of_its_forward_twin(case):
    (result,) = case.results
    assert_same_bits(call(case)[result], call(CASES[f"{case.name}_forward"])[result])


DEFAULTS = {"p": 0.0, "key": None, "offset": 0, "training": True, "normalized_shape": None, "eps": 1e-5}
DEFAULTS |= {"return_z": True, "return_dresidual": True, "out": None, "z_out": None, "dresidual_out": None}
DEFAULTS |= {"scale": 1.0, "causal": False, "axis": -1, "y": None, "approximate": "none"}
DEFAULTS |= {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.0, "maximize": False}
DEFAULTS |= {"momentum": 0.0, "dampening": 0.0, "nesterov": False}
DEFAULTS |= {"rows": None, "rounding": "nearest"}
DEFAULTS |= {"bias_correction": True, "grad_scale": 1.0, "skip_nonfinite": False, "ema_decay": 0.999}
ADAM = {"eps": 1e-8}
DEFAULTS_OF = {"adam_update": ADAM, "adamw_update": ADAM | {"weight_decay": 0.01}}
P_IS_REQUIRED = ("dropout", "drop_path", "dropout_mask")
REQUIRED = {"shape": CASES, "step": CASES, "p": P_IS_REQUIRED, "weight_decay": ("l2_penalty",)}  # in these functions


def test_defaults(case):
    parameters = inspect.signature(getattr(pyreg, case.name)).parameters
    defaults = DEFAULTS | DEFAULTS_OF.get(case.name, {})
    for name in (*case.numbers, *case.outs):
        default = parameters[name].default
        if case.name in REQUIRED.get(name, ()):
            assert default is inspect.Parameter.empty, name
        else:
            assert (type(default), default) == (type(defaults[name]), defaults[name]), name


@cases_with(lambda case: len(case.results) > 1)
def test_results_are_tuples_of_a_fixed_length_with_none_for_missing_results(case):
    for twin in (pyreg, pyreg.reference):
        for variant in case.variants_of(SHAPE, np.float64):
            arguments = case.arguments(SHAPE, np.float64, **variant)
            made = getattr(twin, case.name)(**arguments)
            assert isinstance(made, tuple)
            assert made._fields == tuple(case.results)
            missing = {f"d{name}" for name in case.optional if arguments[name] is None}
            if "weight" in case.arrays and arguments["weight"] is None:
                missing.add("dbias")
            missing |= {name for name in case.results if arguments.get(f"return_{name}") is False}
            assert {name for name in case.results if getattr(made, name) is None} == missing & set(case.results)


def not_always_wanted(case):
    return [name for name in case.results if f"return_{name}" in case.numbers]


@cases_with(not_always_wanted)
def test_results_that_are_not_wanted_change_no_others(case):
    wanted = call(case)
    for name in not_always_wanted(case):
        assert wanted[name] is not None
        assert_same_bits(call(case, **{f"return_{name}": False}), wanted | {name: None})


NEUTRAL = {"weight": 1, "layer_scale": 1, "row_scale": 1, "bias": 0, "residual": 0, "dz": 0, "mask": 0, "keep": True}


@cases_with(lambda case: set(case.optional) - set(case.updated))
def test_what_is_left_out_changes_nothing(case, impl, dtype):
    shape = (70, 129)
    for name in case.optional:
        arguments = case.arguments(shape, dtype)
        for array in (arguments[other] for other in ("x", "bias", "dy") if other in case.arrays):
            array[::2] = -0.0  # adding +0 would turn it into +0
        with_neutral = case.call(impl, arguments | {name: np.full_like(arguments[name], NEUTRAL[name])})
        made = case.call(impl, arguments | {name: None})
        for result, value in made.items():
            if value is not None:  # compared as numbers: -0 stays -0 if nothing is added
                np.testing.assert_array_equal(value, with_neutral[result], err_msg=f"{name} {result}")


@cases_with(lambda case: "training" in case.numbers)
def test_inference_is_dropout_of_nothing(case, impl, dtype):
    arguments = case.arguments((20, 33), dtype)
    made = case.call(impl, arguments | {"training": False, "p": 0.9})
    assert_same_bits(made, case.call(impl, arguments | {"p": 0.0}))


@cases_with(lambda case: "norm" in case.name and first(case) not in LISTS)
def test_rows_may_have_several_axes(case, impl):
    """The norms accept several normalised axes, and several axes before them."""
    arguments = case.arguments((6, 20), np.float64)
    shapes = {Of.ELEMENT: (2, 3, 4, 5), Of.ROW: (2, 3), Of.COLUMN: (4, 5)}
    other = arguments | {name: arguments[name].reshape(shapes[of]) for name, of in case.arrays.items()}
    made = case.call(impl, other)
    for name, value in case.call(impl, arguments).items():
        assert_same_bits(made[name], value.reshape(shapes[case.results[name]]), name)
    if "normalized_shape" in case.numbers:
        assert_same_bits(case.call(impl, other | {"normalized_shape": (4, 5)}), made)


# --- keys


@cases_with(lambda case: "p" in case.numbers)
def test_a_key_is_needed_only_where_something_may_be_dropped(case):
    choices = [{"p": 0.0}, {"p": 2**-34}, {"p": np.float32(0)}]  # 2**-34 rounds to 0: it is less than half of 2**-32
    choices += [{"p": 0.5, "training": False}, {"p": 1.0, "training": False}] if "training" in case.numbers else []
    for choice in choices:
        with_key = call(case, key=3, **choice)
        for twin in (pyreg, pyreg.reference):
            assert_same_bits(call(case, twin, key=None, **choice), with_key)
        for bad, error in ((-1, ValueError), (2**64, ValueError), (1.0, TypeError), (True, TypeError)):
            with pytest.raises(error, match="key"):
                call(case, key=bad, **choice)
    for p in (2**-32, 0.5, 1.0):
        with pytest.raises(TypeError, match=r"key.*pyreg\.random_key\(\)"):
            call(case, p=p, key=None)
    if case.name not in P_IS_REQUIRED:
        call_with_the_least(case)


# --- numbers


def kinds_of_number(value):
    """The same number in the forms that NumPy has for it."""
    if type(value) is bool:
        return [np.bool_(value)]
    if type(value) is int:
        fitting = [t for t in (np.uint64, np.int64, np.int8) if np.iinfo(t).min <= value <= np.iinfo(t).max]
        return [kind for t in fitting for kind in (t(value), np.array(value, t))]
    return [np.float64(value), np.array(value), np.array(value, ">f8")]


@cases_with(lambda case: {bool, int, float}.intersection(map(type, case.numbers.values())))
def test_numpy_scalars_and_arrays_of_no_axes_are_numbers(case):
    for name, value in case.numbers.items():
        if type(value) in (bool, int, float):
            expected = call(case)
            for other in kinds_of_number(value):
                assert_same_bits(call(case, **{name: other}), expected, (name, repr(other)))
        if type(value) is float and name != "p":
            rounded = float(np.float32(value))
            expected = call(case, **{name: rounded})
            for other in (np.float32(value), np.array(value, np.float32)):
                assert_same_bits(call(case, **{name: other}), expected, (name, repr(other)))
            whole = 0 if name in ("dampening", "ema_decay") else 1
            expected = call(case, **{name: float(whole)})
            for other in (whole, np.int64(whole), np.array(whole)):
                assert_same_bits(call(case, **{name: other}), expected, (name, repr(other)))


@cases_with(lambda case: "betas" in case.numbers)
def test_betas_are_any_pair_of_numbers(case):
    expected = call(case, betas=(0.75, 0.875))
    for pair in ([0.75, 0.875], np.array([0.75, 0.875]), (np.float32(0.75), np.array(0.875))):
        assert_same_bits(call(case, betas=pair), expected)


@cases_with(lambda case: "p" in case.numbers)
def test_p_may_be_a_float32(case):
    assert_same_bits(call(case, p=np.float32(0.1)), call(case, p=float(np.float32(0.1))))


@cases_with(lambda case: {"normalized_shape", "shape"}.intersection(case.numbers))
def test_shapes_may_be_integers_lists_and_arrays(case):
    name = "shape" if "shape" in case.numbers else "normalized_shape"
    expected = call(case, **{name: 7})
    for other in ((7,), [7], np.int64(7), np.array([7]), (np.uint8(7),)):
        assert_same_bits(call(case, **{name: other}), expected)
