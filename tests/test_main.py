"""``python -m pyreg``: its report, and an exit status that says whether the checks passed."""

import inspect
import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from cases import cases_with

import pyreg
from pyreg import __main__, _self_check, _speed
from pyreg._cases import CASES

pytestmark = pytest.mark.usefixtures("number_of_threads_restored")


@pytest.fixture(autouse=True)
def no_time_for_speed(monkeypatch):
    monkeypatch.setattr(_speed, "SECONDS", 0.0)
    monkeypatch.setattr(_speed, "SHAPES", ((8, 32),))


@pytest.fixture
def check_only(monkeypatch):
    """Compare only these functions with their references."""

    def choose(*names):
        cases = {name: case for name, case in _self_check.CASES.items() if name in names}
        assert len(cases) == len(names)
        monkeypatch.setattr(_self_check, "CASES", cases)

    return choose


def test_the_report_has_the_machine_the_checks_and_the_speeds(capsys):
    assert __main__.main([]) == 0
    report = capsys.readouterr().out
    for expected in ("pyreg: " + pyreg.__version__, "chosen: ", "num_threads: ", "openmp_runtime: ", "numpy: "):
        assert expected in report
    for answer in ("reference Philox4x32-10", "dropout_mask", "layer_norm_forward", "adamw_update"):
        assert f"ok      {answer}: known answer\n" in report
    for name in _self_check.CASES:
        for dtype in _self_check.CASES[name].dtypes:
            assert f"ok      {name}, {np.dtype(dtype)}: reference\n" in report
    checks = len(_self_check.KNOWN_ANSWERS) + sum(len(case.dtypes) for case in _self_check.CASES.values())
    assert report.count("  ok  ") == checks
    assert f"all {checks} passed" in report
    assert "FAILED" not in report
    assert "8 x 32" in report


def test_json_has_the_same(capsys, check_only):
    check_only("l2_penalty")
    assert __main__.main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["config"] == pyreg.show_config("dicts")
    assert report["passed"] is True
    checks = len(_self_check.KNOWN_ANSWERS) + len(CASES["l2_penalty"].dtypes)
    assert [check["passed"] for check in report["checks"]] == [True] * checks
    assert {speed["op"] for speed in report["speed"]} > {"layer_norm", "adamw_update"}
    assert all(speed["gb_per_s"] > 0 and speed["percent_of_copy"] > 0 for speed in report["speed"])


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_wrong_answer_is_found_named_and_fails_the_run(monkeypatch, capsys, check_only, options):
    right = pyreg.dropout

    def wrong(x, p, **keywords):
        y = right(x, p, **keywords)
        y.flat[-1] = np.nextafter(y.flat[-1], y.dtype.type(7))
        return y

    check_only("dropout")
    monkeypatch.setattr(pyreg, "dropout", wrong)
    assert __main__.main(options) == 1
    report = capsys.readouterr().out
    assert "dropout, float32: reference" in report
    assert "on 1 threads, 1 elements of y differ" in report
    if not options:
        wrong_dtypes = len(_self_check.CASES["dropout"].dtypes)
        assert f"{wrong_dtypes} of {4 + wrong_dtypes} FAILED" in report


def failures():
    return {check.name: check.detail for check in _self_check.self_check() if not check.passed}


def test_a_mistake_on_several_threads_alone_is_found(monkeypatch, check_only):
    right = pyreg.layer_norm
    check_only("layer_norm")
    monkeypatch.setattr(pyreg, "layer_norm", lambda *a, **k: right(*a, **k) * (pyreg.get_num_threads() < 2))
    pyreg.set_num_threads(3)
    found = failures()
    assert set(found) == {f"layer_norm, {np.dtype(dtype)}: reference" for dtype in CASES["layer_norm"].dtypes}
    assert all(detail.startswith("on 3 threads, ") for detail in found.values())


def test_a_mistake_that_the_reference_makes_too_is_found(monkeypatch, check_only):
    right = pyreg.dropout_mask
    check_only("dropout_mask")
    for twin in (pyreg, pyreg.reference):
        monkeypatch.setattr(twin, "dropout_mask", lambda *a, **k: ~right(*a, **k))
    assert set(failures()) == {"dropout_mask: known answer"}


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (lambda y: y.astype(np.float64), "y is float64 (130, 1001), not float32 (130, 1001)"),
        (lambda y: y.ravel(), "y is float32 (130130,), not float32 (130, 1001)"),
    ],
)
def test_another_dtype_or_shape_is_found(monkeypatch, check_only, change, detail):
    right = pyreg.layer_norm
    check_only("layer_norm")
    monkeypatch.setattr(pyreg, "layer_norm", lambda *a, **k: change(right(*a, **k)))
    assert failures()["layer_norm, float32: reference"] == f"on 1 threads, {detail}"


