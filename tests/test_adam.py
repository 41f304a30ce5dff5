"""Adam and AdamW: values, accuracy, and how they differ."""

import numpy as np
import pytest
from bits import assert_same_bits
from optimizers import errors_after_1000_steps, numpy_adam

BETAS = (0.9, 0.999)


def arrays(dtype, *values):
    return [np.array([value], dtype) for value in values]


# At step 1, from zero moments, m / bc1 = g and sqrt(v / bc2) = |g|. So the update is lr * g / (|g| + eps), and AdamW
# adds lr * weight_decay * param. The expected values follow by hand.
@pytest.mark.parametrize(
    ("name", "param", "grad", "options", "expected"),
    [
        # 1 - 0.1
        ("adam_update", 1.0, 0.5, {"lr": 0.1, "eps": 0.0}, 0.9),
        # -2 + 0.1: the size of the gradient does not matter
        ("adam_update", -2.0, -1e-3, {"lr": 0.1, "eps": 0.0}, -1.9),
        # g = 0.5 + 0.25 * 2 = 1; 2 - 0.1 * 1 / (1 + 1)
        ("adam_update", 2.0, 0.5, {"lr": 0.1, "eps": 1.0, "weight_decay": 0.25}, 1.95),
        # upwards: 1 + 0.1
        ("adam_update", 1.0, 0.5, {"lr": 0.1, "eps": 0.0, "maximize": True}, 1.1),
        # 1 - 0.1 - 0.1 * 0.1 * 1
        ("adamw_update", 1.0, 0.5, {"lr": 0.1, "eps": 0.0, "weight_decay": 0.1}, 0.89),
        # -2 - 0.1 + 0.1 * 0.1 * 2
        ("adamw_update", -2.0, 0.5, {"lr": 0.1, "eps": 0.0, "weight_decay": 0.1}, -2.08),
        # upwards, the decay still towards 0: 1 + 0.1 - 0.01
        ("adamw_update", 1.0, 0.5, {"lr": 0.1, "eps": 0.0, "weight_decay": 0.1, "maximize": True}, 1.09),
        # no gradient: decay alone, 3 * (1 - 0.5 * 0.5)
        ("adamw_update", 3.0, 0.0, {"lr": 0.5, "weight_decay": 0.5}, 2.25),
        # eps as large as the gradient halves the step: 1 - 0.1 * 0.5 / (0.5 + 0.5)
        ("adamw_update", 1.0, 0.5, {"lr": 0.1, "eps": 0.5, "weight_decay": 0.0}, 0.95),
        # lr 0 changes nothing
        ("adamw_update", 1.0, 0.5, {"lr": 0.0, "weight_decay": 0.5}, 1.0),
    ],
)
def test_the_first_step_derived_by_hand(impl, dtype, name, param, grad, options, expected):
    p, g, m, v = arrays(dtype, param, grad, 0, 0)
    getattr(impl, name)(p, g, m, v, step=1, **options)
    np.testing.assert_allclose(p[0], expected, rtol=4 * np.finfo(dtype).eps)


def test_the_second_step_derived_by_hand(impl, dtype):
    # betas (1/2, 3/4), gradients 4 then 0: m = 2 then 1, v = 4 then 3; bc1 = 3/4, bc2 = 7/16. The update
    # is 0.1 * (1 / (3/4)) / (sqrt(3) / sqrt(7/16)) = 0.1 * 4/3 * sqrt(7) / (4 * sqrt(3)).
    p, g, m, v = arrays(dtype, 0, 4, 0, 0)
    for step in (1, 2):
        impl.adam_update(p, g, m, v, step=step, lr=0.1, betas=(0.5, 0.75), eps=0)
        if step == 1:
            np.testing.assert_allclose(p[0], -0.1, rtol=4 * np.finfo(dtype).eps)
        g[:] = 0
    assert (m[0], v[0]) == (1, 3)
    np.testing.assert_allclose(p[0], -0.1 - 0.1 / 3 * (7 / 3) ** 0.5, rtol=4 * np.finfo(dtype).eps)


def test_amsgrad_divides_by_the_largest_second_moment_so_far(impl, dtype):
    # As above, but the largest v is 4: sqrt(4) instead of sqrt(3).
    p, g, m, v, largest = arrays(dtype, 0, 4, 0, 0, 0)
    for step in (1, 2):
        impl.adam_update(p, g, m, v, step=step, lr=0.1, betas=(0.5, 0.75), eps=0, max_exp_avg_sq=largest)
        g[:] = 0
    assert (v[0], largest[0]) == (3, 4)
    np.testing.assert_allclose(p[0], -0.1 - 0.1 / 3 * 7**0.5 / 2, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("name", "weight_decay"), [("adam_update", 0.0), ("adam_update", 0.01), ("adamw_update", 0.01)]
)
def test_1000_steps_in_float32_are_no_worse_than_plain_numpy(impl, rng, name, weight_decay):
    def update(state, grad, step):
        param, exp_avg, exp_avg_sq = state
        getattr(impl, name)(param, grad, exp_avg, exp_avg_sq, step=step, lr=1e-2, weight_decay=weight_decay)

    def plain(state, grad, step):
        options = {"lr": 1e-2, "betas": BETAS, "eps": 1e-8, "weight_decay": weight_decay}
        numpy_adam(state, grad, step, **options, decoupled=name == "adamw_update")

    mine, theirs, size = errors_after_1000_steps(update, plain, 3, rng)
    # 1000 roundings of up to half an ulp (2**-24 of the size) add up like a random walk.
    assert mine < 1000**0.5 * 2**-24 * size
    # Both are random walks of the same length. Over 500 elements their ratio is known to about 5 %.
    assert mine < 1.1 * theirs


