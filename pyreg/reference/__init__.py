"""Every function on arrays in Python and NumPy, to be read and to be held against.

`pyreg.reference.layer_norm` is `pyreg.layer_norm` with another core behind it: signature, docstring and checks are
the same, and the mathematics is that of this folder. Each op's file mirrors the one of its name in csrc/kernels: the
same order of arithmetic, and with it the same bits. To read it, open the file: help() shows the public function.
"""

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np

from pyreg import _functions
from pyreg._functions import *  # noqa: F403 - for their names and types: they are replaced below


def _behind_its_check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, to be called as the compiled core's are: the last argument checks the others."""

    def call(*arguments: Any) -> Any:
        *others, check = arguments
        with np.errstate(all="ignore"):
            return function(*check(*others))

    return call


_files = [import_module(f"{__name__}.{file.name}") for file in iter_modules(__path__)]  # noqa: F405
_core = SimpleNamespace(
    **{
        name: _behind_its_check(value)
        for file in _files
        for name, value in vars(file).items()
        if isinstance(value, FunctionType) and value.__module__ == file.__name__
    }
)


def _with_core(function: FunctionType, core: object) -> FunctionType:
    """The same function, with another core behind it."""
    twin = FunctionType(function.__code__, function.__globals__ | {"_core": core}, function.__name__)
    twin.__defaults__, twin.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    twin.__annotations__, twin.__doc__ = function.__annotations__, function.__doc__
    twin.__module__ = __name__
    return twin


__all__ = [name for name in dir(_functions) if not name.startswith("_")]
globals().update({name: _with_core(getattr(_functions, name), _core) for name in __all__})
