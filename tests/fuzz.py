"""Random calls of every function, each compared with its twin in pyreg.reference: python tests/fuzz.py --minutes 10

This process draws the calls with Hypothesis. A child process makes them, so Hypothesis can shrink a call that crashes
like any other that fails. The script that is printed makes the failing call again.
"""

import argparse
import itertools
import multiprocessing
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from pprint import pformat

from calls import check
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from strategies import LARGE, MEDIUM, SMALL, calls, trials

ROUND = [("(small)", SMALL, 2000), ("(medium)", MEDIUM, 100), ("(large)", LARGE, 3)]  # shapes, and how many calls
PATIENCE, SHRINKING = 300, 10  # seconds: for one call, and to find a smaller call that fails
OPTIONS = settings(
    phases=[Phase.generate, Phase.shrink],
    derandomize=False,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
BEGIN, END = "# --- the call again\n", "# --- end\n"
SCRIPT = """\
import sys
sys.path.insert(0, {folder!r})
from calls import Call, check
call = {call}
check(call)
"""


class Child:
    """A process that makes calls and checks them."""

    def __init__(self):
        processes = multiprocessing.get_context("fork")
        self.pipe, other = processes.Pipe()
        self.process = processes.Process(target=serve, args=(self.pipe, other), daemon=True)
        self.process.start()
        other.close()

    def check(self, call):
        """Return whether the call was refused, and what went wrong, or None."""
        try:
            self.pipe.send(call)
            if self.pipe.poll(PATIENCE):
                return self.pipe.recv()
            return False, f"no answer within {PATIENCE} seconds"
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            return False, f"the process ended: {signal.Signals(-code).name if code < 0 else f'status {code}'}"

    def end(self):
        self.process.kill()
        self.process.join()
        self.pipe.close()


def serve(parents, pipe):
    parents.close()  # so that the end of the parent is the end of the pipe
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            call = pipe.recv()
        except EOFError:
            return
        try:
            answer = check(call), None
        except Exception:
            answer = False, traceback.format_exc()
        pipe.send(answer)


class TimeIsUp(BaseException):
    """Not an Exception: Hypothesis would take one as a failure of the call."""


class Fuzzer:
    def __init__(self, seconds):
        self.end = time.monotonic() + seconds
        self.child, self.failure = Child(), None
        self.calls, self.refused = Counter(), Counter()

    def attempt(self, call):
        if time.monotonic() > self.end:
            raise TimeIsUp
        refused, failure = self.child.check(call)
        for name in (call.function, self.kind, "(all)"):
            self.calls[name] += 1
            self.refused[name] += refused
        if failure:
            if not self.failure:
                self.end = time.monotonic() + SHRINKING
            self.failure = call, failure  # the last is the smallest
            self.child.end()
            self.child = Child()
            raise AssertionError

    def run(self, seed):
        for number, (kind, shapes, examples) in enumerate(itertools.cycle(ROUND)):
            self.kind = kind
            test = given(trials(calls(shapes=shapes)))(lambda call: self.attempt(call))
            try:
                seeded(seed * 10**6 + number)(settings(OPTIONS, max_examples=examples)(test))()
            except TimeIsUp:
                return
            except Exception:
                if not self.failure:
                    raise
                return

    def report(self):
        if self.failure:
            call, failure = self.failure
            again = "again" if self.child.check(call)[1] else "not again: it depends on timing or on earlier calls"
            script = SCRIPT.format(folder=str(Path(__file__).parent), call=pformat(call))
            print(f"\n{failure}\n# Made alone in a new process, the call fails {again}.\n{BEGIN}{script}{END}")
        print(f"{'function':40}{'calls':>10}{'refused':>10}")
        for name in sorted(self.calls):
            print(f"{name:40}{self.calls[name]:10}{self.refused[name]:10}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, help="another run with it draws the same calls (default: random)")
    options = parser.parse_args(arguments)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    warnings.simplefilter("ignore")  # NumPy's, of values that are special
    fuzzer = Fuzzer(60 * options.minutes)
    fuzzer.run(seed)
    fuzzer.report()
    fuzzer.child.end()
    print(f"seed {seed}: {'FAILED' if fuzzer.failure else 'no failure'}")
    return 1 if fuzzer.failure else 0


if __name__ == "__main__":
    sys.exit(main())
