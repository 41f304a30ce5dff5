"""PyTorch's states: a run goes on from there, and PyTorch from ours. What does not fit changes nothing."""

from functools import partial

import numpy as np
import pytest
from optimizer_runs import (
    KINDS,
    after_steps,
    each_kind,
    everything,
    gradients,
    in_a_file,
    made,
    model,
    refused_and_unchanged,
    with_parameters_of,
)
from test_bad_input import refuses

import pyreg

F32, F64 = np.float32, np.float64


def pair(kind, dtype):
    """Our optimiser and PyTorch's, of the same model in two groups. Theirs has tensors of its own."""
    torch = pytest.importorskip("torch")
    name, own = KINDS[kind]
    params = {group: list(model(dtype).values())[i:j] for group, i, j in ((0, 0, 3), (1, 3, 6))}
    tensors = {group: [torch.tensor(param).requires_grad_() for param in own] for group, own in params.items()}
    options = [{"lr": 0.01}, {"lr": 0.02, "weight_decay": 0.0}]
    ours, theirs = (
        cls([{"params": arrays[i], **of_group} for i, of_group in enumerate(options)], **own)
        for cls, arrays in ((getattr(pyreg, name), params), (getattr(torch.optim, name), tensors))
    )
    return ours, theirs


def step_both(ours, theirs, rng, dtype, leave_out=()):
    torch = pytest.importorskip("torch")
    grads = [None if i in leave_out else grad for i, grad in enumerate(gradients(rng, dtype).values())]
    if ours is not None:
        ours.step(grads)
    if theirs is not None:
        tensors = [tensor for group in theirs.param_groups for tensor in group["params"]]
        for tensor, grad in zip(tensors, grads, strict=True):
            tensor.grad = None if grad is None else torch.tensor(grad)
        theirs.step()


def assert_close(ours, theirs, dtype):
    tolerance = 40 * np.finfo(dtype).eps  # two roundings in each of 20 steps
    for group, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        for param, tensor in zip(group["params"], other["params"], strict=True):
            np.testing.assert_allclose(param, tensor.detach().numpy(), rtol=tolerance, atol=tolerance)


def copied(ours, theirs, to):
    """Copy the parameters of one to the other."""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        for group, other in zip(ours.param_groups, theirs.param_groups, strict=True):
            for param, tensor in zip(group["params"], other["params"], strict=True):
                if to == "ours":
                    param[...] = tensor.numpy()
                else:
                    tensor.copy_(torch.from_numpy(param))


