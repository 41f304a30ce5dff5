"""Time a training step of train.py's Transformer, and of a larger one, and compare it with PyTorch's.

The model is trained on the same images with pyreg's fused functions, with the separate ones, and in PyTorch, from the
same weights; in PyTorch with its own dropout masks, and with pyreg's. The losses are compared. The times are medians
over steps that the libraries take in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any
from unittest import mock

from console import exit_status, interrupt_ignored, number
from kernels.measure import REST
from tqdm import tqdm
from training import turns as in_process
from training.losses import check
from training.steps import Problem
from training.steps_report import format_losses, format_times
from training.turns import PYREG_WAYS, TORCH_WAYS, Turn

import pyreg

# A process keeps the memory that a step has freed: returned to the system, it would be mapped again page by page.
MEMORY = {"MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_MMAP_MAX_": "0"}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="train_step.py", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="in seconds: train.py's model alone, for 10 steps")
    add("--threads", type=number(int, 1, 1024), default=pyreg.get_num_threads(), help="for each library")
    add("--steps", type=number(int, 4), default=100, help="steps of each training; every other one is timed")
    add("--norm-position", choices=("pre", "post"), default="pre", help="Pre-LN or Post-LN")
    args = parser.parse_args(argv)
    if args.quick:
        parser.set_defaults(steps=10)
        args = parser.parse_args(argv)
    if args.steps % 2:
        parser.error(f"argument --steps: {args.steps} is odd, and steps are taken two at a time")
    return args


def problems(args: argparse.Namespace) -> dict[str, Problem]:
    common = {"norm_position": args.norm_position, "steps": args.steps}
    small = {"train.py's model": Problem(d_model=48, d_ff=96, num_tokens=8, **common)}
    large = {"a larger model": Problem(d_model=256, d_ff=1024, num_tokens=64, **common)}
    return small if args.quick else small | large


def library(way: str) -> str:
    return "pyreg" if way in PYREG_WAYS else "torch"


class Processes:
    """A process for each library, which trains in several ways."""

    def __init__(self, threads: int) -> None:
        self.pools: dict[str, ProcessPoolExecutor] = {}
        context = multiprocessing.get_context("spawn")
        for name in ("pyreg", "torch"):
            pool = self.pools[name] = ProcessPoolExecutor(1, context, in_process.start_process, (threads,))
            with mock.patch.dict(os.environ, MEMORY), interrupt_ignored():
                pool.submit(os.getpid).result()  # starts the process

    def run(self, function: Callable[..., Any], way: str, *arguments: Any) -> Any:
        return self.pools[library(way)].submit(function, way, *arguments).result()

    def stop(self) -> None:
        for process in multiprocessing.active_children():
            process.terminate()
        for pool in self.pools.values():
            pool.shutdown(cancel_futures=True)


def train(problem: Problem, processes: Processes, bar: tqdm[Any]) -> tuple[dict[str, list[Turn]], bool]:
    """Train in every way, in turns; return the turns, and whether fused and unfused parameters have the same bits."""
    turns: dict[str, list[Turn]] = {}
    for way in (*PYREG_WAYS, *TORCH_WAYS):
        with contextlib.suppress(ImportError):
            processes.run(in_process.start_training, way, problem)
            turns[way] = []
    bar.reset(problem.steps // 2 * len(turns))
    previous = ""
    for _ in range(problem.steps // 2):
        for way, taken in turns.items():
            if library(way) != previous:
                time.sleep(REST)
            previous = library(way)
            taken.append(processes.run(in_process.take_turn, way))
            bar.update()
    return turns, processes.run(in_process.have_same_bits, "fused", "unfused")


def work(args: argparse.Namespace) -> None:
    """Train, compare, print."""
    processes = Processes(args.threads)
    try:
        # disable=None: no bar where stderr is not a terminal.
        with tqdm(disable=None, leave=False, unit="turn") as bar:
            for title, problem in problems(args).items():
                bar.set_description(title)
                turns, same_bits = train(problem, processes, bar)
                losses = check(turns, same_bits)
                bar.write(format_times(title, problem, args.threads, turns))
                bar.write(format_losses(problem, losses))
    finally:
        processes.stop()


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks for; return the exit status."""
    args = parse_args(argv)
    return exit_status(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
