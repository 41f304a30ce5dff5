"""The configuration: what was built, found and chosen."""

import platform
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from pyreg import _core


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, dict[str, Any]]: ...
def show_config(mode: str = "stdout") -> dict[str, dict[str, Any]] | None:
    """Show how pyreg was built and what it uses on this machine.

    Parameters
    ----------
    mode : {"stdout", "dicts"}, optional
        Whether to print the configuration or return it, as in ``numpy.show_config``.

    Returns
    -------
    dict or None
        With "dicts": the machine; the versions; the instruction-set levels that were built, that this processor
        has, and the one in use (set by ``PYREG_ISA``); the number of threads; the path of the OpenMP runtime.

    Raises
    ------
    ValueError
        If `mode` is neither.

    Examples
    --------
    >>> import pyreg
    >>> sorted(pyreg.show_config("dicts"))
    ['isa', 'machine', 'threads', 'versions']
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f'mode must be "stdout" or "dicts", got {mode!r}')
    config: dict[str, dict[str, Any]] = {
        "machine": {"cpu": cpu_model(), "system": platform.platform()},
        "versions": {
            "pyreg": _core.__version__,
            "compiler": _core.compiler,
            "build_type": _core.build_type,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "isa": {
            "built": _core.isa_built(),
            "found": _core.isa_found(),
            "chosen": _core.isa_chosen(),
        },
        "threads": {
            "num_threads": _core.get_num_threads(),
            "openmp_runtime": _core.openmp_runtime(),
        },
    }
    if mode == "dicts":
        return config
    for section, entries in config.items():
        print(f"{section}:")
        for name, value in entries.items():
            print(f"  {name}: {', '.join(value) if isinstance(value, list) else value}")
    return None


def cpu_model() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
