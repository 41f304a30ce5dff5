"""bench/run.py checks its answers and reports what it measured. No timing is tested."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import run
from cases import SIXTEEN_BIT, sixteen_bit
from console import WrongAnswer
from kernels import against, compare, internals, measure, report
from kernels import company as in_company
from kernels import gain as in_gain
from kernels.case import Case
from kernels.operations import OPERATIONS
from kernels.peers import numpy as peer_numpy

import pyreg
from pyreg import _core

RUN = Path(__file__).parents[1] / "bench" / "run.py"
# 37: a multiple of nothing. 300 rows: more than are compared with the reference at either end.
SIZES = [(3, 37), (300, 64)]
NAMES = [np.dtype(dtype).name for dtype in (np.float32, *SIXTEEN_BIT)]
every_operation_and_dtype = pytest.mark.parametrize(
    ("title", "dtype_name"), [(t, name) for t, op in OPERATIONS.items() for name in NAMES if op.takes(np.dtype(name))]
)
DROPPING = [title for title in OPERATIONS if "_dropout_forward p=" in title]


def make_case(title, shape=(3, 37), dtype="float32"):
    return Case(OPERATIONS[title], shape if title != "adamw_update" else (shape[0] * shape[1],), dtype)


def with_numpy(case):
    return getattr(peer_numpy, case.name)(case)


def copied(case, answer):
    """The results in the order of an answer, in arrays that may be changed."""
    return tuple(np.array(result) for result in case.named(answer).values())


@pytest.mark.parametrize("shape", SIZES, ids=str)
@every_operation_and_dtype
def test_answers_agree_with_float64_also_when_called_again(title, dtype_name, shape):
    case = make_case(title, shape, dtype_name)
    call = case.public_call()
    call()  # must not leave anything behind that a second call would see
    case.restore()
    answer = call()
    case.check(answer, roundings=1)
    case.check_bits(answer)


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("title", OPERATIONS)
def test_numpys_answers_agree_with_float64_also_when_called_again(title, shape):
    case = make_case(title, shape)
    call = with_numpy(case)
    call()
    case.restore()
    case.check(call())


@every_operation_and_dtype
def test_the_cores_call_and_a_new_result_are_the_public_functions(title, dtype_name):
    case = make_case(title, dtype=dtype_name)
    written = case.param if title == "adamw_update" else case.out

    def result(call):
        case.restore()
        call()
        return written.copy()

    expected = result(case.public_call())
    from_core = internals.core_call(case)
    written[...] = np.nan
    np.testing.assert_array_equal(result(from_core), expected)
    if title != "adamw_update":
        new = case.new_call()()
        array = new[0] if isinstance(new, tuple) else new
        np.testing.assert_array_equal(array, expected)
        assert not np.shares_memory(array, written)


@every_operation_and_dtype
def test_a_wrong_entry_of_any_result_is_refused(title, dtype_name):
    case = make_case(title, dtype=dtype_name)
    answer = copied(case, case.public_call()())
    case.check(answer, roundings=1)
    for name, result in zip(case.named(answer), answer, strict=True):
        right = result.flat[-1].copy()
        for wrong in (float(right) + float(np.abs(result).max()) * (1e-3 + 2 * case.unit), np.nan):
            result.flat[-1] = wrong
            with pytest.raises(WrongAnswer, match=f"{name} is off by|z is off by|were kept"):
                case.check(answer, roundings=1)
        result.flat[-1] = right


@sixteen_bit
def test_sums_over_rows_are_checked_in_16_bits_too_but_not_another_librarys(dtype):
    case = make_case("layer_norm_backward", (30, 37), dtype)
    dx, dweight, dbias = copied(case, case.public_call()())
    wrong = dx, dweight, dbias * 2
    case.check(wrong)
    with pytest.raises(WrongAnswer, match="dbias is off by"):
        case.check(wrong, roundings=1)
    with pytest.raises(WrongAnswer, match="dx is off by"):
        case.check((dx * 2, dweight, dbias))


@every_operation_and_dtype
def test_other_bits_of_a_row_at_either_end_are_refused(title, dtype_name):
    case = make_case(title, (900, 37), dtype_name)  # more than the first and the last rows that are compared
    answer = copied(case, case.public_call()())
    case.check_bits(answer)
    for name, result in case.named(answer).items():
        if len(result) != case.shape[0]:  # a sum over the rows
            continue
        for place in (0, -1):
            right = result.flat[place]
            result.flat[place] = np.nextafter(right, right.dtype.type(9))
            with pytest.raises(WrongAnswer, match=rf"{name} differs from pyreg\.reference"):
                case.check_bits(answer)
            result.flat[place] = right


@pytest.mark.parametrize("title", [*DROPPING, "dropout p=0.1", "dropout p=0.5"])
def test_dropout_that_is_not_scaled_or_drops_too_few_is_refused(title):
    case = make_case(title, (30, 37))
    (y, *others) = copied(case, with_numpy(case)())
    p = case.p
    with pytest.raises(WrongAnswer, match="is off by"):
        case.check((y * np.float32(1 - p), *others))
    with pytest.raises(WrongAnswer, match=r"100\.00% were kept"):
        case.check((case.expected["y"] / np.float32(1 - p), *others))


@pytest.mark.parametrize("title", ["dropout p=0.1", "dropout_add_layer_norm_forward p=0.1"])
def test_another_mask_is_right_for_a_library_and_wrong_for_pyreg(title):
    case = make_case(title, (30, 37))
    other_mask = with_numpy(case)()
    case.check(other_mask)
    with pytest.raises(WrongAnswer, match=r"pyreg\.reference"):
        case.check_bits(other_mask)


@pytest.mark.parametrize("title", OPERATIONS)
def test_missing_results_and_results_of_another_shape_are_refused(title):
    case = make_case(title, (30, 37))
    answer = copied(case, case.public_call()())
    if len(case.table.results) > 1:
        case.check(answer[:2])
        with pytest.raises(WrongAnswer, match="the results are"):
            case.check_bits(answer[:1])
    if not case.table.updated:
        with pytest.raises(WrongAnswer, match="no results"):
            case.check(None)
    with pytest.raises(WrongAnswer, match="shape"):
        case.check((answer[0].T if answer[0].ndim > 1 else answer[0][:-1], *answer[1:]))


def test_a_drop_path_that_drops_no_sample_is_refused():
    case = make_case("drop_path p=0.1", (900, 37))
    with pytest.raises(WrongAnswer, match=r"100\.00% were kept"):
        case.check(case.x / np.float32(0.9))


def test_gelu_is_not_mistaken_for_its_approximation():
    exact, tanh = (make_case(f"gelu_dropout_forward p=0.1{title}", (30, 37)) for title in ("", " tanh"))
    for case, other in ((exact, tanh), (tanh, exact)):
        with pytest.raises(WrongAnswer, match="is off by"):
            case.check(other.public_call()())


@pytest.mark.parametrize(
    ("title", "arrays"),
    [
        ("layer_norm_forward", "x out"),
        ("layer_norm_backward", "dy x out"),
        ("dropout p=0.1", "x out"),
        ("dropout_add_layer_norm_forward p=0.1", "x residual out z_out"),
        ("dropout_add_layer_norm_backward p=0.1", "dy dz z out dresidual_out"),
        ("softmax_dropout_forward p=0.1", "x out"),
        ("softmax_dropout_backward p=0.1", "dy x out"),
        ("softmax_dropout_forward keep=", "x out"),
        ("softmax_dropout_backward y=", "dy y out"),
        ("gelu_dropout_forward p=0.1", "x out"),
        ("gelu_dropout_backward p=0.1", "dy x out"),
        ("adamw_update", "param exp_avg exp_avg_sq grad param exp_avg exp_avg_sq"),
    ],
)
def test_bytes_moved_are_those_of_the_large_arrays(title, arrays):
    for dtype_name in NAMES:
        if OPERATIONS[title].takes(np.dtype(dtype_name)):
            case = make_case(title, dtype=dtype_name)
            assert case.bytes_moved == sum(getattr(case, name).nbytes for name in arrays.split())


@every_operation_and_dtype
def test_copies_move_the_bytes_of_the_operation(title, dtype_name, monkeypatch):
    case, calls = make_case(title, dtype=dtype_name), []

    def copy(source, target, nontemporal):
        calls.append((source.nbytes + target.nbytes, nontemporal))

    monkeypatch.setattr(_core, "copy", copy)
    for call in compare.copies(case).values():
        call()
    assert [nontemporal for _, nontemporal in calls] == [False, True]
    for nbytes, _ in calls:
        assert 0 <= nbytes - case.bytes_moved < 8  # 8: an odd number of elements


def test_repeats_are_interleaved_in_rounds(monkeypatch):
    monkeypatch.setattr(measure, "MIN_SAMPLE", 0)
    monkeypatch.setattr(measure, "SETTLE", 0)
    monkeypatch.setattr(measure, "WARM_UP", 0)
    called = []
    groups = [{name: lambda name=name: called.append(name) for name in group} for group in ("ab", "c")]
    times = measure.measure(groups, 2, measure.Effort(least=4, most=4, seconds=0))
    assert list(times) == ["a", "b", "c"]
    assert called[-4 * 6 :] == ["a", "a", "b", "b", "c", "c"] * 4  # each sample after an untimed one
    for time in times.values():
        assert 0 <= time.quartile1 <= time.median <= time.quartile3 <= time.p90


def times_of(seconds):
    return measure.Times(0.9 * seconds, seconds, 1.1 * seconds, mean=2 * seconds, p90=3 * seconds)


def make_row(op="layer_norm_forward", pyreg=0.004):
    times = {"pyreg": pyreg, "copy": 0.002, "nontemporal copy": 0.003, "numpy": 0.04}
    times = {name: times_of(seconds) for name, seconds in times.items()}
    return report.Row(op, (8, 768), 2, "out=", 8_000_000, times)


def test_row_takes_the_faster_copy_and_medians():
    table = report.format_comparison([make_row()], ["numpy", "jax"])
    assert table.splitlines()[2].split() == [
        *("8", "x", "768", "2", "out=", "4.00", "ms", "8.00", "ms", "12.0", "ms", "2.00", "50%", "10.0x", "-")
    ]


def test_a_90th_percentile_of_more_than_twice_the_median_is_reported():
    quiet, disturbed = measure.Times.of([1.0] * 8 + [2.0] * 2), measure.Times.of([1.0] * 8 + [2.1] * 2)
    assert report.format_disturbance([quiet, quiet]) == ""
    assert "in 1 of 2 rows" in report.format_disturbance([quiet, disturbed])


# --- two runs


def make_run(company=0.004, mean=1, **seconds):
    """What --json writes of rows on which pyreg took so many seconds; in company, with this mean."""
    times = {"numpy": times_of(0.04), "pyreg": times_of(company)._replace(mean=mean)}
    row = in_company.CompanyRow("beside", "dropout", (8, 768), 2, times | {"pyreg, 1 thread": times_of(1)})
    rows = [make_row(op, time).as_json(["numpy"]) for op, time in seconds.items()]
    machine = pyreg.show_config("dicts")
    return json.loads(json.dumps({"machine": machine, "rows": rows, "busy": [row.as_json()]}))


def lines_under(title, text):
    """The names in the table under a title."""
    table = text.split(f"\n{title}\n")[1].split("\n\n")[0]
    return [line.split()[0] for line in table.splitlines()[1:]]


def test_two_runs_are_compared_by_what_changed_against_the_yardstick():
    before = make_run(layer_norm=0.004, dropout=0.004, rms_norm=0.004, softmax=0.004)
    # 1.5 times as slow; a quarter faster; slower, but within the spread; the same. In company, both are slower.
    now = make_run(layer_norm=0.006, dropout=0.003, rms_norm=0.0046, gelu=0.004, company=0.006, mean=2)
    text = against.format_against(before, now)
    assert "5 rows are in both runs, 1 only in the old one, 1 only in the new one" in text
    assert lines_under("slower", text) == ["layer_norm", "dropout", "dropout"]
    assert lines_under("faster", text) == ["dropout"]
    assert "layer_norm     1        1.50       1       0" in text


def test_a_machine_that_is_twice_as_slow_changes_nothing():
    before = make_run(layer_norm=0.004)
    now = json.loads(json.dumps(before))
    for row in now["rows"]:
        for times in row["times"].values():
            times |= {name: 2 * seconds for name, seconds in times.items()}
    text = against.format_against(before, now)
    assert "slower: none" in text
    assert "faster: none" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("{", "not a file that --json wrote"),
        ("[1]", "not a file that --json wrote"),
        ('{"rows": [{"op": 1}], "machine": {}}', "not a file that --json wrote"),
        (json.dumps({"machine": pyreg.show_config("dicts"), "sweep": []}), "no rows to compare"),
        (json.dumps(make_run()), "did not measure what this one does"),
        (json.dumps(make_run(layer_norm=0.004) | {"dtype": "float16"}), "did not measure what this one does"),
    ],
)
def test_a_file_that_is_not_a_run_is_refused(text, message, tmp_path, capsys):
    path = tmp_path / "old.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit, match="2"):
        run.parse_args(["--against", str(path)])
    assert message in capsys.readouterr().err


# --- the command


@pytest.mark.parametrize(("option", "situations"), [("--company", 1), ("--busy", 2)])
def test_calls_in_company_are_reported_against_one_thread(monkeypatch, capsys, tmp_path, option, situations):
    monkeypatch.setattr(run, "SHAPES", ((8, 768),))
    monkeypatch.setattr(run, "PEERS", ("numpy", "not_installed"))  # torch would be imported into this process
    path = tmp_path / "run.json"
    only = ("--only", "layer_norm_backward", "--only", "adamw_update")
    assert run.main([option, "--quick", *only, "--json", str(path)]) == 0
    rows = json.loads(path.read_text())[option[2:]]
    cpus = len(os.sched_getaffinity(0))
    for op in ("layer_norm_backward", "adamw_update"):
        found = [row for row in rows if row["op"] == op]
        assert len({row["situation"] for row in found}) == (situations if cpus > 1 else 1)
        for row in found:
            assert row["threads"] == pyreg.get_num_threads()
            assert row["times"].keys() == {"pyreg", "pyreg, 1 thread", "numpy"}
            assert all(times["p90"] >= times["median"] > 0 for times in row["times"].values())
            assert (row["product"] is None) == (option == "--busy")
    assert "of 1 thread" in capsys.readouterr().out
    assert against.read_run(str(path))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc of Linux")
def test_busy_processes_end_with_their_block():
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text().split()
    with in_company.busy_processes(2):
        assert len(children.read_text().split()) == len(before) + 2
    assert children.read_text().split() == before


def run_command(*arguments):
    made = subprocess.run([sys.executable, RUN, *arguments], capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr
    return made.stdout


def test_quick_run_checks_and_reports_every_peer_that_can_be_imported(tmp_path):
    path, cpus = tmp_path / "run.json", len(os.sched_getaffinity(0))
    output = run_command("--quick", "--json", path, "--threads", str(cpus))  # all CPUs: JAX runs on no other number
    made = json.loads(path.read_text())
    assert made["machine"].keys() == {"machine", "versions", "isa", "threads", "measured_threads", "peers"}
    assert made["machine"]["measured_threads"] == [cpus]
    peers = made["machine"]["peers"]
    # One that is installed may still fail to import, with a NumPy newer than it knows, say.
    assert {"numpy"} <= set(peers) <= {p for p in run.PEERS if importlib.util.find_spec(p)}
    rows = made["rows"]
    assert [(row["op"], tuple(row["shape"])) for row in rows] == [
        (title, shape) for title, operation in OPERATIONS.items() for shape in operation.sizes[:2]
    ]
    for row in rows:
        always = {"pyreg", "copy", "nontemporal copy", "numpy"}
        loop = {"update loop"} if row["op"] == "adamw_update" else set()
        assert always | loop <= row["times"].keys() <= always | loop | set(peers)
        assert row["ratios"].keys() == peers.keys()
        measured = {
            peer for peer, ratio in row["ratios"].items() if ratio is not None
        }  # a peer may lack an operation
        assert measured == row["times"].keys() & peers.keys()
        assert row["threads"] == cpus
        for times in row["times"].values():
            assert times.keys() == {"quartile1", "median", "quartile3", "mean", "p90"}
        for number in ("gb_per_s", "percent_of_copy"):
            assert row[number] > 0
        assert (row["percent_of_loop"] is None) == (not loop)
    for row in made["python_layer"]:
        assert row.keys() == {"op", "public", "core", "python_layer"}
    for title in OPERATIONS:
        assert f"\n{title}\n" in output  # the title of its table
    assert len(dict(against.rows_of(against.read_run(str(path))))) == len(rows)


@sixteen_bit
def test_a_run_in_16_bits_has_pytorch_beside_pyreg_and_no_updates(dtype, tmp_path):
    path, name = tmp_path / "run.json", np.dtype(dtype).name
    only = [part for op in ("layer_norm_backward", "dropout", "adamw_update") for part in ("--only", op)]
    output = run_command("--quick", "--dtype", name, *only, "--threads", "1", "--json", path)
    made = json.loads(path.read_text())
    assert made["dtype"] == name
    assert made["machine"]["peers"].keys() <= {"torch"}
    assert {row["op"] for row in made["rows"]} == {"layer_norm_backward", "dropout p=0.1", "dropout p=0.5"}
    for row in made["rows"]:
        assert row["bytes_moved"] == 2 * np.prod(row["shape"]) * (3 if row["op"] == "layer_norm_backward" else 2)
        assert row["times"].keys() == {"pyreg", "copy", "nontemporal copy", *made["machine"]["peers"]}
    assert f"pyreg's calls, {name};" in output
    assert len(dict(against.rows_of(against.read_run(str(path))))) == len(made["rows"])


@sixteen_bit
def test_the_gain_has_the_rates_of_float32_beside_those_of_the_dtype(dtype, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(in_gain, "SHAPES", ((8, 768), (16, 768)))
    path, name = tmp_path / "run.json", np.dtype(dtype).name
    arguments = ["--gain", "--quick", "--dtype", name, "--only", "dropout", "--json", str(path)]
    assert run.main([*arguments, "--threads", "1"]) == 0
    made = json.loads(path.read_text())
    assert [(row["op"], row["shape"]) for row in made["gain"]] == [
        (f"dropout p={p}", [rows, 768]) for p in (0.1, 0.5) for rows in (8, 16)
    ]
    for row in made["gain"]:
        assert row["times"].keys() == {"float32", "in cache", "low"}
        assert row["threads"] == 1
    assert f" {name}  gain  of limit\n" in capsys.readouterr().out


def test_the_gain_is_compared_with_twice_float32_or_float32_in_cache():
    for in_cache, percent in ((4, 75), (1.2, 125)):
        times = {
            "float32": times_of(60 / 1e6),
            "in cache": times_of(2 * in_gain.AT_ONCE * 6 / in_cache / 1e6),  # as if on each of two threads
            "low": times_of(60 / 1.5 / 1e6),
        }
        row = in_gain.GainRow("dropout p=0.1", (60, 768), few=6, threads=2, times=times)
        assert [row.rate(name) for name in times] == pytest.approx([1, in_cache, 1.5])
        assert row.gain() == pytest.approx(1.5)
        assert row.percent_of_limit() == pytest.approx(percent)


def test_rows_in_cache_have_all_arrays_in_half_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(in_gain, "CACHE", tmp_path / "size")
    backward = OPERATIONS["layer_norm_backward"]
    assert in_gain.rows_in_cache(backward, 1024) == 256 // 12  # the kernel does not tell: 512 KiB
    (tmp_path / "size").write_text("1024K\n")
    assert in_gain.rows_in_cache(backward, 1024) == 512 // 12
    assert in_gain.rows_in_cache(backward, 10**9) == 1


def test_sweep_and_isa_have_a_row_for_each_size_and_level(tmp_path):
    path = tmp_path / "run.json"
    run_command("--quick", "--sweep", "--isa", "--only", "dropout", "--threads", "1", "--json", path)
    made = json.loads(path.read_text())
    assert [row["size"] for row in made["sweep"]] == 2 * [8 * 768, 64 * 768, 512 * 768]
    assert all(list(row["seconds"]) == _core.isa_found() for row in made["isa"])
    assert len(made["isa"]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "expected numbers of threads"),
        (["--threads", "two"], "expected numbers of threads"),
        (["--threads", "99999999999"], "expected numbers of threads"),
        (["--plot", "run.xyz"], ".png"),
        (["--isa", "--compile"], "cannot be combined with"),
        (["--isa", "--threads", "3"], "measures on one thread"),
        (["--only", "softmax"], "invalid choice"),
        (["--json", "no/such/folder/run.json"], "cannot write"),
        (["--sweep", "--plot", "run.png"], "cannot be combined with"),
        (["--company", "--threads", "1"], "cannot be combined with"),
        (["--busy", "--sweep"], "cannot be combined with"),
        (["--company", "--only", "drop_path"], "measure only"),
        (["--dtype", "int8"], "invalid choice"),
        (["--dtype", "float16", "--company"], "float32 alone"),
        (["--dtype", "float16", "--only", "adamw_update"], "does not take float16"),
        (["--gain"], "needs --dtype"),
        (["--gain", "--dtype", "float16", "--isa"], "cannot be combined with"),
        (["--gain", "--dtype", "float16", "--plot", "run.png"], "cannot be combined with"),
    ],
)
def test_bad_flags_are_refused_before_anything_is_measured(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        run.parse_args(arguments)
    assert message in capsys.readouterr().err


def test_bfloat16_without_ml_dtypes_is_refused_with_a_word(monkeypatch, capsys):
    monkeypatch.setattr(run, "sixteen_bit_dtypes", lambda: (np.float16,))
    with pytest.raises(SystemExit, match="2"):
        run.parse_args(["--dtype", "bfloat16"])
    assert "the package ml_dtypes, which is not installed" in capsys.readouterr().err


def test_wrong_answer_names_the_peer_and_the_size():
    case = make_case("dropout p=0.1", (8, 768))
    with pytest.raises(WrongAnswer, match="numpy, dropout at 8 x 768"):
        compare.checked(case, "numpy", lambda: lambda: case.x)


def test_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from kernels.plot import plot

    rows = [make_row(title) for title in OPERATIONS]
    plot(tmp_path / "run.png", rows, "a machine")
    assert (tmp_path / "run.png").stat().st_size > 10_000
