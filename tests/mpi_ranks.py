"""What each rank of the MPI jobs of test_mpi.py runs: mpiexec -n 2 python -m mpi4py tests/mpi_ranks.py FUNCTION ...

A function that returns normally on all ranks has passed.
"""

import copy
import os
import shutil
import signal
import sys
from pathlib import Path

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
# As in optimizer_runs.py, which needs pytest.
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


# --- steps


def steps_have_the_bits_of_one_process(kind):
    for dtype in (F32, F64):
        for op in ("mean", "sum"):
            sharded, single, params, expected = pair(kind, dtype, op, ema_decay=0.9)
            for step in range(5):
                clipping = {"max_norm": 0.5} if step % 2 else {}
                step_both(sharded, single, step, dtype, **clipping, lr=0.02 if step == 4 else None)
            for name, param in params.items():
                same(param, expected[name], name)
            same_states(sharded, single)
            assert sharded.step_count == single.step_count == 5


def low_precision_is_summed_in_float32(kind):
    import ml_dtypes

    for dtype in (ml_dtypes.bfloat16, np.float16):
        options = {"rounding": "stochastic", "key": 7, "state_dtype": ml_dtypes.bfloat16, "ema_decay": 0.5}
        sharded, single, params, expected = pair(kind, dtype, **options)
        for step in range(4):
            step_both(sharded, single, step, dtype, max_norm=1.0)
        for name, param in params.items():
            same(param, expected[name], name)
        same_states(sharded, single)


def gradients_of_mixed_dtypes_are_summed():
    import ml_dtypes

    dtypes = {"table": ml_dtypes.bfloat16, "matrix": np.float16, "bias": ml_dtypes.bfloat16}
    sharded, single, params, expected = pair("AdamW", F32)
    for step in (0, 1):
        every = [gradients_of(rank, step, F32) for rank in range(RANKS)]
        every = [grads | {name: grads[name].astype(dtype) for name, dtype in dtypes.items()} for grads in every]
        sharded.step(every[RANK])
        single.step(in_rank_order(every, RANKS))
    for name, param in params.items():
        same(param, expected[name], name)


def copies_alone_are_exchanged_until_parameters_are_gathered():
    import ml_dtypes

    low = ml_dtypes.bfloat16
    params, expected = model(F32), model(F32)
    copies, others = ({name: param.astype(low, order="K") for name, param in params.items()} for _ in range(2))
    sharded = pyreg.mpi.ShardedAdamW(COMM, params, lr=0.1, param_out=copies)
    single = pyreg.AdamW(expected, lr=0.1, param_out=others)
    for step in range(4):
        step_both(sharded, single, step, low)
    for name, made in copies.items():
        same(made, others[name], name)
    stale = [name for name, param in params.items() if param.tobytes() != expected[name].tobytes()]
    assert bool(stale) == (RANKS > 1)
    sharded.gather_params()
    for name, param in params.items():
        same(param, expected[name], name)


