"""The fuzzer finds mistakes that are made on purpose, and the script that it prints makes the call again."""

import multiprocessing
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cases import BUILD_TYPE

pytestmark = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")

FOLDER = str(Path(__file__).parent)

# Every function with an out gets a mistake.
BROKEN = """
import ctypes
import numpy as np
import pyreg
from pyreg._cases import CASES

def broken(right, case):
    out, result = next(iter(case.outs.items()))

    def function(**arguments):
        given = arguments.get(out)
        try:
            returned = right(**arguments)
        except Exception:
            {if_refused}
            raise
        array = getattr(returned, result) if len(case.results) > 1 else returned
        {after}
        return returned

    return function

for case in CASES.values():
    if case.outs:
        setattr(pyreg, case.name, broken(getattr(pyreg, case.name), case))
"""
MISTAKES = {  # after a call, or if the call is refused; and what is found
    "a bit is flipped": (
        {"after": "if array.size > 40: array.view(np.uint8).reshape(-1)[160] ^= 1"},
        "1 elements differ",
    ),
    "a byte after the out is written": (
        {"after": "if given is not None: ctypes.memset(given.ctypes.data + given.nbytes, 1, 1)"},
        "writes into or beside|SIGSEGV|SIGBUS",
    ),
    "a byte before the out is read": (
        {"after": "if given is not None: ctypes.string_at(given.ctypes.data - 1, 1)"},
        "SIGSEGV|SIGBUS" if BUILD_TYPE != "asan" else "the process ended: status",  # by the sanitizer
    ),
    "the out is cleared before the call is refused": (
        {"if_refused": "if type(given) is np.ndarray and given.flags.writeable: given.fill(0)"},
        "writes into or beside",
    ),
    "an error has another message": ({"if_refused": "raise TypeError('wrong')"}, "TypeError: wrong"),
}


def run(code, *arguments):
    command = [sys.executable, "-P", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def fuzz(minutes, before=""):
    code = f"{before}\nimport sys\nsys.path.insert(0, {FOLDER!r})\nimport fuzz\nsys.exit(fuzz.main(sys.argv[1:]))"
    return run(code, "--minutes", str(minutes), "--seed", "1")


def test_a_short_run_finds_no_failure():
    made = fuzz(0.05)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "seed 1: no failure" in made.stdout
    assert int(re.search(r"^\(all\) +(\d+)", made.stdout, re.MULTILINE)[1]) > 0


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_and_the_printed_script_makes_it_again(mistake):
    changes, found = MISTAKES[mistake]
    before = BROKEN.format(**{"after": "pass", "if_refused": "pass"} | changes)
    made = fuzz(2, before)
    assert made.returncode == 1, made.stdout + made.stderr
    assert re.search(found, made.stdout), made.stdout
    assert "the call fails again" in made.stdout
    script = re.search("# --- the call again\n(.*)# --- end\n", made.stdout, re.DOTALL)[1]
    again = run(before + script)
    if again.returncode > 0:
        assert re.search(found, again.stderr), again.stderr
    else:
        assert again.returncode < 0, "the script finds nothing"
        assert "SIG" in found
    exec(script, {})  # without the mistake, it finds nothing
