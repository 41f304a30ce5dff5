"""Stochastic rounding by the optimiser classes: one key for a run, and a place in its stream for each parameter."""

import itertools
from functools import partial

import numpy as np
import pytest
from bits import assert_same_bits
from optimizer_runs import (
    SHAPES,
    both_twins,
    everything,
    gradients,
    made,
    model,
    refused_and_unchanged,
    with_parameters_of,
)
from test_bad_input import refuses

import pyreg

ml_dtypes = pytest.importorskip("ml_dtypes")
F32, BF16 = np.float32, ml_dtypes.bfloat16
ORDER = ["matrix", "kernel", "scalar", "bias", "empty", "last"]  # over the groups that optimizer_runs makes
LEFT_OUT = {2: ["kernel"], 3: ["matrix", "bias"], 5: ["scalar"]}  # at these steps


def grads_of_step(rng, step):
    return gradients(rng, BF16) | dict.fromkeys(LEFT_OUT.get(step, []))


@both_twins
@pytest.mark.parametrize("rounding", ["stochastic", {"param": "stochastic"}], ids=["all", "param"])
def test_random_numbers_depend_on_the_step_and_a_parameters_place_alone(twin, rounding):
    options = {"betas": (0.8, 0.9), "eps": 1e-6, "rounding": rounding}
    optimizer = made(twin, "AdamW", BF16, state_dtype=BF16, key=7, **options)
    expected, counts = model(BF16), dict.fromkeys(SHAPES, 0)
    moments = {name: [np.zeros_like(param) for _ in range(2)] for name, param in expected.items()}
    sizes = [expected[name].size for name in ORDER]
    places = dict(zip(ORDER, np.cumsum([0, *sizes[:-1]]), strict=True))
    ours, rng = np.random.default_rng(0), np.random.default_rng(0)
    for step in range(1, 7):
        optimizer.step(grads_of_step(ours, step), max_norm=1e6)
        for name, grad in grads_of_step(rng, step).items():
            if grad is None:
                continue
            counts[name] += 1
            lr, decay = (0.01, 0.1) if ORDER.index(name) < 3 else (0.02, 0.0)
            numbers = {"step": counts[name], "lr": lr, "weight_decay": decay}
            random = {"key": pyreg.fold_in(7, step), "offset": places[name]}
            twin.adamw_update(expected[name], grad, *moments[name], **numbers, **random, **options)
    for group in optimizer.param_groups:
        for name, param in zip(group["param_names"], group["params"], strict=True):
            assert_same_bits(param, expected[name], name)
            assert_same_bits(tuple(optimizer.state[name].values()), tuple(moments[name]), name)


@both_twins
@pytest.mark.parametrize("kind", ["Adam", "SGD momentum"])
def test_a_resumed_run_continues_with_the_same_random_numbers(twin, kind):
    options = {"rounding": "stochastic", "state_dtype": BF16, "ema_decay": 0.9}
    optimizer, rng = made(twin, kind, BF16, key=2**63, **options), np.random.default_rng(0)
    for step in range(1, 5):
        optimizer.step(grads_of_step(rng, step))
    resumed = with_parameters_of(made(twin, kind, BF16, key=1, **options), optimizer)
    resumed.load_state_dict(optimizer.state_dict())
    for _ in range(2):
        grads = gradients(rng, BF16)
        for each in (optimizer, resumed):
            each.step(grads)
    assert everything(resumed) == everything(optimizer)


SOME = {"param": "stochastic", "ema": "stochastic"}
ALL = dict.fromkeys(("param_out", "ema", "exp_avg_sq", "exp_avg", "param"), "stochastic")


def test_a_state_of_another_rounding_is_refused():
    runs = {
        "rounding='nearest'": ["nearest", {}, {"param": "nearest"}],
        "rounding='stochastic'": ["stochastic", ALL],
        f"rounding={SOME}": [SOME, {"exp_avg": "nearest"} | dict(reversed(SOME.items()))],
    }
    for (of_state, first), (own, second) in itertools.product(runs.items(), repeat=2):
        for stored, given in itertools.product(first, second):
            state = made(pyreg, "AdamW", BF16, key=3, rounding=stored).state_dict()
            optimizer = made(pyreg, "AdamW", BF16, key=4, rounding=given)
            load = partial(optimizer.load_state_dict, state)
            if of_state == own:
                load()
                assert optimizer.key == 3
            else:
                refused_and_unchanged(optimizer, load, own, f"got one with {of_state}", "constructor")


def test_a_state_without_a_key_or_with_an_unknown_role_is_refused_where_something_is_rounded_at_random():
    optimizer = made(pyreg, "AdamW", BF16, key=3, rounding="stochastic")
    state = optimizer.state_dict()
    for entry, value in (("key", np.zeros(0, np.uint64)), ("rounding", np.array(["param", "grad"]))):
        refused_and_unchanged(optimizer, partial(optimizer.load_state_dict, state | {entry: value}), entry)
    keyless = made(pyreg, "AdamW", BF16).state_dict()
    nearest = made(pyreg, "AdamW", BF16, key=3)
    nearest.load_state_dict(keyless)
    assert nearest.key == 3


def test_a_key_is_needed_where_something_is_rounded_at_random():
    params = [np.ones(3, F32)]
    for rounding in ("stochastic", {"param": "nearest", "exp_avg": "stochastic"}):
        refuses(TypeError, lambda rounding=rounding: pyreg.AdamW(params, rounding=rounding), "key", "stochastic")
        assert pyreg.AdamW(params, rounding=rounding, key=3).key == 3
    assert pyreg.AdamW(params, rounding={"param": "nearest"}).key is None
    for rounding in ("random", {"grad": "stochastic"}, {"param": "up"}):
        refuses(ValueError, lambda rounding=rounding: pyreg.AdamW(params, rounding=rounding, key=3), "rounding")
    refuses(ValueError, lambda: pyreg.SGD(params, rounding={"exp_avg": "stochastic"}, key=3), "rounding", "exp_avg")
    refuses(ValueError, lambda: pyreg.SGD(params, key=-1), "key")
    refuses(TypeError, lambda: pyreg.SGD(params, key=0.5), "key")
