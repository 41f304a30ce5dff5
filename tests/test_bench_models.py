"""bench/run.py --models and --state check their answers and report what they measured. No timing is tested."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import run
from console import WrongAnswer
from kernels import models, precisions
from kernels import state as from_a_state
from kernels.measure import Times
from kernels.model_case import MAX_NORM, NUMBERS, STEP, ModelCase
from kernels.model_report import ModelRow, format_model
from kernels.model_shapes import MODELS
from kernels.precisions import FLOAT32, PRECISIONS

import pyreg

RUN = Path(__file__).parents[1] / "bench" / "run.py"
SHAPES = [(300, 64), (5,), (1, 64), (70,)]
in_every_precision = pytest.mark.parametrize("precision", PRECISIONS, ids=lambda precision: precision.name)


@pytest.mark.parametrize(
    ("model", "tensors", "parameters"),
    [("GPT-2 small", 148, 124_439_808), ("CHGNet", 127, 379_279), ("1,000 x 100", 1000, 100_000)],
)
def test_models_have_their_tensors(model, tensors, parameters):
    assert len(MODELS[model]) == tensors
    assert sum(map(math.prod, MODELS[model])) == parameters


def test_bytes_moved_are_those_of_each_array_once():
    # float32: param, grad and two moments are read, three of them written. Clipping reads grad twice.
    expected = {"float32": (28, 32), "master": (28, 30), "bfloat16": (14, 16)}
    expected["stochastic"] = expected["bfloat16"]
    for precision in PRECISIONS:
        assert (precision.bytes_moved(False), precision.bytes_moved(True)) == expected[precision.name]
        assert ModelCase("", [(3, 5), (2,)], precision, False).bytes_moved == 17 * expected[precision.name][0]


@in_every_precision
@pytest.mark.parametrize("clipped", [False, True])
def test_steps_agree_with_float64_and_the_reference_also_after_others(precision, clipped):
    case = ModelCase("", SHAPES, precision, clipped)
    for _ in range(2):
        case.checked("pyreg", case.public_call, case.check_bits)()
    case.checked("pyreg", case.nearest_call)()


@pytest.mark.parametrize("clipped", [False, True])
def test_the_class_has_the_bits_of_the_plain_call_also_after_others(clipped):
    case = ModelCase("a model", SHAPES, FLOAT32, clipped)
    case.checked("pyreg", case.public_call)
    digest = case.digest()
    for _ in range(2):
        case.checked("pyreg.AdamW", case.class_call, lambda: case.check_digest(digest))()
    case.param[-1][0] = np.nextafter(case.param[-1][0], np.float32(1))
    with pytest.raises(WrongAnswer, match="param differs from adamw_update's"):
        case.check_digest(digest)


# What a library may get wrong.
WRONG = {
    "no decay": {"weight_decay": 0.0},
    "another step": {"step": STEP + 1},
    "another beta": {"betas": (0.9, 0.99)},
    "not clipped": {"grad_scale": 1.0},
    "another learning rate": {"lr": 1.1 * NUMBERS["lr"]},
}


@in_every_precision
@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_another_update_is_refused(precision, changes):
    if "weight_decay" in changes and precision.name in ("bfloat16", "stochastic"):
        pytest.skip("a decay by 1e-5 of the parameter is lost in its rounding")
    case = ModelCase("a model", SHAPES, precision, clipped=True)
    scale = pyreg.clip_coefficient(pyreg.global_norm(case.grad), MAX_NORM)
    assert scale < 0.9
    numbers = NUMBERS | {"step": STEP, "grad_scale": scale, "param_out": case.param_out} | changes
    arrays = case.param, case.grad, case.exp_avg, case.exp_avg_sq
    with pytest.raises(WrongAnswer, match=rf"other, AdamW over a model in {precision.name}, clipped: param is off"):
        case.checked("other", lambda: lambda: pyreg.adamw_update(*arrays, **numbers))


@in_every_precision
def test_one_wrong_parameter_is_refused(precision):
    case = ModelCase("", SHAPES, precision, clipped=False)
    case.public_call()()
    case.check()
    for wrong in (np.nan, 2 * float(case.param[-1][0]) + 1):
        case.param[-1][0] = wrong
        with pytest.raises(WrongAnswer, match="param is off"):
            case.check()


@pytest.mark.parametrize("end", [0, -1])
@pytest.mark.parametrize("kind", ["param", "exp_avg", "exp_avg_sq"])
@in_every_precision
def test_another_bit_than_the_references_is_refused(precision, kind, end):
    case = ModelCase("", SHAPES, precision, clipped=False)
    case.public_call()()
    case.check_bits()
    getattr(case, kind)[end].reshape(-1).view(np.uint8)[0] ^= 1
    with pytest.raises(WrongAnswer, match=rf"^{kind} differs from pyreg\.reference"):
        case.check_bits()


def test_other_random_numbers_are_refused():
    for precision in PRECISIONS:
        if precision.rounding == "stochastic":
            case = ModelCase("", SHAPES, precision, clipped=False)
            rounding = precision.rounding_of(STEP)
            arrays = case.param, case.grad, case.exp_avg, case.exp_avg_sq
            for changes in ({"offset": 1}, {"key": rounding["key"] + 1}, {"rounding": "nearest"}):
                case.restore()
                pyreg.adamw_update(*arrays, **NUMBERS | {"step": STEP} | rounding | changes)
                case.check()
                with pytest.raises(WrongAnswer, match=r"param differs from pyreg\.reference"):
                    case.check_bits()


def test_a_copy_that_is_not_the_rounded_parameter_is_refused():
    for precision in PRECISIONS:
        case = ModelCase("", SHAPES, precision, clipped=False)
        if case.param_out:
            case.public_call()()
            case.param_out[0][0, 0] *= 2
            with pytest.raises(WrongAnswer, match="param_out is not the rounded param"):
                case.check()


def test_the_update_in_float64_is_pyregs(rng):
    arrays = [rng.standard_normal(100) for _ in range(4)]
    arrays[3] **= 2
    expected = precisions.adamw_in_float64(*arrays, step=3, lr=0.1, weight_decay=0.1)
    pyreg.adamw_update(*arrays, step=3, lr=0.1, weight_decay=0.1)
    for got, wanted in zip((arrays[0], *arrays[2:]), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-14)


def test_a_row_has_the_medians_and_the_ratios():
    def times(seconds):
        return Times(0.9 * seconds, seconds, 1.1 * seconds, mean=2 * seconds, p90=3 * seconds)

    steps = {"pyreg": times(0.004), "torch fused": times(0.012)}
    row = ModelRow("a model", "float32", 7, 1_000_000, 2, 28_000_000, steps)
    assert [line.split() for line in format_model([row]).splitlines()] == [
        ["a", "model:", "1,000,000", "parameters", "in", "7", "tensors"],
        ["adamw_update", "time", "mean", "p90", "GB/s", "M/s", "torch", "fused"],
        ["float32", "4.00", "ms", "8.00", "ms", "12.0", "ms", "7.00", "250", "3.00x"],
    ]


def test_what_does_not_fit_in_memory_is_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(models, "MEMORY", tmp_path / "meminfo")
    assert models.memory_available() == math.inf  # the kernel does not tell
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:  1 kB\n")
    assert models.memory_available() == 1024
    monkeypatch.setattr(models, "MODELS", {"large": [], "a model": [(1000,)]})
    monkeypatch.setattr(run, "import_peers", lambda names: ({}, []))
    assert run.main(["--models", "--quick", "--threads", "1"]) == 0
    assert "a model in float32 is left out: it needs 0.0 GB" in capsys.readouterr().out


# --- a state


def write_state(path, **changes):
    """Write a state of two tensors; a change to None leaves an array out."""
    rng = np.random.default_rng(0)
    arrays = {"step": [900, 1000], "lr": 1e-3}
    for i, shape in enumerate([(40, 25), (7,)]):
        arrays[f"param_{i:03}"] = rng.standard_normal(shape, np.float32)
        arrays[f"grad_{i:03}"] = 1e-3 * rng.standard_normal(shape, np.float32)
        arrays[f"exp_avg_{i:03}"] = 1e-4 * rng.standard_normal(shape, np.float32)
        arrays[f"exp_avg_sq_{i:03}"] = np.full(shape, 1e-6, np.float32)
    np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})
    return str(path)


def test_a_state_is_read_and_what_it_lacks_is_drawn(tmp_path):
    whole = from_a_state.read_state(write_state(tmp_path / "whole.npz"))
    assert (whole.step, whole.lr, whole.drawn) == (1000, 1e-3, [])
    assert whole.param.shape == whole.grad.shape == whole.exp_avg.shape == whole.exp_avg_sq.shape == (1007,)
    lacks = dict.fromkeys(f"{kind}_00{i}" for kind in ("param", "grad") for i in (0, 1))
    drawn = from_a_state.read_state(write_state(tmp_path / "drawn.npz", **lacks))
    assert drawn.drawn == ["param", "grad"]
    assert 0.03 < drawn.param.std() < 0.07
    assert 0.7e-3 < drawn.grad.std() < 1.3e-3
    np.testing.assert_array_equal(drawn.exp_avg, whole.exp_avg)


def test_float32_is_close_to_float64_and_bfloat16_loses_small_steps(tmp_path):
    text, rows = from_a_state.from_state(from_a_state.read_state(write_state(tmp_path / "state.npz", lr=1e-5)))
    assert [(row["precision"], row["updates"]) for row in rows] == [(p.name, n) for p in PRECISIONS for n in (1, 100)]
    found = {(row["precision"], row["updates"]): row for row in rows}
    # A parameter's step is about 1e-6, and half the spacing of float32 at 1 is 6e-8.
    assert found["float32", 1]["median"] < 0.06
    assert found["float32", 100]["median"] < 0.01
    assert found["float32", 1]["unchanged"] < 0.1
    if "bfloat16" in {p.name for p in PRECISIONS}:
        assert found["master", 1]["median"] < 0.06
        assert found["bfloat16", 1]["unchanged"] > 0.9
    assert found["float32", 100]["average"] == pytest.approx(1, abs=0.01)
    assert "1,007 parameters after update 1,000, lr 1e-05" in text


def test_stochastic_rounding_is_right_on_average(tmp_path):
    # A hundred updates move a parameter by 0.006, which is about the spacing of bfloat16 at 1; one of them, by 6e-5.
    _, rows = from_a_state.from_state(from_a_state.read_state(write_state(tmp_path / "state.npz", lr=1e-4)))
    found = {row["precision"]: row for row in rows if row["updates"] == 100}
    if "stochastic" in {p.name for p in PRECISIONS}:
        assert 0.8 < found["stochastic"]["average"] < 1.2
        assert 0.1 < found["stochastic"]["unchanged"] < 0.9
        assert found["bfloat16"]["average"] < 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": None}, "is not an npz file of step"),
        ({"exp_avg_sq_001": None}, "is not an npz file of step"),
        ({"exp_avg_000": np.zeros(3)}, "is not an npz file of step"),
        ({"lr": "fast"}, "is not an npz file of step"),
    ],
)
def test_a_file_without_a_state_is_refused(changes, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run.parse_args(["--state", write_state(tmp_path / "state.npz", **changes)])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"", "not an npz file"), (b"text", "not an npz file"), (b"PK\3\4", "not an npz file")],
)
def test_a_file_that_is_not_an_archive_is_refused(content, message, tmp_path, capsys):
    path = tmp_path / "state.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        run.parse_args(["--state", str(path)])
    assert message in capsys.readouterr().err


# --- the command

# What pyreg's step is measured beside, of pyreg's.
OWN = {"float32": {"class", "one array"}, "float32, clipped": {"class"}, "stochastic": {"nearest"}}


def test_quick_run_has_a_row_for_each_precision_beside_pytorchs(tmp_path):
    path, state = tmp_path / "run.json", write_state(tmp_path / "state.npz")
    arguments = ("--models", "--quick", "--state", state, "--threads", "1", "--json", path)
    made = subprocess.run([sys.executable, RUN, *arguments], capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr
    results = json.loads(path.read_text())
    peers = results["machine"]["peers"]
    assert set(peers) <= {p for p in ("torch",) if importlib.util.find_spec(p)}
    lines = ["float32", "float32, class", "float32, one array", "float32, clipped", "float32, clipped, class"]
    lines += [f"{precision.name}{clipped}" for precision in PRECISIONS[1:3] for clipped in ("", ", clipped")]
    lines += [precision.name for precision in PRECISIONS[3:]]
    rows = results["models"]
    assert [(row["model"], row["line"]) for row in rows] == [
        (model, line) for model in ("CHGNet", "1,000 x 100") for line in lines
    ]
    for row in rows:
        own = OWN.get(row["line"], set())
        beside = set() if row["line"].endswith(("one array", "class", "stochastic")) else {"torch fused"}
        beside |= {"torch foreach"} if row["line"] == "float32" else set()
        assert row["times"].keys() == {"pyreg"} | own | (beside if peers else set())
        assert {name for name, ratio in row["ratios"].items() if ratio} == row["times"].keys() - {"pyreg"}
        assert row["tensors"] == (1 if row["line"].endswith("one array") else len(MODELS[row["model"]]))
        assert row["threads"] == 1
        assert row["gb_per_s"] > 0
        assert row["millions_per_s"] > 0
    assert "\nCHGNet: 379,279 parameters in 127 tensors\n" in made.stdout
    assert len(results["state"]) == 2 * len(PRECISIONS)


@pytest.mark.parametrize("option", ["--models", "--state"])
@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--only", "adamw_update"], "--quick, --threads and --json alone"),
        (["--dtype", "float16"], "--quick, --threads and --json alone"),
        (["--company"], "--quick, --threads and --json alone"),
        (["--isa"], "--quick, --threads and --json alone"),
        (["--compile"], "cannot be combined with"),
        (["--plot", "run.png"], "cannot be combined with"),
    ],
)
def test_other_measurements_are_refused(option, others, message, tmp_path, capsys):
    given = [option, *([write_state(tmp_path / "state.npz")] if option == "--state" else [])]
    with pytest.raises(SystemExit, match="2"):
        run.parse_args([*given, *others])
    assert message in capsys.readouterr().err


def test_models_run_on_the_most_threads():
    assert run.parse_args(["--models", "--threads", "1,2"]).threads == [2]
