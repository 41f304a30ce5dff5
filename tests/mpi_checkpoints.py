"""Checkpoints that some ranks write and others read."""

import shutil
from pathlib import Path

import numpy as np
from mpi_ranks import (
    COMM,
    F32,
    KINDS,
    RANK,
    RANKS,
    gradients_of,
    groups,
    main,
    model,
    pair,
    same,
    same_states,
    tells_all,
)

import pyreg
import pyreg.mpi


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


def resumed(kind, folder, loaded, steps, expected_steps):
    """Load what another number of ranks saved, and take more steps: the bits are those of a run that was not cut."""
    sharded, single, params, expected = pair(kind, F32, op="sum", **options_of(kind))
    for step in range(expected_steps):
        single.step(gradients_of(0, step, F32), max_norm=1.0)
    if loaded != "none":
        with np.load(Path(folder) / "params.npz") as file:
            for name in params:
                params[name][...] = file[name]
    if loaded == "shards":
        sharded.load_shards(Path(folder) / "shards")
    elif loaded == "whole":
        with np.load(Path(folder) / "state.npz") as file:
            sharded.load_state_dict(file)
    elif loaded == "whole on rank 0":
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
    shortened = bytearray(kept)  # the header of an array ends 32 bytes before it should
    header = kept.index(b"\x93NUMPY", kept.index(b"vector.exp_avg.npy"))
    shortened[header + 8] ^= 32
    refused(lambda: (folder / last).write_bytes(shortened), last, "incomplete or damaged")
    version = bytearray(kept)
    version[kept.rindex(b"PK\1\2") + 6] ^= 0x80
    refused(lambda: (folder / last).write_bytes(version), last, "incomplete or damaged")

    def write_array():
        with (folder / last).open("wb") as file:
            np.save(file, np.zeros(3))

    refused(write_array, last, "it is no npz file")
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
    tells_all(lambda: sgd.load_shards(folder), ValueError, "shard-00000", "must be of SGD, got one of AdamW")
    low, *_ = pair("AdamW", F32, state_dtype="bfloat16")
    tells_all(
        lambda: low.load_shards(folder), TypeError, "must be bfloat16 (as its bits), got float32", "state_dtype"
    )
    shapes = model(F32) | {"last": np.zeros(2, F32)}
    wrong = pyreg.mpi.ShardedAdamW(COMM, groups(shapes))
    tells_all(lambda: wrong.load_shards(folder), ValueError, "must have 2 elements of 'last', got 1")
    other.load_shards(folder)
    whole = sharded.state_dict()
    again = other.state_dict()
    if RANK == 0:
        for entry, array in whole.items():
            same(again[entry], array, entry)


def nothing_is_replaced_unless_all_can_write(folder):
    folder = Path(folder)
    sharded, *_ = pair("AdamW", F32)
    sharded.save_shards(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    sharded.step(gradients_of(RANK, 0, F32))
    written, open_file = [], Path.open

    def full(path, mode="r"):
        written.append(path)
        if RANK == RANKS - 1:
            raise OSError("No space left on device")
        return open_file(path, mode)

    Path.open = full
    try:
        tells_all(lambda: sharded.save_shards(folder), OSError, f"on rank {RANKS - 1}: No space" if RANKS > 1 else "")
    finally:
        Path.open = open_file
    assert written
    COMM.Barrier()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    if RANKS > 1:
        other = folder.with_name(f"other-{RANK}")
        tells_all(lambda: sharded.save_shards(other), ValueError, "folder must be the same on all ranks")
        assert not other.exists()
        tells_all(lambda: sharded.load_shards(3 if RANK == 1 else folder), TypeError, "on rank 1")


def a_damaged_file_of_a_whole_state_is_refused(path):
    sharded, single, *_ = pair("AdamW", F32)
    if RANK == 0:
        np.savez(path, **single.state_dict())
        damaged = bytearray(Path(path).read_bytes())
        header = damaged.index(b"\x93NUMPY", damaged.index(b"vector.exp_avg.npy"))
        damaged[header + 8] ^= 32  # it ends 32 bytes before it should
        Path(path).write_bytes(damaged)
    COMM.Barrier()
    with np.load(path) as file:
        for state in (file, file if RANK == 0 else None):
            words = "state['vector.exp_avg'] cannot be read"
            tells_all(lambda state=state: sharded.load_state_dict(state), ValueError, words, optimizer=sharded)


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
        one = state | ({"last.step": np.array(3)} if RANK else {})
        tells_all(lambda: sharded.load_state_dict(one), ValueError, "counts of steps must be", optimizer=sharded)
    for entry in (lambda: 0, [1.0], np.array([None])):
        bad = state | {"table.exp_avg": entry} if RANK == 0 else None
        errors, words = (TypeError, ValueError), "state['table.exp_avg'] "
        tells_all(lambda bad=bad: sharded.load_state_dict(bad), errors, words, optimizer=sharded)
    scalars = {name: array[()] for name, array in state.items()}
    sharded.load_state_dict(scalars)
    if RANKS > 1:
        sharded.step_count = RANK
        for give in (sharded.state_dict, lambda: sharded.save_shards("nowhere")):
            tells_all(give, ValueError, "step_count must be the same")
        sharded.step_count = 0
    sharded.load_state_dict(state)
    name = "table" if RANK == 0 else "vector"
    sharded.state[name]["exp_avg"].flags.writeable = RANK > 0
    tells_all(lambda: sharded.load_state_dict(state), ValueError, "read-only here", optimizer=sharded)


if __name__ == "__main__":
    main(globals())
