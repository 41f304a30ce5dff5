"""The dtypes of arrays beside those of 16 bits, and of the results."""

import subprocess
import sys

import numpy as np
import pytest
from bits import assert_same_bits
from cases import SIXTEEN_BIT, every_case_with_sixteen_bits, inputs, sixteen_bit
from test_bad_input import refuses

import pyreg
from pyreg._cases import CASES, Of

F32, F64 = np.float32, np.float64
SHAPE = (5, 24)
FUSED = ["dropout_add_layer_norm", "dropout_add_rms_norm"]


# --- results


def dtype_of_result(case, name, arguments, dtype):
    """The dtype that a result or an updated array has, for an x of this dtype."""
    if name in case.updated:
        return arguments[name].dtype
    if case.results[name] is Of.BLOCK:
        return F64
    if case.results[name] is Of.ROW:
        return F64 if name == "mean" else F32
    bias = "weight" if "weight" in case.arrays else "bias"  # a norm's dbias has the dtype of dweight
    like = arguments.get({"z": "residual", "dresidual": "z", "dbias": bias}.get(name, name[1:]))
    return dtype if like is None else like.dtype


@every_case_with_sixteen_bits
def test_results_have_the_dtype_of_what_they_belong_to(case, dtype, impl):
    for variant in case.variants_of(SHAPE, dtype):
        arguments = case.arguments(SHAPE, dtype, **variant)
        for name, value in case.call(impl, arguments).items():
            if isinstance(value, np.ndarray):
                assert value.dtype == dtype_of_result(case, name, arguments, dtype), (name, variant)


@every_case_with_sixteen_bits
@pytest.mark.parametrize("layout", ["native", "byte-swapped"])
def test_results_have_the_same_dtype_object_as_numpy(case, dtype, impl, layout):
    """A dtype of bfloat16 that only equals ml_dtypes' would be another type to other libraries."""
    arguments = case.arguments(SHAPE, dtype)
    if layout == "byte-swapped":
        swapped = [name for name in inputs(case, arguments) if np.dtype(dtype) == arguments[name].dtype]
        arguments |= {name: arguments[name].astype(np.dtype(dtype).newbyteorder()) for name in swapped}
    for name, value in case.call(impl, arguments).items():
        if isinstance(value, np.ndarray) and value.dtype == dtype:
            assert value.dtype is np.dtype(dtype), name
            assert value.dtype.type is dtype, name


# --- the fused functions


@pytest.fixture(params=FUSED)
def fused(request):
    return CASES[f"{request.param}_forward"], CASES[f"{request.param}_backward"]


@sixteen_bit
@pytest.mark.parametrize("z_dtype", ["that of x", "float32"])
def test_y_is_the_norm_of_z_as_it_is_returned(impl, dtype, fused, z_dtype):
    case, _ = fused
    wide = ["residual"] if z_dtype == "float32" else []
    arguments = case.arguments(SHAPE, dtype, in_float32=wide)
    made = case.call(impl, arguments)
    assert_same_bits(case.call(impl, arguments | {"return_z": False}), made | {"z": None})
    norm = CASES[case.name.removeprefix("dropout_add_")]
    of_z = {name: arguments.get(name) for name in (*norm.arrays, *norm.numbers)} | {"x": made["z"]}
    if wide:  # the norm of float32 arrays, rounded
        of_z |= {name: of_z[name].astype(F32) for name in norm.optional}
    expected = norm.call(impl, of_z)
    expected["y"] = expected["y"].astype(dtype)
    assert_same_bits({name: made[name] for name in expected}, expected)


@sixteen_bit
def test_without_a_residual_z_has_the_dtype_of_z_out(impl, dtype, fused):
    case, _ = fused
    arguments = case.arguments(SHAPE, dtype, residual=None)
    plain = case.call(impl, arguments)
    z_out = np.empty(SHAPE, F32)
    made = case.call(impl, arguments | {"z_out": z_out})
    assert made["z"] is z_out
    assert made["y"].dtype == dtype
    assert_same_bits(z_out.astype(dtype), plain["z"])
    assert (z_out != plain["z"].astype(F32)).any()
    nothing = np.full(SHAPE, -0.0, F32)  # added to -0, +0 would make it +0
    assert_same_bits(case.call(impl, arguments | {"residual": nothing}), made)


@sixteen_bit
def test_dx_is_computed_from_the_gradient_before_dresidual_is_rounded(impl, dtype, fused):
    _, case = fused
    arguments = case.arguments(SHAPE, dtype, layer_scale=None, row_scale=None, x=None)
    wide = arguments | {name: arguments[name].astype(F32) for name in ("dy", "dz", "z", "weight")}
    exact = case.call(impl, wide)["dx"]
    made = case.call(impl, arguments)
    assert_same_bits(made["dx"], exact.astype(dtype))
    twice = impl.dropout(made["dresidual"], **{name: arguments[name] for name in ("p", "key", "offset")})
    assert (made["dx"] != twice).any()


# --- refusals


