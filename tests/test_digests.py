"""`python -m pyreg --digests` prints digests.txt on every machine, at every level, on any number of threads.

If a line changes, the bits of a result have changed, or the table of cases has. CHANGELOG.md must name each function
whose bits have changed. To update the file: `python -m pyreg --digests > tests/digests.txt`.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import LEVELS

import pyreg
from pyreg import _cases
from pyreg._digests import digests

TEXT = (Path(__file__).parent / "digests.txt").read_text()
EXPECTED = TEXT.splitlines()

pytest.importorskip("ml_dtypes")


@pytest.mark.parametrize("threads", [1, 2])
def test_every_level_gives_the_digests_on_any_number_of_threads(level, threads):
    with pyreg.num_threads(threads):
        assert digests() == EXPECTED


def test_the_reference_gives_the_digests():
    assert digests(pyreg.reference) == EXPECTED


@pytest.mark.parametrize("isa", ["baseline", *LEVELS])
@pytest.mark.parametrize("threads", ["1", "2", "3"])
def test_the_command_prints_the_digests_whatever_pyreg_isa_and_omp_num_threads_say(isa, threads):
    command = [sys.executable, "-P", "-m", "pyreg", "--digests"]
    environment = os.environ | {"PYREG_ISA": isa, "OMP_NUM_THREADS": threads}
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert made.stdout == TEXT


def test_the_digests_do_not_depend_on_numpys_random_numbers(monkeypatch):
    right = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: right([1, *seed]))
    assert digests() == EXPECTED


def test_one_ulp_changes_the_functions_lines_and_the_last(monkeypatch):
    right = pyreg.dropout

    def wrong(*arguments, **options):
        y = right(*arguments, **options)
        y[-1, -1] = np.nextafter(y[-1, -1], y.dtype.type(7))
        return y

    monkeypatch.setattr(pyreg, "dropout", wrong)
    changed = [line.split("  ")[1] for line in set(digests()) - set(EXPECTED)]
    functions = [f"dropout, {dtype}" for dtype in ("bfloat16", "float16", "float32", "float64")]
    assert sorted(changed) == ["all", "all, bfloat16", "all, float16", *functions]


def test_without_ml_dtypes_a_line_says_that_bfloat16_is_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert _cases.sixteen_bit_dtypes() == (np.float16,)
    *lines, last = digests()
    assert lines == [line for line in EXPECTED if "bfloat16" not in line]
    assert last == "no digests of bfloat16: ml_dtypes is not installed"
