"""The parameters of the optimiser classes: the forms they come in, their names, groups, and what is refused."""

from collections import UserDict
from functools import partial

import numpy as np
from optimizer_runs import both_twins, everything, model
from test_bad_input import refuses

import pyreg

F32, F64 = np.float32, np.float64


def test_names_of_lists_are_places_over_all_groups():
    params = list(model(F32).values())
    optimizer = pyreg.AdamW([{"params": params[:2]}, {"params": params[2]}, {"params": tuple(params[3:])}])
    assert list(optimizer.state) == list(range(len(params)))
    assert [group["param_names"] for group in optimizer.param_groups] == [(0, 1), (2,), (3, 4, 5)]
    optimizer.add_param_group({"params": {"more": np.ones(3, F32)}})
    optimizer.add_param_group({"params": [np.ones(4, F32)]})
    assert list(optimizer.state) == [*range(len(params)), "more", 7]


def test_matrices_alone_decay_and_gradients_of_a_list_stay_in_its_order():
    params = [np.ones(3, F32), np.ones((2, 2), F32), np.ones((), F32), np.ones((1, 2, 2), F32)]
    optimizer = pyreg.SGD(pyreg.decay_matrices_only(params), lr=0.5, weight_decay=0.5)
    assert [group["param_names"] for group in optimizer.param_groups] == [(1, 3), (0, 2)]
    optimizer.step([np.full_like(param, i) for i, param in enumerate(params)])
    assert [float(param.reshape(-1)[0]) for param in params] == [1, 0.25, 0, -0.75]
    assert [list(group["params"]) for group in pyreg.decay_matrices_only({"b": params[0]})] == [["b"]]
    assert [list(group["params"]) for group in pyreg.decay_matrices_only({"w": params[1]})] == [["w"]]
    refuses(TypeError, lambda: pyreg.decay_matrices_only({"w": 3.0}), "params['w']", "float")
    refuses(TypeError, lambda: pyreg.decay_matrices_only(np.ones(3)), "params", "ndarray")


@both_twins
def test_parameters_come_in_every_form(twin):
    one = partial(np.ones, 2)
    for params in ([one()], (one(),), iter([one()]), {"w": one()}, {0: one()}, UserDict(w=one())):
        optimizer = twin.SGD(params, lr=0.5)
        (name,) = optimizer.state
        optimizer.step({name: np.ones(2)})
        assert optimizer.param_groups[0]["params"][0][0] == 0.5


def test_what_is_no_list_of_parameters_is_refused():
    one = np.ones(2)
    for params in (one, {1.5}, "text", None, 3, b"ab", [one, {"params": [one]}]):
        refuses(TypeError, partial(pyreg.AdamW, params), "params")
    for group in ({"params": [one], "lr": 0.1}, {"params": {"w": one}}, {"params": one, "lr": 0.1}, {"params": []}):
        refuses(TypeError, partial(pyreg.AdamW, group), "a group goes into a list: [group]")
    assert [*pyreg.AdamW({"params": one, "lr": np.ones(1)}).state] == ["params", "lr"]
    named = {"a": one, "b": np.ones(3)}
    for pairs in (named.items(), list(named.items()), iter(named.items()), [{"params": named.items()}]):
        refuses(TypeError, partial(pyreg.AdamW, pairs), "params", "of pairs; pass a dict for names")
    refuses(TypeError, lambda: pyreg.decay_matrices_only(named.items()), "pass a dict for names")
    for name in (1.5, True, ("a", 1), None):
        refuses(TypeError, partial(pyreg.AdamW, {name: one}), "names of params", repr(name))
    for params in ([], {}, iter([])):
        refuses(ValueError, partial(pyreg.AdamW, params), "at least one")
    refuses(ValueError, lambda: pyreg.AdamW([{"lr": 0.1}]), "param_groups[0]", "'params'")
    refuses(TypeError, lambda: pyreg.AdamW({"w": [1.0]}), "params['w']", "list")
    refuses(TypeError, lambda: pyreg.AdamW([np.ones(2, int)]), "params[0]", "int64")
    refuses(ValueError, lambda: pyreg.AdamW({"w": np.ones((4, 4))[:, ::2]}), "params['w']", "dense")
    refuses(ValueError, lambda: pyreg.AdamW([np.broadcast_to(1.0, 4)]), "params[0]", "read-only")


@both_twins
def test_the_bits_of_bfloat16_are_refused_with_what_to_pass_instead(twin):
    for bits in (np.ones(2, "V2"), np.ones(2, np.uint16)):
        for options in ({}, {"ema_decay": 0.9}, {"state_dtype": F32}, {"param_out": {"w": np.ones(2, F32)}}):
            make = partial(twin.AdamW, {"w": bits}, **options)
            refuses(TypeError, make, "params['w']", "bits of bfloat16", "params['w'].view(ml_dtypes.bfloat16)")


