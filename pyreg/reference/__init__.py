"""Every function on arrays in Python and NumPy, to read and to compare with. The optimiser classes here call them.

`pyreg.reference.layer_norm` is `pyreg.layer_norm` with another core: the signature, docstring and checks are the
same, but the mathematics is in this folder. The file of each op mirrors the file of that name in csrc/kernels: the
order of arithmetic is the same, and so are the bits. (global_norm.py, which l2_penalty.py uses, mirrors
kernels/sum_of_squares.h and csrc/exact_sum.h; sum_duplicate_rows.py, the file of that name in csrc/ops.) To read an
op, open its file: help() shows the public function.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np

from pyreg import _functions, _optimizers
from pyreg._functions import *  # noqa: F403 - for names and types; replaced below
from pyreg._optimizers import SGD as SGD
from pyreg._optimizers import Adam as Adam
from pyreg._optimizers import AdamW as AdamW


def _behind_its_check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, called like one of the compiled core: the last argument checks the others."""

    def call(*arguments: Any) -> Any:
        *others, check = arguments
        with np.errstate(all="ignore"):
            return function(*check(*check(*others)))  # the first may only convert (csrc/functions.h)

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
    """The same function, with another core in place of the compiled one."""
    twin = FunctionType(function.__code__, function.__globals__ | {"_core": core}, function.__name__)
    twin.__defaults__, twin.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    twin.__annotations__, twin.__doc__ = function.__annotations__, function.__doc__
    twin.__module__ = __name__
    return twin


def _with_reference(optimizer: type) -> type:
    """The same class, with the updates of this module."""
    own = {
        "__module__": __name__,
        "__doc__": optimizer.__doc__,
        "_functions": sys.modules[__name__],
        "_has_core": False,
    }
    return type(optimizer.__name__, (optimizer,), own)


_names = [name for name in dir(_functions) if not name.startswith("_")]
globals().update({name: _with_core(getattr(_functions, name), _core) for name in _names})
_classes = ["Adam", "AdamW", "SGD"]
globals().update({name: _with_reference(getattr(_optimizers, name)) for name in _classes})
__all__ = sorted([*_classes, *_names])
