"""Updates of whole models: lists of arrays, layouts, and what stands around an update."""

import itertools
from collections import UserDict
from functools import partial

import numpy as np
import pytest
from bits import assert_same_bits
from cases import LAYOUTS, SIXTEEN_BIT, cases_with, isa, on_every_level, reference
from optimizers import numpy_adam
from test_bad_input import refuses

import pyreg

F32, F64 = np.float32, np.float64
# Around vectors and the places of blocks; more than a block; empty and 0-d.
SHAPES = [(3, 5), (), (0, 4), (100,), (64,), (65,), (70_001,), (1,), (2, 3, 4)]

each_update = cases_with(lambda case: case.updated)


def lists(case, dtypes, shapes=SHAPES):
    """The arguments for a model with a parameter of each shape, and the arguments for each parameter alone."""
    alone = [case.arguments(shape, dtype, i) for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))]
    whole = alone[0] | {name: [one[name] for one in alone] for name in case.arrays}
    return whole, alone


def call(twin, case, arguments):
    """The result, and the arrays, which are copies."""
    copies = {name: [array.copy() for array in arguments[name]] for name in case.arrays}
    return getattr(twin, case.name)(**arguments | copies), copies


def bytes_of(case, arguments):
    return {name: [array.tobytes() for array in arguments[name]] for name in case.arrays}


# --- lists


@each_update
@pytest.mark.parametrize("threads", [1, 3])
def test_a_model_is_updated_as_its_parameters_alone_are(case, threads):
    dtypes = list(itertools.islice(itertools.cycle([F32, F64, *SIXTEEN_BIT]), len(SHAPES)))
    whole, alone = lists(case, dtypes)
    expected = [case.call(pyreg, arguments) for arguments in alone]
    with pyreg.num_threads(threads):
        for twin in (pyreg, pyreg.reference):
            applied, made = call(twin, case, whole)
            assert applied is True
            for i, one in enumerate(expected):
                assert_same_bits({name: made[name][i] for name in case.updated}, {n: one[n] for n in case.updated}, i)
            assert bytes_of(case, made)["grad"] == bytes_of(case, whole)["grad"]


@each_update
def test_lists_may_be_tuples_and_subclasses_and_empty(case):
    class Names(list):
        pass

    whole, _ = lists(case, [F32] * 2, [(3,), (4,)])
    expected = call(pyreg, case, whole)[1]
    for kind in (tuple, Names):
        copies = {name: kind(array.copy() for array in whole[name]) for name in case.arrays}
        assert getattr(pyreg, case.name)(**whole | copies) is True
        for name in case.arrays:
            assert_same_bits(tuple(copies[name]), tuple(expected[name]))
    assert getattr(pyreg, case.name)(**whole | {name: [] for name in case.arrays}) is True


@each_update
def test_a_mismatch_names_the_argument_and_its_place_and_changes_nothing(case):
    whole, _ = lists(case, [F32] * 3, [(4, 6)] * 3)
    before = bytes_of(case, whole)

    def refused(error, name, value, *fragments, index=1):
        changed = [value if i == index else array for i, array in enumerate(whole[name])]
        for twin in (pyreg, pyreg.reference):
            call = partial(getattr(twin, case.name), **whole | {name: changed})
            message = refuses(error, call, *fragments)
            assert bytes_of(case, whole) == before
            assert f"{name}[{index}]" in message

    for name in case.arrays:
        if name != "param":
            refused(ValueError, name, np.ones((4, 7), F32), "(4, 7)", "like", "param")
            refused(TypeError, name, np.ones((4, 6), F64), "float64", "float32")
        refused(TypeError, name, np.ones((4, 6), np.int64), "int64", index=2)
        refused(TypeError, name, None, "NoneType" if name == "param" else "leave the parameter out")
        if name != "grad":
            refused(TypeError, name, [[1.0]], "numpy.ndarray", "list")
            refused(ValueError, name, np.ones((4, 12), F32)[:, ::2], "strides")
            refused(ValueError, name, np.broadcast_to(F32(1), (4, 6)), "read-only")


@each_update
def test_lists_must_be_lists_of_one_length(case):
    whole, _ = lists(case, [F32] * 3, [(4,)] * 3)
    for name in case.arrays:
        longer = {name: [*whole[name], np.ones(4, F32)]}
        wrong, expected = ("grad", "4") if name == "param" else (name, "3")
        refuses(ValueError, partial(getattr(pyreg, case.name), **whole | longer), wrong, expected)
        if name != "param":
            for kind in (np.stack, lambda arrays: dict(enumerate(arrays)), iter):
                other = {name: kind(whole[name])}
                refuses(TypeError, partial(getattr(pyreg, case.name), **whole | other), name, "list")
    for kind in (dict, UserDict):
        named = {name: kind(enumerate(whole[name])) for name in case.arrays}
        refuses(TypeError, partial(getattr(pyreg, case.name), **whole | named), "[param[key] for key in keys]")


