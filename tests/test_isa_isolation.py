"""No code of a higher instruction set can be reached on a processor that lacks it.

The kernels of all levels are linked into one module. If a level's translation unit emitted a function with a weak
symbol, the linker would merge it with its namesakes, and the rest of the module might run that level's instructions.
So every function with instructions that x86-64-v2 lacks must be local to its kernels.
"""

import platform
import re
import shutil
import subprocess

import pytest
from cases import BUILD_TYPE

from pyreg import _core

pytestmark = [
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="levels of x86-64"),
    pytest.mark.skipif(BUILD_TYPE != "Release", reason="inlines less, or has functions of a sanitizer"),
    pytest.mark.skipif(not (shutil.which("nm") and shutil.which("objdump")), reason="needs binutils"),
]


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def symbols():
    """(type, name) of each symbol. Local symbols are listed only if the module was not stripped."""
    listed = [line.split() for line in output_of("nm", _core.__file__).splitlines()]
    if not listed:
        pytest.skip("the module was stripped of its local symbols")
    return [tuple(fields[-2:]) for fields in listed]


# Vector instructions beyond SSE, mask registers, and the other instructions that v3 added.
NEWER = re.compile(
    r"%[yz]mm|%k[0-7]|\tv[a-z]|\t(shlx|shrx|sarx|mulx|andn|bzhi|pdep|pext|rorx|blsr|blsi|blsmsk|lzcnt|movbe)"
)


def test_functions_with_newer_instructions_are_local_kernels(symbols):
    kinds = {name: kind for kind, name in symbols}
    wide, function = set(), None
    for line in output_of("objdump", "-d", "--no-show-raw-insn", _core.__file__).splitlines():
        header = re.match(r"[0-9a-f]+ <(.+)>:", line)
        if header:
            function = header[1]
        elif re.search(NEWER, line):
            wide.add(function)
    assert any("layer_norm_forward" in name for name in wide)  # the search does find kernels
    for name in wide:
        assert "_GLOBAL__N_" in name, f"{name} is not in an anonymous namespace"
        assert kinds[name] == "t", f"{name} is not local: nm calls it {kinds[name]}"


def test_each_level_exports_its_two_tables(symbols):
    names = [name for _, name in symbols]
    for level in _core.isa_built():
        for prefix in ("f32", "f64"):
            assert [name for name in names if f"{prefix}_{level}" in name]
