"""Train a Transformer with and without each regulariser, and report what each one does.

A Transformer encoder, forward and backward on NumPy and pyreg's functions alone, learns scikit-learn's handwritten
digits from a few hundred images, few enough to overfit. It is trained without regularisation, with weight decay,
dropout or LayerNorm, and with all three, each from several keys, and tested on the remaining images. The table shows
the last epoch. No run is stopped early, and no run is left out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from hashlib import sha256
from pathlib import Path
from typing import Any

from console import WrongAnswer, exit_status, interrupt_ignored, number
from threadpoolctl import threadpool_limits
from tqdm import tqdm
from training import data_parallel
from training.report import Results, format_report, format_setting, plot_curves, write_csv
from training.runs import CONFIGURATIONS, NUM_HEADS, Settings, run

import pyreg

# What --quick changes; a flag that is given stays as given.
QUICK = {"keys": 3, "epochs": 60, "train_size": 100, "lr": 3e-3, "layers": 2, "d_model": 32}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    # The defaults were chosen by a few trials on keys 101 and 102; a report starts from key 0.
    parser = argparse.ArgumentParser(
        prog="train.py",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    quick = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in QUICK.items())
    add("--quick", action="store_true", help=f"in seconds: {quick}")
    add("--out", type=Path, default=Path("train-results"), metavar="DIR", help="for the results; overwritten")
    add("--norm-position", choices=("pre", "post"), default="pre", help="Pre-LN or Post-LN")
    add("--keys", type=number(int, 2), default=5, help="runs of each configuration: keys 0, 1, ...")
    add("--epochs", type=number(int, 1), default=60, help="passes over the training images")
    add("--train-size", type=number(int, 10, 1700), default=300, help="images to train on")
    add("--lr", type=number(float, 0, strict=True), default=1e-3, help="AdamW's peak learning rate")
    add(
        "--weight-decay",
        type=number(float, 0),
        default=1.0,
        help="when it is on; a step subtracts lr * weight_decay of a weight, so a short training needs more than a "
        "long one",
    )
    add("--dropout", type=number(float, 0, 0.99), default=0.1, help="p, when dropout is on")
    add("--layers", type=number(int, 1), default=4, help="blocks of attention and feed-forward")
    add("--d-model", type=number(int, 1), default=48, help=f"features: a multiple of {NUM_HEADS}")
    add("--unfused", action="store_true", help="separate functions instead of pyreg's fused ones: the same bits")
    add(
        "--jobs",
        type=number(int, 1),
        default=argparse.SUPPRESS,
        help="runs at a time, each on one thread; the results do not depend on it; default: one for each thread that "
        "pyreg uses",
    )
    add(
        "--mpi",
        action="store_true",
        help="each run on all ranks of an MPI job, a part of each batch on each: start it by `mpiexec -n 4 python -m "
        f"mpi4py bench/train.py --mpi`, with a number of ranks that divides {data_parallel.PARTS}",
    )
    return parser


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Return the checked flags; exit with argparse's message if one is bad."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.quick:
        parser.set_defaults(**QUICK)
        args = parser.parse_args(argv)
    if args.d_model % NUM_HEADS:
        parser.error(f"argument --d-model: {args.d_model} is not a multiple of {NUM_HEADS}")
    if args.mpi and "jobs" in args:
        parser.error("--jobs cannot be combined with --mpi")
    args.jobs = getattr(args, "jobs", pyreg.get_num_threads())
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --out: cannot make the directory {args.out}: {error.strerror}")
    return args


def start_process() -> None:
    """Prepare a training process: one thread, because the matrices are too small to share.

    It also makes the results independent of the number of CPUs: BLAS may sum in another order on more threads.
    """
    threadpool_limits(1)
    pyreg.set_num_threads(1)


def train_all(settings: Settings, keys: range, jobs: int) -> Results:
    """Return the history of every configuration and key, trained in `jobs` processes."""
    tasks = [(name, key) for key in keys for name in CONFIGURATIONS]
    # spawn, not fork: a forked process would inherit the thread pools of BLAS and OpenMP.
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), multiprocessing.get_context("spawn"), start_process)
    try:
        with interrupt_ignored():
            futures = {task: pool.submit(run, *task, settings) for task in tasks}
        # disable=None: no bar if stderr is not a terminal.
        for future in tqdm(as_completed(futures.values()), total=len(tasks), unit="run", disable=None):
            future.result()  # raises here what was raised there
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return {task: future.result() for task, future in futures.items()}


def train_all_on_ranks(settings: Settings, keys: range, comm: Any) -> Results:
    """Return the history of every configuration and key, each trained on all ranks. The values are on rank 0."""
    start_process()
    tasks = [(name, key) for key in keys for name in CONFIGURATIONS]
    bar = tqdm(tasks, unit="run", disable=None if comm.rank == 0 else True)
    return {task: run(*task, settings, comm) for task in bar}


def format_digest(results: Results) -> str:
    """Return a digest of the parameters' bits after all runs."""
    whole = sha256("".join(history.digest for history in results.values()).encode())
    return f"digest of the parameters after all runs: {whole.hexdigest()[:16]}"


def work_on_ranks(args: argparse.Namespace) -> None:
    """Train on all ranks of an MPI job. Rank 0 reports."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise SystemExit(f"--mpi needs mpi4py and an MPI ({error}): pip install 'pyreg[mpi]' mpich") from None
    comm = MPI.COMM_WORLD
    if data_parallel.PARTS % comm.size:
        raise SystemExit(f"--mpi needs a number of ranks that divides {data_parallel.PARTS}, got {comm.size}")
    work(args, comm)


def work(args: argparse.Namespace, comm: Any = None) -> None:
    """Train, print the report, write the files."""
    settings = Settings(
        norm_position=args.norm_position,
        train_size=args.train_size,
        epochs=args.epochs,
        lr=args.lr,
        weight_decay=args.weight_decay,
        dropout=args.dropout,
        num_layers=args.layers,
        d_model=args.d_model,
        unfused=args.unfused,
    )
    keys, out = range(args.keys), args.out
    num_runs = len(CONFIGURATIONS) * len(keys)
    start = time.perf_counter()
    if comm is None:
        print(f"training {num_runs} runs, {min(args.jobs, num_runs)} at a time", flush=True)
        results = train_all(settings, keys, args.jobs)
    else:
        if comm.rank == 0:
            print(f"training {num_runs} runs, each on all ranks: {comm.size}", flush=True)
        results = train_all_on_ranks(settings, keys, comm)
        if len(set(comm.allgather(format_digest(results)))) > 1:
            raise WrongAnswer("the ranks ended with different parameters")
        if comm.rank > 0:
            return
    report = format_report(results, keys, settings)
    if comm is not None:
        report += f"\n\n{format_digest(results)}"
    print(f"\n{report}\n")
    (out / "table.txt").write_text(report + "\n", encoding="utf-8")
    write_csv(out / "runs.csv", results)
    plot_curves(out / "curves.png", results, keys, format_setting(settings))
    seconds = time.perf_counter() - start
    print(f"{seconds:.0f} s; table.txt, runs.csv and curves.png are in {out}")


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks for; return the exit status."""
    args = parse_args(argv)
    return exit_status(lambda: work_on_ranks(args) if args.mpi else work(args))


if __name__ == "__main__":
    sys.exit(main())
