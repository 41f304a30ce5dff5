"""Fixtures: every implementation, function and dtype. The reference's masks are drawn once."""

import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

# `python -m pytest` puts the checkout, which is not built, on sys.path before the installed package.
CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != CHECKOUT]

from cases import DTYPES, LEVELS, dtypes_of, isa  # noqa: E402

import pyreg  # noqa: E402
from pyreg._cases import CASES  # noqa: E402


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with a `case` runs for each public function on arrays, one with a `dtype` too for each dtype of x.

    A test with a `dtype` alone runs for float32 and float64, unless it says otherwise.
    """
    cases = getattr(metafunc.function, "cases", CASES.values())
    wanted = {"case", "dtype"}.intersection(metafunc.fixturenames)
    if wanted == {"case", "dtype"}:
        all_dtypes = [(case, dtype) for case in cases for dtype in dtypes_of(case)]
        pairs = getattr(metafunc.function, "pairs", all_dtypes)
        names = [f"{case.name}-{dtype.__name__}" for case, dtype in pairs]
        metafunc.parametrize(("case", "dtype"), pairs, ids=names)
    elif wanted == {"case"}:
        metafunc.parametrize("case", cases, ids=[case.name for case in cases])
    elif wanted and not any(mark.args[0] == "dtype" for mark in metafunc.definition.iter_markers("parametrize")):
        metafunc.parametrize("dtype", DTYPES)


@pytest.fixture(scope="session", autouse=True)
def masks_of_the_reference_are_drawn_once() -> Iterator[None]:
    """Function after function draws the same masks, and drawing takes most of the reference's time."""
    dropout, drop_path = (import_module(f"pyreg.reference.{name}") for name in ("dropout", "drop_path"))
    kept = dropout.kept

    @lru_cache(maxsize=1024)
    def kept_once(*arguments):
        mask = kept(*arguments)
        mask.flags.writeable = False
        return mask

    with pytest.MonkeyPatch.context() as patch:
        for module in (dropout, drop_path):
            patch.setattr(module, "kept", kept_once)
        yield


@pytest.fixture(params=["reference", *LEVELS])
def impl(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """pyreg at each instruction-set level of this machine, and its reference."""
    if request.param == "reference":
        yield pyreg.reference
        return
    with isa(request.param):
        yield pyreg


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction-set level of this machine, while it is in use."""
    with isa(request.param):
        yield request.param


@pytest.fixture
def number_of_threads_restored() -> Iterator[None]:
    before = pyreg.get_num_threads()
    yield
    pyreg.set_num_threads(before)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)
