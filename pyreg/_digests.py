"""Digests of results: machines, levels and compilers that print the same lines compute the same bits."""

from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from types import ModuleType
from typing import Any

import numpy as np

import pyreg
from pyreg._cases import CASES, Arguments, Array, Case, Of, Shape, sixteen_bit_dtypes, valid
from pyreg._dtypes import compute_dtype
from pyreg.reference.philox import philox_bytes

# More rows than a block has; rows longer than a block of a sum; special values. All rows end within a vector.
SHAPES: tuple[Shape, ...] = ((67, 131), (2, 4103), (9, 37))
LARGE = (130, 1001)  # enough work for two threads
SPECIAL = (-0.0, 1e-40, 1e-310, 3e38, np.inf, -np.inf, np.nan)
SPECIAL_16 = (*SPECIAL, 1e-7, 6e4)  # in float16, a subnormal number and a large one


def digests(twin: ModuleType = pyreg) -> list[str]:
    """A line for each function and dtype, and one for all of these lines. The 16-bit dtypes come last, one by one."""
    lines = section(twin, "all", (np.float32, np.float64, np.bool_))
    for dtype in sixteen_bit_dtypes():
        lines += section(twin, f"all, {np.dtype(dtype)}", (dtype,))
    return lines if "bfloat16" in lines[-1] else [*lines, "no digests of bfloat16: ml_dtypes is not installed"]


def section(twin: ModuleType, name: str, dtypes: Sequence[Any]) -> list[str]:
    calls = [(case, dtype) for case in CASES.values() for dtype in case.dtypes if dtype in dtypes]
    lines = [f"{digest(twin, case, dtype)}  {case.name}, {np.dtype(dtype)}" for case, dtype in calls]
    return [*lines, f"{sha256(' '.join(lines).encode()).hexdigest()}  {name}"]


def digest(twin: ModuleType, case: Case, dtype: Any) -> str:
    """The results for each shape and variant, with every NaN made the same."""
    sha = sha256()
    for shape in (*SHAPES, LARGE):
        for variant in (*case.variants_of(shape, dtype), *case.other_axes) if shape != LARGE else [{}]:
            given = inputs(case, variant, shape, dtype)
            made = case.call(twin, case.arguments(shape, dtype, forward=twin, **variant | given))
            for name, value in made.items():
                array = np.array([] if value is None else value)
                array[np.isnan(array)] = np.nan
                sha.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return sha.hexdigest()


def inputs(case: Case, variant: Arguments, shape: Shape, dtype: Any) -> Arguments:
    """The arrays of the case and of its variant. Each begins at another place of the stream."""
    changed = {name: of for name, of in variant.items() if (of is None or isinstance(of, Of)) and of is not Of.SOME}
    arrays: Arguments = {**case.arrays, **changed}
    special = SPECIAL_16 if dtype in sixteen_bit_dtypes() else SPECIAL
    wide = compute_dtype(np.dtype(dtype))
    made = {}
    for i, (name, of) in enumerate(arrays.items()):
        if of is None:
            continue
        array = valid(name, np.resize(stream()[1000 * i :], of.shape(shape)))
        if shape == SHAPES[-1]:
            places = array.reshape(-1)[3 * i :: 40]
            places[:] = np.resize(special, places.size)
        if array.dtype != np.bool_:
            with np.errstate(all="ignore"):
                array = array.astype(wide).astype(case.dtype_of(name, dtype, variant.get("in_float32", ())))
        made[name] = array
    return made


@cache
def stream() -> Array:
    """Numbers from -8 to 8, most of them small, that depend on no machine and no version of NumPy."""
    x = philox_bytes(np.arange(2**17, dtype=np.uint64), digit=0, domain=0, key=0).view("<i8") / 2.0**62
    return np.asarray(x * x * x)
