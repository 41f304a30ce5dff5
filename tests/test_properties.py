"""What holds for any arguments. Hypothesis draws the function, the shape, the layouts, the values and the options.

Derandomised: every run tries the same examples.
"""

import numpy as np
from bits import assert_same_bits
from cases import LAYOUTS, LEVELS, SIXTEEN_BIT, cut_results, has_rows, inputs, isa, on_every_level, reference
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strategies import calls
from test_sixteen_bit import assert_is_rounded

import pyreg
from pyreg._cases import Of

settings.register_profile(
    "pyreg", derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("pyreg")


@settings(max_examples=500)
@given(calls())
def test_compiled_functions_have_the_bits_of_the_reference(call):
    case, arguments = call.case, call.arguments()
    expected = reference(case, arguments)
    for level, made in on_every_level(case, arguments):
        assert_same_bits(made, expected, level)


@settings(max_examples=500)
@given(calls(), st.data())
def test_layouts_of_inputs_do_not_matter(call, data):
    case, arguments = call.case, call.arguments()
    chosen = {name: data.draw(st.sampled_from([*LAYOUTS, None])) for name in inputs(case, arguments)}
    other = arguments | {name: LAYOUTS[layout](arguments[name]) for name, layout in chosen.items() if layout}
    assert_same_bits(case.call(pyreg, other), case.call(pyreg, arguments), chosen)


@settings(max_examples=500)
@given(calls(lambda case: np.float16 in case.dtypes, dtypes=SIXTEEN_BIT))
def test_results_of_16_bits_are_those_of_float32_rounded_once(call):
    assert_is_rounded(call.case, pyreg, call.arguments())


@settings(max_examples=500)
@given(calls(has_rows), st.data())
def test_a_part_of_the_first_axis_at_its_offset_is_the_part_of_the_whole(call, data):
    case, shape, arguments = call.case, call.shape, call.arguments()
    elementwise = {*case.arrays.values(), *case.results.values()} <= {Of.ELEMENT} and not case.samples
    assume(len(shape) > 2 or (not arguments.get("causal") and (len(shape) == 2 or elementwise)))
    assume("axis" not in arguments or arguments["axis"] % len(shape) > 0)
    assume(not arguments.get("skip_nonfinite"))  # which looks at all gradients
    begin = data.draw(st.integers(0, max(0, shape[0] - 1)))  # not the end: its offset may be beyond the stream
    part = slice(begin, data.draw(st.integers(begin, shape[0])))
    expected = cut_results(case, case.call(pyreg, arguments), part)
    with isa(data.draw(st.sampled_from(LEVELS))), pyreg.num_threads(data.draw(st.integers(1, 3))):
        made = case.call(pyreg, case.cut(arguments, shape, part))
    assert_same_bits({name: made[name] for name in expected}, expected, part)
