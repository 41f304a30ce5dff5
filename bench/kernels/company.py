"""In company: calls between matrix products, and calls beside busy processes.

A call is rarely alone. A matrix product before it has used all CPUs, and the threads of that library wait on them for
the next product; or other programs run. Each library works as its users have it, with its default number of threads,
and pyreg also on one thread.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from console import format_ratio, format_seconds, format_table, three_digits
from tqdm import tqdm

import pyreg
from pyreg._cases import Shape

from .case import Call, Case
from .compare import checked, checked_peer
from .measure import SETTLE, WARM_UP, Effort, Times
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
REST = 0.15  # seconds before a library's turn: the threads of NumPy's OpenBLAS spin for 0.1 after a product
IN_TURN = 6  # timed calls in a row, after WARM_UP
BUSY_TURN = 0.03  # seconds: several slices of the scheduler


@dataclass(frozen=True)
class CompanyRow:
    """A library's calls of an operation, in a situation."""

    situation: str
    op: str
    shape: Shape
    library: str
    threads: int
    call: Times
    on_one: Times  # pyreg's calls on one thread, in the same situation
    product: Times | None = None
    product_alone: Times | None = None

    def as_json(self) -> dict[str, Any]:
        return {key: value._asdict() if isinstance(value, Times) else value for key, value in vars(self).items()}

    def cells(self) -> list[str]:
        times, of_one = ([t.median, t.mean, t.p90] for t in (self.call, self.on_one))
        cells = [format_shape(self.shape), self.library, str(self.threads), *map(format_seconds, times)]
        cells += [
            format_ratio(of / one if self.library == "pyreg" else None) for of, one in zip(times, of_one, strict=True)
        ]
        if self.product and self.product_alone:
            cells.append(format_seconds(self.product.median))
            cells.append(three_digits(self.product.median / self.product_alone.median))
            cells.append(format_seconds(self.product.mean + self.call.mean))
        return cells


HEAD = ("size", "library", "threads", "median", "mean", "p90", "median/1t", "mean/1t", "p90/1t")
PRODUCT_HEAD = ("product", "product/alone", "both")


class Contender:
    """A library at a number of threads, and what it is timed doing."""

    def __init__(self, library: str, threads: int, call: Call, product: Call) -> None:
        self.library, self.threads = library, threads
        self.call, self.product = call, product
        self.seconds: list[float] = []
        self.product_seconds: list[float] = []

    def with_its_threads(self) -> contextlib.AbstractContextManager[None]:
        return pyreg.num_threads(self.threads) if self.library == "pyreg" else contextlib.nullcontext()

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
    """Check the libraries' answers; return pyreg on one thread and on its default number, and the peers."""
    own = checked(case, "pyreg", case.public_call)
    calls = {name: call for name in peers if (call := checked_peer(case, name, peers))}
    case.restore()
    product = getattr(case, target)
    a = np.random.default_rng(3).standard_normal(product.shape, dtype=np.float32)
    weight = np.random.default_rng(4).standard_normal((product.shape[1],) * 2, dtype=np.float32)
    weight /= np.float32(np.sqrt(len(weight)))

    def multiply_numpy() -> object:
        return np.matmul(a, weight, out=product)

    made = [Contender("pyreg", n, own, multiply_numpy) for n in dict.fromkeys((1, pyreg.get_num_threads()))]
    for name, call in calls.items():
        if name == "torch":
            threads, multiply = peers[name].product(a, weight, product)
            made.append(Contender(name, threads, call, multiply))
        else:
            made.append(Contender(name, 1, call, multiply_numpy))
    return made


def take_turns(effort: Effort, *turns: Callable[[], None]) -> None:
    start = time.perf_counter()
    for done in range(effort.most):
        if done >= effort.least and time.perf_counter() - start > effort.seconds:
            break
        for turn in turns:
            turn()


def after_products(case: Case, made: list[Contender], effort: Effort) -> Iterator[CompanyRow]:
    # Each of the products, without a call.
    alone = {c.product: Contender(c.library, c.threads, lambda: None, c.product) for c in made}
    take_turns(effort, *(c.take_turn_after_products for c in (*alone.values(), *made)))
    on_one = Times.of(made[0].seconds)
    for c in made:
        times = Times.of(c.seconds), on_one, Times.of(c.product_seconds), Times.of(alone[c.product].product_seconds)
        title = case.operation.title
        yield CompanyRow("between matrix products", title, case.shape, c.library, c.threads, *times)


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
        on_one = Times.of(made[0].seconds)
        situation = f"beside {number} busy process{'es' if number > 1 else ''}"
        for c in made:
            title = case.operation.title
            yield CompanyRow(situation, title, case.shape, c.library, c.threads, Times.of(c.seconds), on_one)


SITUATIONS = {"company": after_products, "busy": beside_processes}


def company(
    kind: str, ops: list[str], shapes: Sequence[Shape], peers: Peers, effort: Effort, bar: tqdm
) -> list[CompanyRow]:
    """Measure a kind of company, and print a table of each operation."""
    effort = effort._replace(most=10 * effort.most)
    bar.reset(len(ops) * len(shapes))
    everything: list[CompanyRow] = []
    for op in ops:
        rows: list[CompanyRow] = []
        for shape in shapes:
            bar.set_description(f"{op}, {format_shape(shape)}")
            case = Case(OPERATIONS[op], shape)
            rows += SITUATIONS[kind](case, contenders(case, PRODUCTS[op], peers), effort)
            bar.update()
        for situation in dict.fromkeys(row.situation for row in rows):
            there = [row for row in rows if row.situation == situation]
            head = HEAD + (PRODUCT_HEAD if there[0].product else ())
            bar.write(format_table(f"{op}, {situation}", head, [row.cells() for row in there]))
        everything += rows
    bar.write(NOTES[kind])
    if kind == "company":
        bar.write(format_disturbance(row.call for row in everything))
    return everything


NOTES = {
    "company": """\
median, mean, p90 (the 90th percentile): of a call, float32, out=. A mean above p90: a few long waits.
median/1t, mean/1t, p90/1t: divided by pyreg's on one thread, between the same products.
product: the median of the matrix product before the call, (rows, 768) @ (768, 768), by NumPy on its
  default threads (for torch: by PyTorch); product/alone: divided by its median without the calls.
both: the mean of product and call together.""",
    "busy": """\
median, mean, p90 (the 90th percentile): of a call, float32, out=. A mean above p90: a few long waits.
median/1t, mean/1t, p90/1t: divided by pyreg's on one thread, beside the same processes.
Calls follow each other. This program starts and ends the busy processes.""",
}
