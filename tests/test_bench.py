"""bench/run.py: its answers are checked, its report says what it should. No timing is tested."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import run
import run_company
import run_measure
import run_numpy
import run_pyreg
import run_report
from run_case import WrongAnswer
from run_ops import OPS

import pyreg
from pyreg import _core

RUN = Path(__file__).parents[1] / "bench" / "run.py"
# 37, 111: no multiple of anything; 300 rows: more than a block of the float64 computation.
SIZES = [(3, 37), (300, 64)]


def make_case(title, shape=(3, 37)):
    return OPS[title](shape if title != "adamw_update" else (shape[0] * shape[1],))


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("title", OPS)
@pytest.mark.parametrize("library", ["pyreg", "numpy"])
def test_answers_agree_with_float64_also_when_called_again(library, title, shape):
    case = make_case(title, shape)
    call = run_pyreg.public_call(case) if library == "pyreg" else getattr(run_numpy, case.name)(case)
    call()  # must not leave anything behind that a second call would see
    case.restore()
    answer = call()
    case.check(answer)
    if library == "pyreg":
        case.check_bits(answer)


@pytest.mark.parametrize("title", OPS)
def test_the_cores_call_and_a_new_result_are_the_public_functions(title):
    case = make_case(title)
    written = case.param if title == "adamw_update" else case.out

    def result(call):
        case.restore()
        call()
        return written.copy()

    expected = result(run_pyreg.public_call(case))
    from_core = run_pyreg.core_call(case)
    written[...] = np.nan
    np.testing.assert_array_equal(result(from_core), expected)
    if title != "adamw_update":
        new = run_pyreg.new_call(case)()
        array = new[0] if isinstance(new, tuple) else new
        np.testing.assert_array_equal(array, expected)
        assert not np.shares_memory(array, written)


@pytest.mark.parametrize("title", [title for title in OPS if title != "adamw_update"])
def test_other_bits_of_a_row_at_either_end_are_refused(title):
    case = OPS[title]((900, 37))  # more than the first and the last rows that are compared
    answer = run_pyreg.public_call(case)()
    case.check_bits(answer)
    results = answer if isinstance(answer, tuple) else (answer,)
    for name, result in zip(case.row_results.split(), results, strict=False):
        for place in (0, -1):
            right = result.flat[place]
            result.flat[place] = np.nextafter(right, right.dtype.type(9))
            with pytest.raises(WrongAnswer, match=rf"{name} differs from pyreg\.reference"):
                case.check_bits(answer)
            result.flat[place] = right


@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize("title", ["layer_norm_forward", "layer_norm_backward", "adamw_update"])
def test_one_wrong_entry_is_refused(title, part):
    case = make_case(title)
    answer = [np.array(a) for a in run_numpy.__dict__[case.name](case)()]
    answer[part].flat[-1] += 1e-3 * np.abs(answer[part]).max()
    with pytest.raises(WrongAnswer, match="is off by"):
        case.check(answer)
    answer[part].flat[-1] = np.nan
    with pytest.raises(WrongAnswer, match="is off by"):
        case.check(answer)


def test_wrong_dropout_is_refused():
    case = OPS["dropout p=0.5"]((30, 37))
    y = run_pyreg.public_call(case)().copy()
    with pytest.raises(WrongAnswer, match="is off by"):
        case.check(y / 2)  # not scaled up
    with pytest.raises(WrongAnswer, match=r"100\.00% were kept"):
        case.check(case.x * 2)
    other_mask = run_numpy.dropout(case)()
    case.check(other_mask)
    with pytest.raises(WrongAnswer, match=r"pyreg\.reference"):
        case.check_bits(other_mask)


def test_another_mask_of_dropout_add_norm_is_refused():
    case = OPS["dropout_add_layer_norm_forward p=0.1"]((30, 37))
    other_mask = run_numpy.dropout_add_layer_norm_forward(case)()
    case.check(other_mask)
    with pytest.raises(WrongAnswer, match=r"pyreg\.reference"):
        case.check_bits(other_mask)


@pytest.mark.parametrize(
    ("title", "arrays"),
    [
        ("layer_norm_forward", "x out"),
        ("layer_norm_backward", "dy x out"),
        ("dropout p=0.1", "x out"),
        ("softmax_dropout_forward p=0.1", "x out"),
        ("softmax_dropout_backward p=0.1", "dy x out"),
        ("gelu_dropout_forward p=0.1", "x out"),
        ("gelu_dropout_backward p=0.1", "dy x out"),
        ("adamw_update", "param exp_avg exp_avg_sq grad param exp_avg exp_avg_sq"),
    ],
)
def test_bytes_moved_are_those_of_the_large_arrays(title, arrays):
    case = make_case(title)
    assert case.bytes_moved == sum(getattr(case, name).nbytes for name in arrays.split())


@pytest.mark.parametrize("title", OPS)
def test_copies_move_the_bytes_of_the_operation(title, monkeypatch):
    case, copied = make_case(title), []

    def copy(source, target, nontemporal):
        copied.append((source.nbytes + target.nbytes, nontemporal))

    monkeypatch.setattr(_core, "copy", copy)
    for call in run_pyreg.copies(case).values():
        call()
    assert [nontemporal for _, nontemporal in copied] == [False, True]
    for nbytes, _ in copied:
        assert 0 <= nbytes - case.bytes_moved < 8  # 8: an odd number of elements


def test_repeats_are_interleaved_in_rounds(monkeypatch):
    monkeypatch.setattr(run_measure, "MIN_SAMPLE", 0)
    monkeypatch.setattr(run_measure, "SETTLE", 0)
    monkeypatch.setattr(run_measure, "WARM_UP", 0)
    called = []
    groups = [{name: lambda name=name: called.append(name) for name in group} for group in ("ab", "c")]
    times = run_measure.measure(groups, 2, run_measure.Effort(least=4, most=4, seconds=0))
    assert list(times) == ["a", "b", "c"]
    assert called[-4 * 6 :] == ["a", "a", "b", "b", "c", "c"] * 4  # each sample after an untimed one
    for time in times.values():
        assert 0 <= time.quartile1 <= time.median <= time.quartile3 <= time.p90


def test_row_takes_the_faster_copy_and_medians():
    def times(seconds):
        return run_measure.Times(0, seconds, 9, mean=2 * seconds, p90=3 * seconds)

    row = run_report.Row(
        op="layer_norm_forward",
        shape=(8, 768),
        threads=2,
        result="out=",
        bytes_moved=8_000_000,
        times={
            "pyreg": times(0.004),
            "copy": times(0.002),
            "nontemporal copy": times(0.003),
            "numpy": times(0.04),
        },
    )
    table = run_report.format_comparison([row], ["numpy", "jax"])
    assert table.splitlines()[2].split() == [
        *("8", "x", "768", "2", "out=", "4.00", "ms", "8.00", "ms", "12.0", "ms", "2.00", "50%", "10.0x", "-")
    ]


def test_a_90th_percentile_of_more_than_twice_the_median_is_told():
    quiet, disturbed = run_measure.Times.of([1.0] * 8 + [2.0] * 2), run_measure.Times.of([1.0] * 8 + [2.1] * 2)
    assert run_report.format_disturbance([quiet, quiet]) == ""
    assert "in 1 of 2 rows" in run_report.format_disturbance([quiet, disturbed])


@pytest.mark.parametrize(("option", "situations"), [("--company", 1), ("--busy", 2)])
def test_calls_in_company_are_reported_against_one_thread(monkeypatch, capsys, tmp_path, option, situations):
    monkeypatch.setattr(run, "SHAPES", ((8, 768),))
    monkeypatch.setitem(run.PEERS, "torch", "not_installed")  # it would be imported into this process
    path = tmp_path / "run.json"
    only = ("--only", "layer_norm_backward", "--only", "adamw_update")
    assert run.main([option, "--quick", *only, "--json", str(path)]) == 0
    rows = json.loads(path.read_text())[option[2:]]
    cpus = len(os.sched_getaffinity(0))
    for op in ("layer_norm_backward", "adamw_update"):
        for library, threads in (("pyreg", 1), ("pyreg", pyreg.get_num_threads()), ("numpy", 1)):
            found = [row for row in rows if (row["op"], row["library"], row["threads"]) == (op, library, threads)]
            assert len({row["situation"] for row in found}) == (situations if cpus > 1 else 1)
            for row in found:
                assert row["call"]["p90"] >= row["call"]["median"] > 0
                assert (row["product"] is None) == (option == "--busy")
    assert "median/1t" in capsys.readouterr().out


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc of Linux")
def test_busy_processes_end_with_their_block():
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text().split()
    with run_company.busy_processes(2):
        assert len(children.read_text().split()) == len(before) + 2
    assert children.read_text().split() == before


def test_quick_run_checks_and_reports_every_peer_that_can_be_imported(tmp_path):
    path, cpus = tmp_path / "run.json", len(os.sched_getaffinity(0))
    # All CPUs, for JAX runs on no other number.
    command = [sys.executable, RUN, "--quick", "--json", path, "--threads", str(cpus)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr
    report = json.loads(path.read_text())
    assert report["machine"].keys() == {"machine", "versions", "isa", "threads", "measured_threads", "peers"}
    assert report["machine"]["measured_threads"] == [cpus]
    peers = report["machine"]["peers"]
    # One that is installed may still refuse to be imported, beside a NumPy newer than it knows, say.
    assert {"numpy"} <= set(peers) <= {p for p in ("numpy", "torch", "jax", "numba") if importlib.util.find_spec(p)}
    shapes = {op: [list(shape) for shape in case.sizes[:2]] for op, case in OPS.items()}
    rows = report["rows"]
    assert [(row["op"], row["shape"]) for row in rows] == [(op, s) for op in OPS for s in shapes[op]]
    for row in rows:
        wanted = {"pyreg", "copy", "nontemporal copy", *peers}
        if row["op"] == "adamw_update":
            wanted.add("update_loop")
        assert {"pyreg", "copy", "nontemporal copy", "numpy"} <= row["times"].keys() <= wanted
        assert row["ratios"].keys() == peers.keys()
        measured = {
            peer for peer, ratio in row["ratios"].items() if ratio is not None
        }  # one may leave an operation out
        assert measured == row["times"].keys() & peers.keys()
        assert row["threads"] == cpus
        for times in row["times"].values():
            assert times.keys() == {"quartile1", "median", "quartile3", "mean", "p90"}
        for number in ("gb_per_s", "percent_of_copy"):
            assert row[number] > 0
        assert (row["percent_of_loop"] is None) == ("update_loop" not in row["times"])
    for row in report["python_layer"]:
        assert row.keys() == {"op", "public", "core", "python_layer"}
    for op in OPS:
        assert f"\n{op}\n" in made.stdout  # the title of its table


def test_sweep_and_isa_have_a_row_for_each_size_and_level(tmp_path):
    path = tmp_path / "run.json"
    command = [sys.executable, RUN, "--quick", "--sweep", "--isa", "--only", "dropout", "--threads", "1"]
    run = subprocess.run([*command, "--json", path], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    report = json.loads(path.read_text())
    assert [row["size"] for row in report["sweep"]] == 2 * [8 * 768, 64 * 768, 512 * 768]
    assert all(list(row["seconds"]) == _core.isa_found() for row in report["isa"])
    assert len(report["isa"]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "expected numbers of threads"),
        (["--threads", "two"], "expected numbers of threads"),
        (["--threads", "99999999999"], "expected numbers of threads"),
        (["--plot", "run.xyz"], ".png"),
        (["--isa", "--compile"], "does not go with"),
        (["--only", "softmax"], "invalid choice"),
        (["--json", "no/such/folder/run.json"], "cannot write"),
        (["--sweep", "--plot", "run.png"], "does not go with"),
        (["--company", "--threads", "1"], "do not go with"),
        (["--busy", "--sweep"], "do not go with"),
        (["--company", "--only", "drop_path"], "measure only"),
    ],
)
def test_bad_flags_are_refused_before_anything_is_measured(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        run.parse_args(arguments)
    assert message in capsys.readouterr().err


def test_wrong_answer_names_the_peer_and_the_size():
    case = OPS["dropout p=0.1"]((8, 768))
    with pytest.raises(WrongAnswer, match="numpy, dropout at 8 x 768"):
        run.checked(case, "numpy", lambda case: lambda: case.x)


def test_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from run_plot import plot

    times = {name: run_measure.Times(1, 1, 1, 1, 1) for name in ("pyreg", "copy", "nontemporal copy", "numpy")}
    rows = [run_report.Row(op, case.sizes[0], 1, "out=", 10**9, times) for op, case in OPS.items()]
    plot(tmp_path / "run.png", rows, "a machine")
    assert (tmp_path / "run.png").stat().st_size > 10_000
