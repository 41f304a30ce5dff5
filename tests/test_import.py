"""Importing pyreg: the choice of instruction set, and errors with a message that helps."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import LEVELS

import pyreg
from pyreg import _core


def python(code, **environment):
    command = [sys.executable, "-P", "-c", code]  # -P: do not import the checkout that pytest may run in
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
    )


CHOSEN = "import pyreg; print(pyreg.show_config('dicts')['isa']['chosen'])"


@pytest.mark.parametrize("level", LEVELS)
def test_pyreg_isa_chooses_the_level(level):
    assert python(CHOSEN, PYREG_ISA=level).stdout.strip() == level


def test_the_highest_level_is_chosen_by_default_and_baseline_is_the_lowest():
    assert python(CHOSEN, PYREG_ISA="").stdout.strip() == LEVELS[-1]
    assert python(CHOSEN, PYREG_ISA="baseline").stdout.strip() == _core.isa_built()[0]


@pytest.mark.parametrize("name", ["v5", "avx2", "V3"])
def test_an_unknown_level_is_an_import_error_that_says_what_there_is(name):
    made = python("import pyreg", PYREG_ISA=name)
    assert made.returncode == 1
    last = made.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: pyreg: PYREG_ISA:")
    assert f"'{name}' is unknown" in last
    assert all(level in last for level in _core.isa_built())


def test_a_level_that_the_processor_lacks_is_an_error():
    missing = [level for level in _core.isa_built() if level not in LEVELS]
    if not missing:
        pytest.skip("this processor has every level")
    made = python("import pyreg", PYREG_ISA=missing[0])
    assert made.returncode == 1
    assert "this processor lacks it" in made.stderr.strip().splitlines()[-1]


def test_a_checkout_that_was_not_built_says_what_to_do_in_one_line(tmp_path):
    package = Path(pyreg.__file__).parent
    ignore = shutil.ignore_patterns("*.so", "*.dylib", "__pycache__")
    shutil.copytree(package, tmp_path / "pyreg", ignore=ignore)
    # -S: without site-packages, where an editable install's import hook would find the core.
    libraries = [str(tmp_path), str(Path(np.__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {libraries}; import pyreg"
    made = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
    assert made.returncode == 1
    error = made.stderr.strip().splitlines()
    assert error[-1].startswith("ImportError: this is pyreg's source tree")
    assert "pip install ." in error[-1]
    assert "During handling" not in made.stderr


# The subinterpreter shares the interpreter's lock, because NumPy refuses those that do not.
SUBINTERPRETER = """
try:
    import _interpreters as interpreters  # from Python 3.13 on
    created = interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    created = interpreters.create(isolated=False)
interpreters.run_string(created, "try: import pyreg\\nexcept ImportError as error: print(error, flush=True)")
"""


@pytest.mark.skipif(
    not (find_spec("_interpreters") or find_spec("_xxsubinterpreters")), reason="no module creates interpreters"
)
@pytest.mark.parametrize("before", ["", "import pyreg"])
def test_in_a_subinterpreter_the_import_is_an_error_that_says_so(before):
    made = python(before + SUBINTERPRETER)
    assert made.returncode == 0, made.stderr
    assert "subinterpreter" in made.stdout


def test_importing_takes_nothing_but_numpy():
    code = "import sys, numpy; before = set(sys.modules); import pyreg; print(*set(sys.modules) - before)"
    new = {name.split(".")[0] for name in python(code).stdout.split()}
    assert new <= {"pyreg", *sys.stdlib_module_names} | {n for n in new if n.startswith("numpy")}


def test_show_config_tells_what_was_built_found_and_chosen(capsys):
    config = pyreg.show_config("dicts")
    assert config["isa"]["built"] == _core.isa_built()
    assert config["isa"]["found"] == LEVELS
    assert config["isa"]["chosen"] in LEVELS
    assert config["threads"]["num_threads"] == pyreg.get_num_threads()
    assert "omp" in config["threads"]["openmp_runtime"]
    assert config["versions"]["pyreg"] == pyreg.__version__
    assert re.match(r"(gcc \d|.*clang)", config["versions"]["compiler"], re.IGNORECASE)
    assert pyreg.show_config() is None
    printed = capsys.readouterr().out
    for section, entries in config.items():
        assert section in printed
        assert all(name in printed for name in entries)


def test_the_citation_is_of_this_version():
    citation = (Path(__file__).parents[1] / "CITATION.cff").read_text()
    assert f"\nversion: {pyreg.__version__}\n" in citation


def test_completion_shows_the_public_names_alone():
    assert dir(pyreg) == sorted([*pyreg.__all__, "__version__"])
    assert all(hasattr(pyreg, name) for name in dir(pyreg))
