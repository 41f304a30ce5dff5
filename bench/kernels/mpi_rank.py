"""A rank of the jobs that mpi.py starts: steps of ShardedAdamW over a model. Rank 0 prints what all measured.

mpiexec -n RANKS python -m mpi4py bench/kernels/mpi_rank.py MODEL LINE STEPS
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyreg
from kernels.case import Array, digest
from kernels.measure import Call
from kernels.model_shapes import MODELS
from kernels.mpi_lines import FLOAT32, LINES, NUMBERS, WARM_UP, Line, arrays
from pyreg.mpi import ShardedAdamW
from pyreg.mpi._cpus import share_cpus

Seconds = dict[str, float]

# The methods in which a step spends its time.
PHASES = {"reduction": "_reduced", "update": "_take_step", "gather": "_all_gather"}


def record_phases(seconds: Seconds) -> None:
    """From now on, add up the time in each phase."""

    def recording(phase: str, method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                seconds[phase] += time.perf_counter() - start

        return call

    for phase, name in PHASES.items():
        setattr(ShardedAdamW, name, recording(phase, getattr(ShardedAdamW, name)))


def resident(kind: str) -> int:
    """Return the bytes of memory that this process has ("VmRSS"), or had at most ("VmHWM"), as Linux counts them."""
    return int(re.findall(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024


def make_step(line: Line, params: Any, copies: Any, grads: Any, seconds: Seconds) -> tuple[Call, Any]:
    """Return the step, which adds the time in each phase to `seconds`, and the parameters that it updates."""
    if line.engine == "torch":
        from kernels import mpi_torch

        return mpi_torch.step(MPI.COMM_WORLD, params, grads, seconds)
    optimizer = ShardedAdamW(MPI.COMM_WORLD, params, **NUMBERS, param_out=copies, reduce=line.reduce)
    record_phases(seconds)
    return lambda: optimizer.step(grads), params


def error(params: list[Array], model: str, steps: int) -> float:
    """Return the largest difference from the parameters after as many steps of pyreg.AdamW, in learning rates."""
    expected, _, grads = arrays(MODELS[model], FLOAT32)
    optimizer = pyreg.AdamW(expected, **NUMBERS)
    for _ in range(steps):
        optimizer.step(grads)
    every = zip(params, expected, strict=True)
    return max(float(np.max(np.abs(a - b))) for a, b in every) / NUMBERS["lr"]


def main(model: str, name: str, steps: int) -> None:
    comm, line = MPI.COMM_WORLD, LINES[name]
    share_cpus(comm)
    threads = pyreg.get_num_threads()
    if line.engine == "torch":
        # Imported before memory is counted. Started by mpiexec, PyTorch takes one thread unless it is told otherwise.
        import torch

        torch.set_num_threads(threads)
    before = resident("VmRSS")
    params, copies, grads = arrays(MODELS[model], line)
    seconds: Seconds = defaultdict(float)
    step, updated = make_step(line, params, copies, grads, seconds)
    samples = []
    for number in range(steps + WARM_UP):
        if number == WARM_UP:
            bits = digest(copies or params)
            seconds.clear()
        comm.Barrier()
        start = time.perf_counter()
        step()
        comm.Barrier()
        samples.append(time.perf_counter() - start)
    phases = {phase: seconds[phase] / steps for phase in PHASES}
    own = {"phases": phases, "memory": resident("VmHWM") - before, "digest": bits}
    if line.engine == "torch":
        own["error"] = error([param.detach().numpy() for param in updated], model, steps + WARM_UP)
    ranks = comm.gather(own)
    if comm.rank == 0:
        version = " ".join(MPI.Get_library_version().splitlines()[0].strip("\0").split())
        measured = {"steps": samples[WARM_UP:], "ranks": ranks, "threads": threads, "mpi": version}
        print(json.dumps(measured))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
