"""pyreg's calls beside a copy of as many bytes and beside other libraries."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from console import WrongAnswer
from tqdm import tqdm

import pyreg
from pyreg import _core
from pyreg._cases import Shape

from .case import Case, array_of_pyreg
from .measure import Call, Effort, measure
from .operations import OPERATIONS
from .report import Peers, Row, format_comparison, format_shape

LARGE = 2**22  # elements: from here on, results in new arrays are timed too


def import_peers(names: Iterable[str]) -> tuple[Peers, list[str]]:
    """Return the peers that can be imported, and the names of the others."""
    peers, missing = {}, []
    for name in names:
        try:
            module = importlib.import_module(f"kernels.peers.{name}")
            peers[module.NAME] = module
        except ImportError:
            missing.append(name)
    return peers, missing


def checked(case: Case, name: str, make: Callable[[], Call], read: Callable[[Any], Any] | None = None) -> Call:
    """Return the call that `make` makes, if its answer is right. `read` makes it readable for NumPy."""
    case.restore()
    call = make()
    try:
        answer = read(call()) if read else call()
        if name == "pyreg":
            case.check(answer, roundings=1)
            case.check_bits(answer)
        else:
            case.check(answer)
    except WrongAnswer as error:
        raise WrongAnswer(f"{name}, {case.name} at {format_shape(case.shape)}: {error}") from None
    return call


def checked_peer(case: Case, name: str, peers: Peers) -> Call | None:
    """Return the call of a peer, if its answer is right; None if it does not measure the operation."""
    make = getattr(peers[name], case.name, None)
    return make and checked(case, name, lambda: make(case), getattr(peers[name], "read", None))


def copies(case: Case) -> dict[str, Call]:
    """Return copies that move as many bytes as the operation must, with either kind of stores."""
    source = np.ones(math.ceil(case.bytes_moved / 2 / 4), np.float32)
    target = array_of_pyreg(source.shape)
    return {
        "copy": lambda: _core.copy(source, target, False),
        "nontemporal copy": lambda: _core.copy(source, target, True),
    }


def compare_case(case: Case, threads: int, peers: Peers, effort: Effort) -> Iterator[Row]:
    """Yield the row of an operation at a size and thread count, and another one for results in new arrays."""
    own = {"pyreg": checked(case, "pyreg", case.public_call)}
    if case.operation.also_new and case.size >= LARGE:
        own["pyreg, new"] = checked(case, "pyreg", case.new_call)
    if case.name == "adamw_update":  # as much traffic as the update's, one addition for each element written
        own["update loop"] = lambda: _core.update_loop(case.param, case.grad, case.exp_avg, case.exp_avg_sq)
    groups: list[dict[str, Call]] = [own | copies(case)]
    for name, peer in peers.items():
        if peer.set_num_threads(threads) and (call := checked_peer(case, name, peers)):
            groups.append({name: call})
    times = measure(groups, threads, effort)
    new = times.pop("pyreg, new", None)
    title = case.operation.title
    yield Row(title, case.shape, threads, "out=", case.bytes_moved, times)
    if new:
        yield Row(title, case.shape, threads, "new", case.bytes_moved, times | {"pyreg": new})


def compare(
    sizes: dict[str, Sequence[Shape]],
    dtype: np.dtype[Any],
    threads: Sequence[int],
    peers: Peers,
    effort: Effort,
    bar: tqdm,
) -> list[Row]:
    """Measure the operations at these sizes, and print a table of each."""
    everything: list[Row] = []
    bar.reset(sum(map(len, sizes.values())) * len(threads))
    for title, shapes in sizes.items():
        rows: list[Row] = []
        for shape in shapes:
            bar.set_description(f"{title}, {format_shape(shape)}")
            case = Case(OPERATIONS[title], shape, dtype)
            for n in threads:
                with pyreg.num_threads(n):
                    rows += compare_case(case, n, peers, effort)
                bar.update()
        bar.write(format_comparison(rows, peers))
        everything += rows
    return everything
