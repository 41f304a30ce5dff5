"""The type hints pass mypy --strict, and so does a user's code against them; the stub is true to the module."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pyreg
from pyreg import _core

pytest.importorskip("mypy")

USER = """
import numpy as np
import pyreg

x = np.ones((4, 8), np.float32)
weight = np.ones(8, np.float32)
y, mean, rstd = pyreg.layer_norm_forward(x, weight, normalized_shape=8)
dx, dweight, dbias = pyreg.layer_norm_backward(y, x, mean, rstd, weight, out=y)
key: int = pyreg.random_key(np.random.default_rng(0))
z = pyreg.dropout(x, 0.1, key=key, offset=np.int64(3), out=x)
pyreg.adamw_update(x, z, np.zeros_like(x), np.zeros_like(x), step=1)
pyreg.sgd_update(x, z, step=1)
dx, no_dweight, _ = pyreg.layer_norm_backward(y, x, mean, rstd)
assert no_dweight is None
dweight *= 2
assert pyreg.show_config() is None
cpu: str = pyreg.show_config("dicts")["machine"]["cpu"]
penalty: float = pyreg.l2_penalty([x, weight], 0.1)
penalty = pyreg.l2_penalty(x, 0.1)
with pyreg.num_threads(2):
    pyreg.reference.layer_norm([[1.0, 2.0]])
pyreg.set_num_threads(pyreg.get_num_threads())
y = pyreg.layer_norm(x, eps=1e-6)
kept: np.typing.NDArray[np.bool_] = pyreg.dropout_mask((4, 8), 0.1, key=key)
pyreg.adam_update(x, z, np.zeros_like(x), np.zeros_like(x), step=1, betas=(0.9, 0.99))
y = pyreg.rms_norm(x, weight)
y, rstd = pyreg.rms_norm_forward(x, weight)
dx, dweight = pyreg.rms_norm_backward(y, x, rstd, weight)
y = pyreg.drop_path(x, 0.1, key=key, out=y)
y, z, mean, rstd = pyreg.dropout_add_layer_norm_forward(x, y, weight, weight, p=0.1, key=key, row_scale=rstd)
z *= 2
y, no_z, mean, rstd = pyreg.dropout_add_layer_norm_forward(x, p=0.1, key=key, training=False, z_out=None)
assert no_z is None
dx, dresidual, dweight, dbias = pyreg.dropout_add_layer_norm_backward(
    y, None, z, mean, rstd, weight, p=0.1, key=key, dresidual_out=y
)
dresidual *= 2
dx, dresidual, _, no_dbias, dscale = pyreg.dropout_add_layer_norm_backward(
    y, None, z, mean, rstd, p=0.1, key=key, layer_scale=weight, x=x
)
dscale *= 2
y, z, rstd = pyreg.dropout_add_rms_norm_forward(x, y, weight, p=0.1, key=key, out=x)
dx, no_dresidual, dweight = pyreg.dropout_add_rms_norm_backward(
    y, y, z, rstd, weight, p=0.1, key=key, dresidual_out=None
)
assert no_dresidual is None
y, maximum, rsum = pyreg.softmax_dropout_forward(x, y, p=0.1, key=key, scale=0.5, causal=True, out=y)
dx = pyreg.softmax_dropout_backward(y, x, maximum, rsum, p=0.1, key=key)
y = pyreg.gelu_dropout_forward(x, weight, p=0.1, key=key, approximate="tanh")
dx, dbias = pyreg.gelu_dropout_backward(y, x, weight, p=0.1, key=key)
dbias *= 2
dx, no_dbias = pyreg.gelu_dropout_backward(y, x, p=0.1, key=key)
assert no_dbias is None
y = pyreg.relu_dropout_forward(x, p=0.1, key=key, out=x)
dx, dbias = pyreg.relu_dropout_backward(y, x, weight, p=0.1, key=key)
dbias *= 2
y = pyreg.silu_dropout_forward(x, p=0.1, key=key)
dx, dbias = pyreg.silu_dropout_backward(y, x, weight, p=0.1, key=key)
dbias *= 2

# What must not pass: strict mypy reports an ignore that ignores nothing.
pyreg.dropout(x, 0.1)  # type: ignore[call-arg]
pyreg.dropout(x, 0.1, key=0.5)  # type: ignore[arg-type]
pyreg.dropout_mask((4, 8), 0.1)  # type: ignore[call-arg]
pyreg.sgd_update(x, z)  # type: ignore[call-arg]
pyreg.adam_update(x, z, x, x)  # type: ignore[call-arg]
pyreg.adamw_update(x, z, x, x)  # type: ignore[call-arg]
pyreg.dropout_add_layer_norm_forward(x, p=0.1)  # type: ignore[call-overload]
pyreg.dropout_add_rms_norm_backward(y, y, z, rstd, p=0.1, key=key, layer_scale=weight)  # type: ignore[call-overload]
pyreg.softmax_dropout_forward(x, p=0.1)  # type: ignore[call-arg]
pyreg.gelu_dropout_forward(x, p=0.1, key=key, approximate="erf")  # type: ignore[arg-type]
pyreg.set_num_threads(1.5)  # type: ignore[arg-type]
pyreg.show_config("json")  # type: ignore[call-overload]
wrong: int = pyreg.l2_penalty(x, 0.1)  # type: ignore[assignment]
"""


STRICT_MYPY = ("mypy", "--strict", "--cache-dir", "cache")


def passes(*module, cwd):
    command = [sys.executable, "-P", "-m", *module]
    made = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr


def test_the_package_passes_mypy_strict(tmp_path):
    passes(*STRICT_MYPY, "-p", "pyreg", cwd=tmp_path)


def test_a_users_code_passes_mypy_strict(tmp_path):
    called = set(re.findall(r"pyreg\.(\w+)\(", USER))
    assert called == set(pyreg.__all__) - {"reference"}
    (tmp_path / "user.py").write_text(USER)
    passes(*STRICT_MYPY, "user.py", cwd=tmp_path)


def test_the_stub_has_the_names_of_the_compiled_module(tmp_path):
    passes("mypy.stubtest", "pyreg._core", cwd=tmp_path)


def parameters(definition):
    """Their names in order, "_" for those that no keyword reaches (pybind11: arg0, arg1)."""
    parsed = definition.args
    named = ["_" if re.fullmatch(r"arg\d", argument.arg) else argument.arg for argument in parsed.args]
    return ["_" for _ in parsed.posonlyargs] + named + ["*"] * (parsed.vararg is not None)


def test_the_stub_has_the_parameters_of_the_compiled_functions():
    # stubtest does not see them: they stand in the first lines of the docstrings alone.
    stub = ast.parse(Path(pyreg.__file__).with_name("_core.pyi").read_text())
    functions = [node for node in stub.body if isinstance(node, ast.FunctionDef)]
    for function in functions:
        signature = getattr(_core, function.name).__doc__.splitlines()[0]
        (compiled,) = ast.parse(f"def {signature}: ...").body
        assert parameters(function) == parameters(compiled), function.name