def mpis_own_reduction_is_right():
    # SGD: Adam would divide a rounding error by a gradient that is almost 0.
    sharded, single, params, expected = pair("SGD", F32, reduce="mpi")
    for step in range(4):
        every = [gradients_of(rank, step, F32) for rank in range(RANKS)]
        norm = sharded.step(every[RANK], max_norm=0.5)
        assert abs(norm - single.step(in_rank_order(every, RANKS), max_norm=0.5)) < 1e-5 * norm
    for name, param in params.items():
        np.testing.assert_allclose(param, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def accumulated_gradients_are_added_in_order():
    for op in ("mean", "sum"):
        sharded, single, params, expected = pair("AdamW", F32, op)
        terms = [gradients_of(rank, step, F32) for step in (0, 1, 4) for rank in range(RANKS)]
        sharded.accumulate(gradients_of(RANK, 0, F32))
        sharded.accumulate(gradients_of(RANK, 1, F32))
        norm = sharded.step(gradients_of(RANK, 4, F32), max_norm=0.1)
        assert norm == single.step(in_rank_order(terms, RANKS if op == "mean" else 1), max_norm=0.1)
        # None in the last of several: the sum of the others is divided too. A step without gradients of its own.
        sharded.accumulate(gradients_of(RANK, 5, F32))
        sharded.step(gradients_of(RANK, 2, F32))
        terms = [gradients_of(rank, step, F32) for step in (5, 2) for rank in range(RANKS)]
        for name in ("matrix", "bias"):
            terms = [{name: None} | grads for grads in terms]
        summed = in_rank_order(terms, RANKS if op == "mean" else 1)
        for name in ("matrix", "bias"):
            summed[name] = in_rank_order([{name: t[name]} for t in terms[:RANKS]], RANKS if op == "mean" else 1)[name]
        single.step(summed)
        sharded.accumulate(gradients_of(RANK, 6, F32))
        sharded.step()
        every = [gradients_of(rank, 6, F32) for rank in range(RANKS)]
        single.step(in_rank_order(every, RANKS if op == "mean" else 1))
        for name, param in params.items():
            same(param, expected[name], name)


def a_gradient_that_is_not_finite_on_one_rank_is_skipped_on_all():
    for bad in (np.inf, np.nan):
        for place in ("table", "last", "transposed"):
            sharded, _, params, before = pair("AdamW", F32)
            grads = gradients_of(RANK, 0, F32)
            if RANK == RANKS - 1:
                grads[place][(-1,) * grads[place].ndim] = bad
            norm = sharded.step(grads, skip_nonfinite=True)
            assert not np.isfinite(norm)
            assert sharded.step_count == 0
            for name, param in params.items():
                same(param, before[name], name)
            assert np.isfinite(sharded.step(gradients_of(RANK, 0, F32), skip_nonfinite=True))
            assert sharded.step_count == 1


def the_sign_of_a_zero_is_that_of_the_sum():
    for reduce in ("ordered", "mpi"):
        param = np.zeros(5, F32)
        optimizer = pyreg.mpi.ShardedSGD(COMM, [param], lr=1.0, momentum=0.5, op="sum", reduce=reduce)
        optimizer.step([np.full(5, -0.0, F32)])
        buffers = COMM.allgather(optimizer.state[0]["momentum_buffer"])
        assert np.signbit(np.concatenate(buffers)).all()


def parameters_are_added_later():
    sharded, single, params, expected = pair("AdamW", F32, rounding="nearest")
    step_both(sharded, single, 0, F32)
    new = {"new": np.ones((5, BLOCK), F32), "small": np.ones(3, F32)}, {"new": np.ones((5, BLOCK), F32)}
    new[1]["small"] = np.ones(3, F32)
    for optimizer, added in zip((sharded, single), new, strict=True):
        optimizer.add_param_group({"params": added, "lr": 0.5})
    for step in (1, 2):
        every = [gradients_of(rank, step, F32) for rank in range(RANKS)]
        for rank, grads in enumerate(every):
            rng = np.random.default_rng(rank)
            grads |= {name: rng.normal(size=param.shape).astype(F32) for name, param in new[0].items()}
        assert sharded.step(every[RANK], max_norm=1.0) == single.step(in_rank_order(every, RANKS), max_norm=1.0)
    for name, param in (params | new[0]).items():
        same(param, (expected | new[1])[name], name)
    same_states(sharded, single)
    tells_all(
        lambda: sharded.add_param_group({"params": {"bias": np.ones(3)}}),
        ValueError,
        "must differ",
        optimizer=sharded,
    )


def states_are_divided():
    sharded, _, params, _ = pair("AdamW", F32)
    held = sum(array.size for states in sharded.state.values() for array in states.values())
    whole = 2 * sum(param.size for param in params.values())
    assert sum(COMM.allgather(held)) == whole
    # Cut at a block that is nearest, and the array in Fortran order is not cut.
    assert held <= whole / RANKS + 2 * max(BLOCK, params["transposed"].size)
    for group in sharded.param_groups:
        for name, param in zip(group["param_names"], group["params"], strict=True):
            assert param is params[name]


# --- threads


def ranks_share_the_cpus():
    alone = pyreg.get_num_threads()
    pyreg.mpi.ShardedSGD(COMM, [np.zeros(3)])
    assert 1 <= pyreg.get_num_threads() <= max(1, alone // RANKS)


def omp_num_threads_takes_precedence():
    assert pyreg.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])
    pyreg.mpi.ShardedSGD(COMM, [np.zeros(3)])
    assert pyreg.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])


# --- checkpoints


