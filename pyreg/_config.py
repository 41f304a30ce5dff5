"""What was built, found and chosen."""

import platform
from typing import Any

import numpy as np

from pyreg import _core


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Show how pyreg was built and what it uses on this machine.

    Parameters
    ----------
    mode : {"stdout", "dicts"}, optional
        Print it, or return it, as ``numpy.show_config`` does.

    Returns
    -------
    dict or None
        With "dicts": the versions; the instruction-set levels built, found on this processor and
        chosen (``PYREG_ISA`` caps it); the number of threads; the OpenMP runtime that is loaded.

    Raises
    ------
    ValueError
        Where `mode` is neither.

    Examples
    --------
    >>> import pyreg
    >>> sorted(pyreg.show_config("dicts"))
    ['isa', 'threads', 'versions']
    """
    config: dict[str, dict[str, Any]] = {
        "versions": {
            "pyreg": _core.__version__,
            "compiler": _core.compiler,
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
    if mode != "stdout":
        raise ValueError(f'mode must be "stdout" or "dicts", got {mode!r}')
    for section, entries in config.items():
        print(f"{section}:")
        for name, value in entries.items():
            print(f"  {name}: {', '.join(value) if isinstance(value, list) else value}")
    return None