@each_update
def test_entries_that_share_memory_are_refused_unless_both_are_gradients(case):
    whole, _ = lists(case, [F32] * 3, [(4,)] * 3)
    for name, other in itertools.combinations(case.arrays, 2):
        shared = {other: [whole[other][0], whole[other][1], whole[name][0]]}
        message = refuses(ValueError, partial(getattr(pyreg, case.name), **whole | shared), "overlap")
        assert f"{name}[0]" in message
        assert f"{other}[2]" in message
    for name in case.arrays:
        shared = {name: [whole[name][0], whole[name][1], whole[name][0]]}
        if name == "grad":
            getattr(pyreg, case.name)(**whole | shared)
        else:
            refuses(ValueError, partial(getattr(pyreg, case.name), **whole | shared), f"{name}[0]", f"{name}[2]")
    base = np.ones(20, F32)  # one contains the other
    refuses(ValueError, lambda: pyreg.sgd_update([base, base[5:9]], [base * 2, base[:4] * 2], step=1), "param[1]")


def test_a_list_of_many_small_arrays_and_a_large_one_has_the_bits_of_one_flat_array():
    rng = np.random.default_rng(0)
    shapes = [*[(100,)] * 1000, (1_000_000,), *[(3,)] * 10]
    params, grads, buffers = ([rng.normal(size=shape).astype(F32) for shape in shapes] for _ in range(3))
    flat = [np.concatenate([array.ravel() for array in arrays]) for arrays in (params, grads, buffers)]
    for threads in (2, 3):
        with pyreg.num_threads(threads):
            pyreg.sgd_update(params, grads, buffers, step=2, momentum=0.9, lr=0.1)
        pyreg.sgd_update(*flat, step=2, momentum=0.9, lr=0.1)
        assert_same_bits(np.concatenate([array.ravel() for array in params]), flat[0])


# --- dtypes


def combinations(case):
    """Every choice of dtypes for the arrays beside a parameter of 16 or 32 bits, an array left out included."""
    narrow = [F32, *SIXTEEN_BIT]
    states = [dtype for dtype in narrow if dtype != np.float16]
    names = [name for name in case.arrays if name != "param"]
    choices = [[*(states if name in case.states else narrow), *[None] * (name in case.optional)] for name in names]
    for i, (param, chosen) in enumerate(itertools.product(narrow, itertools.product(*choices))):
        yield i, {"param": param} | dict(zip(names, chosen, strict=True))


@each_update
def test_combinations_of_dtypes_equal_the_reference(case):
    options = {"momentum": 0.0, "nesterov": False} if "momentum" in case.numbers else {}
    for i, dtypes in combinations(case):
        if i % 7:  # every 7th: 7 shares no factor with the numbers of choices, so each choice occurs
            continue
        shape = (i % 40,)
        arguments = case.arguments(shape, F32, i, skip_nonfinite=i % 2 == 0)
        arrays = {name: dtype and arguments[name].astype(dtype) for name, dtype in dtypes.items()}
        left_out = options if arrays.get("momentum_buffer", 0) is None else {}
        expected = reference(case, arguments | arrays | left_out)
        for level, made in on_every_level(case, arguments | arrays | left_out):
            assert_same_bits(made, expected, (level, dtypes))


@each_update
def test_what_does_not_fit_beside_a_parameter_is_refused_with_what_does(case):
    for dtype in (F64, *SIXTEEN_BIT):
        own = np.dtype(dtype).name
        arguments = case.arguments((4, 6), dtype)
        for name in (name for name in case.arrays if name != "param"):
            state = name in case.states
            fitting = f"{'float32 or bfloat16' if state else 'float32, float16 or bfloat16'} if param is {own}"
            wrong = (F64, np.int16, *([np.float16] if state else []))
            if dtype == F64:
                fitting, wrong = "float64 like param", (F32, *SIXTEEN_BIT)
            for other in wrong:
                changed = arguments | {name: arguments[name].astype(other)}
                message = refuses(TypeError, partial(getattr(pyreg, case.name), **changed), name)
                assert f"{name} must be {fitting}, got {np.dtype(other)}" in message


