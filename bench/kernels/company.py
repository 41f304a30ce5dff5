"""In company: calls between matrix products, and calls beside busy processes.

A call is rarely alone. A matrix product before it has used all CPUs, and the threads of that library wait on them for
the next product; or other programs run. Each library works as its users have it, with its default number of threads,
and pyreg also on one thread.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from console import format_ratio, format_seconds, format_table, three_digits
from tqdm import tqdm

import pyreg
from pyreg._cases import Shape

from .case import Case
from .compare import checked, checked_peer
from .measure import REST, SETTLE, WARM_UP, Call, Effort, Times
from .operations import OPERATIONS
from .report import Peers, format_disturbance, format_shape

SHAPES = ((64, 768), (512, 768), (4096, 768))
# The operations, and which of their inputs is the product.
PRODUCTS = {
    "layer_norm_forward": "x",
    "layer_norm_backward": "dy",
    "dropout p=0.1": "x",
    "dropout_add_layer_norm_forward p=0.1": "x",
    "adamw_update": "grad",
}
IN_TURN = 6  # timed calls in a row, after WARM_UP
BUSY_TURN = 0.03  # seconds: several slices of the scheduler


@dataclass(frozen=True)
class CompanyRow:
    """The calls of an operation in a situation.

    `times` has "pyreg", "pyreg, 1 thread" and the peers; `product` are NumPy's products before pyreg's calls.
    """

    situation: str
    op: str
    shape: Shape
    threads: int  # of "pyreg"
    times: dict[str, Times]
    product: Times | None = None
    product_alone: Times | None = None

    def as_json(self) -> dict[str, Any]:
        row = {key: value._asdict() if isinstance(value, Times) else value for key, value in vars(self).items()}
        return row | {"times": {name: times._asdict() for name, times in self.times.items()}}

    def cells(self, peers: Iterable[str]) -> list[str]:
        times, one = self.times["pyreg"], self.times["pyreg, 1 thread"]
        cells = [self.op.split()[0], str(self.shape[0]), *map(format_seconds, (times.median, times.mean, times.p90))]
        cells.append(three_digits(times.mean / one.mean))
        if self.product and self.product_alone:
            cells.append(three_digits(self.product.median / self.product_alone.median))
        return cells + [
            format_ratio(self.times[peer].mean / times.mean if peer in self.times else None) for peer in peers
        ]


class Contender:
    """A library's call and its product; for pyreg, at a number of threads."""

    def __init__(self, name: str, call: Call, product: Call, threads: int | None = None) -> None:
        self.name, self.threads = name, threads
        self.call, self.product = call, product
        self.seconds: list[float] = []
        self.product_seconds: list[float] = []

    def with_its_threads(self) -> contextlib.AbstractContextManager[None]:
        return pyreg.num_threads(self.threads) if self.threads else contextlib.nullcontext()

    def take_turn_after_products(self) -> None:
        time.sleep(REST)
        with self.with_its_threads():
            settled = time.perf_counter() + WARM_UP
            timed = 0
            while timed < IN_TURN:
                start = time.perf_counter()
                self.product()
                middle = time.perf_counter()
                self.call()
                end = time.perf_counter()
                if start > settled:
                    self.product_seconds.append(middle - start)
                    self.seconds.append(end - middle)
                    timed += 1

    def take_turn_call_after_call(self) -> None:
        time.sleep(SETTLE)
        with self.with_its_threads():
            self.call()
            turn_ends = time.perf_counter() + BUSY_TURN
            end = 0.0
            while end < turn_ends:
                start = time.perf_counter()
                self.call()
                end = time.perf_counter()
                self.seconds.append(end - start)


def contenders(case: Case, target: str, peers: Peers) -> list[Contender]:
    """Check the libraries' answers; return pyreg on its default number of threads and on one, and the peers."""
    own = checked(case, "pyreg", case.public_call)
    calls = {name: call for name in peers if (call := checked_peer(case, name, peers))}
    case.restore()
    product = getattr(case, target)
    a = np.random.default_rng(3).standard_normal(product.shape, dtype=np.float32)
    weight = np.random.default_rng(4).standard_normal((product.shape[1],) * 2, dtype=np.float32)
    weight /= np.float32(np.sqrt(len(weight)))

    def multiply() -> object:
        return np.matmul(a, weight, out=product)

    # A peer that multiplies matrices has products of its own.
    products = {name: peers[name].product(a, weight, product) for name in calls if hasattr(peers[name], "product")}
    return [
        Contender("pyreg", own, multiply, pyreg.get_num_threads()),
        Contender("pyreg, 1 thread", own, multiply, 1),
        *(Contender(name, call, products.get(name, multiply)) for name, call in calls.items()),
    ]


