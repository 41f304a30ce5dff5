"""Measure pyreg's kernels side by side with a copy and with other libraries.

One row for an operation, size and thread count. Every answer is checked before it is timed; the
repeats of pyreg, the copies and the peers are interleaved; what is shown are medians. NumPy is always
measured, PyTorch where it is installed, and so are JAX and numba, for LayerNorm, dropout and AdamW.
--company and --busy measure what a user gets: calls between matrix products, and beside other programs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import run_pyreg
from command_line import exit_status
from run_case import Call, Case, WrongAnswer
from run_company import PRODUCTS, SHAPES, company
from run_internals import isa, python_layer, sweep
from run_measure import FULL, QUICK, Effort, measure
from run_ops import OPS
from run_report import (
    Row,
    format_comparison,
    format_disturbance,
    format_machine,
    format_notes,
    format_shape,
)
from tqdm import tqdm

import pyreg

LARGE = 2**22  # elements: from here on, a result in a new array is timed too

# The name in the tables: the module beside this file.
PEERS = {"numpy": "run_numpy", "torch": "run_torch", "jax": "run_jax", "numba": "run_numba"}
COMPILE = {"compile": "run_torch_compile"}


def threads_list(text: str) -> list[int]:
    """Read the numbers of --threads."""
    try:
        threads = {int(part) for part in text.split(",")}
        for n in threads:
            with pyreg.num_threads(n):
                pass
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers of threads, like 1,2") from None
    return sorted(threads)


def output_file(text: str) -> Path:
    """Read a file name, and refuse at once what would fail after minutes of measuring."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"cannot write {text}: its folder does not exist, or it is a folder")
    return path


def picture_file(text: str) -> Path:
    """Read the name of a picture, whose ending says its format."""
    path = output_file(text)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a name that ends in .png, .svg or .pdf")
    return path


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__)
    add = parser.add_argument
    names = list(dict.fromkeys(title.split()[0] for title in OPS))
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
    add("--compile", action="store_true", help="PyTorch through torch.compile as well, which is slow")
    add("--json", type=output_file, metavar="FILE", help="write every number to FILE")
    add("--plot", type=picture_file, metavar="FILE.png", help="draw the speeds of the most threads")
    add("--company", action="store_true", help="instead: calls between matrix products, threads as they come")
    add("--busy", action="store_true", help="instead: calls beside busy processes, which it starts and ends")
    add("--sweep", action="store_true", help="instead: pyreg's time per element against the size")
    add("--isa", action="store_true", help="instead: what each instruction-set level gains")
    args = parser.parse_args(argv)
    args.company = [kind for kind in ("company", "busy") if getattr(args, kind)]
    for option in ("plot", "compile"):
        if getattr(args, option) and (args.company or args.sweep or args.isa):
            parser.error(f"--{option} does not go with --company, --busy, --sweep and --isa")
    if args.company and (args.sweep or args.isa or args.threads != default_threads):
        parser.error("--company and --busy do not go with --threads, --sweep and --isa")
    if args.isa and not args.sweep:
        args.threads = [1]
    known = PRODUCTS if args.company else OPS
    args.ops = [title for title in known if not args.only or title.split()[0] in args.only]
    if not args.ops:
        parser.error(f"--company and --busy measure only {', '.join(title.split()[0] for title in PRODUCTS)}")
    return args


def import_peers(wanted: Mapping[str, str]) -> tuple[dict[str, ModuleType], list[str]]:
    """Return the modules of the peers that can be imported, and the names of the others."""
    peers, missing = {}, []
    for name, module in wanted.items():
        try:
            peers[name] = importlib.import_module(module)
        except ImportError:
            missing.append(name)
    return peers, missing


def checked(case: Case, name: str, make: Callable[[Case], Call]) -> Call:
    """Return the call that `make` makes for a case, if its answer is right."""
    case.restore()
    call = make(case)
    try:
        answer = call()
        case.check(answer)
        if name == "pyreg":
            case.check_bits(answer)
    except WrongAnswer as error:
        raise WrongAnswer(f"{name}, {case.name} at {format_shape(case.shape)}: {error}") from None
    return call