def test_a_bfloat16_copy_of_float32_parameters_is_that_of_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, np.uint32)
    bits[:6] = 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x7F800000, 0x3F808000, 0x3F818000
    param = bits.view(F32)
    copy, zeros = np.empty(param.shape, ml_dtypes.bfloat16), np.zeros_like(param)
    with np.errstate(invalid="ignore"):
        expected = param.astype(ml_dtypes.bfloat16)
        pyreg.sgd_update(param, zeros, step=1, lr=0.0, param_out=copy)
        assert_same_bits(copy, expected)


# --- layouts


LAYOUTS_IN_PLACE = {
    "Fortran": lambda a: a.copy("F"),
    "transposed": lambda a: a.transpose(2, 0, 1).copy().transpose(1, 2, 0),
    "other axes": lambda a: a.swapaxes(0, 1).copy().swapaxes(0, 1),
}


@each_update
@pytest.mark.parametrize("layout", LAYOUTS_IN_PLACE)
def test_dense_layouts_are_updated_in_place_with_the_same_bits(case, layout, dtype):
    lay = LAYOUTS_IN_PLACE[layout]
    arguments = case.arguments((5, 7, 33), dtype)
    expected = case.call(pyreg, arguments)
    for twin in (pyreg, pyreg.reference):
        laid = arguments | {name: lay(arguments[name]) for name in case.arrays}
        assert not laid["param"].flags.c_contiguous
        strides = laid["param"].strides
        assert getattr(twin, case.name)(**laid) is True
        assert laid["param"].strides == strides
        assert_same_bits({name: laid[name] for name in case.updated}, {n: expected[n] for n in case.updated})
        for other in (*LAYOUTS, "C"):  # a gradient in any layout
            grad = LAYOUTS.get(other, np.copy)(arguments["grad"])
            laid = arguments | {name: lay(arguments[name]) for name in case.updated} | {"grad": grad}
            getattr(twin, case.name)(**laid)
            assert_same_bits({name: laid[name] for name in case.updated}, {n: expected[n] for n in case.updated})


def with_odd_strides(array):
    """The same elements; the strides of axes of length 1, which mean nothing, are 40."""
    strides = [40 if n == 1 else stride for n, stride in zip(array.shape, array.strides, strict=True)]
    return np.lib.stride_tricks.as_strided(array, array.shape, strides)


@each_update
def test_axes_of_length_1_and_empty_arrays_have_any_strides(case):
    for shape in ((1, 6), (6, 1), (1, 1), (0, 6), (6, 0)):
        arguments = case.arguments(shape, F32)
        odd = {name: with_odd_strides(arguments[name].copy()) for name in case.arrays}
        expected = case.call(pyreg, arguments)
        getattr(pyreg, case.name)(**arguments | odd)
        assert_same_bits({name: odd[name] for name in case.updated}, {n: expected[n] for n in case.updated})


@each_update
def test_arrays_of_another_layout_than_the_parameter_are_refused(case):
    arguments = case.arguments((4, 6), F32)
    for name in case.updated:
        if name == "param":
            continue
        other = {name: arguments[name].copy("F")}
        for twin in (pyreg, pyreg.reference):
            message = refuses(ValueError, partial(getattr(twin, case.name), **arguments | other), name)
            assert "must be laid out in memory as param is, with strides of (6, 1) elements, got (1, 4)" in message


def test_memory_maps_and_other_subclasses_are_updated_in_place(tmp_path):
    values = np.arange(600, dtype=F32)
    maps = [np.memmap(tmp_path / f"{i}", F32, "w+", shape=(600,)) for i in range(2)]
    for array in maps:
        array[:] = values
    expected = [values.copy(), values.copy()]
    grads = [values * 3, values * 5]
    assert pyreg.sgd_update(maps, grads, step=1)
    pyreg.sgd_update(expected, grads, step=1)
    assert_same_bits(tuple(map(np.asarray, maps)), tuple(expected))


# --- what stands around the update


@each_update
def test_a_gradient_that_is_not_finite_is_skipped_wherever_it_is(case):
    for dtype in case.dtypes:
        whole, _ = lists(case, [dtype] * 3, [(1,), (97,), (20_000,)])
        whole["skip_nonfinite"] = True
        before = bytes_of(case, whole)
        for level, twin in ((None, pyreg.reference), *((level, pyreg) for level in pyreg._core.isa_found())):
            with isa(level or pyreg._core.isa_chosen()):
                for index, place in ((0, 0), (1, 0), (1, 63), (1, 96), (2, 19_999)):
                    for bad in (np.nan, np.inf, -np.inf):
                        grads = [array.copy() for array in whole["grad"]]
                        grads[index][place] = bad
                        assert getattr(twin, case.name)(**whole | {"grad": grads}) is False
                        assert bytes_of(case, whole) == before
        applied, made = call(pyreg, case, whole)
        assert applied is True
        for name in case.updated:
            assert made[name][2].tobytes() != before[name][2]


