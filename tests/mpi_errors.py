"""What one rank gets wrong, all are told. Jobs that end."""

import copy
import os
import signal

import numpy as np
from mpi4py import MPI
from mpi_ranks import COMM, F32, F64, RANK, RANKS, gradients_of, main, model, pair, tells_all

import pyreg
import pyreg.mpi


def ranks_that_disagree_are_told():
    second = RANK == 1  # the others agree
    make, low = pyreg.mpi.ShardedAdamW, np.float16
    params = model(F32)

    def told(*words, error=ValueError, **options):
        arguments = {"params": params} | options
        tells_all(lambda: make(COMM, **arguments), error, *words)

    told(
        "lr of param_groups[0] must be the same on all ranks",
        "0.1 on rank 0 and 0.2 on rank 1",
        lr=0.2 if second else 0.1,
    )
    told("betas of param_groups[0]", betas=(0.8, 0.9) if second else (0.9, 0.99))
    told(
        "the shape of params['w']",
        "(3, 4) on rank 0 and (4, 3)",
        params={"w": np.zeros((4, 3) if second else (3, 4))},
    )
    told("the dtype of params[0]", "'float32' on rank 0", params=[np.zeros(3, F64 if second else F32)])
    told("the strides of params[0]", params=[np.zeros((3, 4), order="F" if second else "C")])
    told("the CRC of params[0] must be the same", "comm.Bcast", params=[np.full(3, float(second))])
    told("the names of params", params={"b" if second else "a": np.zeros(3)})
    told("op must be the same", op="sum" if second else "mean")
    told("reduce must be the same", reduce="mpi" if second else "ordered")
    told("key must be the same", key=RANK)
    told("state_dtype must be the same", state_dtype=F64 if second else None, params=[np.zeros(3)])
    outs = [{name: param.astype(dtype, order="K") for name, param in params.items()} for dtype in (F32, low)]
    told("the dtype of param_out['table']", param_out=outs[second])
    told("param_out must be the same", param_out=outs[0] if second else None)
    told("on rank 1: lr must be finite and >= 0, got -1", lr=-1 if second else 0.1)
    told("on rank 1: params must be", "got NoneType", error=TypeError, params=None if second else params)
    told("on rank 0: op must be 'mean' or 'sum', got 'max'", op="max")
    told("on rank 0: reduce must be 'ordered' or 'mpi', got 3", reduce=3)

    optimizer, *_ = pair("AdamW", F32)
    grads = gradients_of(RANK, 0, F32)

    def step_told(*words, error=ValueError, grads=grads, **options):
        tells_all(lambda: optimizer.step(grads, **options), error, *words, optimizer=optimizer)

    step_told("lr must be the same", lr=0.1 * RANK)
    step_told("max_norm must be the same", max_norm=1.0 + RANK)
    step_told("grad_scale must be the same", grad_scale=1.0 + RANK)
    step_told("skip_nonfinite must be the same", skip_nonfinite=second)
    step_told("on rank 1: grad_scale must be", grad_scale=-1.0 if second else 1.0)
    other = grads | {"table": grads["table"].astype(low)}
    message = "grads['table'] must have the same dtype on all ranks, got float32 on rank 0 and float16 on rank 1"
    step_told(message, error=TypeError, grads=other if second else grads)
    step_told("on rank 1: grads['bias'] must have shape (7,)", grads=grads | {"bias": np.zeros(7 + second, F32)})
    without = {name: grad for name, grad in grads.items() if name != "last" or not second}
    step_told("on rank 1", "nothing for 'last'; None counts as zeros", grads=without)
    step_told("on rank 1: grads must be given", grads=None if second else grads)
    rows = pyreg.sum_duplicate_rows([3], np.zeros((1, 130), F32))
    step_told(
        "on rank 1: grads['table']",
        "RowsGradient",
        error=TypeError,
        grads=grads | ({"table": rows} if second else {}),
    )
    tells_all(
        lambda: optimizer.accumulate(None if second else grads), TypeError, "on rank 1: grads", optimizer=optimizer
    )
    different = (lambda: optimizer.accumulate(grads)) if second else (lambda: optimizer.step(grads))
    tells_all(different, ValueError, "the method that is called must be the same", "'step'", optimizer=optimizer)
    before = optimizer.param_groups[1]["lr"]
    if second:
        optimizer.param_groups[1]["lr"] = 0.7
    step_told("lr of param_groups[1] must be the same")
    optimizer.param_groups[1]["lr"] = before
    optimizer.accumulate(grads)
    step_told("grad_scale must be finite in float32", grad_scale=1e39)
    optimizer.step()
    assert optimizer.step_count == 1
    optimizer.accumulate(grads)
    tells_all(lambda: optimizer.add_param_group({"params": {"new": np.zeros(3)}}), ValueError, "accumulated")


