"""pyreg.mpi on 1, 2 and 4 ranks of this machine. What each rank does is in mpi_steps.py and the like.

Every job has a time limit: one that hangs fails.
"""

import inspect
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from bits import assert_same_bits

import pyreg

pytest.importorskip("mpi4py")
pytest.importorskip("ml_dtypes")

from kernels import mpi

LIMIT = 120  # seconds; a job takes one or two
BENCH = Path(__file__).parents[1] / "bench"
PAGE = Path(__file__).parents[1] / "docs" / "mpi.md"
AS_ROOT = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "PRTE_ALLOW_RUN_AS_ROOT")

on_each_number_of_ranks = pytest.mark.parametrize("ranks", [1, 2, 4])
on_several_ranks = pytest.mark.parametrize("ranks", [2, 4])
each_kind = pytest.mark.parametrize("kind", ["AdamW", "Adam", "SGD"])


@pytest.fixture(autouse=True)
def open_mpi_runs_as_root_in_a_container(monkeypatch):
    for name in (*AS_ROOT, "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM"):
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def start(ranks, program, function, *arguments):
    path = Path(__file__).with_name(f"mpi_{program}.py")
    return mpi.start(ranks, str(path), function, *map(str, arguments), limit=LIMIT)


def on_ranks(ranks, program, function, *arguments):
    """Run a function of a program on this many ranks. All of them return normally."""
    made = start(ranks, program, function, *arguments)
    assert made.returncode == 0, made.stdout + made.stderr


# --- steps


@each_kind
@on_each_number_of_ranks
def test_steps_have_the_bits_of_one_process(ranks, kind):
    on_ranks(ranks, "steps", "steps_have_the_bits_of_one_process", kind)


def test_a_number_of_ranks_that_is_no_power_of_two():
    on_ranks(3, "steps", "steps_have_the_bits_of_one_process", "AdamW")


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
@on_each_number_of_ranks
def test_low_precision_is_summed_in_float32_and_rounded_by_the_same_random_numbers(ranks, kind):
    on_ranks(ranks, "steps", "low_precision_is_summed_in_float32", kind)


@pytest.mark.parametrize(
    "function",
    [
        "gradients_of_mixed_dtypes_are_summed",
        "copies_alone_are_exchanged_until_parameters_are_gathered",
        "mpis_own_reduction_is_right",
        "accumulated_gradients_are_added_in_order",
        "a_gradient_that_is_not_finite_on_one_rank_is_skipped_on_all",
        "the_sign_of_a_zero_is_that_of_the_sum",
        "shards_of_unequal_length_are_exchanged",
        "params_come_in_iterators",
        "states_are_divided",
        "ranks_share_the_cpus",
        "a_lower_number_of_threads_stays",
        "a_message_of_the_caller_stays_the_callers",
        "ranks_of_a_part_of_the_job",
    ],
)
@on_each_number_of_ranks
def test_on_ranks(ranks, function):
    on_ranks(ranks, "steps", function)


@pytest.mark.parametrize("param_out", ["param_out", "stochastic"])
@on_each_number_of_ranks
def test_parameters_are_added_later(ranks, param_out):
    on_ranks(ranks, "steps", "parameters_are_added_later", param_out)


def test_communicators_are_freed():
    on_ranks(1, "steps", "communicators_are_freed")


def test_omp_num_threads_of_some_ranks():
    on_ranks(2, "steps", "omp_num_threads_is_set_on_one_rank")