def test_the_decay_is_decoupled_in_adamw_and_coupled_in_adam(impl, dtype):
    # Two first steps from 1 with opposite gradients cancel. Decoupled decay subtracts lr * weight_decay = 0.01 in
    # each, whatever the gradient is. Coupled decay adds 0.1 to the gradient, but a first step follows only its sign:
    # at +-1e3 the 0.1 is lost; at -1e-3 it flips the sign, a change of 0.2. The tolerances allow float32's rounding.
    results = {}
    for name in ("adam_update", "adamw_update"):
        for grad in (1e-3, 1e3):
            moved = []
            for weight_decay in (0.0, 0.1):
                p, g, m, v = arrays(dtype, 1, grad, 0, 0)
                p2, g2 = p.copy(), -g
                getattr(impl, name)(p, g, m, v, step=1, lr=0.1, weight_decay=weight_decay)
                m[:], v[:] = 0, 0
                getattr(impl, name)(p2, g2, m, v, step=1, lr=0.1, weight_decay=weight_decay)
                moved.append(p[0] + p2[0] - 2)  # opposite gradients cancel; the decay remains
            results[name, grad] = moved[1] - moved[0]
    assert np.isclose(results["adamw_update", 1e3], -0.02, atol=1e-5)
    assert np.isclose(results["adamw_update", 1e-3], -0.02, atol=1e-5)
    assert abs(results["adam_update", 1e3]) < 1e-4
    assert results["adam_update", 1e-3] < -0.1


@pytest.mark.parametrize("step", [1, 2, 3, 1000, 10**6, 2**62])
def test_any_step_is_bias_corrected(impl, dtype, step):
    p, g, m, v = arrays(dtype, 1, 0.5, 0.5, 0.25)
    impl.adam_update(p, g, m, v, step=step, lr=0.1, eps=0)
    expected = 1 - 0.1 / -np.expm1(step * np.log(0.9)) * np.sqrt(-np.expm1(step * np.log(0.999)))
    np.testing.assert_allclose(p[0], expected, rtol=8 * np.finfo(dtype).eps)


def test_nan_in_a_gradient_reaches_its_element_alone(impl, dtype, rng):
    state = [rng.normal(size=100).astype(dtype) for _ in range(2)] + [np.ones(100, dtype) for _ in range(3)]
    clean = [a.copy() for a in state]
    state[1][41] = np.nan
    for p, g, m, v, largest in (state, clean):
        impl.adamw_update(p, g, m, v, step=3, max_exp_avg_sq=largest)
    others = np.arange(100) != 41
    for i in (0, 2, 3, 4):
        assert np.isnan(state[i][41])
        assert_same_bits(state[i][others], clean[i][others])


@pytest.mark.parametrize("update", ["adam_update", "adamw_update"])
@pytest.mark.parametrize("beta1", [0.0, 0.25, 0.49999, 0.5])
def test_a_small_beta1_forgets_a_large_moment(impl, dtype, update, beta1):
    # m + (1 - beta1) * (g - m) would lose a gradient that is small compared with m.
    param, grad = np.ones(3, dtype), np.array([1, 1e-3, -7], dtype)
    exp_avg, exp_avg_sq = np.full(3, 1e8, dtype), np.ones(3, dtype)
    getattr(impl, update)(param, grad, exp_avg, exp_avg_sq, step=2, betas=(beta1, 0.999))
    expected = beta1 * 1e8 + (1 - beta1) * grad.astype(float)
    # One rounding of beta1 * (g - m). It is exact if beta1 is 0.
    np.testing.assert_allclose(exp_avg, expected, rtol=1e-12, atol=2 * beta1 * 1e8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("update", ["adam_update", "adamw_update"])
def test_the_smallest_eps_still_divides(impl, dtype, update):
    param, zeros = np.ones(3, dtype), [np.zeros(3, dtype) for _ in range(3)]
    eps = float(np.finfo(dtype).smallest_subnormal)
    getattr(impl, update)(param, *zeros, step=1, eps=eps, weight_decay=0)
    assert (param == 1).all()
