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
from pyreg._digests import digests

TEXT = (Path(__file__).parent / "digests.txt").read_text()
EXPECTED = TEXT.splitlines()


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
        y[-1, -1] = np.nextafter(y[-1, -1], 7)
        return y

    monkeypatch.setattr(pyreg, "dropout", wrong)
    changed = [line.split("  ")[1] for line in set(digests()) - set(EXPECTED)]
    assert sorted(changed) == ["all", "dropout, float32", "dropout, float64"]
