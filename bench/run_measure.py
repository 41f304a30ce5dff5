"""Timing for run.py: interleaved repeats, each after an untimed one, and what is said of them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from timeit import Timer
from typing import NamedTuple

import numpy as np
from run_case import Call

from pyreg._speed import disturbed

MIN_SAMPLE = 200e-6  # seconds: thousands of times the clock's resolution
# Seconds to wait, where another library's threads were at work before, and then of untimed calls. Those of an OpenMP
# runtime spin for some milliseconds after a call, to be there for the next one, on a CPU that this one's need.
SETTLE = 0.02
WARM_UP = 0.01


class Effort(NamedTuple):
    """How often to repeat: for `seconds`, but within these numbers of rounds."""

    least: int
    most: int
    seconds: float


FULL = Effort(least=5, most=25, seconds=1.5)
QUICK = Effort(least=3, most=3, seconds=0.0)


class Times(NamedTuple):
    """Seconds per call over the samples: the median, the quartiles around it, the mean, the 90th percentile."""

    quartile1: float
    median: float
    quartile3: float
    mean: float
    p90: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Times:
        quartile1, median, quartile3, p90 = np.quantile(samples, [0.25, 0.5, 0.75, 0.9]).tolist()
        return cls(quartile1, median, quartile3, float(np.mean(samples)), p90)

    def disturbed(self) -> bool:
        return disturbed(self.median, self.p90)


def calibrate(timer: Timer) -> int:
    """Return how many calls make a sample of at least MIN_SAMPLE."""
    number = 1
    while True:
        seconds = timer.timeit(number)
        if seconds < 0.01:  # the best of three: an interruption would pass for a slow call
            seconds = min(seconds, *timer.repeat(2, number))
        if seconds >= MIN_SAMPLE:
            return number
        number = max(2 * number, math.ceil(number * MIN_SAMPLE / seconds))


def warm_up(timer: Timer, number: int, seconds: float) -> float:
    """Call untimed, `number` times and for so many seconds; return the last ones' seconds per call."""
    start = time.perf_counter()
    while True:
        last = timer.timeit(number) / number
        if time.perf_counter() - start >= seconds:
            return last


def sample(timer: Timer, number: int, settle: float) -> float:
    """Return the seconds per call of `number` calls, after a rest of `settle` seconds and as many untimed ones.

    Untimed, because the others have evicted this call's arrays from the caches. Calls of a tenth of a
    second need none: most of one finds everything as the last one would.
    """
    time.sleep(settle)
    seconds = warm_up(timer, number, WARM_UP if settle else 0.0)
    return seconds if seconds > 0.1 else timer.timeit(number) / number


def measure(groups: Sequence[Mapping[str, Call]], threads: int, effort: Effort) -> dict[str, Times]:
    """Time calls against each other, round by round.

    Parameters
    ----------
    groups : sequence of {name: call}
        Calls that share a pool of threads stand in one group.
    threads : int
        How many each call uses.
    effort : Effort
        How many rounds to do.
    """
    timers = [{name: Timer(call) for name, call in group.items()} for group in groups]
    # A single thread leaves none behind, and one group only its own.
    settle = SETTLE if threads > 1 and len(groups) > 1 else 0.0
    numbers: dict[str, int] = {}
    for group in timers:
        time.sleep(settle)
        warm_up(next(iter(group.values())), 1, WARM_UP if settle else 0.0)
        numbers |= {name: calibrate(timer) for name, timer in group.items()}
    samples: dict[str, list[float]] = {name: [] for name in numbers}
    start = time.perf_counter()
    for done in range(effort.most):
        if done >= effort.least and time.perf_counter() - start > effort.seconds:
            break
        for group in timers:
            for i, (name, timer) in enumerate(group.items()):
                samples[name].append(sample(timer, numbers[name], settle if i == 0 else 0.0))
    return {name: Times.of(s) for name, s in samples.items()}
