"""What Hypothesis draws. calls: functions, shapes, options and values. trials: also layouts, outs and faults."""

import math
from dataclasses import replace

import numpy as np
from calls import Call
from cases import LAYOUTS, LEVELS, LIKE, SIXTEEN_BIT, bytes_moved, dtypes_of, wanted_outs
from hypothesis import strategies as st

from pyreg import _core
from pyreg._cases import CASES, Of

# Building a strategy takes longer than drawing from it, so all are built here, once.
BOOLEANS = st.booleans()
SOME = st.integers(0, 11)  # modulo the number of choices
OPTIONS = {  # `shape` is not drawn here: it is x's
    "p": st.one_of(st.floats(0, 1), st.sampled_from([0.0, 2**-32, 1 / 256, 0.25, 1.0])),
    "key": st.integers(0, 2**64 - 1),
    "offset": st.one_of(st.integers(0, 100), st.integers(0, 2**64 - 1)),  # lowered to what the size allows
    "training": BOOLEANS,
    "scale": st.floats(-4, 4, width=32),
    "causal": st.sampled_from([False, True, "upper_left", "lower_right"]),
    "axis": st.integers(-3, 2),  # -1 if x has no such axis, or causal
    "y": st.none(),  # in place of x; has tests of its own
    "eps": st.sampled_from([0.0, 1e-12, 1e-5, 1.0]),
    "lr": st.floats(0, 1),
    "weight_decay": st.one_of(st.just(0.0), st.floats(0, 1)),
    "betas": st.tuples(st.floats(0, 0.999), st.floats(0, 0.9999)),
    "momentum": st.floats(0.01, 0.99),
    "dampening": st.one_of(st.just(0.0), st.floats(0, 1)),
    "nesterov": BOOLEANS,
    "step": st.one_of(st.integers(1, 9), st.integers(1, 2**63 - 1)),
    "maximize": BOOLEANS,
    "bias_correction": BOOLEANS,
    "grad_scale": st.floats(0, 4),
    "skip_nonfinite": BOOLEANS,
    "ema_decay": st.floats(0, 0.999),
    "rows": st.sampled_from([None, None, Of.SOME]),
    "rounding": st.sampled_from(["nearest", "stochastic", {"param": "stochastic"}, {"ema": "stochastic"}]),
    "return_z": BOOLEANS,
    "return_dresidual": BOOLEANS,
    "approximate": st.sampled_from(["none", "tanh"]),
    "normalized_shape": BOOLEANS,  # whether it is given
}


# --- shapes


def near(*lengths):
    """Lengths around the ends of vectors, groups, rows or blocks."""
    return st.builds(int.__add__, st.sampled_from(lengths), st.integers(-2, 2))


lengths = st.one_of(st.integers(0, 9), st.integers(10, 140), near(16, 32, 64, 128, 512, 1024, 4096))
SMALL = st.one_of(
    st.tuples(lengths),
    st.tuples(st.integers(0, 9), lengths),
    st.tuples(st.integers(0, 3), st.integers(0, 5), lengths),
    st.tuples(near(64, 128), st.integers(1, 40)),
)
MEDIUM = st.one_of(  # enough for several threads and blocks
    st.tuples(near(16384, 65536, 131072)),
    st.tuples(st.integers(2, 5), near(4096, 16384)),
    st.tuples(near(64, 128, 256), near(128, 256, 768)),
    st.tuples(near(4096), near(8, 16, 32)),
)
ROWS = st.sampled_from([31, 64, 67, 768, 1001, 4096, 0])
LARGE = "large enough that results are written past the caches: more than _core.most_bytes_cached are moved"


def large(draw, case, dtype):
    # Twice as large, because up to half of the arrays may be left out.
    elements = 2 * (_core.most_bytes_cached + 2**20) // bytes_moved(case, (1,), dtype)
    n = draw(ROWS) or elements
    return elements // n + 1, n


# --- calls


DTYPE_OF = {name: st.sampled_from(dtypes_of(case)) for name, case in CASES.items()}
SEEDS = st.integers(0, 99)
VALUES = ["0.0", "-0.0", "np.inf", "-np.inf", "np.nan", "-np.nan", "1e-30"]
VALUES += ["plus_bits(np.nan, 0x123)", "plus_bits(np.inf, 1)"]  # NaNs: one with a payload, one that signals
VALUES += [f"info.{name}" for name in ("smallest_subnormal", "tiny", "max")]
PLACES = st.one_of(st.integers(0, 500), st.none())
SPECIALS = st.lists(st.tuples(SOME, PLACES, st.sampled_from(VALUES)), max_size=3)


