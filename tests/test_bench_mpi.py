"""bench/train.py --mpi and bench/run.py --mpi, on 1, 2 and 4 ranks of this machine. No timing is tested."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import run
from bits import assert_same_bits

pytest.importorskip("mpi4py")
pytest.importorskip("ml_dtypes")

from kernels import mpi
from kernels.mpi_lines import Line
from test_mpi import LIMIT, on_each_number_of_ranks, on_ranks, open_mpi_runs_as_root_in_a_container

__all__ = ["open_mpi_runs_as_root_in_a_container"]  # a fixture that pytest uses for each test
BENCH = Path(__file__).parents[1] / "bench"


@on_each_number_of_ranks
def test_data_parallel_training_has_the_bits_of_one_rank(ranks):
    on_ranks(ranks, "training", "parameters_have_the_bits_of_one_rank")


def test_the_command_has_the_same_results_on_1_2_and_4_ranks(tmp_path):
    pytest.importorskip("train")
    made = {}
    for ranks in (1, 2, 4):
        arguments = ["--mpi", "--quick", "--keys", "2", "--epochs", "2", "--out", str(tmp_path / str(ranks))]
        job = mpi.start(ranks, str(BENCH / "train.py"), *arguments, limit=LIMIT)
        assert job.returncode == 0, job.stdout + job.stderr
        made[ranks] = [(tmp_path / str(ranks) / name).read_text() for name in ("table.txt", "runs.csv")]
        assert f"training 10 runs, each on all ranks: {ranks}\n" in job.stdout
    assert made[1] == made[2] == made[4]
    assert "digest of the parameters after all runs" in made[1][0]


def test_training_on_a_number_of_ranks_that_does_not_divide_a_batch_is_refused(tmp_path):
    pytest.importorskip("train")
    job = mpi.start(3, str(BENCH / "train.py"), "--mpi", "--quick", "--out", str(tmp_path), limit=LIMIT)
    assert job.returncode != 0
    assert "divides 4, got 3" in job.stderr


def test_jobs_and_ranks_are_not_combined(capsys):
    train = pytest.importorskip("train")  # which needs what the extra bench installs
    with pytest.raises(SystemExit):
        train.parse_args(["--mpi", "--jobs", "1"])
    assert "--jobs cannot be combined with --mpi" in capsys.readouterr().err


def test_a_quick_run_measures_every_line_on_every_number_of_ranks(tmp_path):
    path = tmp_path / "run.json"
    command = [sys.executable, str(BENCH / "run.py"), "--mpi", "--quick", "--json", str(path)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=4 * LIMIT, env=os.environ)
    assert made.returncode == 0, made.stdout + made.stderr
    rows = json.loads(path.read_text())["mpi"]
    assert [(row["line"], row["ranks"]) for row in rows] == [(line, n) for line in mpi.LINES for n in mpi.RANKS]
    for row in rows:
        assert row["step"]["median"] > 0
        assert row["phases"]["update"] > 0
        assert (row["phases"]["reduction"] > 0) == (row["ranks"] > 1) == (row["bytes_sent"] > 0)
        assert row["memory"] > 0


def test_a_wrong_answer_is_refused():
    measured = {"ranks": [{"digest": "a"}, {"digest": "b"}]}
    with pytest.raises(mpi.WrongAnswer, match="float32 on 2 ranks: params differ"):
        mpi.check(measured, "a", "float32", 2)


def test_bytes_are_those_of_the_arrays():
    parameters = 1000
    line = mpi.LINES["float32"]
    assert line.bytes_sent(parameters, 1) == (0, 0)
    assert line.bytes_sent(parameters, 4) == (3000, 3000)
    assert line.bytes_held(parameters, 1) == 16 * parameters  # parameter, gradient, two moments
    assert line.bytes_held(parameters, 4) == (8 + 12 / 4) * parameters  # and a sum of gradients
    torch = Line(np.float32, engine="torch")
    assert torch.bytes_sent(parameters, 4) == (6000, 3000)  # an all-reduce is a reduce-scatter and an all-gather
    assert torch.bytes_held(parameters, 4) == (8 + 8 / 4) * parameters
    if "master" in mpi.LINES:
        assert mpi.LINES["master"].bytes_sent(parameters, 4) == (1500, 1500)
        assert mpi.LINES["master"].bytes_held(parameters, 4) == (4 + 2 + 2 + 12 / 4) * parameters


def test_the_models_of_one_process_and_of_ranks_are_drawn_alike():
    (params, copies, grads), again = (mpi.arrays([(3, 4), (5,)], mpi.LINES["float32"]) for _ in range(2))
    assert copies is None
    for one, other in zip((*params, *grads), (*again[0], *again[2]), strict=True):
        assert_same_bits(one, other)


def test_only_quick_and_json_are_combined_with_mpi(capsys):
    assert run.parse_args(["--mpi", "--quick"]).mpi
    with pytest.raises(SystemExit):
        run.parse_args(["--mpi", "--threads", "1"])
    assert "--mpi measures on threads of its own" in capsys.readouterr().err
