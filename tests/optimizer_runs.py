"""What the tests of the optimiser classes share: a small model in two groups, its gradients, and all that is kept."""

import io

import numpy as np
import pytest

import pyreg

SHAPES = {"matrix": (5, 4), "bias": (4,), "scalar": (), "kernel": (2, 3, 70), "empty": (0, 3), "last": (1,)}

# Classes and options that PyTorch has too.
KINDS = {
    "AdamW": ("AdamW", {"weight_decay": 0.1}),
    "AdamW amsgrad": ("AdamW", {"weight_decay": 0.1, "amsgrad": True, "betas": (0.8, 0.9)}),
    "Adam": ("Adam", {"weight_decay": 0.1, "eps": 1e-4, "maximize": True}),
    "SGD": ("SGD", {}),
    "SGD momentum": ("SGD", {"momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1}),
    "SGD nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
}

both_twins = pytest.mark.parametrize("twin", [pyreg, pyreg.reference], ids=["compiled", "reference"])
each_kind = pytest.mark.parametrize("kind", KINDS)


def model(dtype):
    rng = np.random.default_rng(3)
    return {name: np.asarray(rng.normal(size=shape)).astype(dtype) for name, shape in SHAPES.items()}


def gradients(rng, dtype, scale=1.0):
    return {name: np.asarray(scale * rng.normal(size=shape)).astype(dtype) for name, shape in SHAPES.items()}


def made(twin, kind, dtype, **options):
    """An optimiser of a new model by name, in two groups."""
    name, own = KINDS[kind]
    params = model(dtype)
    groups = [
        {"params": {key: params[key] for key in ("matrix", "kernel", "scalar")}},
        {"params": {key: params[key] for key in ("bias", "empty", "last")}, "weight_decay": 0.0, "lr": 0.02},
    ]
    return getattr(twin, name)(groups, **{"lr": 0.01} | own | options)


def everything(optimizer):
    """All that an optimiser keeps, as bytes and numbers, to compare."""
    arrays = {
        name: [param.tobytes()] + [(role, array.tobytes()) for role, array in optimizer.state[name].items()]
        for group in optimizer.param_groups
        for name, param in zip(group["param_names"], group["params"], strict=True)
    }
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    averages = {name: array.tobytes() for name, array in optimizer.ema.items()}
    counts = [optimizer.step_count, optimizer.key, *optimizer._steps.tolist()]
    return arrays, averages, groups, counts


def after_steps(twin, kind, dtype, steps, **options):
    """An optimiser after some steps, in one of which a parameter was left out; and a generator for more of them."""
    rng = np.random.default_rng(0)
    optimizer = made(twin, kind, dtype, **options)
    for step in range(steps):
        optimizer.step(gradients(rng, dtype) | ({"bias": None} if step == 1 else {}))
    return optimizer, rng


def with_parameters_of(optimizer, other):
    """The optimiser, its parameters overwritten by those of the other: what a user does with a checkpoint."""
    for group, of_other in zip(optimizer.param_groups, other.param_groups, strict=True):
        for param, value in zip(group["params"], of_other["params"], strict=True):
            param[...] = value
    return optimizer


def in_a_file(state):
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    return np.load(file, allow_pickle=False)


def refused_and_unchanged(optimizer, load, *fragments, error=(TypeError, ValueError)):
    before = everything(optimizer)
    with pytest.raises(error) as caught:
        load()
    message = str(caught.value)
    assert all(fragment in message for fragment in fragments), message
    assert everything(optimizer) == before
