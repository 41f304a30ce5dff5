"""What run.py measures in company: calls between matrix products, and beside busy processes.

A call is rarely alone. Before it, a matrix product has taken all CPUs, and its library's threads wait on
them for the next one; or other programs run. Here each library works as its users have it: with its default
number of threads, and pyreg on one thread besides.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import run_pyreg
from run_case import Call, Case
from run_measure import SETTLE, WARM_UP, Effort, Times
from run_ops import OPS
from run_report import format_disturbance, format_ratio, format_seconds, format_shape, format_table, three_digits
from tqdm import tqdm

import pyreg

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
    shape: tuple[int, ...]
    library: str
    threads: int
    call: Times
    on_one: Times  # pyreg's calls on one thread, there
    product: Times | None = None
    product_alone: Times | None = None

    def as_json(self) -> dict[str, Any]:
        return {key: value._asdict() if isinstance(value, Times) else value for key, value in vars(self).items()}

    def cells(self) -> list[str]:
        cells = [
            format_shape(self.shape),
            self.library,
            str(self.threads),
            *map(format_seconds, (self.call.median, self.call.mean, self.call.p90)),
            *(
                format_ratio(getattr(self.call, of) / getattr(self.on_one, of)) if self.library == "pyreg" else "-"
                for of in ("median", "mean", "p90")
            ),
        ]
        if self.product and self.product_alone:
            cells += [
                format_seconds(self.product.median),
                three_digits(self.product.median / self.product_alone.median),
                format_seconds(self.product.mean + self.call.mean),
            ]
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

    def threads_set(self) -> contextlib.AbstractContextManager[None]:
        return pyreg.num_threads(self.threads) if self.library == "pyreg" else contextlib.nullcontext()

    def take_turn_after_products(self) -> None:
        time.sleep(REST)
        with self.threads_set():
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
        with self.threads_set():
            self.call()
            turn_ends = time.perf_counter() + BUSY_TURN
            end = 0.0
            while end < turn_ends:
                start = time.perf_counter()
                self.call()
                end = time.perf_counter()
                self.seconds.append(end - start)


def contenders(
    case: Case, target: str, peers: Mapping[str, ModuleType], checked: Callable[..., Call]
) -> list[Contender]:
    """Check the libraries' answers; return pyreg on one thread and on its default number, and the peers."""
    own = checked(case, "pyreg", run_pyreg.public_call)
    calls = {
        name: checked(case, name, getattr(peer, case.name))
        for name, peer in peers.items()
        if hasattr(peer, case.name)
    }
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


def after_products(op: str, case: Case, made: list[Contender], effort: Effort) -> Iterator[CompanyRow]:
    # Each product that there is, without a call.
    alone = {c.product: Contender(c.library, c.threads, lambda: None, c.product) for c in made}
    take_turns(effort, *(c.take_turn_after_products for c in (*alone.values(), *made)))
    on_one = Times.of(made[0].seconds)
    for c in made:
        times = Times.of(c.seconds), on_one, Times.of(c.product_seconds), Times.of(alone[c.product].product_seconds)
        yield CompanyRow("between matrix products", op, case.shape, c.library, c.threads, *times)


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


def beside_processes(op: str, case: Case, made: list[Contender], effort: Effort) -> Iterator[CompanyRow]:
    for number in dict.fromkeys((1, len(os.sched_getaffinity(0)))):
        for c in made:
            c.seconds.clear()
        with busy_processes(number):
            take_turns(effort, *(c.take_turn_call_after_call for c in made))
        on_one = Times.of(made[0].seconds)
        situation = f"beside {number} busy process{'es' if number > 1 else ''}"
        for c in made:
            yield CompanyRow(situation, op, case.shape, c.library, c.threads, Times.of(c.seconds), on_one)


SITUATIONS = {"company": after_products, "busy": beside_processes}


def company(
    kind: str,
    ops: list[str],
    shapes: Sequence[tuple[int, ...]],
    peers: Mapping[str, ModuleType],
    checked: Callable[..., Call],
    effort: Effort,
    bar: tqdm,
) -> list[dict[str, Any]]:
    """Measure and print the rows of a kind of company; return them for JSON."""
    effort = effort._replace(most=10 * effort.most)
    bar.reset(len(ops) * len(shapes))
    everything: list[CompanyRow] = []
    for op in ops:
        rows: list[CompanyRow] = []
        for shape in shapes:
            bar.set_description(f"{op}, {format_shape(shape)}")
            case = OPS[op](shape)
            rows += SITUATIONS[kind](op, case, contenders(case, PRODUCTS[op], peers, checked), effort)
            bar.update()
        for situation in dict.fromkeys(row.situation for row in rows):
            there = [row for row in rows if row.situation == situation]
            head = HEAD + (PRODUCT_HEAD if there[0].product else ())
            bar.write(format_table(f"{op}, {situation}", head, [row.cells() for row in there]))
        everything += rows
    bar.write(format_notes(kind))
    if kind == "company":
        bar.write(format_disturbance(row.call for row in everything))
    return [row.as_json() for row in everything]


def format_notes(kind: str) -> str:
    notes = [
        "median, mean, p90 (the 90th percentile): of a call, float32, out=. A mean above p90: a few long waits.",
        "median/1t and so on: the same as multiples of pyreg's on one thread, in the same place.",
    ]
    if kind == "company":
        notes += [
            "product: the median of the matrix product before the call, by NumPy (for torch: by PyTorch) on its",
            "  default threads, (rows, 768) @ (768, 768); product/alone: divided by that without the calls.",
            "both: the mean of product and call together.",
        ]
    else:
        notes += ["Calls follow each other. The processes compute all the time; this program starts and ends them."]
    return "\n".join(notes)
