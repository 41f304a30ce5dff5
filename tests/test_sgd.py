"""SGD: values and accuracy."""

import numpy as np
import pytest
from optimizers import errors_after_1000_steps, numpy_sgd


# Two steps from param 1 with gradients 1 and 1, lr 1/4, derived by hand; every number is exact in binary.
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # 1 - 1/4 - 1/4
        ({}, 0.5),
        # g: 3/2, then 1 + 1/2 * 5/8 = 21/16: 1 - 3/8 = 5/8, - 21/64
        ({"weight_decay": 0.5}, 19 / 64),
        # buffer: 1, then 1/2 + 1: 1 - 1/4 - 3/8
        ({"momentum": 0.5}, 3 / 8),
        # buffer: 1 (step 1 is not damped), then 1/2 + 1/2 * 1: 1 - 1/4 - 1/4
        ({"momentum": 0.5, "dampening": 0.5}, 0.5),
        # 1 + 1/2 * 1, then 1 + 1/2 * 3/2: 1 - 3/8 - 7/16
        ({"momentum": 0.5, "nesterov": True}, 3 / 16),
        # upwards: 1 + 1/4 + 1/4
        ({"maximize": True}, 1.5),
        # g: -1 + 1/2 = -1/2, then -1 + 9/16 = -7/16: 1 + 1/8 + 7/64. The penalty is still minimised.
        ({"maximize": True, "weight_decay": 0.5}, 79 / 64),
    ],
)
def test_two_steps_derived_by_hand(impl, dtype, options, expected):
    param, grad, buffer = np.ones(3, dtype), np.ones(3, dtype), np.full(3, np.nan, dtype)
    for step in (1, 2):
        impl.sgd_update(param, grad, buffer, step=step, lr=0.25, **options)
    assert param.tolist() == [expected] * 3
    assert np.isnan(buffer).all() == ("momentum" not in options)


def test_without_momentum_no_buffer_is_needed(impl, dtype):
    param = np.ones(3, dtype)
    impl.sgd_update(param, np.ones(3, dtype), step=1, lr=0.25)
    assert param.tolist() == [0.75] * 3


def test_1000_steps_in_float32_are_no_worse_than_plain_numpy(impl, rng):
    def update(state, grad, step):
        param, buffer = state
        impl.sgd_update(param, grad, buffer, step=step, lr=1e-2, momentum=0.9, weight_decay=1e-2)

    def plain(state, grad, step):
        numpy_sgd(state, grad, step, lr=1e-2, momentum=0.9, weight_decay=1e-2)

    mine, theirs, size = errors_after_1000_steps(update, plain, 2, rng)
    # 1000 roundings of up to half an ulp (2**-24 of the size) add up like a random walk.
    assert mine < 1000**0.5 * 2**-24 * size
    assert mine < 1.1 * theirs