def take_turns(effort: Effort, *turns: Callable[[], None]) -> None:
    """Let everyone take a turn in each round, in random order, because a turn finds what the one before it left."""
    order = random.Random(0)
    for _ in effort.rounds():
        for turn in order.sample(turns, len(turns)):
            turn()


def make_row(situation: str, case: Case, made: Sequence[Contender], *products: Times) -> CompanyRow:
    times = {c.name: Times.of(c.seconds) for c in made}
    return CompanyRow(situation, case.operation.title, case.shape, pyreg.get_num_threads(), times, *products)


def after_products(case: Case, made: list[Contender], effort: Effort) -> Iterator[CompanyRow]:
    alone = Contender("the product", lambda: None, made[0].product)
    take_turns(effort, *(c.take_turn_after_products for c in (alone, *made)))
    products = (Times.of(c.product_seconds) for c in (made[0], alone))
    yield make_row("between matrix products", case, made, *products)


@contextlib.contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Processes that compute all the time; they end with this block, or with this process."""
    code = f"import os\nwhile os.getppid() == {os.getpid()}:\n for _ in range(10**6): pass"
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            process = stack.enter_context(
                subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True)
            )
            stack.callback(process.kill)
        time.sleep(0.2)  # they start up
        yield


def beside_processes(case: Case, made: list[Contender], effort: Effort) -> Iterator[CompanyRow]:
    for number in dict.fromkeys((1, len(os.sched_getaffinity(0)))):
        for c in made:
            c.seconds.clear()
        with busy_processes(number):
            take_turns(effort, *(c.take_turn_call_after_call for c in made))
        yield make_row(f"beside {number} busy process{'es' if number > 1 else ''}", case, made)


SITUATIONS = {"company": after_products, "busy": beside_processes}


def company(
    kind: str, ops: list[str], shapes: Sequence[Shape], peers: Peers, effort: Effort, bar: tqdm
) -> list[CompanyRow]:
    """Measure a kind of company, and print a table of each situation."""
    effort = effort._replace(most=10 * effort.most)
    bar.reset(len(ops) * len(shapes))
    rows: list[CompanyRow] = []
    for op in ops:
        for shape in shapes:
            bar.set_description(f"{op}, {format_shape(shape)}")
            case = Case(OPERATIONS[op], shape)
            rows += SITUATIONS[kind](case, contenders(case, PRODUCTS[op], peers), effort)
            bar.update()
    bar.write(format_company(rows, peers))
    if kind == "company":
        bar.write(format_disturbance(row.times["pyreg"] for row in rows))
    return rows


def format_company(rows: Sequence[CompanyRow], peers: Iterable[str]) -> str:
    """Return a table of each situation, and what the columns mean."""
    tables = []
    for situation in dict.fromkeys(row.situation for row in rows):
        there = [row for row in rows if row.situation == situation]
        product = ["product"] * (there[0].product is not None)
        head = [situation, "rows", "median", "mean", "p90", "of 1 thread", *product, *peers]
        tables.append(format_table("", head, [row.cells(peers) for row in there]))
    lines = [
        "median, mean, p90 (the 90th percentile): of pyreg's calls on (rows, 768) float32, out=, p=0.1, on the",
        "  default threads. A mean above p90: a few long waits.",
        "of 1 thread: the mean, divided by that on one thread in the same situation.",
        f"{', '.join(peers)}: their mean, divided by pyreg's.",
    ]
    if rows[0].product:
        lines += [
            "product: the median of the matrix product before the call, (rows, 768) @ (768, 768), by NumPy on its",
            "  default threads; divided by its median without the calls. PyTorch's calls follow products of its own.",
        ]
    else:
        lines += ["Calls follow each other. This program starts and ends the busy processes."]
    return "\n".join([*tables, *lines, ""])
