"""Steps on several ranks: beside those of one process."""

import os

import numpy as np
from mpi4py import MPI
from mpi_ranks import (
    COMM,
    F32,
    F64,
    RANK,
    RANKS,
    everything,
    gradients_of,
    groups,
    in_rank_order,
    main,
    model,
    pair,
    same,
    same_states,
    step_both,
    tells_all,
)

import pyreg
import pyreg.mpi
from pyreg.mpi._sharded_params import own_comm
from pyreg.mpi._shards import BLOCK


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
            sharded, *_ = pair("AdamW", F32)
            grads = gradients_of(RANK, 0, F32)
            if RANK == RANKS - 1:
                grads[place][(-1,) * grads[place].ndim] = bad
            before = everything(sharded)
            norm = sharded.step(grads, skip_nonfinite=True)
            assert not np.isfinite(norm)
            assert everything(sharded) == before
            assert np.isfinite(sharded.step(gradients_of(RANK, 0, F32), skip_nonfinite=True))
            assert sharded.step_count == 1


def the_sign_of_a_zero_is_that_of_the_sum():
    for reduce in ("ordered", "mpi"):
        param = np.zeros(5, F32)
        optimizer = pyreg.mpi.ShardedSGD(COMM, [param], lr=1.0, momentum=0.5, op="sum", reduce=reduce)
        optimizer.step([np.full(5, -0.0, F32)])
        buffers = COMM.allgather(optimizer.state[0]["momentum_buffer"])
        assert np.signbit(np.concatenate(buffers)).all()


def parameters_are_added_later(param_out):
    import ml_dtypes

    low = ml_dtypes.bfloat16
    options = {} if param_out == "param_out" else {"rounding": "stochastic", "key": 5}
    dtype = F32 if param_out == "param_out" else low
    both = []
    for make in (lambda *arguments, **o: pyreg.mpi.ShardedAdamW(COMM, *arguments, **o), pyreg.AdamW):
        params = model(dtype)
        new = {"new": np.ones((5, BLOCK), dtype), "small": np.ones(3, dtype)}
        outs = [{name: param.astype(low, order="K") for name, param in of.items()} for of in (params, new)]
        copies = [{"param_out": out} if param_out == "param_out" else {} for out in outs]
        both.append((make(groups(params), **options, **copies[0]), params, new, outs, copies[1]))
    (sharded, params, new, outs, _), (single, expected, new_expected, outs_expected, _) = both
    step_both(sharded, single, 0, dtype)
    for optimizer, _, added, _, copy in both:
        optimizer.add_param_group({"params": added, "lr": 0.5}, **copy)
    for step in (1, 2):
        every = [gradients_of(rank, step, dtype) for rank in range(RANKS)]
        for rank, grads in enumerate(every):
            rng = np.random.default_rng(rank)
            grads |= {name: rng.normal(size=param.shape).astype(dtype) for name, param in new.items()}
        assert sharded.step(every[RANK], max_norm=1.0) == single.step(in_rank_order(every, RANKS), max_norm=1.0)
    if param_out == "param_out":
        sharded.gather_params()
        for name, out in (outs[0] | outs[1]).items():
            same(out, (outs_expected[0] | outs_expected[1])[name], name)
    for name, param in (params | new).items():
        same(param, (expected | new_expected)[name], name)
    same_states(sharded, single)
    tells_all(
        lambda: sharded.add_param_group({"params": {"bias": np.ones(3)}}),
        (TypeError, ValueError),
        "",
        optimizer=sharded,
    )


def shards_of_unequal_length_are_exchanged():
    """A large parameter that is not cut: some ranks have several messages, others none."""
    for shapes in ({"large": (700, 1000), "small": (100,)}, {"small": (100_000,), "large": (1000, 700)}):
        params, expected = (
            {name: np.asfortranarray(np.ones(s, F32)) for name, s in shapes.items()} for _ in range(2)
        )
        sharded, single = pyreg.mpi.ShardedSGD(COMM, params, lr=1.0), pyreg.SGD(expected, lr=1.0)
        for step in range(3):
            rng = np.random.default_rng(step)
            every = [{n: rng.normal(size=s).astype(F32) for n, s in shapes.items()} for _ in range(RANKS)]
            sharded.step(every[RANK])
            single.step(in_rank_order(every, RANKS))
        for name, param in params.items():
            same(param, expected[name], name)


def params_come_in_iterators():
    arrays = [np.ones(3, F32) for _ in range(4)]
    groups = [{"params": (x for x in arrays[:2])}, {"params": (x for x in arrays[2:]), "lr": 0.5}]
    optimizer = pyreg.mpi.ShardedAdamW(COMM, groups)
    assert [group["param_names"] for group in optimizer.param_groups] == [(0, 1), (2, 3)]


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


def ranks_share_the_cpus():
    alone = pyreg.get_num_threads()
    pyreg.mpi.ShardedSGD(COMM, [np.zeros(3)])
    assert 1 <= pyreg.get_num_threads() <= max(1, alone // RANKS)


def a_lower_number_of_threads_stays():
    pyreg.set_num_threads(1)
    pyreg.mpi.ShardedSGD(COMM, [np.zeros(3)])
    assert pyreg.get_num_threads() == 1


def omp_num_threads_is_set_on_one_rank():
    if RANK == 1:
        os.environ["OMP_NUM_THREADS"] = "1"
    pyreg.mpi.ShardedSGD(COMM, [np.zeros(3)])


def omp_num_threads_takes_precedence():
    assert pyreg.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])
    pyreg.mpi.ShardedSGD(COMM, [np.zeros(3)])
    assert pyreg.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])


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
    alone = pyreg.mpi.ShardedSGD(MPI.COMM_SELF, [np.zeros(3)])
    params = {"w": np.full(3 * BLOCK, float(RANK % 2), F32)}
    optimizer = pyreg.mpi.ShardedSGD(part, params, lr=1.0)
    optimizer.step({"w": np.full(3 * BLOCK, part.rank + 1.0, F32)})
    expected = RANK % 2 - np.mean(np.arange(part.size) + 1.0)
    assert (params["w"] == F32(expected)).all()
    alone.step([np.ones(3)])
    part.Free()


def communicators_are_freed():
    """More than MPICH has at a time."""
    for _ in range(2100):
        comm = MPI.COMM_SELF.Dup()
        own_comm(comm)
        comm.Free()


if __name__ == "__main__":
    main(globals())
