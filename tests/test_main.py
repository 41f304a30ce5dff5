"""``python -m pyreg``: what it tells, and that its exit status tells whether the checks passed."""

import json
import subprocess
import sys

import numpy as np
import pytest

import pyreg
from pyreg import __main__, _self_check, _speed


@pytest.fixture(autouse=True)
def no_time_for_speed(monkeypatch):
    monkeypatch.setattr(_speed, "SECONDS", 0.0)
    monkeypatch.setattr(_speed, "SHAPES", ((8, 32),))


def test_the_report_has_the_machine_the_checks_and_the_speeds(capsys):
    assert __main__.main([]) == 0
    report = capsys.readouterr().out
    for expected in ("pyreg: " + pyreg.__version__, "chosen: ", "num_threads: ", "openmp_runtime: ", "numpy: "):
        assert expected in report
    assert f"all {len(list(_self_check.self_check()))} passed" in report
    assert "FAILED" not in report
    assert "8 x 32" in report


def test_json_has_the_same(capsys):
    assert __main__.main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["config"] == pyreg.show_config("dicts")
    assert report["passed"] is True
    assert {check["passed"] for check in report["checks"]} == {True}
    assert {speed["op"] for speed in report["speed"]} > {"layer_norm", "adamw_update"}
    assert all(speed["gb_per_s"] > 0 and speed["percent_of_copy"] > 0 for speed in report["speed"])


def test_every_function_on_arrays_is_checked():
    assert set(_self_check.CASES) == set(pyreg.reference.__all__) - {"random_key"}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_wrong_answer_is_found_named_and_fails_the_run(monkeypatch, capsys, options):
    right = pyreg.dropout

    def wrong(x, p, **keywords):
        y = right(x, p, **keywords)
        y.flat[-1] = np.nextafter(y.flat[-1], 7)
        return y

    monkeypatch.setattr(pyreg, "dropout", wrong)
    assert __main__.main(options) == 1
    report = capsys.readouterr().out
    assert "dropout, float32: reference" in report
    assert "1 elements of result 0 differ" in report
    if not options:
        assert "2 of " in report


def test_an_exception_is_a_failed_check(monkeypatch, capsys):
    def broken(*_, **__):
        raise OSError("a broken build")

    monkeypatch.setattr(pyreg, "sgd_update", broken)
    assert __main__.main([]) == 1
    assert "OSError: a broken build" in capsys.readouterr().out


def test_it_runs_as_a_command():
    made = subprocess.run(
        [sys.executable, "-P", "-m", "pyreg", "--help"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0
    assert "bug report" in made.stdout