def shared_gradients(step, rank):
    """Gradients of one rank whose sum over all ranks is the same for any number of them: those of a single rank."""
    grads = gradients_of(0, step, F32)
    return (
        grads
        if rank == step % RANKS
        else {name: None if g is None else np.zeros_like(g) for name, g in grads.items()}
    )


def options_of(kind):
    import ml_dtypes

    state = "momentum_buffer" if kind == "SGD" else "exp_avg"
    return {"ema_decay": 0.9, "rounding": {state: "stochastic"}, "key": 11, "state_dtype": ml_dtypes.bfloat16}


def resumed(kind, folder, sharded_state, steps, expected_steps):
    """Load what another number of ranks saved, and take more steps: the bits are those of a run that was not cut."""
    sharded, single, params, expected = pair(kind, F32, op="sum", **options_of(kind))
    for step in range(expected_steps):
        single.step(gradients_of(0, step, F32), max_norm=1.0)
    if sharded_state != "none":
        with np.load(Path(folder) / "params.npz") as file:
            for name in params:
                params[name][...] = file[name]
    if sharded_state == "shards":
        sharded.load_shards(Path(folder) / "shards")
    elif sharded_state == "whole":
        with np.load(Path(folder) / "state.npz") as file:
            sharded.load_state_dict(file)
    elif sharded_state == "whole on rank 0":
        sharded.load_state_dict(dict(np.load(Path(folder) / "state.npz")) if RANK == 0 else None)
    for step in range(expected_steps - steps, expected_steps):
        sharded.step(shared_gradients(step, RANK), max_norm=1.0)
    for name, param in params.items():
        same(param, expected[name], name)
    same_states(sharded, single)
    return sharded, params


def saved_and_resumed(kind, folder, loaded, steps, expected_steps):
    """Resume, and save again: `loaded` says from what."""
    sharded, params = resumed(kind, folder, loaded, int(steps), int(expected_steps))
    COMM.Barrier()
    if RANK == 0:
        shutil.rmtree(Path(folder) / "shards", ignore_errors=True)
    state = sharded.state_dict()
    if RANK == 0:
        np.savez(Path(folder) / "params.npz", **params)
        np.savez(Path(folder) / "state.npz", **state)
        single = getattr(pyreg, kind)(groups(model(F32)), **KINDS[kind] | options_of(kind))
        single.load_state_dict(state)  # the class of one process reads it
    sharded.save_shards(Path(folder) / "shards")
    assert len(list((Path(folder) / "shards").iterdir())) == RANKS


