"""Measure pyreg's kernels side by side with a copy and with other libraries.

The tables have a row for each operation, size and thread count. Every answer is checked before it is timed. The calls
of pyreg, the copies and the other libraries take turns. NumPy is always measured, PyTorch if it is installed, and JAX
and numba, if they are, for LayerNorm, dropout and AdamW. --company and --busy measure what users get: calls between
matrix products, and calls beside other programs. --dtype float16 and bfloat16 measure pyreg and PyTorch. --models
measures an optimiser's step over all tensors of a model, by adamw_update and pyreg.AdamW, beside PyTorch's. --mpi
measures the step of GPT-2 small by pyreg.mpi.ShardedAdamW on 1, 2 and 4 ranks.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
from console import exit_status, output_file
from kernels.against import format_against, read_run
from kernels.company import PRODUCTS, SHAPES, company
from kernels.compare import compare, import_peers
from kernels.gain import gain
from kernels.internals import isa, python_layer, sweep
from kernels.measure import FULL, QUICK, Effort
from kernels.models import models
from kernels.mpi import mpi
from kernels.operations import OPERATIONS
from kernels.report import Peers, format_disturbance, format_machine, format_notes
from kernels.state import from_state, read_state
from tqdm import tqdm

import pyreg
from pyreg._cases import sixteen_bit_dtypes

PEERS = ("numpy", "torch", "jax", "numba")


def threads_list(text: str) -> list[int]:
    """Read the numbers of --threads."""
    try:
        threads = {int(part) for part in text.split(",")}
        for n in threads:
            with pyreg.num_threads(n):
                pass
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers of threads from 1 on, like 1,2") from None
    return sorted(threads)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__)
    add = parser.add_argument
    names = list(dict.fromkeys(operation.function for operation in OPERATIONS.values()))
    default_threads = sorted({1, pyreg.get_num_threads()})  # --company and --busy know no others
    add("--quick", action="store_true", help="in seconds: few repeats, the two smallest sizes")
    add("--only", action="append", choices=names, metavar="OP", help=f"of {', '.join(names)}; repeatable")
    add(
        "--threads",
        type=threads_list,
        default=default_threads,
        metavar="N,N",
        help=f"numbers of threads; default: {','.join(map(str, default_threads))}",
    )
    add("--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="of all arrays")
    add("--compile", action="store_true", help="PyTorch through torch.compile as well, which is slow")
    add("--json", type=output_file(), metavar="FILE", help="write every number to FILE")
    add("--against", type=read_run, metavar="FILE", help="compare with the run that --json wrote to FILE")
    add(
        "--plot", type=output_file(".png", ".svg", ".pdf"), metavar="FILE", help="draw the speeds of the most threads"
    )
    add("--company", action="store_true", help="instead: calls between matrix products, on the default threads")
    add("--busy", action="store_true", help="instead: calls beside busy processes, which it starts and ends")
    add("--sweep", action="store_true", help="instead: pyreg's time per element against the size")
    add("--isa", action="store_true", help="instead: what each instruction-set level gains")
    add("--gain", action="store_true", help="instead: what --dtype gains over float32, on the most threads")
    add("--models", action="store_true", help="instead: AdamW over whole models, on the most threads")
    add("--mpi", action="store_true", help="instead: ShardedAdamW on 1, 2 and 4 ranks of an MPI job, which it starts")
    add(
        "--state",
        type=read_state,
        metavar="FILE",
        help="instead: AdamW in each precision against float64, from the optimiser's state in an npz file",
    )
    args = parser.parse_args(argv)
    args.kinds = [kind for kind in ("company", "busy") if getattr(args, kind)]
    args.inside = args.sweep or args.isa or args.gain
    args.whole = args.models or args.mpi or args.state is not None
    for option in ("plot", "compile"):
        if getattr(args, option) and (args.kinds or args.inside or args.whole):
            parser.error(
                f"--{option} cannot be combined with --company, --busy, --sweep, --isa, --gain, --models, --mpi or "
                "--state"
            )
    if args.mpi and args.threads != default_threads:
        parser.error("--mpi measures on threads of its own: the CPUs divided among the ranks")
    if args.whole and (args.kinds or args.inside or args.only or args.dtype != "float32" or args.against):
        parser.error("--models, --mpi and --state can be combined with --quick, --threads and --json alone")
    dtypes = {np.dtype(t).name: np.dtype(t) for t in (np.float32, *sixteen_bit_dtypes())}
    if args.dtype not in dtypes:
        parser.error("argument --dtype: bfloat16 is that of the package ml_dtypes, which is not installed")
    args.dtype = dtypes[args.dtype]
    if args.kinds and args.dtype != np.float32:
        parser.error("--company and --busy measure float32 alone: NumPy has no matrix product in 16 bits")
    if args.gain and (args.dtype == np.float32 or args.sweep or args.isa):
        parser.error("--gain needs --dtype float16 or bfloat16, and cannot be combined with --sweep or --isa")
    if args.kinds and (args.inside or args.threads != default_threads):
        parser.error("--company and --busy cannot be combined with --threads, --sweep, --isa or --gain")
    if args.against and args.inside:
        parser.error("--against cannot be combined with --sweep, --isa or --gain")
    if args.against and (
        args.against.get("dtype", "float32") != args.dtype.name
        or not any(args.against.get(kind) for kind in args.kinds or ["rows"])
    ):
        parser.error(
            "argument --against: that run did not measure what this one does; see --dtype, --company and --busy"
        )
    if args.isa and not args.sweep:
        if args.threads not in (default_threads, [1]):
            parser.error("--isa measures on one thread")
        args.threads = [1]
    if args.gain or args.whole:
        args.threads = args.threads[-1:]
    known = PRODUCTS if args.kinds else OPERATIONS
    args.ops = [title for title in known if not args.only or title.split()[0] in args.only]
    if not args.ops:
        parser.error(f"--company and --busy measure only {', '.join(title.split()[0] for title in PRODUCTS)}")
    args.ops = [title for title in args.ops if OPERATIONS[title].takes(args.dtype)]
    if not args.ops:
        parser.error(f"{', '.join(args.only)}: does not take {args.dtype}")
    return args


def measure_inside(args: argparse.Namespace, effort: Effort, bar: tqdm) -> dict[str, Any]:
    """Measure and print what --sweep, --isa and --gain ask for; return it for JSON."""
    results = {}
    if args.sweep:
        text, results["sweep"] = sweep(args.ops, args.dtype, args.threads, args.quick, effort, bar)
        bar.write(text)
    if args.isa:
        text, results["isa"] = isa(args.ops, args.dtype, args.quick, effort, bar)
        bar.write(text)
    if args.gain:
        text, results["gain"] = gain(args.ops, args.dtype, args.threads[0], args.quick, effort, bar)
        bar.write(text)
    return results


def measure_whole(args: argparse.Namespace, peers: Peers, effort: Effort, bar: tqdm) -> dict[str, Any]:
    """Measure and print what --models, --mpi and --state ask for; return it for JSON."""
    results = {}
    if args.models:
        text, results["models"] = models(args.threads[0], args.quick, peers, effort, bar)
        bar.write(text)
    if args.mpi:
        text, results["mpi"] = mpi(args.quick, bar)
        bar.write(text)
    if args.state:
        text, results["state"] = from_state(args.state)
        bar.write(text)
    return results


def measure_comparison(args: argparse.Namespace, peers: Peers, effort: Effort, bar: tqdm) -> dict[str, Any]:
    """Measure and print the comparison, and what the Python layer costs; return it for JSON."""
    sizes = {op: OPERATIONS[op].sizes[: 2 if args.quick else None] for op in args.ops}
    rows = compare(sizes, args.dtype, args.threads, peers, effort, bar)
    text, layer = python_layer(args.ops, args.dtype, effort, bar)
    bar.write(text)
    bar.write(format_notes(peers, args.dtype.name, with_loop="adamw_update" in args.ops))
    # A new array waits for its memory, whatever else the machine does.
    bar.write(format_disturbance(row.times["pyreg"] for row in rows if row.result == "out="))
    if args.plot:
        from kernels.plot import plot  # matplotlib takes a second to import

        config = pyreg.show_config("dicts")
        plot(args.plot, rows, f"{config['machine']['cpu']}, {config['isa']['chosen']}", args.dtype.name)
    return {"rows": [row.as_json(peers) for row in rows], "python_layer": layer}


def work(args: argparse.Namespace) -> None:
    """Measure, print, write the files."""
    effort = QUICK if args.quick else FULL
    # NumPy computes float16 one element at a time, and bfloat16 not by itself.
    available = PEERS if args.dtype == np.float32 else ("torch",)
    wanted: tuple[str, ...] = (*available, *["torch_compile"] * args.compile)
    if args.kinds or args.inside or args.whole:
        wanted = PEERS[:2] if args.kinds else ("torch",) if args.models else ()
    peers, missing = import_peers(wanted)
    machine: dict[str, Any] = pyreg.show_config("dicts") | {
        "measured_threads": args.threads,
        "peers": {name: peer.VERSION for name, peer in peers.items()},
    }
    print(format_machine(machine, missing), flush=True)
    # disable=None: no bar if stderr is not a terminal.
    with tqdm(disable=None, leave=False) as bar:
        if args.kinds:
            shapes = SHAPES[: 2 if args.quick else None]
            measured = {kind: company(kind, args.ops, shapes, peers, effort, bar) for kind in args.kinds}
            results = {kind: [row.as_json() for row in rows] for kind, rows in measured.items()}
        elif args.inside:
            results = measure_inside(args, effort, bar)
        elif args.whole:
            results = measure_whole(args, peers, effort, bar)
        else:
            results = measure_comparison(args, peers, effort, bar)
    run = {"machine": machine, "dtype": args.dtype.name, **results}
    if args.json:
        args.json.write_text(json.dumps(run, indent=1) + "\n")
    if args.against:
        print(format_against(args.against, run))


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks for; return the exit status."""
    args = parse_args(argv)
    return exit_status(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
