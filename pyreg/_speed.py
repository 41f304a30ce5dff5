"""What `python -m pyreg` measures in about ten seconds: the speed of kernels, as a percentage of a copy's.

bench/run.py compares pyreg with other libraries, at more sizes.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

import pyreg
import pyreg._core as _core

SECONDS = 0.9  # per row of the report
SHAPES = ((512, 768), (8192, 768))


class Speed(NamedTuple):
    op: str
    shape: tuple[int, int]
    seconds: float  # the median time of a call
    mean: float
    p90: float
    gb_per_s: float  # counts the bytes that the operation must read and write
    percent_of_copy: float  # relative to the faster of an ordinary and a nontemporal copy

    def disturbed(self) -> bool:
        return disturbed(self.seconds, self.p90)


def disturbed(median: float, p90: float) -> bool:
    """Whether something else seems to have interrupted the calls now and then."""
    return p90 > 2 * median


def busy_note(disturbed: Sequence[bool]) -> str:
    """A note that the machine was busy, if any row was disturbed; else an empty string."""
    if not any(disturbed):
        return ""
    return (
        f"The machine was busy: in {sum(disturbed)} of {len(disturbed)} rows the 90th percentile (p90) is more than"
        " twice the median.\nOther programs may have slowed what was measured."
    )


def measure_speed() -> Iterator[Speed]:
    """Measure in float32, with the number of threads that pyreg uses."""
    for shape in SHAPES:
        yield from measure_shape(shape)


def measure_shape(shape: tuple[int, int]) -> Iterator[Speed]:
    x, dy = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    state = [np.full_like(x, 0.5) for _ in range(3)]
    weight, bias = np.ones_like(x[0]), np.zeros_like(x[0])
    out, mean, rstd = pyreg.layer_norm_forward(x, weight, bias)
    # Each call, and how many arrays of x's size it must read or write.
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
    """The seconds of each call. The calls take turns, and before each timed one, an untimed one fills the caches."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times["op"]) < 3:
        for name, call in calls.items():
            call()
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return times