def shards_that_are_missing_or_damaged_are_refused(folder):
    folder = Path(folder)
    sharded, *_ = pair("AdamW", F32)
    sharded.step(gradients_of(RANK, 0, F32))
    sharded.save_shards(folder)
    other, *_ = pair("AdamW", F32)
    last = f"shard-{RANKS - 1:05}-of-{RANKS:05}.npz"
    kept = (folder / last).read_bytes()

    def refused(change, *words):
        COMM.Barrier()
        if RANK == 0:
            change()
        COMM.Barrier()
        tells_all(lambda: other.load_shards(folder), ValueError, *words, optimizer=other)
        COMM.Barrier()
        if RANK == 0:
            (folder / last).write_bytes(kept)

    refused(lambda: (folder / last).unlink(), *([last, "is missing"] if RANKS > 1 else ["got", "with none"]))
    for length in (0, 1, 100, len(kept) // 2, len(kept) - 1):
        refused(lambda length=length: (folder / last).write_bytes(kept[:length]), last, "incomplete or damaged")
    flipped = bytearray(kept)
    flipped[kept.index(b"vector.exp_avg.npy") + 500] ^= 1  # beyond the headers: an element
    refused(lambda: (folder / last).write_bytes(flipped), last, "incomplete or damaged")
    # A shard of another checkpoint.
    sharded.save_shards(folder.with_name("other"))
    if RANKS > 1:
        other_shard = folder.with_name("other") / last
        refused(lambda: (folder / last).write_bytes(other_shard.read_bytes()), last, "of the same checkpoint")
        COMM.Barrier()
        renamed = folder / f"shard-00000-of-{RANKS:05}.npz"
        first = renamed.read_bytes()
        refused(lambda: renamed.write_bytes(kept), renamed.name, f"must be shard 0 of {RANKS}")
        COMM.Barrier()
        if RANK == 0:
            renamed.write_bytes(first)
    COMM.Barrier()
    stray = folder / "shard-00000-of-00009.npz"
    refused(lambda: stray.touch(), "the shards of one checkpoint", "9")
    tells_all(lambda: other.save_shards(folder), ValueError, f"those of {RANKS} ranks", "9", optimizer=other)
    COMM.Barrier()
    if RANK == 0:
        stray.unlink()
    COMM.Barrier()
    tells_all(lambda: other.load_shards(folder / "none"), OSError, "No such file", optimizer=other)
    small = pyreg.mpi.ShardedAdamW(COMM, {"bias": np.zeros(7, F32)})
    tells_all(lambda: small.load_shards(folder), ValueError, "must be of 1 parameters, got 9")
    sgd, *_ = pair("SGD", F32)
    tells_all(lambda: sgd.load_shards(folder), ValueError, "must be of SGD, got one of AdamW")
    shapes = model(F32) | {"last": np.zeros(2, F32)}
    wrong = pyreg.mpi.ShardedAdamW(COMM, groups(shapes))
    tells_all(lambda: wrong.load_shards(folder), ValueError, "must have 2 elements of 'last', got 1")
    other.load_shards(folder)
    whole = sharded.state_dict()
    again = other.state_dict()
    if RANK == 0:
        for entry, array in whole.items():
            same(again[entry], array, entry)


def states_that_do_not_fit_are_refused():
    sharded, single, *_ = pair("AdamW", F32)
    state = single.state_dict()
    tells_all(lambda: sharded.load_state_dict(None), TypeError, "on rank 0 at least", optimizer=sharded)
    wrong = state | {"table.exp_avg": np.zeros((3, 4), F32)}
    for given in (wrong, wrong if RANK == 0 else None):
        words = "table.exp_avg", "must have shape (700, 130)"
        tells_all(lambda given=given: sharded.load_state_dict(given), ValueError, *words, optimizer=sharded)
    if RANKS > 1:
        one = state | ({"step_count": np.array(3)} if RANK else {})
        tells_all(lambda: sharded.load_state_dict(one), ValueError, "step_count must be the same", optimizer=sharded)
    sharded.load_state_dict(state)


# --- errors


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
    told("the values of params[0]", params=[np.full(3, float(second))])
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

    step_told("lr of param_groups[0] must be the same", lr=0.1 * RANK)
    step_told("max_norm must be the same", max_norm=1.0 + RANK)
    step_told("grad_scale must be the same", grad_scale=1.0 + RANK)
    step_told("skip_nonfinite must be the same", skip_nonfinite=second)
    step_told("on rank 1: grad_scale must be", grad_scale=-1.0 if second else 1.0)
    other = grads | {"table": grads["table"].astype(low)}
    message = "grads['table'] must have the same dtype on all ranks, got float32 on rank 0 and float16 on rank 1"
    step_told(message, error=TypeError, grads=other if second else grads)
    step_told("on rank 1: grads['bias'] must have shape (7,)", grads=grads | {"bias": np.zeros(7 + second, F32)})
    step_told("on rank 1", "nothing for 'last'", grads={n: g for n, g in grads.items() if n != "last" or not second})
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
    optimizer.step(grads)
    assert optimizer.step_count == 1


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


def a_message_of_the_caller_stays_the_callers():
    """A receive from anyone, with any tag, does not take pyreg's messages."""
    room = np.zeros(10**6)
    request = COMM.Irecv(room, MPI.ANY_SOURCE, MPI.ANY_TAG)
    steps_have_the_bits_of_one_process("AdamW")
    COMM.Send(np.full(4, RANK + 1.0), (RANK + 1) % RANKS, 5)
    request.Wait()
    assert room[0] == (RANK - 1) % RANKS + 1


def ranks_of_a_part_of_the_job():
    """Two groups of ranks train apart from each other."""
    part = COMM.Split(RANK % 2)
    params = {"w": np.full(3 * BLOCK, float(RANK % 2), F32)}
    optimizer = pyreg.mpi.ShardedSGD(part, params, lr=1.0)
    optimizer.step({"w": np.full(3 * BLOCK, part.rank + 1.0, F32)})
    expected = RANK % 2 - np.mean(np.arange(part.size) + 1.0)
    assert (params["w"] == F32(expected)).all()


# --- jobs that end


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
    globals()[sys.argv[1]](*sys.argv[2:])
