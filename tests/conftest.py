"""Fixtures that run a test on every implementation there is."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

# `python -m pytest` puts the checkout, which is not built, before the installed package.
CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != CHECKOUT]

import pyreg  # noqa: E402
from pyreg import _core  # noqa: E402

LEVELS = _core.isa_found()
DTYPES = [np.float32, np.float64]


@pytest.fixture(params=["reference", *LEVELS])
def impl(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """pyreg at each instruction-set level of this machine, and its reference."""
    if request.param == "reference":
        yield pyreg.reference
        return
    chosen = _core.isa_chosen()
    _core.use_isa(request.param)
    yield pyreg
    _core.use_isa(chosen)


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction-set level of this machine, in use."""
    chosen = _core.isa_chosen()
    _core.use_isa(request.param)
    yield request.param
    _core.use_isa(chosen)


@pytest.fixture(params=DTYPES, ids=lambda dtype: dtype.__name__)
def dtype(request: pytest.FixtureRequest) -> type:
    return request.param


@pytest.fixture
def number_of_threads_restored() -> Iterator[None]:
    before = pyreg.get_num_threads()
    yield
    pyreg.set_num_threads(before)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)