@st.composite
def calls_of(draw, cases, shapes, dtypes):
    case = draw(cases)
    dtype = draw(DTYPE_OF[case.name] if dtypes is None else dtypes)
    shape = large(draw, case, dtype) if shapes is LARGE else draw(shapes)
    changes = {name: draw(OPTIONS[name]) for name in case.numbers if name != "shape"}
    if changes.get("causal") and len(shape) < 2:
        changes["causal"] = False
    if "axis" in changes and (changes["causal"] or not -len(shape) <= changes["axis"] < len(shape)):
        changes["axis"] = -1
    if changes.get("nesterov"):
        changes["dampening"] = 0.0
    if "normalized_shape" in changes:
        changes["normalized_shape"] = shape[-1:] if changes["normalized_shape"] else None
    if "offset" in changes:
        changes["offset"] = min(changes["offset"], 2**64 - max(1, shape[0], math.prod(shape)))
    if not shape and changes.get("rows"):
        changes["rows"] = None
    changes |= {name: None for name in case.optional if draw(BOOLEANS)}
    if changes.get("momentum_buffer", 0) is None:
        changes |= {"momentum": 0.0, "nesterov": False}
    if dtype in SIXTEEN_BIT:
        changes["in_float32"] = [name for group in case.in_float32 if draw(BOOLEANS) for name in group]
    arrays = [name for name in case.arrays if name not in changes and name != "keep"]  # which has no special values
    specials = [(arrays[i % len(arrays)], place, value) for i, place, value in draw(SPECIALS)] if arrays else []
    return Call(case.name, shape, np.dtype(dtype).name, draw(SEEDS), changes, specials)


def calls(wanted=lambda case: True, shapes=SMALL, dtypes=None):
    """A valid call: options, arrays with special values here and there, and some left out."""
    cases = st.sampled_from([case for case in CASES.values() if wanted(case)])
    return calls_of(cases, shapes, None if dtypes is None else st.sampled_from(dtypes))


# --- trials


FAULTS = st.sampled_from([None] * 9 + ["overlap", "wrong", "layout"])
LAYOUT = st.sampled_from([None, None, None, *LAYOUTS])
OUT = st.sampled_from(["none", "own", "input"])
SHIFTS = st.one_of(st.integers(-2, 2), st.sampled_from(["row", "size", "-size"]))
WRONG = ["None", "True", "'abc'", "b'abc'", "print", "[]", "[[1.0], [1.0, 2.0]]", "{0.5}", "-1", "0.5", "1e39", "1j"]
WRONG += ["2**64", "10**5000", "np.nan", "np.inf", "np.asarray(value).tolist()", "np.asarray(value)[None]"]
WRONG += ["np.asarray(value).reshape(-1)[:1]", "np.ones(np.size(value) + 1)", "np.full(np.shape(value), None)"]
WRONG += [f"np.ones(np.shape(value), '{dtype}')" for dtype in ("i8", "?", "f2", "f4", "f8", ">f4", "g", "U3")]
WRONG += [f"np.ones(np.shape(value), '{dtype.__name__}')" for dtype in SIXTEEN_BIT]
WRONG += ["np.ma.masked_array(np.ones(np.shape(value), 'f4'))"]
WRONGS = st.sampled_from(WRONG)
REST = st.tuples(st.integers(0, 2**12 - 1), st.sampled_from(LEVELS), st.integers(1, 4))


@st.composite
def trials(draw, calls):
    """A call with layouts, outs, guards, a level and threads. A quarter have a fault, which may be an error."""
    call, fault, (guards, level, threads) = draw(calls), draw(FAULTS), draw(REST)
    case, given = call.case, call.given

    def some(choices):
        return choices[draw(SOME) % len(choices)]

    layouts = {name: draw(LAYOUT) for name in given if name not in case.updated or fault == "layout"}
    replaceable = [name for name in case.over if name in given and not layouts[name]]
    in_float32 = {*call.changes.get("in_float32", ())}.intersection(given)
    outs, overlaps, wrong = [], {}, {}
    for out in wanted_outs(case, call.changes):
        kind = draw(OUT)
        alike = [name for name in replaceable if (name in in_float32) == (LIKE.get(out) in in_float32)]
        if kind == "input" and alike:
            overlaps[out] = some(alike), 0
            replaceable.remove(overlaps[out][0])
        elif kind != "none":
            outs.append(out)
            layouts[out] = draw(LAYOUT) if fault == "layout" else None
    written = [*(name for name in case.updated if name in given), *outs]
    if fault == "overlap" and written:
        name = some(written)
        others = [other for other in (*given, *outs) if other != name]
        if others:
            size, shift = math.prod(call.shape), draw(SHIFTS)
            shift = {"row": call.shape[-1], "size": size - 1, "-size": 1 - size}.get(shift, shift)
            overlaps[name] = some(others), shift
            outs = [out for out in outs if out != name]
    if fault == "wrong":
        wrong[some([*case.arrays, *case.numbers, *case.outs])] = draw(WRONGS)
    return replace(
        call,
        layouts={name: layout for name, layout in layouts.items() if layout},
        outs=outs,
        overlaps=overlaps,
        wrong=wrong,
        valid=fault is None,
        guards=guards,
        level=level,
        threads=threads,
    )
