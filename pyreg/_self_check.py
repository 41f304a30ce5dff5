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
# A call on this shape moves more than _core.most_bytes_cached, so it uses nontemporal stores.
LARGE_SHAPE = (1100, 4099)
LARGE = ("layer_norm_forward",)


class Check(NamedTuple):
    name: str
    passed: bool
    detail: str  # what differs, if it failed


def self_check() -> Iterator[Check]:
    """Run the checks, one after another."""
    for name, known in KNOWN_ANSWERS.items():
        yield run(f"{name}: known answer", partial(known_answer, *known))
    for name, case in CASES.items():
        for dtype in case.dtypes:
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
    variants = [
        (SHAPE, variant)
        for variant in (*case.variants_of(SHAPE, dtype), *case.other_axes, *([given] if given else []))
    ]
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
        made |= {result: arguments[out] for out, result in case.outs.items() if out in variant}
        for name, wanted in expected.items():
            if detail := array_difference(made[name], wanted):
                return f"on {threads} threads, {detail.format(name)}"
    return ""


def array_difference(made: Any, wanted: Any) -> str:
    made, wanted = np.asarray(made), np.asarray(wanted)  # None becomes an array of objects
    if (made.dtype, made.shape) != (wanted.dtype, wanted.shape):
        return f"{{}} is {made.dtype} {made.shape}, not {wanted.dtype} {wanted.shape}"
    if made.tobytes() != wanted.tobytes():
        return f"{np.count_nonzero(made != wanted)} elements of {{}} differ"
    return ""


# --- known answers


def known_answer(call: Callable[[], Any], answer: Any) -> str:
    got = call()
    return "" if np.allclose(got, answer, rtol=1e-14, atol=0) else f"got {got}"


def philox_of_pi() -> Any:
    """Random123's vector for the digits of pi (kat_vectors, philox4x32 10)."""
    c0, c1, c2, c3 = np.array([[0x243F6A88], [0x85A308D3], [0x13198A2E], [0x03707344]], np.uint64)
    return np.ravel(philox((c0, c1, c2, c3), (0xA4093822, 0x299F31D0)))


def adamw_step() -> Any:
    """Without eps, the first step moves by lr against the sign of the gradient, plus the decay."""
    param = np.array([1.0, -2.0])
    grad, exp_avg, exp_avg_sq = np.array([[0.5, -3.0], [0.0, 0.0], [0.0, 0.0]])
    pyreg.adamw_update(param, grad, exp_avg, exp_avg_sq, step=1, lr=0.1, weight_decay=0.1, eps=0.0)
    return param


KNOWN_ANSWERS: dict[str, tuple[Callable[[], Any], Any]] = {
    "reference Philox4x32-10": (philox_of_pi, [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
    # The first mask of tests/data/dropout_mask_v1.txt, which a program of plain integers generated.
    "dropout_mask": (
        lambda: pyreg.dropout_mask(64, 0.5, key=0),
        [*map(int, "1100110101011101111110101011010001101010100010100111100000110000")],
    ),
    # Mean 5, variance 5: y, mean, rstd.
    "layer_norm_forward": (
        lambda: np.hstack(pyreg.layer_norm_forward(np.array([2.0, 4.0, 6.0, 8.0]), eps=0.0)),
        [*np.array([-3, -1, 1, 3]) / 5**0.5, 5, 5**-0.5],
    ),
    "adamw_update": (adamw_step, [0.89, -1.88]),
}