def compare_case(
    title: str, case: Case, threads: int, peers: Mapping[str, ModuleType], effort: Effort
) -> Iterator[Row]:
    """Yield the row of an operation at a size and thread count, and that of a new result."""
    own = {"pyreg": checked(case, "pyreg", run_pyreg.public_call)}
    if case.also_new and case.size >= LARGE:
        own["pyreg, new"] = checked(case, "pyreg", run_pyreg.new_call)
    if case.name == "adamw_update":
        own["update_loop"] = run_pyreg.update_loop(case)
    groups: list[dict[str, Call]] = [own | run_pyreg.copies(case)]
    for name, peer in peers.items():
        if hasattr(peer, case.name) and peer.set_num_threads(threads):
            groups.append({name: checked(case, name, getattr(peer, case.name))})
    times = measure(groups, threads, effort)
    new = times.pop("pyreg, new", None)
    yield Row(title, case.shape, threads, "out=", case.bytes_moved, times)
    if new:
        yield Row(title, case.shape, threads, "new", case.bytes_moved, times | {"pyreg": new})


def compare(
    args: argparse.Namespace, peers: Mapping[str, ModuleType], effort: Effort, bar: tqdm
) -> tuple[list[Row], Any]:
    """Measure and print the comparison; return its rows, and what the Python layer costs."""
    sizes = {op: OPS[op].sizes[: 2 if args.quick else None] for op in args.ops}
    everything: list[Row] = []
    bar.reset(sum(map(len, sizes.values())) * len(args.threads))
    for op in args.ops:
        rows: list[Row] = []
        for shape in sizes[op]:
            bar.set_description(f"{op}, {format_shape(shape)}")
            case = OPS[op](shape)
            for threads in args.threads:
                with pyreg.num_threads(threads):
                    rows += compare_case(op, case, threads, peers, effort)
                bar.update()
        bar.write(format_comparison(rows, peers))
        everything += rows
    text, layer = python_layer(args.ops, effort)
    bar.write(text)
    bar.write(format_notes(peers, with_loop="adamw_update" in args.ops))
    bar.write(format_disturbance(row.times["pyreg"] for row in everything))
    return everything, layer


def look_inside(args: argparse.Namespace, effort: Effort, bar: tqdm) -> dict[str, Any]:
    """Measure and print what --sweep and --isa ask for; return it for JSON."""
    results = {}
    if args.sweep:
        text, results["sweep"] = sweep(args.ops, args.threads, args.quick, effort, bar)
        bar.write(text)
    if args.isa:
        text, results["isa"] = isa(args.ops, args.quick, effort, bar)
        bar.write(text)
    return results


def work(args: argparse.Namespace) -> None:
    """Measure, print, write the files."""
    effort = QUICK if args.quick else FULL
    inside = args.sweep or args.isa
    machine: dict[str, Any] = pyreg.show_config("dicts") | {"measured_threads": args.threads}
    wanted = {} if inside else PEERS | (COMPILE if args.compile else {})
    if args.company:
        wanted = {name: PEERS[name] for name in ("numpy", "torch")}
    peers, missing = import_peers(wanted)
    machine["peers"] = {name: peer.VERSION for name, peer in peers.items()}
    print(format_machine(machine, missing), flush=True)
    # disable=None: no bar where stderr is not a terminal.
    with tqdm(disable=None, leave=False) as bar:
        if args.company:
            shapes = SHAPES[: 2 if args.quick else None]
            results = {kind: company(kind, args.ops, shapes, peers, checked, effort, bar) for kind in args.company}
        elif inside:
            results = look_inside(args, effort, bar)
        else:
            rows, layer = compare(args, peers, effort, bar)
            results = {"rows": [row.as_json(peers) for row in rows], "python_layer": layer}
    if args.json:
        args.json.write_text(json.dumps({"machine": machine, **results}, indent=1) + "\n")
    if args.plot:
        from run_plot import plot  # matplotlib takes a second to import

        plot(args.plot, rows, f"{machine['machine']['cpu']}, {machine['isa']['chosen']}")


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks for; return the exit status."""
    args = parse_args(argv)
    return exit_status(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
