"""Every backward function matches finite differences of its forward function, in float64, in every variant."""

import numpy as np
from cases import cases_with

import pyreg
from pyreg._cases import CASES


def finite_differences(loss, array, h=1e-5):
    """Central differences for every element of `array`."""
    slopes = np.empty_like(array)
    for i in np.ndindex(array.shape):
        kept = array[i]
        array[i] = kept + h
        above = loss()
        array[i] = kept - h
        slopes[i] = (above - loss()) / (2 * h)
        array[i] = kept
    return slopes


# A central difference has two errors: h**2 / 6 = 2e-11 times a third derivative, and the loss's rounding over 2 * h.
# The loss is up to 100, from a few hundred terms. An ulp of that is 1e-14; over 2e-5 it is 1e-9. Seen: 3e-9. In
# dropout_add, row_scale and layer_scale multiply the terms. They and 1 / (1 - p) multiply z before the norm divides
# by its deviation. So both errors are larger. Seen: 7e-9.
def tolerance(case):
    return 1e-7 if case.name.startswith("dropout_add") else 1e-8


@cases_with(lambda case: case.name.endswith("_backward"))
def test_backward_matches_finite_differences(impl, case):
    # 37: two groups of 16 lanes, and a remainder. The reference is slow; test_same_bits.py has all lengths.
    shape = (2, 3, 7 if impl is pyreg.reference else 37)
    forward = CASES[case.name.replace("_backward", "_forward")]
    for variant in case.variants_of(shape, np.float64):
        if variant.get("return_dresidual", True):
            upstream = case.arguments(shape, np.float64, **variant)
            given = forward.arguments(shape, np.float64, seed=1)
            given |= {name: value for name, value in upstream.items() if name in case.numbers and name in given}
            given |= {name: None for name in variant if variant[name] is None and name in forward.optional}
            made = forward.call(impl, given)
            from_forward = {name: value for name, value in (given | made).items() if upstream.get(name) is not None}
            kept = {name: upstream[name] for name in ("dy", "dz") if name in upstream}
            gradients = case.call(
                impl, upstream | from_forward | kept | {n: v for n, v in variant.items() if v is None}
            )

            def loss(given=given, kept=kept):
                made = forward.call(impl, given)
                return sum((made[name[1:]] * value).sum() for name, value in kept.items() if value is not None)

            for name in case.results:
                array = given.get(name[1:])
                if gradients[name] is not None and array is not None:
                    expected = finite_differences(loss, array)
                    context = f"{name} {variant}"
                    np.testing.assert_allclose(gradients[name], expected, 0, tolerance(case), err_msg=context)
