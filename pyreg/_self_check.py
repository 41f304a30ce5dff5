"""What `python -m pyreg` checks: that this build, on this machine, gives the answers that pyreg promises.

Every function is compared bit for bit with its twin in `pyreg.reference`. The random stream and the plain formulas
are also compared with known answers from other sources.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import pyreg
from pyreg._cases import CASES, Arguments, Case
from pyreg.reference.philox import philox

SHAPE = (130, 1001)  # not multiples of a block or vector length
# A call on this shape moves more than 32 MiB, so it uses nontemporal stores.
LARGE_SHAPE = (1100, 4099)
LARGE = ("layer_norm_forward",)


class Check(NamedTuple):
    name: str
    passed: bool
    detail: str  # what differs, if it failed


def self_check() -> Iterator[Check]:
    """Run the checks, one after another."""
    for name, answer in KNOWN_ANSWERS.items():
        yield run(f"{name}: known answer", answer)
    for name, case in CASES.items():
        # A mask has one dtype.
        for dtype in (np.bool_,) if name == "dropout_mask" else (np.float32, np.float64):
            yield run(f"{name}, {np.dtype(dtype)}: reference", partial(same_bits, case, dtype))


def run(name: str, check: Callable[[], str]) -> Check:
    """Run a check. An exception counts as a failure."""
    try:
        detail = check()
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
    return Check(name, detail == "", detail)


def same_bits(case: Case, dtype: Any) -> str:
    """The first difference found, over the case's variants and a call with `out` arrays; empty if there is none."""
    given = {out: np.empty(SHAPE, dtype) for out in case.outs}
    variants = [(SHAPE, variant) for variant in (*case.variants_of(SHAPE), *([given] if given else []))]
    if case.name in LARGE:
        variants.append((LARGE_SHAPE, {}))
    return next(filter(None, (difference(case, dtype, *variant) for variant in variants)), "")


def difference(case: Case, dtype: Any, shape: tuple[int, ...], variant: Arguments) -> str:
    arguments = case.arguments(shape, dtype, **variant)
    expected = case.call(pyreg.reference, {**arguments, **dict.fromkeys(case.outs)})
    for threads in sorted({1, pyreg.get_num_threads()}):
        with pyreg.num_threads(threads):
            made = case.call(pyreg, arguments)
        # An `out` array must hold the result that it receives.
        made |= {out: arguments[out] for out in case.outs if out in variant}
        wanted = expected | {out: expected[result] for out, result in case.outs.items() if out in variant}
        for name in wanted:
            detail = array_difference(made[name], wanted[name])
            if detail:
                return f"on {threads} threads, {detail.format(name)}"
    return ""


def array_difference(made: Any, wanted: Any) -> str:
    if made is None or wanted is None:
        return "" if made is wanted else f"{{}} is {type(made).__name__}, not {type(wanted).__name__}"
    made, wanted = np.asarray(made), np.asarray(wanted)
    if (made.dtype, made.shape) != (wanted.dtype, wanted.shape):
        return f"{{}} is {made.dtype} {made.shape}, not {wanted.dtype} {wanted.shape}"
    if made.tobytes() != wanted.tobytes():
        return f"{np.count_nonzero(made != wanted)} elements of {{}} differ"
    return ""


# --- known answers


def philox_answer() -> str:
    """Random123's vector for the digits of pi (kat_vectors, philox4x32 10)."""
    c0, c1, c2, c3 = np.array([[0x243F6A88], [0x85A308D3], [0x13198A2E], [0x03707344]], np.uint64)
    words = philox((c0, c1, c2, c3), (0xA4093822, 0x299F31D0))
    got = [f"{int(word[0]):08x}" for word in words]
    return "" if got == ["d16cfe09", "94fdcceb", "5001e420", "24126ea1"] else f"got {got}"


def mask_answer() -> str:
    """The first mask of tests/data/dropout_mask_v1.txt, which a program of plain integers generated."""
    mask = pyreg.dropout_mask(64, 0.5, key=0)
    got = "".join("1" if kept else "0" for kept in mask)
    wanted = "1100110101011101111110101011010001101010100010100111100000110000"
    return "" if got == wanted else f"got {got}"


def layer_norm_answer() -> str:
    """Mean 5, variance 5."""
    y, mean, rstd = pyreg.layer_norm_forward(np.array([2.0, 4.0, 6.0, 8.0]), eps=0.0)
    right = mean == 5 and np.allclose(rstd, 5**-0.5, rtol=1e-15)
    right = right and np.allclose(y, np.array([-3.0, -1.0, 1.0, 3.0]) / 5**0.5, rtol=1e-15)
    return "" if right else f"got {y}, {mean}, {rstd}"


def adamw_answer() -> str:
    """The first step moves by lr against the sign of the gradient, plus the decay."""
    param = np.array([1.0, -2.0])
    pyreg.adamw_update(param, np.array([0.5, -3.0]), np.zeros(2), np.zeros(2), step=1, lr=0.1, weight_decay=0.1)
    return "" if np.allclose(param, [0.89, -1.88], rtol=1e-7) else f"got {param}"


KNOWN_ANSWERS: dict[str, Callable[[], str]] = {
    "reference Philox4x32-10": philox_answer,
    "dropout_mask": mask_answer,
    "layer_norm_forward": layer_norm_answer,
    "adamw_update": adamw_answer,
}
