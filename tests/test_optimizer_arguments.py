"""What a step of the optimiser classes takes and refuses. What is refused changes nothing."""

import itertools
from collections import UserDict, defaultdict
from functools import partial

import numpy as np
import pytest
from optimizer_runs import both_twins, everything, gradients, made
from test_bad_input import refuses

import pyreg

F32, F64 = np.float32, np.float64


def test_gradients_come_by_name_in_any_order_and_in_any_mapping():
    results = []
    for change in (dict, lambda grads: dict(reversed(grads.items())), UserDict, partial(defaultdict, list)):
        optimizer = made(pyreg, "AdamW", F32)
        optimizer.step(change(gradients(np.random.default_rng(0), F32)))
        results.append(everything(optimizer))
    assert results.count(results[0]) == 4


@both_twins
def test_wrong_names_and_kinds_of_gradients_are_refused_and_change_nothing(twin):
    optimizer = made(twin, "AdamW", F32)
    grads = gradients(np.random.default_rng(0), F32)
    before = everything(optimizer)
    without = {name: grad for name, grad in grads.items() if name != "bias"}
    refuses(ValueError, lambda: optimizer.step(without), "grads", "nothing for 'bias'", "None leaves")
    refuses(ValueError, lambda: optimizer.step(without | {"bios": grads["bias"]}), "nothing for 'bias'")
    refuses(ValueError, lambda: optimizer.step(grads | {"bios": None}), "'bios' too")
    refuses(TypeError, lambda: optimizer.step(list(grads.values())), "dict by the names", "got list")
    refuses(TypeError, lambda: optimizer.step(None), "grads", "NoneType")
    assert everything(optimizer) == before
    by_place = twin.AdamW([np.ones(3, F32), np.ones(4, F32)])
    refuses(ValueError, lambda: by_place.step([np.ones(3, F32)]), "2 arrays", "got 1")
    refuses(TypeError, lambda: by_place.step(np.ones((2, 3), F32)), "list", "ndarray")
    refuses(TypeError, lambda: by_place.step(iter([])), "pass list(grads)")


BAD_GRADIENTS = [
    (ValueError, np.ones((4, 7), F32), ["(4, 7)", "like params['{}']"]),
    (TypeError, np.ones((5, 4), int), ["int64"]),
    (TypeError, np.ones((5, 4), F64), ["float64"]),
    (TypeError, "text", []),
    (TypeError, np.ma.masked_array(np.ones((5, 4), F32)), ["masked"]),
]


@both_twins
@pytest.mark.parametrize("options", [{}, {"max_norm": 1.0}, {"skip_nonfinite": True}], ids=str)
@pytest.mark.parametrize("number", range(len(BAD_GRADIENTS)))
def test_a_wrong_gradient_is_refused_by_its_name_whatever_its_group(twin, options, number):
    error, bad, fragments = BAD_GRADIENTS[number]
    for kind, name in itertools.product(("AdamW", "SGD nesterov"), ("matrix", "last")):
        optimizer = made(twin, kind, F32)
        grads = gradients(np.random.default_rng(0), F32)
        optimizer.step(grads | {"scalar": None})  # so that counts differ
        before = everything(optimizer)
        wanted = [fragment.format(name) for fragment in fragments]
        refuses(error, partial(optimizer.step, grads | {name: bad}, **options), f"grads['{name}']", *wanted)
        assert everything(optimizer) == before
        optimizer.step(grads)


@both_twins
@pytest.mark.parametrize("options", [{}, {"max_norm": 1.0}], ids=str)
def test_rows_and_their_gradient_in_a_plain_tuple_are_refused_with_what_to_pass(twin, options):
    optimizer = twin.AdamW({"emb": np.ones((5, 2), F32), "two": np.ones((2, 3), F32), "b": np.ones(2, F32)})
    grads = {"emb": np.ones((5, 2), F32), "two": (np.ones(3, F32),) * 2, "b": (F32(0.5), F32(0.5))}
    optimizer.step(grads, **options)  # tuples that are gradients
    before = everything(optimizer)
    dy = np.ones((3, 2), F32)
    for pair in ((np.array([1, 3, 1]), dy), ([1, 3, 1], dy), ([0, 1], dy[:2]), (np.array([1, 3, 1]), dy.tolist())):
        for every in (grads | {"emb": pair}, {"emb": pair, "two": None, "b": None}):
            wrong = partial(optimizer.step, every, **options)
            refuses(TypeError, wrong, "grads['emb']", "pyreg.sum_duplicate_rows(rows, grad)", "tuple of two")
            assert everything(optimizer) == before
    message = refuses(TypeError, partial(optimizer.step, grads | {"emb": (1.0, 2.0)}), "grads['emb']", "float64")
    assert "sum_duplicate_rows" not in message
    optimizer.step(grads | {"emb": twin.sum_duplicate_rows([1, 3, 1], dy)}, **options)