def test_arrays_that_overlap_and_names_that_are_equal_as_text_are_refused():
    base, other = np.ones(10), np.ones(3)

    def refused(params, *fragments, **options):
        refuses(ValueError, partial(pyreg.AdamW, params, **options), *fragments)

    refused({"a": base, "b": other, "c": base}, "params['a'] and params['c']", "overlap", "list an array once")
    refused([base[:6], base[5:]], "params[0] and params[1]", "overlap")
    refused([{"params": base}, {"params": base[2:4]}], "params[0] and params[1]", "overlap")
    refused({"w": base}, "params['w'] and param_out['w']", "overlap", param_out={"w": base})
    refused([{"params": {"1": base}}, {"params": [other]}], "1 twice")
    refused({"0": base, 0: other}, "0 twice")
    optimizer = pyreg.AdamW({"a": base})
    before = everything(optimizer)
    for params in ({"b": base[3:]}, {"a": other}, {"b": optimizer.state["a"]["exp_avg"]}):
        refuses(ValueError, partial(optimizer.add_param_group, {"params": params}))
        assert everything(optimizer) == before


def test_groups_made_for_pytorch_work_and_unknown_options_do_not():
    group = {"params": [np.ones(2)], "name": "all", "initial_lr": 0.1, "foreach": True, "fused": None}
    decoupled = group | {"decoupled_weight_decay": True}
    optimizer = pyreg.AdamW([decoupled])
    optimizer.step([np.ones(2)])
    assert optimizer.param_groups[0]["initial_lr"] == 0.1
    refuses(ValueError, lambda: pyreg.Adam([decoupled]), "decoupled_weight_decay=False")
    refuses(ValueError, lambda: pyreg.AdamW([group | {"learning_rate": 0.1}]), "'learning_rate'", "betas", "lr")
    refuses(ValueError, lambda: pyreg.SGD([group | {"betas": (0.9, 0.99)}]), "'betas'", "momentum")
    refuses(ValueError, lambda: pyreg.SGD([group | {"key": 1}]), "'key'")


def test_nesterov_needs_a_momentum_also_in_a_group():
    for options in ({"nesterov": True}, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}):
        refuses(ValueError, lambda options=options: pyreg.SGD([np.ones(2)], **options), "nesterov")
        group = {"params": [np.ones(2)], **options}
        refuses(ValueError, lambda group=group: pyreg.SGD([group]), "param_groups[0]", "nesterov")


def test_a_group_that_is_added_is_as_if_it_had_always_been_there():
    optimizer, whole = (pyreg.AdamW({"a": np.ones(3)}, lr=0.1, ema_decay=0.5) for _ in range(2))
    for each in (optimizer, whole):
        each.add_param_group({"params": {"b": np.ones(2)}, "lr": 0.5, "ema_decay": None})
    groups = [{"params": {"a": np.ones(3)}}, {"params": {"b": np.ones(2)}, "lr": 0.5, "ema_decay": None}]
    whole = pyreg.AdamW(groups, lr=0.1, ema_decay=0.5)
    for each in (optimizer, whole):
        each.step({"a": np.ones(3), "b": np.ones(2)})
    assert everything(optimizer) == everything(whole)
    assert list(optimizer.ema) == ["a"]
    refuses(TypeError, lambda: optimizer.add_param_group([np.ones(2)]), "group", "list")
    more = {"params": [np.ones(2)]}
    refuses(TypeError, lambda: optimizer.add_param_group(more, param_out=[np.ones(2)]), "param_out")


def test_copies_come_in_the_form_of_the_parameters():
    params, copies = (
        {"a": np.ones(3, F32), "b": np.ones(2, F32)},
        {"b": np.zeros(2, np.float16), "a": np.zeros(3, F32)},
    )
    optimizer = pyreg.SGD(params, lr=0.5, param_out=copies)
    refuses(TypeError, lambda: optimizer.add_param_group({"params": {"c": np.ones(2, F32)}}), "param_out")
    optimizer.add_param_group({"params": [np.ones(2, F32)]}, param_out=[np.zeros(2, F32)])
    optimizer.step({"a": np.ones(3, F32), "b": np.ones(2, F32), 2: np.ones(2, F32)})
    assert [float(copy[0]) for copy in copies.values()] == [0.5, 0.5]
    refuses(ValueError, lambda: pyreg.SGD(params, param_out={"a": copies["a"]}), "param_out", "'b'")
    refuses(TypeError, lambda: pyreg.SGD(params, param_out=list(copies.values())), "param_out", "list")
    refuses(
        ValueError, lambda: pyreg.SGD(params, param_out={**copies, "b": copies["a"]}), "param_out['b']", "params['b']"
    )
