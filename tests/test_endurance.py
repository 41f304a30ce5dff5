"""Thousands of calls keep nothing. Threads, forks, signals and the interpreter's end in between do no harm.

`pytest -m slow` makes many more calls.
"""

import ctypes
import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from bits import assert_same_bits
from cases import LAYOUTS, dtypes_of, inputs

import pyreg
from pyreg._cases import CASES

pytestmark = pytest.mark.usefixtures("number_of_threads_restored")


def some_or_many(name, some, many):
    """Run a test with `some`. The slow tests run it with `many`."""
    return pytest.mark.parametrize(name, [some, pytest.param(many, marks=pytest.mark.slow)])


# --- nothing is kept


def valid(case):
    """Arguments in each layout, for each variant, with and without outs, and large enough for two threads."""
    shape = (4, 6)
    arguments = case.arguments(shape, case.dtypes[0])
    for dtype in dtypes_of(case):
        yield from (case.arguments(shape, dtype, **variant) for variant in case.variants_of(shape, dtype))
    for change in LAYOUTS.values():
        yield arguments | {name: change(arguments[name]) for name in inputs(case, arguments)}
    yield arguments | {out: np.empty(shape, np.float32) for out in case.outs}
    yield from (case.arguments((500, 300), dtype) for dtype in dtypes_of(case))


def refused(case):
    """Arguments that are refused: one array has another dtype or shape, or one argument is of another type."""
    good = case.arguments((4, 6), case.dtypes[0])
    for name in case.arrays:
        yield from (good | {name: wrong} for wrong in (object(), good[name].astype(complex)))
        if len(case.arrays) > 1:
            yield good | {name: np.ones((4, 6, 1), np.float32)}
    for name in case.outs:
        yield from (good | {name: wrong} for wrong in (object(), np.ones((4, 5), np.float32)))
    yield from (good | {name: object()} for name in case.numbers)


class MallocInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    NAMES = (
        "arena",
        "ordblks",
        "smblks",
        "hblks",
        "hblkhd",
        "usmblks",
        "fsmblks",
        "uordblks",
        "fordblks",
        "keepcost",
    )
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES]