@both_twins
def test_a_gradient_that_shares_memory_with_any_groups_arrays_is_refused(twin):
    params, grads = [np.ones(4, F32) for _ in range(2)], [np.ones(4, F32) for _ in range(2)]
    optimizer = twin.AdamW([{"params": params[:1]}, {"params": params[1:]}], ema_decay=0.9)
    optimizer.step(grads)
    before = everything(optimizer)
    for owner, place in itertools.product(range(2), repeat=2):
        for array in (params[owner], optimizer.ema[owner], *optimizer.state[owner].values()):
            shared = [array if i == place else grad for i, grad in enumerate(grads)]
            refuses(ValueError, partial(optimizer.step, shared), "overlap", f"grads[{place}]")
            assert everything(optimizer) == before


@both_twins
def test_bad_numbers_of_a_step_are_refused(twin):
    optimizer = made(twin, "AdamW", F32)
    grads = gradients(np.random.default_rng(0), F32)
    before = everything(optimizer)
    for name in ("lr", "max_norm", "grad_scale"):
        for value in (-1.0, np.nan, *([] if name == "max_norm" else [np.inf])):
            refuses(ValueError, partial(optimizer.step, grads, **{name: value}), name)
        refuses(TypeError, partial(optimizer.step, grads, **{name: "1"}), name)
    refuses(ValueError, partial(optimizer.step, grads, grad_scale=1e300), "grad_scale", "float32")
    refuses(TypeError, partial(optimizer.step, grads, skip_nonfinite=1), "skip_nonfinite")
    assert everything(optimizer) == before


@both_twins
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_step_count_that_was_written_is_checked_before_it_is_used(twin, rounding):
    optimizer = made(twin, "AdamW", F32, rounding=rounding, key=3)
    grads = gradients(np.random.default_rng(0), F32)
    before = everything(optimizer)
    for value, error in (
        (-1, ValueError),
        (2**63, ValueError),
        (0.5, TypeError),
        ("1", TypeError),
        (None, TypeError),
    ):
        optimizer.step_count = value
        for use in (partial(optimizer.step, grads), optimizer.state_dict):
            refuses(error, use, "step_count", repr(value))
    optimizer.step_count = 0
    assert everything(optimizer) == before
    optimizer.step_count = np.array(7)
    optimizer.step(grads)
    assert (type(optimizer.step_count), optimizer.step_count) == (int, 8)


BAD_OPTIONS = [
    (ValueError, {"lr": -0.1}),
    (ValueError, {"lr": np.nan}),
    (TypeError, {"lr": "0.1"}),
    (ValueError, {"betas": (0.9, 1.0)}),
    (TypeError, {"betas": 0.9}),
    (ValueError, {"eps": -1.0}),
    (ValueError, {"weight_decay": np.inf}),
    (TypeError, {"amsgrad": 1}),
    (ValueError, {"amsgrad": True}),
    (ValueError, {"ema_decay": 1.0}),
    (ValueError, {"ema_decay": 0.9}),
    (ValueError, {"learning_rate": 0.1}),
    (TypeError, {"maximize": None}),
]


@pytest.mark.parametrize("number", range(len(BAD_OPTIONS)))
def test_what_is_written_into_param_groups_is_checked_before_a_step(number):
    error, ((option, value),) = BAD_OPTIONS[number][0], BAD_OPTIONS[number][1].items()
    optimizer = made(pyreg, "AdamW", F32)
    grads = gradients(np.random.default_rng(0), F32)
    optimizer.step(grads)
    before = everything(optimizer)
    group = optimizer.param_groups[1]
    old = dict(group)
    group[option] = value
    refuses(error, lambda: optimizer.step(grads), option, "param_groups[1]")
    group.clear()
    group.update(old)
    optimizer.param_groups.append({**old, "params": (np.ones(2, F32),)})
    refuses(ValueError, lambda: optimizer.step(grads), "param_groups", "add_param_group")
    optimizer.param_groups.pop()
    assert everything(optimizer) == before
    optimizer.step(grads)
