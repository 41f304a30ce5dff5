"""Schedules of the learning rate: values, and arithmetic that is the same on every machine."""

import itertools
import math

import pytest
from test_bad_input import refuses

import pyreg
from pyreg._schedules import _SINE, _sine_of_pi_times

SCHEDULES = [pyreg.warmup_cosine, pyreg.warmup_linear]
each = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.__name__)


@each
def test_it_rises_to_lr_and_falls_to_final(schedule):
    rates = [schedule(step, 0.3, warmup=10, total=50, final=0.1) for step in range(70)]
    assert rates[0] == 0
    assert rates[5] == 0.15
    assert rates[10] == 0.3
    assert rates[30] == pytest.approx(0.2)  # half of the way, by symmetry
    assert rates[50:] == [0.1] * 20
    assert all(a < b for a, b in itertools.pairwise(rates[:11]))
    assert all(a > b for a, b in itertools.pairwise(rates[10:51]))
    assert schedule(0, 0.3, warmup=0, total=1) == 0.3
    assert schedule(2**60, 0.3, warmup=0, total=1) == 0.0
    assert type(schedule(1, 1, warmup=1, total=2)) is float


def test_the_fall_is_half_a_cosine_or_a_line():
    for step in range(1, 1000):
        angle = math.pi * step / 1000
        cosine, line = (schedule(step, 1.0, warmup=0, total=1000) for schedule in SCHEDULES)
        assert math.isclose(cosine, (1 + math.cos(angle)) / 2, rel_tol=1e-9, abs_tol=2e-16)
        assert math.isclose(line, 1 - step / 1000, rel_tol=1e-15)


def test_the_sine_is_that_of_mathematics():
    for i in range(-500, 501):
        assert math.isclose(_sine_of_pi_times(i / 1000), math.sin(math.pi * (i / 1000)), rel_tol=1e-15)
    # The coefficients are those of the Taylor series, each rounded.
    powers = range(2 * len(_SINE) - 1, 0, -2)
    for coefficient, power in zip(_SINE, powers, strict=True):
        exact = (-1) ** (power // 2) * math.pi**power / math.factorial(power)
        assert math.isclose(coefficient, exact, rel_tol=1e-14)


@each
def test_bad_arguments_are_refused_by_name_and_value(schedule):
    good = {"step": 1, "lr": 0.1, "warmup": 2, "total": 5, "final": 0.0}
    bad = {
        **dict.fromkeys(("step", "warmup", "total"), ((-1, ValueError), (1.0, TypeError), (None, TypeError))),
        **dict.fromkeys(("lr", "final"), ((-1.0, ValueError), (math.nan, ValueError), ("1", TypeError))),
    }
    for name, values in bad.items():
        for value, error in values:
            refuses(error, lambda name=name, value=value: schedule(**good | {name: value}), name, repr(value))
    refuses(ValueError, lambda: schedule(1, 0.1, warmup=5, total=5), "total", "5")
