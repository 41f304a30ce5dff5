"""PyTorch's sharded optimiser, on Gloo: DistributedDataParallel's sum of gradients, then ZeroRedundancyOptimizer.

Each rank has the states of some parameters, which are not cut. The gradients are averaged on all ranks, in buckets of
25 MiB as DistributedDataParallel does; the parameters are broadcast by those that updated them.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch
from mpi4py import MPI
from torch import distributed
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.distributed.optim import ZeroRedundancyOptimizer

from .case import Array
from .measure import Call
from .mpi_lines import NUMBERS

BUCKET = 25 * 2**20  # bytes: DistributedDataParallel's default


class Timed(ZeroRedundancyOptimizer):
    """Adds up the time in which parameters are broadcast."""

    seconds: dict[str, float]

    def _sync_params(self) -> None:
        start = time.perf_counter()
        super()._sync_params()
        self.seconds["gather"] += time.perf_counter() - start


def buckets_of(tensors: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Return the tensors in groups of about BUCKET bytes, the last ones first."""
    made: list[list[torch.Tensor]] = [[]]
    for tensor in reversed(tensors):
        if sum(t.nbytes for t in made[-1]) >= BUCKET:
            made.append([])
        made[-1].append(tensor)
    return made


def step(
    comm: MPI.Intracomm, params: list[Array], grads: list[Array], seconds: dict[str, float]
) -> tuple[Call, list[torch.Tensor]]:
    """Return the step, and the parameters that it updates."""
    folder = tempfile.TemporaryDirectory() if comm.rank == 0 else None
    meeting = f"file://{comm.bcast(folder and folder.name)}/ranks"
    distributed.init_process_group("gloo", init_method=meeting, rank=comm.rank, world_size=comm.size)
    comm.Barrier()  # before the folder goes
    tensors = [torch.from_numpy(param).requires_grad_() for param in params]
    for tensor, grad in zip(tensors, grads, strict=True):
        tensor.grad = torch.from_numpy(grad)
    options = NUMBERS | {"fused": True, "parameters_as_bucket_view": True}  # which broadcasts one bucket a rank
    optimizer = Timed(tensors, torch.optim.AdamW, **options)
    optimizer.seconds = seconds
    buckets = buckets_of([tensor.grad for tensor in tensors])

    def reduce() -> None:
        begun: list[Any] = []
        for bucket in buckets:
            flat = _flatten_dense_tensors(bucket).div_(comm.size)
            begun.append((bucket, flat, distributed.all_reduce(flat, async_op=True)))
        for bucket, flat, work in begun:
            work.wait()
            for tensor, summed in zip(bucket, _unflatten_dense_tensors(flat, bucket), strict=True):
                tensor.copy_(summed)

    def call() -> None:
        start = time.perf_counter()
        if comm.size > 1:
            reduce()
        reduced = time.perf_counter()
        before = seconds["gather"]
        optimizer.step()
        seconds["reduction"] += reduced - start if comm.size > 1 else 0.0
        seconds["update"] += time.perf_counter() - reduced - (seconds["gather"] - before)

    return call, tensors