def optimisers_are_not_confused():
    for first, second in (([np.zeros(3)], [np.ones(3)]), ([np.zeros(3)], [np.zeros(2), np.zeros(1)])):
        one, other = (pyreg.mpi.ShardedSGD(COMM, params) for params in (first, second))
        called = one if RANK == 0 else other
        grads = [np.ones_like(param) for param in called.param_groups[0]["params"]]
        tells_all(lambda c=called, g=grads: c.step(g), ValueError, "the optimiser", optimizer=called)


def what_would_stop_an_update_is_found_before():
    import ml_dtypes

    params = {"w": np.ones(2 * 16384, ml_dtypes.bfloat16), "v": np.ones(9, ml_dtypes.bfloat16)}
    optimizer = pyreg.mpi.ShardedAdamW(COMM, params, rounding="stochastic", key=3)
    grads = {name: np.ones_like(param) for name, param in params.items()}
    optimizer.accumulate(grads)
    for key in (-1, None, 2**64, 1.5):
        optimizer.key = key
        tells_all(optimizer.step, (TypeError, ValueError), "key must be", optimizer=optimizer)
    optimizer.key = 3
    for array in (optimizer.state["w"]["exp_avg"], optimizer.state["v"]["exp_avg_sq"]):
        array.flags.writeable = RANK < RANKS - 1
        tells_all(optimizer.step, ValueError, "must be writeable", optimizer=optimizer)
        array.flags.writeable = True
    optimizer.step()
    assert optimizer.step_count == 1
    optimizer.accumulate(dict.fromkeys(params))
    optimizer.step()
    assert optimizer.step_count == 2


def numbers_beyond_the_dtype_raise_nothing():
    np.seterr(all="raise")
    for bad in ((3e38, 3e38), (np.inf, -np.inf), (np.nan, 0.0)):
        optimizer = pyreg.mpi.ShardedSGD(COMM, [np.ones(5, F32)], op="sum")
        norm = optimizer.step([np.full(5, bad[RANK % 2], F32)], skip_nonfinite=True)
        assert not np.isfinite(norm)  # as a float32
        optimizer.accumulate([np.full(5, bad[RANK % 2], F32)])


def what_is_not_supported_says_so():
    optimizer, *_ = pair("AdamW", F32)
    for call, error in (
        (lambda: copy.copy(optimizer), TypeError),
        (lambda: copy.deepcopy(optimizer), TypeError),
        (optimizer.to_torch_state_dict, NotImplementedError),
        (lambda: optimizer.load_torch_state_dict({}), NotImplementedError),
        (lambda: pyreg.mpi.ShardedAdamW(None, [np.zeros(3)]), TypeError),
        (lambda: pyreg.mpi.ShardedAdamW(MPI.COMM_NULL, [np.zeros(3)]), TypeError),
    ):
        try:
            call()
        except error:
            continue
        raise AssertionError("no error")


def one_rank_raises():
    optimizer, *_ = pair("AdamW", F32)
    optimizer.step(gradients_of(RANK, 0, F32))
    if RANK == RANKS - 1:
        raise KeyError("of this rank alone")
    optimizer.step(gradients_of(RANK, 1, F32))  # waits for the rank that is gone


def one_rank_is_killed():
    optimizer, *_ = pair("AdamW", F32)
    optimizer.step(gradients_of(RANK, 0, F32))
    if RANK == RANKS - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    optimizer.step(gradients_of(RANK, 1, F32))


def the_examples_run():
    import doctest

    for name in pyreg.mpi.__all__:
        for test in doctest.DocTestFinder().find(getattr(pyreg.mpi, name), name, globs={}):
            assert doctest.DocTestRunner().run(test).failed == 0


if __name__ == "__main__":
    main(globals())
