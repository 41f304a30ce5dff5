"""Timing: interleaved repeats, each after an untimed one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from timeit import Timer
from typing import Any, NamedTuple

import numpy as np

from pyreg._speed import disturbed

Call = Callable[[], Any]  # does the operation once and returns its answer

MIN_SAMPLE = 200e-6  # seconds: thousands of times the clock's resolution
# Seconds to wait after another library's calls, and then to call untimed. An OpenMP runtime's threads spin for some
# milliseconds after a call, on CPUs that the next library's threads need.
SETTLE = 0.02
WARM_UP = 0.01
# Seconds to wait after another library's matrix products: the threads of NumPy's OpenBLAS spin for 0.1 after one.
REST = 0.15


class Effort(NamedTuple):
    """How often to repeat: for `seconds`, but at least and at most this many rounds."""

    least: int
    most: int
    seconds: float

    def rounds(self) -> Iterator[int]:
        """Number the rounds."""
        start = time.perf_counter()
        for done in range(self.most):
            if done >= self.least and time.perf_counter() - start > self.seconds:
                return
            yield done


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
        if seconds < 0.01:  # the best of three, in case one is interrupted
            seconds = min(seconds, *timer.repeat(2, number))
        if seconds >= MIN_SAMPLE:
            return number
        number = max(2 * number, math.ceil(number * MIN_SAMPLE / seconds))


def warm_up(timer: Timer, number: int, seconds: float) -> float:
    """Make `number` untimed calls at a time for some seconds; return the seconds per call of the last ones."""
    start = time.perf_counter()
    while True:
        last = timer.timeit(number) / number
        if time.perf_counter() - start >= seconds:
            return last


def sample(timer: Timer, number: int, settle: float) -> float:
    """Return the seconds per call of `number` calls, after a rest of `settle` seconds and untimed calls for WARM_UP.

    The untimed calls, at least as many as are timed, fill the caches, which other calls have used since. A call of a
    tenth of a second needs none: most of it finds the caches as it left them.
    """
    time.sleep(settle)
    seconds = warm_up(timer, number, WARM_UP)
    return seconds if seconds > 0.1 else timer.timeit(number) / number


def measure(groups: Sequence[Mapping[str, Call]], threads: int, effort: Effort) -> dict[str, Times]:
    """Time calls against each other, round by round.

    Parameters
    ----------
    groups : sequence of {name: call}
        A group's calls share a pool of threads.
    threads : int
        How many each call uses.
    effort : Effort
        How many rounds to do.

    Returns
    -------
    {name: Times}
        Seconds per call.
    """
    timers = [{name: Timer(call) for name, call in group.items()} for group in groups]
    # One thread leaves none spinning, and the threads of a single group may spin.
    settle = SETTLE if threads > 1 and len(groups) > 1 else 0.0
    numbers: dict[str, int] = {}
    for group in timers:
        time.sleep(settle)
        warm_up(next(iter(group.values())), 1, WARM_UP if settle else 0.0)
        numbers |= {name: calibrate(timer) for name, timer in group.items()}
    samples: dict[str, list[float]] = {name: [] for name in numbers}
    for _ in effort.rounds():
        for group in timers:
            for i, (name, timer) in enumerate(group.items()):
                samples[name].append(sample(timer, numbers[name], settle if i == 0 else 0.0))
    return {name: Times.of(s) for name, s in samples.items()}
