"""The type hints and a user's code pass mypy --strict, and the stub matches the module."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pyreg
from pyreg import _core
from pyreg._cases import CASES

pytest.importorskip("mypy")
pytest.importorskip("ml_dtypes")

# What the table of cases does not cover: results have their declared types, and wrong uses do not pass.
USER = """
import ml_dtypes
import numpy as np
import pyreg

x = np.ones((4, 8), np.float32)
weight = np.ones(8, np.float32)
y, mean, rstd = pyreg.layer_norm_forward(x, weight, normalized_shape=8)
gradients = pyreg.layer_norm_backward(y, x, mean, rstd, weight, out=y)
assert gradients.dweight is not None
gradients.dweight.sum()
key: int = pyreg.random_key(np.random.default_rng(0))
z = pyreg.dropout(x, 0.1, key=key, offset=np.int64(3), out=x)
assert pyreg.show_config() is None
cpu: str = pyreg.show_config("dicts")["machine"]["cpu"]
penalty: float = pyreg.l2_penalty([x, weight], 0.1)
coefficient: float = pyreg.clip_coefficient(pyreg.global_norm([x, weight]), 1.0)
norm: float = pyreg.norm_combine([pyreg.norm_partial(x), pyreg.norm_partial([weight])])
key = pyreg.fold_in(key, 3, np.int64(100))
lr: float = pyreg.warmup_cosine(1, 1e-3, warmup=10, total=100) + pyreg.warmup_linear(1, 1e-3, warmup=10, total=100)
params, grads, exp_avgs, exp_avg_sqs = ([x.copy(), weight.copy()] for _ in range(4))
applied: bool = pyreg.adamw_update(params, grads, exp_avgs, exp_avg_sqs, step=1, param_out=[x, weight])
pyreg.sgd_update((x,), (x.copy(),), step=1)
rows, grad = pyreg.sum_duplicate_rows([3, 1, 3], x[:3])
pyreg.sgd_update(x, grad, step=1, rows=rows, rounding={"param": "stochastic"}, key=key, offset=np.int64(3))
pyreg.sgd_update([x, weight], [grad, weight], step=1, rows=[rows, None], rounding="stochastic", key=key)
optimizer = pyreg.AdamW(pyreg.decay_matrices_only({"x": x, "weight": weight}), lr=1e-3, ema_decay=0.9)
clipped: float | None = optimizer.step({"x": x.copy(), "weight": None}, max_norm=1.0)
optimizer.load_state_dict(optimizer.state_dict())
optimizer.state["x"]["exp_avg"].sum()
pyreg.Adam([x], state_dtype=ml_dtypes.bfloat16, rounding={"param": "stochastic"}, key=key).step([None])
pyreg.SGD([{"params": [x], "lr": 0.1}, {"params": {"weight": weight}}], momentum=0.9).param_groups[0]["lr"] = 0.2
pyreg.reference.AdamW((x, weight)).step(grads)
with pyreg.num_threads(2):
    pyreg.reference.layer_norm([[1.0, 2.0]]).sum()
pyreg.set_num_threads(pyreg.get_num_threads())
kept: np.typing.NDArray[np.bool_] = pyreg.dropout_mask((4, 8), 0.1, key=key)

low = x.astype(ml_dtypes.bfloat16)
pyreg.layer_norm(low, weight, out=low)
pyreg.dropout_add_layer_norm_forward(x.astype(np.float16), x, weight).y.astype(np.float32)
pyreg.l2_penalty(low, 0.1)
pyreg.l2_penalty([low, x.astype(np.float16), x], 0.1)

# Strict mypy reports an ignore that ignores nothing.
pyreg.dropout(x)  # type: ignore[call-arg]
pyreg.dropout(x, 0.1, key=0.5)  # type: ignore[arg-type]
pyreg.dropout_mask((4, 8))  # type: ignore[call-arg]
pyreg.sgd_update(x, z)  # type: ignore[call-arg]
pyreg.sgd_update(x, z, step=1, rounding="up")  # type: ignore[arg-type]
pyreg.adam_update(x, z, x, x)  # type: ignore[call-arg]
pyreg.adamw_update(x, z, x, x)  # type: ignore[call-arg]
pyreg.dropout_add_layer_norm_forward(x, return_z="no")  # type: ignore[arg-type]
gradients.dweights  # type: ignore[attr-defined]
pyreg.softmax_dropout_forward(x, p="0.1")  # type: ignore[arg-type]
pyreg.gelu_dropout_forward(x, approximate="erf")  # type: ignore[arg-type]
pyreg.AdamW()  # type: ignore[call-arg]
pyreg.SGD([x], betas=(0.9, 0.999))  # type: ignore[call-arg]
optimizer.step()  # type: ignore[call-arg]
pyreg.set_num_threads(1.5)  # type: ignore[arg-type]
pyreg.show_config("json")  # type: ignore[call-overload]
wrong: int = pyreg.l2_penalty(x, 0.1)  # type: ignore[assignment]
"""


USER_OF_MPI = """
import numpy as np
from mpi4py import MPI
from pyreg.mpi import ShardedAdam, ShardedAdamW, ShardedSGD