def with_defaults(case):
    """The parameters with a default, except normalized_shape: with a weight, it changes nothing."""
    parameters = inspect.signature(getattr(pyreg, case.name)).parameters.items()
    return [
        n for n, p in parameters if p.default is not inspect.Parameter.empty and n not in ("normalized_shape", "y")
    ]


@cases_with(with_defaults)
def test_an_argument_that_is_not_heeded_is_found(monkeypatch, case):
    monkeypatch.setattr(_self_check, "SHAPE", (13, 37))
    monkeypatch.setattr(_self_check, "LARGE", ())
    right = getattr(pyreg, case.name)
    for name in with_defaults(case):
        of_rounding = case.updated and name in ("rounding", "key", "offset")  # which is to 16 bits
        dtype = np.float16 if of_rounding else np.float32
        deaf = lambda name=name, **k: right(**{n: v for n, v in k.items() if n != name})  # noqa: E731
        monkeypatch.setattr(pyreg, case.name, deaf)
        assert not _self_check.run(name, partial(_self_check.same_bits, case, dtype)).passed, name


def test_an_exception_is_a_failed_check(monkeypatch, capsys, check_only):
    def broken(*_, **__):
        raise OSError("a broken build")

    check_only("sgd_update")
    monkeypatch.setattr(pyreg, "sgd_update", broken)
    assert __main__.main([]) == 1
    assert "OSError: a broken build" in capsys.readouterr().out


def test_a_speed_is_in_percent_of_the_faster_copys(monkeypatch):
    times = {"op": [2.0] * 8 + [3.0] * 2, "copy": [4.0], "nontemporal copy": [1.0]}
    monkeypatch.setattr(_speed, "interleaved", lambda _: times)
    speeds = {speed.op: speed for speed in _speed.measure_speed()}
    # A copy moves 2 arrays; these functions move 2, 3 and 7.
    assert speeds["layer_norm"].percent_of_copy == 50
    assert speeds["layer_norm_backward"].percent_of_copy == 75
    assert speeds["adamw_update"].percent_of_copy == 175
    assert (speeds["layer_norm"].seconds, speeds["layer_norm"].mean, speeds["layer_norm"].p90) == (2, 2.2, 3)
    assert speeds["layer_norm"].gb_per_s == 2 * 8 * 32 * 4 / 2e9


@pytest.mark.parametrize(("slow", "disturbed"), [(3.0, False), (5.0, True)])
def test_a_busy_machine_is_reported(monkeypatch, capsys, check_only, slow, disturbed):
    check_only("l2_penalty")
    times = {"op": [2.0] * 8 + [slow] * 2, "copy": [4.0], "nontemporal copy": [1.0]}
    monkeypatch.setattr(_speed, "interleaved", lambda _: times)
    assert __main__.main([]) == 0
    assert ("The machine was busy: in 5 of 5 rows" in capsys.readouterr().out) == disturbed
    assert __main__.main(["--json"]) == 0
    assert [speed["disturbed"] for speed in json.loads(capsys.readouterr().out)["speed"]] == [disturbed] * 5


def command(*options, **environment):
    line = [sys.executable, "-P", "-m", "pyreg", *options]
    return subprocess.run(line, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_it_runs_as_a_command():
    made = command("--help")
    assert made.returncode == 0
    assert "bug report" in made.stdout


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_status_of_the_command_tells_that_a_check_failed(tmp_path, options):
    # Runs before the command: makes one answer wrong, and switches off what takes time.
    (tmp_path / "sitecustomize.py").write_text(
        "import pyreg\n"
        "from pyreg import _self_check, _speed\n"
        "_speed.SHAPES = ()\n"
        "_self_check.CASES = {}\n"
        "pyreg.adamw_update = lambda *_, **__: None\n"
    )
    made = command(*options, PYTHONPATH=str(tmp_path))
    assert made.returncode == 1, made.stderr
    assert "got [ 1. -2.]" in made.stdout
