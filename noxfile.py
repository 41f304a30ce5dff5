"""One-line tasks, each in its own environment: nox -s tests."""

import os
import platform
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"  # for default=


@nox.session
def tests(session: nox.Session) -> None:
    """The suite, on the installed package."""
    session.install(".[test]")
    session.run("pytest", *session.posargs)


@nox.session(default=False)
def wheel(session: nox.Session) -> None:
    """The sdist, the wheel, and the suite on it."""
    session.install(".[wheel]")
    session.run("pytest", "-m", "slow", *session.posargs)


# What each preset of CMakePresets.json needs: libraries to load before Python, variables, and arguments of pytest.
# --capture=sys lets the sanitizers' reports through.
CHECKS = {
    "debug": ([], {}, []),
    "asan": (
        ["asan", "stdc++"],
        {
            # Python and NumPy free little at exit. Workers use variables on their caller's stack.
            "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
            "PYTHONMALLOC": "malloc",
        },
        ["--capture=sys"],
    ),
    "tsan": (
        ["tsan", "stdc++"],
        {"TSAN_OPTIONS": f"die_after_fork=0:suppressions={Path('tests/tsan.supp').resolve()}"},
        ["--capture=sys", "-k", "thread"],
    ),
}


def built_by(preset: str) -> list[str]:
    """Pip's options for a build by this preset of CMakePresets.json."""
    settings = f"build-dir=build/{preset}", f"cmake.build-type={preset}", f"cmake.args=--preset={preset}"
    return [f"-C{setting}" for setting in settings]


@nox.session(default=False)
def sanitize(session: nox.Session) -> None:
    """The suite on a build that checks itself: nox -s sanitize -- asan, debug or tsan."""
    preset, *arguments = session.posargs
    libraries, environment, options = CHECKS[preset]
    session.install(".[test]", *built_by(preset))
    compiler = os.environ.get("CXX", "g++")
    find = (f"-print-file-name=lib{name}.so" for name in libraries)
    preload = "".join(session.run(compiler, name, external=True, silent=True) for name in find)
    session.run("pytest", *options, *arguments, env=environment | {"LD_PRELOAD": preload.replace("\n", " ")})


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """The lines of pyreg/ and csrc/ that the suite does not reach."""
    session.install(".[test]", "coverage>=7.10", "gcovr>=8", *built_by("coverage"))
    # coverage has a lock that code in a signal handler may wait for.
    test_signals = "tests/test_endurance.py::test_signals_during_calls_change_no_result"
    session.run("coverage", "run", "-m", "pytest", f"--deselect={test_signals}", *session.posargs)
    session.run("coverage", "combine")
    session.run("coverage", "report")
    session.run("gcovr", "build/coverage")


@nox.session
def lint(session: nox.Session) -> None:
    """The hooks of .pre-commit-config.yaml."""
    session.install("pre-commit>=4")
    session.run("pre-commit", "run", "--all-files", "--show-diff-on-failure", *session.posargs)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """The pages of docs/. Warnings are errors."""
    session.install(".[docs]")
    session.run("sphinx-build", "-W", "docs", "docs/_build", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Speed against a copy and against NumPy."""
    session.install(".[bench]")
    session.run("python", "bench/run.py", *session.posargs)


@nox.session(default=False)
def aarch64(session: nox.Session) -> None:
    """The digests on aarch64: the core built by a cross-compiler, with NumPy's wheel, in Debian's Python under QEMU.

    On Debian, as root: apt-get install g++-aarch64-linux-gnu mmdebstrap qemu-user
    """
    session.install("cmake>=3.24", "ninja", "pybind11>=3,<4")
    folder = Path("build/aarch64").resolve()
    debian, build, site = folder / "debian", folder / "core", folder / "site"
    folder.mkdir(parents=True, exist_ok=True)
    if not debian.exists():
        packages = "--include=python3,libpython3-dev,libstdc++6,libgomp1"
        suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
        extract = ("mmdebstrap", "--variant=extract", "--architectures=arm64", packages, suite, str(debian))
        session.run(*extract, external=True)
    python = debian / "usr/bin/python3"
    python = python.with_name(str(python.readlink()))  # python3.11
    headers = debian / "usr/include"
    session.run(
        *("cmake", "-S", ".", "-B", str(build), "-G", "Ninja"),
        *("-D", "CMAKE_SYSTEM_NAME=Linux", "-D", "CMAKE_SYSTEM_PROCESSOR=aarch64"),
        *("-D", "CMAKE_CXX_COMPILER=aarch64-linux-gnu-g++", "-D", f"CMAKE_CXX_FLAGS=-idirafter {headers}"),
        *("-D", f"Python_INCLUDE_DIR={headers / python.name}", "-D", "PYTHON_MODULE_EXTENSION=.so"),
        *("-D", f"pybind11_DIR={session.run('python', '-m', 'pybind11', '--cmakedir', silent=True).strip()}"),
    )
    session.run("cmake", "--build", str(build))
    shutil.rmtree(site, ignore_errors=True)
    session.run(
        *("python", "-m", "pip", "install", "--target", str(site), "--only-binary=:all:", "numpy>=2"),
        *("--platform=manylinux_2_28_aarch64", "--python-version", python.name.removeprefix("python")),
    )
    shutil.copytree("pyreg", site / "pyreg")
    shutil.copy(build / "_core.so", site / "pyreg")
    for threads in ("1", "2"):
        made = session.run(
            *("qemu-aarch64", "-L", str(debian), str(python), "-P", "-m", "pyreg", "--digests"),
            env={"PYTHONHOME": str(debian / "usr"), "PYTHONPATH": str(site), "OMP_NUM_THREADS": threads},
            external=True,
            silent=True,
        )
        # There is no ml_dtypes, so a sentence stands in place of bfloat16's lines.
        lines, wanted = made.splitlines(), Path("tests/digests.txt").read_text().splitlines()
        if any(line not in lines for line in wanted if "bfloat16" not in line):
            session.error(f"tests/digests.txt has other lines than aarch64 on {threads} threads:\n{made}")