def wrong_beside(dtype):
    """What does not fit an x of this dtype: the function, the array, its dtype, what the message says."""
    name = np.dtype(dtype).name
    other = {"float16": "bfloat16", "bfloat16": "float16"}[name]
    either = f"must be {name} like {{}}, or float32, got {{}}"
    for wrong in ("float64", *([other] if len(SIXTEEN_BIT) > 1 else [])):
        yield "layer_norm", "weight", wrong, either.format("x", wrong)
        yield "layer_norm", "bias", wrong, either.format("x", wrong)
        yield "rms_norm_backward", "weight", wrong, either.format("x", wrong)
        yield "gelu_dropout_forward", "bias", wrong, either.format("x", wrong)
        yield "softmax_dropout_forward", "mask", wrong, either.format("x", wrong)
        yield "dropout_add_layer_norm_forward", "residual", wrong, either.format("x", wrong)
        yield "dropout_add_layer_norm_forward", "row_scale", wrong, either.format("x", wrong)
        yield "dropout_add_layer_norm_backward", "z", wrong, either.format("dy", wrong)
        yield "dropout_add_layer_norm_backward", "layer_scale", wrong, either.format("dy", wrong)
    for wrong in ("float32", "float64"):
        yield "layer_norm_backward", "dy", wrong, f"must be {name} like x, got {wrong}"
        yield "dropout_add_layer_norm_backward", "dz", wrong, f"must be {name} like z, got {wrong}"
        yield "dropout_add_layer_norm_backward", "x", wrong, f"must be {name} like dy, got {wrong}"
        yield "softmax_dropout_backward", "dy", wrong, f"must be {name} like x, got {wrong}"
    for wrong in (name, "float64"):
        yield "layer_norm_backward", "rstd", wrong, f"must be float32 if x is {name}, got {wrong}"
        yield "dropout_add_rms_norm_backward", "rstd", wrong, f"must be float32 if dy is {name}, got {wrong}"
        yield "softmax_dropout_backward", "maximum", wrong, f"must be float32 if x is {name}, got {wrong}"
    yield "layer_norm_backward", "mean", name, f"must be float64 or float32, got {name}"


@sixteen_bit
def test_dtypes_that_do_not_fit_are_refused_with_those_that_do(impl, dtype):
    for function, name, wrong, message in wrong_beside(dtype):
        case = CASES[function]
        arguments = case.arguments(SHAPE, dtype)
        arguments[name] = arguments[name].astype(wrong)
        said = refuses(TypeError, lambda case=case, a=arguments: getattr(impl, case.name)(**a))
        assert said.startswith(f"{name} {message}; convert it, e.g. with np.asarray({name}, "), said


@sixteen_bit
def test_the_conversion_that_a_message_names_is_accepted(impl, dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x, weight = np.ones(SHAPE, dtype), np.ones(SHAPE[-1:])
    message = refuses(TypeError, lambda: impl.layer_norm(x, weight))
    converted = eval(message.split("e.g. with ")[1], {"np": np, "ml_dtypes": ml_dtypes, "weight": weight})
    assert converted.dtype == np.float32
    impl.layer_norm(x, converted)


@sixteen_bit
def test_a_z_of_16_bits_beside_a_wider_gradient_is_refused(impl, dtype, fused):
    _, case = fused
    for wide in (F32, F64):
        arguments = case.arguments(SHAPE, wide)
        arguments |= {name: arguments[name].astype(dtype) for name in ("z", "dz")}
        message = refuses(TypeError, lambda a=arguments: getattr(impl, case.name)(**a), "z must be")
        assert f"z must be {wide.__name__} like dy, got {np.dtype(dtype)}" in message


@sixteen_bit
def test_outs_of_another_dtype_than_their_results_are_refused(impl, dtype, fused):
    forward, backward = fused
    for case, out, wide in ((forward, "z_out", "residual"), (backward, "dresidual_out", "z")):
        pair = ["z", "dz"] if wide == "z" else [wide]
        for in_float32, wrong, right in (([], F32, dtype), (pair, dtype, F32)):
            arguments = case.arguments(SHAPE, dtype, in_float32=in_float32)
            for name, out_dtype, expected in (
                (out, wrong, f"must be {np.dtype(right)} like {wide}"),
                ("out", F32, f"must be {np.dtype(dtype)} like {'x' if case is forward else 'dy'}"),
            ):
                given = arguments | {name: np.ones(SHAPE, out_dtype)}
                refuses(TypeError, lambda c=case, given=given: getattr(impl, c.name)(**given), name, expected)


def test_other_dtypes_of_few_bits_are_refused(impl):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    others = [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.int4, np.uint16, "V2", [("a", "f2")]]
    for other in others:
        x = np.zeros(4, other)
        with pytest.raises(TypeError, match=r"^x must be float32, float64, float16 or bfloat16, got "):
            impl.dropout(x, 0.5, key=1)


@sixteen_bit
def test_the_scale_of_softmax_is_finite_in_float32(impl, dtype):
    x = np.zeros(SHAPE, dtype)
    assert (impl.softmax_dropout_forward(x, scale=3e38).y == np.full(SHAPE, 1 / 24).astype(dtype)).all()
    refuses(ValueError, lambda: impl.softmax_dropout_forward(x, scale=1e39), "scale", "finite in float32", "1e+39")


# --- other packages


def test_neither_the_import_nor_a_call_imports_ml_dtypes():
    code = """
import sys
import numpy as np
import pyreg
x = np.ones((2, 8), np.float16)
pyreg.layer_norm(x, np.ones(8, np.float32))
try:
    pyreg.dropout(x.view("V2"), 0.5, key=1)
except TypeError as error:
    assert "bfloat16" in str(error)
assert "ml_dtypes" not in sys.modules
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_the_memory_of_a_pytorch_tensor_of_bfloat16_can_be_passed():
    torch, ml_dtypes = pytest.importorskip("torch"), pytest.importorskip("ml_dtypes")
    tensor = torch.arange(24.0).reshape(4, 6).to(torch.bfloat16)
    expected = tensor.float().numpy() * 2 * pyreg.dropout_mask((4, 6), 0.5, key=1)
    x = tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    pyreg.dropout(x, 0.5, key=1, out=x)
    np.testing.assert_array_equal(tensor.float().numpy(), expected)
