"""What holds for any arguments. Hypothesis draws the function, the shape, the layouts, the values and the options.

Derandomised: every run tries the same examples.
"""

import numpy as np
from bits import assert_same_bits
from cases import DTYPES, LAYOUTS, LEVELS, cut_results, has_rows, inputs, isa, on_every_level, reference
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import pyreg
from pyreg._cases import CASES, Of

settings.register_profile(
    "pyreg", derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("pyreg")

lengths = st.one_of(st.integers(0, 9), st.integers(10, 140), st.sampled_from([511, 513, 1000, 4097]))
shapes = st.one_of(
    st.tuples(lengths),
    st.tuples(st.integers(0, 9), lengths),
    st.tuples(st.integers(0, 3), st.integers(0, 5), lengths),
    st.tuples(st.sampled_from([63, 64, 65, 129]), st.integers(1, 40)),
)
OPTIONS = {  # `shape` is not drawn here: it is x's
    "p": st.one_of(st.floats(0, 1), st.sampled_from([0.0, 2**-32, 1 / 256, 0.25, 1.0])),
    "key": st.integers(0, 2**64 - 1),
    "offset": st.one_of(st.integers(0, 100), st.integers(0, 2**64 - 2**16)),
    "training": st.booleans(),
    "scale": st.floats(-4, 4, width=32),
    "causal": st.booleans(),
    "eps": st.sampled_from([0.0, 1e-12, 1e-5, 1.0]),
    "lr": st.floats(0, 1),
    "weight_decay": st.one_of(st.just(0.0), st.floats(0, 1)),
    "betas": st.tuples(st.floats(0, 0.999), st.floats(0, 0.9999)),
    "momentum": st.floats(0.01, 0.99),
    "dampening": st.one_of(st.just(0.0), st.floats(0, 1)),
    "nesterov": st.booleans(),
    "step": st.one_of(st.integers(1, 9), st.integers(1, 2**63 - 1)),
    "maximize": st.booleans(),
    "return_z": st.booleans(),
    "return_dresidual": st.booleans(),
    "approximate": st.sampled_from(["none", "tanh"]),
    "normalized_shape": st.booleans(),  # whether it is given
}


@st.composite
def calls(draw, wanted=lambda case: True):
    """A function and its arguments: options, arrays with special values here and there, and some left out."""
    case = draw(st.sampled_from([case for case in CASES.values() if wanted(case)]))
    shape, dtype = draw(shapes), draw(st.sampled_from(DTYPES))
    changes = {name: draw(OPTIONS[name]) for name in case.numbers if name != "shape"}
    if changes.get("causal") and len(shape) < 2:
        changes["causal"] = False
    if changes.get("nesterov"):
        changes["dampening"] = 0.0
    if "normalized_shape" in changes:
        changes["normalized_shape"] = shape[-1:] if changes["normalized_shape"] else None
    left_out = [name for name in case.optional if name != "momentum_buffer" and draw(st.booleans())]
    arguments = case.arguments(shape, dtype, draw(st.integers(0, 99)), **changes, **dict.fromkeys(left_out))
    info = np.finfo(dtype)
    special = st.sampled_from(
        [0.0, -0.0, np.nan, np.inf, -np.inf, info.smallest_subnormal, info.tiny, info.max, 1e-30]
    )
    for name in case.arrays:
        # Not in arrays with one element per row: softmax's `maximum` is only valid if it is the maximum.
        if arguments[name] is not None and np.size(arguments[name]) and case.arrays[name] is not Of.ROW:
            for place, value in draw(st.lists(st.tuples(st.integers(0, 500), special), max_size=2)):
                arguments[name].reshape(-1)[place % arguments[name].size] = value
    return case, shape, arguments


@settings(max_examples=1000)
@given(calls())
def test_compiled_functions_have_the_bits_of_the_reference(call):
    case, _, arguments = call
    expected = reference(case, arguments)
    for level, made in on_every_level(case, arguments):
        assert_same_bits(made, expected, level)


@settings(max_examples=500)
@given(calls(), st.data())
def test_layouts_of_inputs_do_not_matter(call, data):
    case, _, arguments = call
    chosen = {name: data.draw(st.sampled_from([*LAYOUTS, None])) for name in inputs(case, arguments)}
    other = arguments | {name: LAYOUTS[layout](arguments[name]) for name, layout in chosen.items() if layout}
    assert_same_bits(case.call(pyreg, other), case.call(pyreg, arguments), chosen)


@settings(max_examples=500)
@given(calls(has_rows), st.data())
def test_a_part_of_the_first_axis_at_its_offset_is_the_part_of_the_whole(call, data):
    case, shape, arguments = call
    elementwise = {*case.arrays.values(), *case.results.values()} <= {Of.ELEMENT} and not case.samples
    assume(len(shape) > 2 or (not arguments.get("causal") and (len(shape) == 2 or elementwise)))
    begin = data.draw(st.integers(0, shape[0]))
    part = slice(begin, data.draw(st.integers(begin, shape[0])))
    expected = cut_results(case, case.call(pyreg, arguments), part)
    with isa(data.draw(st.sampled_from(LEVELS))), pyreg.num_threads(data.draw(st.integers(1, 3))):
        made = case.call(pyreg, case.cut(arguments, shape, part))
    assert_same_bits({name: made[name] for name in expected}, expected, part)
