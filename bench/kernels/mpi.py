"""ShardedAdamW on 1, 2 and 4 ranks of this machine: the time of a step, of its phases, and the memory of a rank."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from console import WrongAnswer, format_seconds, format_table, three_digits
from tqdm import tqdm

import pyreg

from .case import digest
from .internals import Table
from .measure import Times
from .model_shapes import MODELS
from .mpi_lines import LINES, NUMBERS, WARM_UP, arrays, parameters_of

RANKS = (1, 2, 4)
STEPS, ROUNDS = 6, 3  # of a job, and how often each job runs
JOB = Path(__file__).with_name("mpi_rank.py")
LIMIT = 600  # seconds for a job
# Open MPI starts more ranks than there are CPUs only if it is told to: version 5, and those before.
MORE_RANKS_THAN_CPUS = {
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}


def mpiexec() -> str:
    """Return the command that starts MPI jobs: that beside Python, if an MPI is installed there."""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        raise SystemExit("--mpi needs mpiexec, which was not found: pip install 'pyreg[mpi]' mpich")
    return found


def start(ranks: int, *arguments: str, limit: int) -> subprocess.CompletedProcess[str]:
    """Run a Python program on this many ranks, for at most `limit` seconds."""
    command = [mpiexec(), "-n", str(ranks), sys.executable, "-m", "mpi4py", *arguments]
    # Python's own way to end a program at its limit would leave the ranks behind.
    process = subprocess.Popen(
        command, env=os.environ | MORE_RANKS_THAN_CPUS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, errors = process.communicate(timeout=limit)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def run_job(model: str, line: str, ranks: int, steps: int) -> dict[str, Any]:
    """Run a job; return what it measured."""
    made = start(ranks, str(JOB), model, line, str(steps), limit=LIMIT)
    if made.returncode:
        raise SystemExit(f"the job on {ranks} ranks failed:\n{made.stdout}{made.stderr}")
    measured: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return measured


def digest_of_one_process(model: str, line: str) -> str:
    """Return the digest of the parameters after the untimed steps of pyreg.AdamW."""
    params, copies, grads = arrays(MODELS[model], LINES[line])
    optimizer = pyreg.AdamW(params, **NUMBERS, param_out=copies)
    for _ in range(WARM_UP):
        optimizer.step(grads)
    return digest(copies or params)


def check(measured: dict[str, Any], expected: str, line: str, ranks: int) -> None:
    """Raise WrongAnswer if some rank's parameters are not those of one process.

    They have the same bits, but for PyTorch's: those are within a hundredth of a step.
    """
    right = (r["error"] <= 1e-2 if "error" in r else r["digest"] == expected for r in measured["ranks"])
    if not all(right):  # NaN is not
        raise WrongAnswer(f"{line} on {ranks} ranks: params differ from pyreg.AdamW's")


def rows_of(model: str, measured: dict[tuple[str, int], list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    parameters = parameters_of(MODELS[model])
    for (line, ranks), jobs in measured.items():
        times = Times.of([step for job in jobs for step in job["steps"]])
        every = [rank for job in jobs for rank in job["ranks"]]
        phases = {name: float(np.mean([rank["phases"][name] for rank in every])) for name in every[0]["phases"]}
        reduced, gathered = LINES[line].bytes_sent(parameters, ranks)
        yield {
            "model": model,
            "line": line,
            "ranks": ranks,
            "threads": jobs[0]["threads"],
            "step": times._asdict(),
            "phases": phases,
            "bytes_sent": reduced + gathered,
            "memory": max(rank["memory"] for rank in every),
            "arrays": LINES[line].bytes_held(parameters, ranks),
        }


def format_rows(rows: list[dict[str, Any]], version: str) -> str:
    head = ("ShardedAdamW", "ranks", "threads", "step", "mean", "p90", "reduction", "update", "gather", "sent")
    head = (*head, "memory", "arrays")
    cells = []
    for row in rows:
        step = (format_seconds(row["step"][name]) for name in ("median", "mean", "p90"))
        phases = (format_seconds(seconds) if seconds else "-" for seconds in row["phases"].values())
        sizes = (f"{three_digits(row[name] / 1e6)} MB" for name in ("bytes_sent", "memory", "arrays"))
        cells.append([row["line"], str(row["ranks"]), str(row["threads"]), *step, *phases, *sizes])
    model = rows[0]["model"]
    return format_table(f"{model}: {parameters_of(MODELS[model]):,} parameters, {version}", head, cells)


NOTES = """\
All ranks are on this machine. threads: of each rank. step: the median of the steps, from the time when all ranks have
  begun to the time when all have ended; mean and p90 of the same steps.
reduction, update, gather: the mean time in these phases, of all ranks. On one rank, nothing is summed or gathered.
sent: by a rank in a step; as much is received.
memory: the largest resident set of a rank, as Linux counts it, less that of Python and NumPy. arrays: of these, the
  parameters, their copies, the gradients, and this rank's part of the states and of the sum of gradients.
master: parameters and states in float32, gradients and copies in bfloat16. The ranks exchange the copies.
PyTorch: gradients are averaged in buckets by Gloo, as DistributedDataParallel does, which sends them twice; then
  ZeroRedundancyOptimizer with fused AdamW, whose ranks have whole parameters each. arrays: without the buckets.
"""


def mpi(quick: bool, bar: tqdm) -> Table:
    """Print the table; return what the columns mean, and the rows for JSON."""
    model, steps, rounds = ("CHGNet", 3, 1) if quick else ("GPT-2 small", STEPS, ROUNDS)
    digests = {line: digest_of_one_process(model, line) for line in LINES}
    measured: dict[tuple[str, int], list[dict[str, Any]]] = {(line, n): [] for line in LINES for n in RANKS}
    bar.reset(rounds * len(measured))
    for _ in range(rounds):
        for (line, ranks), jobs in measured.items():
            bar.set_description(f"{line}, {ranks} ranks")
            jobs.append(run_job(model, line, ranks, steps))
            check(jobs[-1], digests[line], line, ranks)
            bar.update()
    rows = list(rows_of(model, measured))
    bar.write(format_rows(rows, next(iter(measured.values()))[0]["mpi"]))
    return NOTES, rows
