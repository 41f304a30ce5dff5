"""What the programs of test_mpi.py share, each of which runs on every rank of an MPI job:

    mpiexec -n 2 python -m mpi4py tests/mpi_steps.py FUNCTION ...

A function that returns normally on all ranks has passed.
"""

import sys

import numpy as np
from mpi4py import MPI

import pyreg
import pyreg.mpi
from pyreg.mpi._shards import BLOCK

COMM = MPI.COMM_WORLD
RANK, RANKS = COMM.rank, COMM.size
F32, F64 = np.float32, np.float64

# Parameters that are cut into several parts and that are not, in both memory orders, small and empty ones.
SHAPES = {
    "table": (700, 130), "bias": (7,), "transposed": (300, 90), "scalar": (), "empty": (0, 3), "kernel": (2, 3, 70),
    "matrix": (200, 333), "vector": (3 * BLOCK + 1,), "last": (1,),
}  # fmt: skip
KINDS = {
    "AdamW": {"weight_decay": 0.1},
    "Adam": {"weight_decay": 0.1, "amsgrad": True, "maximize": True},
    "SGD": {"momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1},
}


def model(dtype):
    rng = np.random.default_rng(3)
    params = {name: np.asarray(rng.normal(size=shape)).astype(dtype) for name, shape in SHAPES.items()}
    return params | {"transposed": np.asfortranarray(params["transposed"])}


def groups(params):
    decaying = ("table", "transposed", "matrix", "scalar")
    return [
        {"params": {name: params[name] for name in decaying}},
        {"params": {name: params[name] for name in params if name not in decaying}, "weight_decay": 0.0, "lr": 0.003},
    ]


def gradients_of(rank, step, dtype, scale=1.0):
    """The gradients of a rank. In some steps, a rank has none of a parameter; in some, nobody has."""
    rng = np.random.default_rng([step, rank])
    grads = {name: np.asarray(scale * rng.normal(size=shape)).astype(dtype) for name, shape in SHAPES.items()}
    if step == 2:
        grads["matrix"] = grads["bias"] = None
    if step == 3 and rank == 0:
        grads["vector"] = None
    return grads


def in_rank_order(every, divisor):
    """The sum of all ranks' gradients, added one after the other, divided."""
    made = {}
    for name in every[0]:
        given = [grads[name] for grads in every]
        if all(grad is None for grad in given):
            made[name] = None
            continue
        some = next(grad for grad in given if grad is not None)
        wide = F64 if some.dtype == F64 else F32
        terms = [np.zeros(some.shape, wide) if grad is None else grad.astype(wide) for grad in given]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        made[name] = total / wide(divisor)
    return made


def same(got, expected, what=""):
    got, expected = np.asarray(got), np.asarray(expected)
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape), what
    assert got.tobytes() == expected.tobytes(), what


def same_states(sharded, single):
    """The states of all ranks together are those of the single process."""
    state = sharded.state_dict()
    assert (state is not None) == (RANK == 0)
    if state is not None:
        expected = single.state_dict()
        assert list(state) == list(expected)
        for entry, array in expected.items():
            same(state[entry], array, entry)


def pair(kind, dtype, op="mean", reduce="ordered", **options):
    """A sharded optimiser, the one of a single process, and the parameters of both."""
    both = model(dtype), model(dtype)
    options = {"lr": 0.01} | KINDS[kind] | options
    sharded = getattr(pyreg.mpi, f"Sharded{kind}")(COMM, groups(both[0]), **options, op=op, reduce=reduce)
    return sharded, getattr(pyreg, kind)(groups(both[1]), **options), *both


def step_both(sharded, single, step, dtype, scale=1.0, **options):
    """A step of both, whose norms are the same."""
    every = [gradients_of(rank, step, dtype, scale) for rank in range(RANKS)]
    norm = sharded.step(every[RANK], **options)
    expected = single.step(in_rank_order(every, RANKS if sharded._op == "mean" else 1), **options)
    assert norm == expected


def everything(optimizer):
    arrays = [array.tobytes() for states in optimizer.state.values() for array in states.values()]
    params = [param.tobytes() for group in optimizer.param_groups for param in group["params"]]
    options = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    return arrays, params, repr(options), optimizer.step_count, optimizer._steps.tolist()


def tells_all(call, error, *words, optimizer=None):
    """The call raises this error on every rank, with the same message, and changes nothing."""
    before = everything(optimizer) if optimizer else None
    try:
        call()
    except error as raised:
        message = str(raised)
    else:
        raise AssertionError(f"no error with {words}")
    assert all(word in message for word in words), message
    assert len(set(COMM.allgather(message))) == 1, message
    if optimizer:
        assert everything(optimizer) == before


def main(functions):
    functions[sys.argv[1]](*sys.argv[2:])
