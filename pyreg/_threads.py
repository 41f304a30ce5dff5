"""How many threads the functions use."""

import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import SupportsIndex

from pyreg import _check, _core

_MOST = 2**31 - 1


def get_num_threads() -> int:
    """How many threads a call from this thread may use.

    By default what ``OMP_NUM_THREADS`` says; without it, the CPUs that this process may use, the CPU
    quota of its cgroup counted. A limit that is put on OpenMP (``threadpoolctl``) is respected, unless it is
    the default, which cannot be told from no limit.

    Returns
    -------
    int
        At least 1. It is a limit: small arrays are worked on by one thread all the same, and so is a call where
        another thread would cost more than it gains.

    Examples
    --------
    >>> import pyreg
    >>> pyreg.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


def set_num_threads(n: SupportsIndex) -> None:
    """Set how many threads the functions use, in the whole process.

    The results do not depend on it. Inside of a ``with num_threads(...)`` block that block's number
    holds on.

    Parameters
    ----------
    n : int
        At least 1; more than there are CPUs is allowed, but no more than four for each are ever used.

    Raises
    ------
    TypeError
        Where n is not an integer.
    ValueError
        Where n is less than 1.

    Examples
    --------
    >>> import pyreg
    >>> before = pyreg.get_num_threads()
    >>> pyreg.set_num_threads(2)
    >>> pyreg.get_num_threads()
    2
    >>> pyreg.set_num_threads(before)
    """
    _core.set_num_threads(_check.integer("n", n, low=1, high=_MOST))


def num_threads(n: SupportsIndex) -> AbstractContextManager[None]:
    """Context manager: how many threads the functions use in a ``with`` block.

    It holds for the calling thread; others of the process go on with their number. So nothing should be
    awaited or yielded inside of the block: what runs meanwhile would run with its number.

    Parameters
    ----------
    n : int
        At least 1.

    Returns
    -------
    context manager
        To be used in a ``with`` statement; by itself it does nothing.

    Raises
    ------
    TypeError
        Where n is not an integer.
    ValueError
        Where n is less than 1.

    Examples
    --------
    >>> import pyreg
    >>> with pyreg.num_threads(1):
    ...     pyreg.get_num_threads()
    1
    """
    return _scoped_num_threads(_check.integer("n", n, low=1, high=_MOST))


@contextmanager
def _scoped_num_threads(n: int) -> Iterator[None]:
    former = _core.set_scoped_num_threads(n)
    try:
        yield
    finally:
        _core.set_scoped_num_threads(former)


def _cgroup_cpus(root: Path = Path("/")) -> float:
    """The CPUs that this process's cgroup and those above it grant; infinite where none says."""
    cpus = math.inf
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return cpus
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            base, read = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            base, read = root / "sys/fs/cgroup/cpu", _quota_v1
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            cpus = min(cpus, read(folder))
            if folder == base:
                break
    return cpus


def _quota_v2(folder: Path) -> float:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf


def _quota_v1(folder: Path) -> float:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return math.inf if quota < 0 else quota / int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return math.inf


def _respect_cgroup() -> None:
    """Lowers the default to the cgroup's quota, where OMP_NUM_THREADS does not set it."""
    if not os.environ.get("OMP_NUM_THREADS"):
        granted = _cgroup_cpus()
        if granted < _core.get_num_threads():
            _core.set_num_threads(max(1, math.ceil(granted)))


_respect_cgroup()