def test_a_gradient_that_its_scale_makes_infinite_is_skipped(impl, dtype):
    param, grad = np.ones(50, dtype), np.full(50, np.finfo(dtype).max / 2, dtype)
    assert impl.sgd_update(param, grad, step=1, grad_scale=4.0, skip_nonfinite=True) is False
    assert (param == 1).all()
    assert impl.sgd_update(param, grad, step=1, grad_scale=2.0, skip_nonfinite=True, lr=0.0) is True
    grad[7] = np.inf
    assert impl.sgd_update(param, grad, step=1, grad_scale=0.0, skip_nonfinite=True) is False


@each_update
def test_a_power_of_two_as_grad_scale_is_a_multiplied_gradient(case, impl, dtype):
    arguments = case.arguments((300,), dtype, grad_scale=0.25)
    multiplied = arguments | {"grad": arguments["grad"] / 4, "grad_scale": 1.0}
    assert_same_bits(case.call(impl, arguments), case.call(impl, multiplied))


@each_update
def test_a_gradient_may_be_read_only(case):
    arguments = case.arguments((300,), F32)
    expected = case.call(pyreg, arguments)
    arguments["grad"].flags.writeable = False
    assert_same_bits(case.call(pyreg, arguments), expected)


@each_update
@pytest.mark.parametrize("decay", [0.0, 0.25, 0.5, 0.999])
def test_ema_and_param_out_follow_the_parameter_as_it_is_stored(case, impl, decay):
    for dtype in case.dtypes:
        arguments = case.arguments((300,), dtype, ema_decay=decay)
        wide = F64 if dtype == F64 else F32
        arguments["ema"] = arguments["ema"].astype(wide)
        made = case.call(impl, arguments)
        assert_same_bits(made["param_out"], made["param"])
        ema, param = arguments["ema"].astype(F64), made["param"].astype(F64)
        np.testing.assert_allclose(
            made["ema"], decay * ema + (1 - decay) * param, rtol=8 * np.finfo(wide).eps, atol=8 * np.finfo(wide).eps
        )
        if decay == 0:
            assert_same_bits(made["ema"], made["param"].astype(wide))


def test_the_average_of_many_steps_is_the_weighted_mean_of_all_parameters(impl, rng):
    param, ema = rng.normal(size=20), np.zeros(20)
    seen = []
    for step in range(1, 201):
        impl.sgd_update(param, rng.normal(size=20), step=step, lr=0.1, ema=ema, ema_decay=0.9)
        seen.append(param.copy())
    weights = 0.1 * 0.9 ** np.arange(199, -1, -1)
    np.testing.assert_allclose(ema, weights @ np.array(seen), rtol=1e-12, atol=1e-14)


# --- accuracy


@pytest.mark.parametrize("name", ["adam_update", "adamw_update"])
@pytest.mark.parametrize("exp_avg_dtype", [F32, *SIXTEEN_BIT[1:]])
@pytest.mark.parametrize("grad_dtype", [F32, *SIXTEEN_BIT])
def test_1000_steps_in_mixed_precision_are_near_float64_mathematics(impl, rng, name, grad_dtype, exp_avg_dtype):
    """float64 gets the same rounded gradients."""
    size, lr = 500, 1e-3
    exact = [rng.normal(size=size), np.zeros(size), np.zeros(size)]
    made = [exact[0].astype(F32), np.zeros(size, exp_avg_dtype), np.zeros(size, F32)]
    start = np.sqrt(np.mean(exact[0] ** 2))
    scale = 10.0 ** rng.uniform(-3, 1, size)
    for step in range(1, 1001):
        grad = (scale * (exact[0] + rng.normal(size=size))).astype(grad_dtype)
        numbers = {"lr": lr, "weight_decay": 0.01, "betas": (0.9, 0.999), "eps": 1e-8}
        numpy_adam(exact, grad.astype(F64), step, decoupled=name == "adamw_update", **numbers)
        assert getattr(impl, name)(made[0], grad, *made[1:], step=step, **numbers)
    error = np.sqrt(np.mean((made[0] - exact[0]) ** 2))
    # 1000 roundings of the parameter by up to half a unit add up like a random walk. In bfloat16, exp_avg is off by
    # up to 4 %: it moves by a tenth of its distance to the gradient, and less than half a unit is lost. So are 1000
    # changes of size lr or less.
    bound = 1000**0.5 * 2**-24 * start
    if exp_avg_dtype != F32:
        bound += 1000**0.5 * lr * 0.04
    assert error < bound