def test_omp_num_threads_takes_precedence(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    on_ranks(2, "steps", "omp_num_threads_takes_precedence")


# --- checkpoints


@each_kind
@pytest.mark.parametrize("loaded", ["shards", "whole", "whole on rank 0"])
def test_a_state_is_restored_at_another_number_of_ranks_to_the_same_bits(kind, loaded, tmp_path):
    on_ranks(2, "checkpoints", "saved_and_resumed", kind, tmp_path, "none", 2, 2)
    on_ranks(4, "checkpoints", "saved_and_resumed", kind, tmp_path, loaded, 1, 3)
    on_ranks(1, "checkpoints", "saved_and_resumed", kind, tmp_path, loaded, 1, 4)
    on_ranks(2, "checkpoints", "saved_and_resumed", kind, tmp_path, loaded, 2, 6)


@on_each_number_of_ranks
def test_shards_that_are_missing_or_damaged_are_refused(ranks, tmp_path):
    on_ranks(ranks, "checkpoints", "shards_that_are_missing_or_damaged_are_refused", tmp_path / "shards")


@on_each_number_of_ranks
def test_no_shard_is_replaced_unless_all_ranks_can_write(ranks, tmp_path):
    on_ranks(ranks, "checkpoints", "nothing_is_replaced_unless_all_can_write", tmp_path / "shards")


@on_each_number_of_ranks
def test_a_damaged_file_of_a_whole_state_is_refused(ranks, tmp_path):
    on_ranks(ranks, "checkpoints", "a_damaged_file_of_a_whole_state_is_refused", tmp_path / "state.npz")


@on_each_number_of_ranks
def test_states_that_do_not_fit_are_refused(ranks):
    on_ranks(ranks, "checkpoints", "states_that_do_not_fit_are_refused")


# --- errors


@pytest.mark.parametrize(
    "function",
    [
        "what_is_not_supported_says_so",
        "what_would_stop_an_update_is_found_before",
        "numbers_beyond_the_dtype_raise_nothing",
    ],
)
@on_each_number_of_ranks
def test_on_ranks_that_go_wrong(ranks, function):
    on_ranks(ranks, "errors", function)


@on_several_ranks
def test_optimisers_are_not_confused(ranks):
    on_ranks(ranks, "errors", "optimisers_are_not_confused")


@on_several_ranks
def test_ranks_that_disagree_are_told_on_all(ranks):
    on_ranks(ranks, "errors", "ranks_that_disagree_are_told")


@on_several_ranks
def test_an_exception_in_one_rank_ends_the_job_with_its_traceback(ranks):
    made = start(ranks, "errors", "one_rank_raises")
    assert made.returncode != 0
    assert "KeyError: 'of this rank alone'" in made.stderr
    assert "in one_rank_raises" in made.stderr


@on_several_ranks
def test_a_rank_that_is_killed_ends_the_job(ranks):
    assert start(ranks, "errors", "one_rank_is_killed").returncode != 0


@pytest.mark.parametrize("error", ["ImportError", "RuntimeError"])  # without mpi4py, and without an MPI
def test_without_an_mpi_the_import_says_what_to_install(error, tmp_path):
    (tmp_path / "mpi4py.py").write_text(f"raise {error}('no mpi4py here')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import pyreg; import pyreg.mpi"
    made = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert made.returncode == 1
    last = made.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: pyreg.mpi needs mpi4py and an MPI (no mpi4py here)")
    assert "pip install 'pyreg[mpi]'" in last


def test_pyreg_does_not_import_it():
    code = "import pyreg, sys; sys.exit('mpi4py' in sys.modules or 'pyreg.mpi' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code]).returncode == 0


# --- signatures and documentation


@each_kind
def test_the_arguments_are_those_of_the_class_and_the_communicator(kind):
    from pyreg import mpi as own

    ours = inspect.signature(getattr(own, f"Sharded{kind}")).parameters
    theirs = inspect.signature(getattr(pyreg, kind)).parameters
    assert list(ours) == ["comm", *theirs, "op", "reduce"]
    for name, parameter in theirs.items():
        assert ours[name] == parameter


def test_the_examples_run():
    on_ranks(1, "errors", "the_examples_run")


@on_each_number_of_ranks
def test_the_snippets_of_the_page_run(ranks, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 4
    (tmp_path / "example.py").write_text("\n".join(blocks))
    monkeypatch.chdir(tmp_path)
    made = mpi.start(ranks, "example.py", limit=LIMIT)
    assert made.returncode == 0, made.stdout + made.stderr
    assert f"\n```\n{made.stdout}```\n" in PAGE.read_text()
    assert len(list((tmp_path / "step-200").iterdir())) == ranks


# --- where arrays are cut


LENGTHS = [0, 1, 16383, 16384, 16385, 100_000, 3, 3, 70_000]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize("order", ["C", "F"])
def test_shards_are_cut_at_blocks_of_each_array_and_are_even(ranks, order):
    from pyreg.mpi._shards import BLOCK, Shards

    params = [np.zeros((2, length), order=order) for length in LENGTHS]
    shards = Shards(3, params, ranks)
    sizes = [param.size for param in params]
    total, largest = sum(sizes), max(sizes)
    assert (shards.starts[0], shards.starts[-1]) == (0, total)
    assert shards.places == range(3, 3 + len(params))
    for place, param in zip(shards.places, params, strict=True):
        parts = [shards.part(rank, place) for rank in range(ranks)]
        filled = {rank: part for rank, part in enumerate(parts) if part.size}
        assert shards.parts(place) == filled
        assert sum(part.size for part in parts) == param.size
        assert {part.place for part in parts} == {place}
        ends = [part.end for part in filled.values()]
        assert [part.begin for part in filled.values()] == [0, *ends[:-1]][: len(ends)]
        assert all(end == param.size or (param.flags.c_contiguous and end % BLOCK == 0) for end in ends)
    for start, stop in pairwise(shards.starts):
        assert stop - start <= total / ranks + (BLOCK if order == "C" else largest)


def test_a_block_is_that_of_norm_partial():
    from pyreg.mpi._shards import BLOCK

    assert [len(pyreg.norm_partial(np.ones(BLOCK + more))) for more in (0, 1)] == [1, 2]


def test_messages_hold_every_part_once_and_are_not_too_long():
    from pyreg.mpi._messages import LEAST, Kind, in_buffer_order, messages
    from pyreg.mpi._shards import Part

    sizes = [5, 40_000, 7, 100, 3, LEAST, LEAST - 1, LEAST - 1, 60_001, 9]
    parts = in_buffer_order([Part(place, 10, 10 + size) for place, size in enumerate([0, *sizes])])
    kinds = [Kind("float32")] * (len(parts) + 1)
    kinds[3], kinds[5] = None, Kind("float16")
    most = 2 * LEAST
    made = messages(parts, kinds, most)
    seen, at = {}, 0
    for message in made:
        assert message.begin >= at  # in the order of the buffer, where parts without a kind leave gaps
        assert message.size == sum(part.size for part in message.parts) <= most
        assert len(message.parts) == 1 or all(part.size < LEAST for part in message.parts)
        assert {kinds[part.place] for part in message.parts} == {message.kind}
        at = message.end
        for part in message.parts:
            seen.setdefault(part.place, []).append(part)
    assert 3 not in seen
    for part in parts:
        if kinds[part.place] is not None:
            pieces = seen[part.place]
            assert (pieces[0].begin, pieces[-1].end) == (part.begin, part.end)
            assert all(a.end == b.begin for a, b in pairwise(pieces))
    assert max(len(message.parts) for message in made) > 1


@pytest.mark.parametrize("order", ["C", "F", (1, 2, 0), (2, 0, 1)])
def test_one_axis_has_the_order_of_memory_and_back(order):
    from pyreg.mpi._shards import flat, shaped

    array = np.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    array = np.asarray(array, order=order) if isinstance(order, str) else array.transpose(order)
    line = flat(array)
    assert np.shares_memory(line, array)
    assert line.strides == (8,)
    assert line[0] == array[0, 0, 0]  # where the memory begins
    back = shaped(line, array)
    assert np.shares_memory(back, array)
    assert_same_bits(back, array)
    assert back.strides == array.strides
