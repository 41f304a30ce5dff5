"""The number of threads that the functions use."""

import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import SupportsIndex

from pyreg import _check, _core

_MOST = 2**31 - 1


def get_num_threads() -> int:
    """Return how many threads a call from this thread may use.

    The default is ``OMP_NUM_THREADS`` or, if that is not set, the number of CPUs that this process may use,
    limited by the CPU quota of its cgroup. A limit set on OpenMP (``threadpoolctl``) is respected, unless it
    equals OpenMP's default, which cannot be distinguished from no limit.

    Returns
    -------
    int
        At least 1. This is an upper limit: a call uses one thread if its arrays are small or if another thread
        would cost more than it gains.

    Examples
    --------
    >>> import pyreg
    >>> pyreg.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


def set_num_threads(n: SupportsIndex) -> None:
    """Set how many threads the functions use, in the whole process.

    The results do not depend on this number. Inside a ``with num_threads(...)`` block, the number of the
    block still applies.

    Parameters
    ----------
    n : int
        At least 1. It may exceed the number of CPUs, but at most four threads per CPU are ever used.

    Raises
    ------
    TypeError
        If n is not an integer.
    ValueError
        If n is less than 1.

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
    """Set how many threads the functions use inside a ``with`` block.

    The number applies to the calling thread; other threads of the process keep theirs. So do not await or
    yield inside the block: code that runs on this thread meanwhile would use the number of the block.

    Parameters
    ----------
    n : int
        At least 1.

    Returns
    -------
    context manager
        For use in a ``with`` statement. By itself it does nothing.

    Raises
    ------
    TypeError
        If n is not an integer.
    ValueError
        If n is less than 1.

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
    """The lowest CPU quota of this process's cgroup and its ancestors, in CPUs; infinity if there is none."""
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
    """Lower the default to the cgroup's quota, unless OMP_NUM_THREADS sets the default."""
    if not os.environ.get("OMP_NUM_THREADS"):
        granted = _cgroup_cpus()
        if granted < _core.get_num_threads():
            _core.set_num_threads(max(1, math.ceil(granted)))


_respect_cgroup()