def with_tensors(value):
    """A state of PyTorch's form, its arrays as tensors."""
    torch = pytest.importorskip("torch")
    if isinstance(value, dict):
        return {key: with_tensors(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [with_tensors(entry) for entry in value]
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


@each_kind
def test_a_run_goes_on_from_pytorchs_state(kind, dtype):
    ours, theirs = pair(kind, dtype)
    rng = np.random.default_rng(0)
    for step in range(10):
        step_both(None, theirs, rng, dtype, leave_out=(3, 5) if step < 4 else (5,))
    theirs.param_groups[0]["lr"] = 0.03
    for _ in range(5):
        step_both(ours, None, rng, dtype)  # which the state overwrites
    copied(ours, theirs, "ours")
    ours.load_torch_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["lr"] == 0.03
    for i in range(10):
        step_both(ours, theirs, rng, dtype, leave_out=(1,) if i == 3 else ())
    assert_close(ours, theirs, dtype)


@each_kind
def test_pytorch_goes_on_from_our_state(kind, dtype):
    ours, theirs = pair(kind, dtype)
    rng = np.random.default_rng(0)
    for step in range(10):
        step_both(ours, None, rng, dtype, leave_out=(3, 5) if step < 4 else (5,))
    ours.param_groups[0]["lr"] = 0.03
    copied(ours, theirs, "theirs")
    state = ours.to_torch_state_dict()
    wanted = theirs.state_dict()["param_groups"]
    assert [set(group) for group in state["param_groups"]] == [set(group) for group in wanted]
    theirs.load_state_dict(with_tensors(state))
    for i in range(10):
        step_both(ours, theirs, rng, dtype, leave_out=(1,) if i == 3 else ())
    assert_close(ours, theirs, dtype)


@each_kind
def test_our_state_in_pytorchs_form_comes_back_to_the_same_bits(kind):
    ours, rng = after_steps(pyreg, kind, F32, 5)
    other = with_parameters_of(made(pyreg, kind, F32), ours)
    other.load_torch_state_dict(ours.to_torch_state_dict())
    for _ in range(2):
        grads = gradients(rng, F32)
        ours.step(grads)
        other.step(grads)
    assert everything(other)[0] == everything(ours)[0]


def test_tensors_of_bfloat16_and_numbers_in_tensors_are_read():
    torch = pytest.importorskip("torch")
    param = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    theirs = torch.optim.AdamW([param], lr=torch.tensor(0.25), foreach=False)
    param.grad = torch.full((3,), 0.5, dtype=torch.bfloat16)
    theirs.step()
    ours = pyreg.AdamW([np.ones(3, F32)])
    ours.load_torch_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["lr"] == 0.25
    np.testing.assert_array_equal(ours.state[0]["exp_avg"], theirs.state[param]["exp_avg"].float().numpy())
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    low = pyreg.AdamW([np.ones(3, F32)], state_dtype=bfloat16)
    low.load_torch_state_dict(theirs.state_dict())
    np.testing.assert_array_equal(low.state[0]["exp_avg"].astype(F32), ours.state[0]["exp_avg"])
    assert low.to_torch_state_dict()["state"][0]["exp_avg"].dtype == F32


def test_pytorchs_states_that_do_not_fit_change_nothing():
    ours = pyreg.AdamW([np.ones(3), np.ones((2, 2))])
    ours.step([np.ones(3), None])

    def state():
        return pyreg.AdamW([np.ones(3), np.ones((2, 2))], lr=0.5).to_torch_state_dict() | {
            "state": {0: {"step": np.array(3.0), "exp_avg": np.ones(3), "exp_avg_sq": np.ones(3)}}
        }

    def refused(change, *fragments):
        wrong = state()
        change(wrong)
        refused_and_unchanged(ours, partial(ours.load_torch_state_dict, wrong), *fragments)

    for whole in (None, [], {}, {"state": {}}, {"state": [], "param_groups": []}, state() | {"more": 1}):
        refused_and_unchanged(ours, partial(ours.load_torch_state_dict, whole), "state")
    for flat in (ours.state_dict(), in_a_file(ours.state_dict())):
        load = partial(ours.load_torch_state_dict, flat)
        refused_and_unchanged(ours, load, "got what state_dict returned; load it with load_state_dict")
    for nested in (state(), {"param_groups": []}):
        load = partial(ours.load_state_dict, nested)
        refused_and_unchanged(ours, load, "load it with load_torch_state_dict", error=TypeError)
    for whole, shown in ((dict.fromkeys("abcdefg"), "'a', 'b', 'c', 'd', 'e' and 2 more"), ({}, "nothing")):
        refuses(TypeError, partial(ours.load_torch_state_dict, whole), f"got one with {shown}")
    refused(lambda s: s["param_groups"].append(s["param_groups"][0]), "1 groups, got 2")
    refused(lambda s: s["param_groups"][0]["params"].pop(), "2 parameters, got 1")
    refused(lambda s: s["param_groups"][0].pop("lr"), "'lr'")
    refused(lambda s: s["param_groups"][0].update(lr=np.nan), "lr")
    refused(lambda s: s["param_groups"][0].update(betas=(0.9,)), "betas")
    refused(lambda s: s["param_groups"][0].update(momentum=0.9), "'momentum'")
    refused(lambda s: s["param_groups"][0].update(amsgrad=True), "amsgrad")
    refused(lambda s: s["param_groups"][0].update(decoupled_weight_decay=False), "decoupled_weight_decay=True")
    refused(lambda s: s["param_groups"].__setitem__(0, []), "param_groups")
    refused(lambda s: s["param_groups"][0].update(params=[0, 0]), "once")
    refused(lambda s: s["state"].update({7: {}}), "7")
    refused(lambda s: s["state"][0].pop("exp_avg"), "'exp_avg'")
    refused(lambda s: s["state"][0].pop("step"), "'step'")
    refused(lambda s: s["state"][0].update(more=np.ones(3)), "'more'")
    refused(lambda s: s["state"][0].update(exp_avg=np.ones(4)), "['exp_avg']", "(4,)")
    refused(lambda s: s["state"][0].update(exp_avg=np.ones(3, int)), "['exp_avg']", "int64")
    refused(lambda s: s["state"][0].update(exp_avg="text"), "['exp_avg']")
    refused(lambda s: s["state"].update({0: [1.0]}), "must be a dict")
    for step in (-1.0, 0.5, np.nan, np.inf, 2.0**63):
        refused(lambda s, step=step: s["state"][0].update(step=np.array(step)), "['step']")
    refused(lambda s: s["state"][0].update(step=np.ones(1)), "['step']")
    for wrong in (pyreg.Adam([np.ones(3), np.ones((2, 2))]), pyreg.SGD([np.ones(3), np.ones((2, 2))])):
        refused_and_unchanged(ours, partial(ours.load_torch_state_dict, wrong.to_torch_state_dict()))
    ours.load_torch_state_dict(state())
    assert (ours.step_count, ours.param_groups[0]["lr"]) == (3, 0.5)
    ours.param_groups[0]["bias_correction"] = False
    refuses(ValueError, ours.to_torch_state_dict, "bias_correction")