param = np.ones(3)
optimizer = ShardedAdamW(MPI.COMM_WORLD, {"w": param}, lr=1e-3, op="sum", reduce="mpi", param_out={"w": np.ones(3)})
norm: float | None = optimizer.step({"w": param.copy()}, max_norm=1.0)
optimizer.accumulate({"w": None})
optimizer.step()
optimizer.gather_params()
state = optimizer.state_dict()
if state is not None:
    state["w.exp_avg"].sum()
optimizer.load_state_dict(state)
ShardedSGD(MPI.COMM_SELF, [param], momentum=0.9).save_shards("folder")
ShardedAdam(MPI.COMM_SELF, [{"params": [param], "lr": 0.1}]).load_shards("folder")

ShardedAdamW([param])  # type: ignore[call-arg, arg-type]
ShardedAdamW(MPI.COMM_WORLD, [param], op="max")  # type: ignore[arg-type]
ShardedSGD(MPI.COMM_WORLD, [param], betas=(0.9, 0.999))  # type: ignore[call-arg]
state["w.exp_avg"]  # type: ignore[index]
"""


def calls_of_every_function():
    """A call of each function with all its arguments, and its results by name."""
    for case in CASES.values():
        values = {name: value for name, value in case.numbers.items() if name != "shape"}
        arguments = [f"{name}=x" for name in (*case.arrays, *case.outs)]
        arguments += ["shape=(4, 8)"] if "shape" in case.numbers else []
        arguments += [f"{name}={value!r}" for name, value in values.items()]
        call = f"{case.name}({', '.join(arguments)})"
        if len(case.results) > 1:
            yield f"made_by_{case.name} = pyreg.{call}"
            yield from (f"made_by_{case.name}.{name}" for name in case.results)
        else:
            yield f"pyreg.{call}"
        yield f"pyreg.reference.{call}"


def passes_mypy_strict(*arguments, cwd):
    command = [sys.executable, "-P", "-m", "mypy", "--strict", "--cache-dir", "../cache", *arguments]
    made = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr


def test_the_package_passes_mypy_strict(tmp_path):
    pytest.importorskip("mpi4py")
    passes_mypy_strict("-p", "pyreg", cwd=tmp_path)


def test_a_users_code_passes_mypy_strict(tmp_path):
    code = USER + "\n".join(calls_of_every_function())
    called = set(re.findall(r"pyreg\.(\w+)\(", code))
    assert called == set(pyreg.__all__) - {"reference"}
    (tmp_path / "user.py").write_text(code)
    passes_mypy_strict("user.py", cwd=tmp_path)


def test_the_code_of_a_user_of_mpi_passes_mypy_strict(tmp_path):
    pytest.importorskip("mpi4py")
    (tmp_path / "user.py").write_text(USER_OF_MPI)
    passes_mypy_strict("user.py", cwd=tmp_path)


def parameters(definition):
    """The parameters' names in order, "_" for those that are positional only (pybind11: arg0, arg1)."""
    parsed = definition.args
    named = ["_" if re.fullmatch(r"arg\d", argument.arg) else argument.arg for argument in parsed.args]
    return ["_" for _ in parsed.posonlyargs] + named + ["*"] * (parsed.vararg is not None)


def test_the_stub_has_the_names_and_parameters_of_the_compiled_functions():
    """The functions on arrays are tested in test_arguments.py."""
    stub = ast.parse(Path(pyreg.__file__).with_name("_core.pyi").read_text()).body
    names = {node.target.id for node in stub if isinstance(node, ast.AnnAssign)}
    functions = {node.name: node for node in stub if isinstance(node, ast.FunctionDef) and node.name != "__getattr__"}
    assert names | functions.keys() <= set(dir(_core))
    for name, function in functions.items():
        (compiled,) = ast.parse(f"def {getattr(_core, name).__doc__.splitlines()[0]}: ...").body
        assert parameters(function) == parameters(compiled), name