def bytes_in_use():
    """The bytes that malloc has handed out. 0 if the C library does not count them."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        return 0
    mallinfo2.restype = MallocInfo
    info = mallinfo2()
    return info.uordblks + info.hblkhd


def resident_pages():
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) if statm.exists() else 0


def kept(choices):
    """The amounts of what a call could keep: references to its arguments and to None, and memory."""
    gc.collect()
    arrays = {id(value): value for choice in choices for value in choice.values() if isinstance(value, np.ndarray)}
    return {
        "references to None": sys.getrefcount(None),
        "references to arguments": sum(map(sys.getrefcount, arrays.values())),
        "blocks of Python": sys.getallocatedblocks(),
        "smallest blocks of malloc": bytes_in_use() // 32,
        "resident pages": resident_pages(),
    }


@some_or_many("rounds", 25, 1000)
def test_calls_keep_neither_references_nor_memory(case, rounds):
    pyreg.set_num_threads(2)
    right, wrong = list(valid(case)), list(refused(case))

    def run():
        for _ in range(rounds):
            for arguments in right:
                case.call(pyreg, arguments)
            for arguments in wrong:
                try:
                    getattr(pyreg, case.name)(**arguments)
                except (TypeError, ValueError):
                    continue
                raise AssertionError(arguments)

    run()
    before = kept(right + wrong)
    growing = dict.fromkeys(before)
    # If a call kept something, there would be one more of it per round, each time. Caches and heaps fill up and end.
    for _ in range(12):
        run()
        after = kept(right + wrong)
        growing = {what: after[what] - before[what] for what in growing if after[what] - before[what] >= rounds}
        if not growing:
            return
        before = after
    raise AssertionError(growing)


# --- calls from several threads


@cache
def calls_with_results():
    """Every function with few elements, and with enough for three threads: the arguments and the results."""
    pairs = [(case, dtype) for case in CASES.values() for dtype in dtypes_of(case) if dtype != np.float64]
    calls = [(case, case.arguments(shape, dtype)) for shape in ((5, 70), (500, 300)) for case, dtype in pairs]
    return [(case, arguments, case.call(pyreg, arguments)) for case, arguments in calls]


def call_and_compare(calls):
    for case, arguments, expected in calls:
        assert_same_bits(case.call(pyreg, arguments), expected, case.name)


@some_or_many("calls", 100, 5000)
def test_calls_from_8_threads_give_the_right_answers_while_others_set_the_number_of_threads(calls):
    done, todo = threading.Event(), calls_with_results()

    def set_threads(seed):
        rng = random.Random(seed)
        while not done.wait(1e-4):
            pyreg.set_num_threads(rng.randint(1, 5))

    with ThreadPoolExecutor(10) as pool:
        setting = [pool.submit(set_threads, seed) for seed in (8, 9)]
        calling = [pool.submit(call_and_compare, random.Random(seed).choices(todo, k=calls)) for seed in range(8)]
        try:
            for future in calling:
                future.result()
        finally:
            done.set()
        for future in setting:
            future.result()


# --- forks


def forks(test):
    test = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")(test)
    return pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")(test)


def assert_a_forked_child_computes():
    process = multiprocessing.get_context("fork").Process(target=call_and_compare, args=(calls_with_results(),))
    process.start()
    process.join(60)
    try:
        assert process.exitcode == 0  # None if it hangs
    finally:
        process.kill()


@forks
@some_or_many("forks", 5, 100)
def test_a_forked_child_computes_after_parallel_calls_in_its_parent(forks):
    pyreg.set_num_threads(2)
    for _ in range(forks):
        call_and_compare(calls_with_results())
        assert_a_forked_child_computes()


@forks
@some_or_many("forks", 25, 300)
def test_a_process_can_be_forked_again_and_again_while_another_thread_computes(forks):
    done, computed = threading.Event(), [0]

    def compute():
        while not done.is_set():
            call_and_compare(calls_with_results())
            computed[0] += 1

    pyreg.set_num_threads(2)
    with ThreadPoolExecutor(1) as pool:
        computing = pool.submit(compute)
        try:
            for _ in range(forks):
                assert_a_forked_child_computes()
        finally:
            done.set()
        computing.result()
    assert computed[0] > 0


# --- signals


class Interrupted(BaseException):  # like KeyboardInterrupt
    pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
@some_or_many("signals", 300, 10_000)
def test_signals_during_calls_change_no_result(signals):
    """A Python handler makes calls of its own, then raises an exception."""
    pyreg.set_num_threads(2)
    rng, todo = random.Random(0), calls_with_results()
    transposed = LAYOUTS["transposed"]
    for case, arguments, expected in todo[: len(CASES)]:  # Python code checks and copies these during the call
        other = arguments | {name: transposed(arguments[name]) for name in inputs(case, arguments)}
        todo = [*todo, (case, other, expected)]

    handled = []

    def handler(number, frame):
        handled.append(number)
        call_and_compare(rng.choices(todo, k=2))
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for number in range(signals):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 3e-3))
                while len(handled) == number:
                    call_and_compare(todo)
                raise AssertionError("the exception of the handler was lost")
            except Interrupted:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    call_and_compare(todo)


# --- the interpreter's end


# Each process ends while two daemon threads call a function; Python code checks and copies the second's arguments.
# The processes are forked, because importing takes longer.
END = """
import os, signal, sys, threading, time
import numpy as np
import pyreg
from pyreg._cases import CASES

def work(case, arguments):
    while True:
        case.call(pyreg, arguments)

pyreg.set_num_threads(2)
for _ in range(int(sys.argv[1])):
    for case in CASES.values():
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # ends a process that hangs
            plain, other = (case.arguments(shape, case.dtypes[0]) for shape in ((500, 300), (4, 6)))
            other |= {name: other[name].copy("F") for name in case.arrays if name not in case.updated}
            for arguments in (plain, other):
                threading.Thread(target=work, args=(case, arguments), daemon=True).start()
            time.sleep(0.02)
            sys.exit()
        assert os.waitpid(child, 0)[1] == 0, case.name
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@some_or_many("times", 2, 50)
def test_daemon_threads_in_calls_do_not_disturb_the_end_of_the_interpreter(times):
    command = [sys.executable, "-P", "-c", END, str(times)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (made.returncode, made.stderr) == (0, "")
