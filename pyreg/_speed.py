"""What `python -m pyreg` measures: each kernel's speed in percent of a copy's, in some ten seconds.

The comparison with other libraries, on more sizes, is bench/run.py.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

import pyreg
import pyreg._core as _core

SECONDS = 0.9  # for one row
SHAPES = ((512, 768), (8192, 768))


class Speed(NamedTuple):
    op: str
    shape: tuple[int, int]
    seconds: float  # of a call, the median
    mean: float
    p90: float
    gb_per_s: float  # of the bytes that the operation must read and write
    percent_of_copy: float  # with ordinary or nontemporal stores, whichever is faster

    def disturbed(self) -> bool:
        return disturbed(self.seconds, self.p90)


def disturbed(median: float, p90: float) -> bool:
    """Whether something else has kept a call from running, now and then."""
    return p90 > 2 * median


def busy_note(disturbed: Sequence[bool]) -> str:
    """Say that the machine was busy, where rows were disturbed; else nothing."""
    if not any(disturbed):
        return ""
    return (
        f"The machine was busy: in {sum(disturbed)} of {len(disturbed)} rows the 90th percentile (p90) is more than"
        " twice the median.\nOther programs may have slowed what was measured."
    )


def measure_speed() -> Iterator[Speed]:
    """Measure, float32, on as many threads as pyreg uses."""
    for shape in SHAPES:
        yield from measure_shape(shape)


def measure_shape(shape: tuple[int, int]) -> Iterator[Speed]:
    x, dy = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    out, state = np.empty_like(x), [np.full_like(x, 0.5) for _ in range(3)]
    weight, bias = np.ones_like(x[0]), np.zeros_like(x[0])
    _, mean, rstd = pyreg.layer_norm_forward(x, weight, bias, out=out)
    # The call, and how many arrays like x it must read or write.
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "layer_norm": (lambda: pyreg.layer_norm(x, weight, bias, out=out), 2),
        "layer_norm_backward": (lambda: pyreg.layer_norm_backward(dy, x, mean, rstd, weight, out=out), 3),
        "dropout p=0.1": (lambda: pyreg.dropout(x, 0.1, key=1, out=out), 2),
        "dropout p=0.5": (lambda: pyreg.dropout(x, 0.5, key=1, out=out), 2),
        "adamw_update": (lambda: pyreg.adamw_update(state[0], dy, *state[1:], step=10), 7),
    }
    copies: dict[str, Callable[[], object]] = {
        "copy": lambda: _core.copy(x, out, False),
        "nontemporal copy": lambda: _core.copy(x, out, True),
    }
    for op, (call, arrays) in calls.items():
        times = interleaved({"op": call} | copies)
        median, p90 = np.quantile(times["op"], [0.5, 0.9]).tolist()
        copy = 2 * x.nbytes / min(np.median(times["copy"]), np.median(times["nontemporal copy"]))
        speed = arrays * x.nbytes / median
        yield Speed(op, shape, median, float(np.mean(times["op"])), p90, speed / 1e9, float(100 * speed / copy))


def interleaved(calls: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """The seconds of each call, timed in turns, each time after an untimed one that fills the caches."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times["op"]) < 3:
        for name, call in calls.items():
            call()
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return times
