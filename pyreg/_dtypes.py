"""The dtypes of arrays. Those of 16 bits, float16 and bfloat16, are computed in float32.

bfloat16 is that of ml_dtypes, which is never imported here: who passes such an array has imported it.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

WIDE = ("float32", "float64")
FLOATS = (*WIDE, "float16", "bfloat16")


@lru_cache(maxsize=64)  # NumPy takes a microsecond to name a dtype
def name_of(dtype: np.dtype[Any]) -> str:
    """The name of a floating-point dtype, whatever its byte order; empty for any other."""
    is_bfloat16 = dtype.name == "bfloat16" and dtype.itemsize == 2 and dtype.type.__module__ == "ml_dtypes"
    return dtype.name if dtype.kind == "f" or is_bfloat16 else ""


def compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which arrays of this one are computed."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def either(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def beside(dtype: np.dtype[Any], whose: str, wide: bool = False) -> tuple[Sequence[str], str]:
    """The dtypes of an argument beside one of this dtype, called `whose`, and how a message says so.

    wide: the compute dtype is allowed too.
    """
    own, computed = name_of(dtype), compute_dtype(dtype).name
    if wide and own != computed:
        return (own, computed), f"{own} like {whose}, or {computed}"
    return (own,), f"{own} like {whose}"
