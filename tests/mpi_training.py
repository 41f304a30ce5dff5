"""bench/'s data-parallel training on several ranks, beside the same on one."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI
from mpi_ranks import COMM, RANK, main

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from training import runs


def parameters_have_the_bits_of_one_rank():
    rng = np.random.default_rng(0)
    x, labels = rng.random((30, 8, 8), np.float32), rng.integers(0, 10, 30)
    split = runs.Split(x[:19], labels[:19], x[19:], labels[19:])  # whose batches do not divide evenly
    runs.load_split = lambda train_size, rng: split
    settings = runs.Settings("pre", 19, 3, 1e-3, 1.0, 0.1, 2, 16)
    for name in ("none", "all three"):
        several, alone = (runs.run(name, 1, settings, comm) for comm in (COMM, MPI.COMM_SELF))
        assert several.digest == alone.digest
        if RANK == 0:
            assert several.values.tobytes() == alone.values.tobytes()
        other = runs.run(name, 1, dataclasses.replace(settings, lr=2e-3), COMM)
        assert other.digest != several.digest


if __name__ == "__main__":
    main(globals())
