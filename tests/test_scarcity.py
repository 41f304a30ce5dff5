"""Calls that run out of memory or threads: an error that changes nothing, or the right result with what there is."""

import os
import subprocess
import sys

import pytest
from cases import BUILD_TYPE

from pyreg._cases import Of

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's limits and /proc")


def run(code, *arguments):
    command = [sys.executable, "-P", "-c", code, *arguments]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert made.returncode == 0, f"status {made.returncode}\n{made.stderr[-2000:]}"
    return made.stdout


# Two rows, one for each of two threads, which need megabytes of scratch. Results overwrite inputs where they can.
MEMORY = """
import resource, sys
import numpy as np
import pyreg
from pyreg._cases import CASES, sixteen_bit_dtypes

KiB, MiB = 1024, 2**20
pyreg.set_num_threads(2)
case = CASES[sys.argv[1]]
dtypes = {dtype.__name__: dtype for dtype in (np.float32, np.float64, *sixteen_bit_dtypes())}
arguments = case.arguments((2, 600_000), dtypes[sys.argv[2]])
arguments |= {out: arguments[name] for out, name in zip(case.outs, case.over)}
arrays = [value for value in arguments.values() if isinstance(value, np.ndarray)]

def call():
    getattr(pyreg, case.name)(**arguments)

def contents():
    return [array.tobytes() for array in arrays]

def put_back(saved):
    for array, data in zip(arrays, saved):
        array[...] = np.frombuffer(data, array.dtype).reshape(array.shape)

def size():
    return next(int(line.split()[1]) * KiB for line in open("/proc/self/status") if line.startswith("VmSize"))

before = contents()
call()  # starts the workers
after = contents()
refused = 0
for slack in (0, 64 * KiB, 256 * KiB, *(n * MiB for n in (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20))):
    put_back(before)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size() + slack, limits[1]))
    try:
        call()
        expected = after
    except MemoryError:
        refused += 1
        expected = before
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert contents() == expected, f"{'refused' if expected is before else 'done'} with {slack} bytes to spare"
print(refused)
"""


def takes_memory(case):
    """Whether a call allocates as much as a row: for a result that has no `out`, or as scratch."""
    result = Of.COLUMN in case.results.values() or "shape" in case.numbers
    return result or case.name.startswith(("softmax_dropout", "dropout_add"))


@pytest.mark.skipif(BUILD_TYPE in ("asan", "tsan"), reason="the memory of the sanitizer counts against the limit")
def test_memory_that_runs_out_is_a_memory_error_that_changes_nothing(case, dtype):
    refused = int(run(MEMORY, case.name, dtype.__name__))
    assert refused > 0 or not takes_memory(case)


# Root is exempt from the limit.
THREADS = """
import os, resource, sys
import numpy as np
import pyreg

def threads():
    return len(os.listdir("/proc/self/task"))

x = np.random.default_rng(0).standard_normal((4096, 768), dtype=np.float32)
expected = pyreg.reference.layer_norm(x[:8])
before = threads()
if os.getuid() == 0:
    try:
        os.setuid(65534)
    except OSError:  # no such user in this container
        print(-1)
        sys.exit()
    limit = before + int(sys.argv[1])
else:
    limit = 1
resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
pyreg.set_num_threads(4)
for _ in range(3):
    assert pyreg.layer_norm(x)[:8].tobytes() == expected.tobytes()
print(threads() - before)
"""


@pytest.mark.parametrize("spare", [0, 1, 2, 1000])
def test_a_call_goes_on_with_the_threads_that_can_be_had(spare):
    started = int(run(THREADS, str(spare)))
    if started < 0:
        pytest.skip("root cannot become another user here")
    # The user that root becomes may have other threads, which count too.
    assert started <= min(spare, 3)
    if spare == 1000 and os.getuid() == 0 and len(os.sched_getaffinity(0)) > 1:
        assert started == 3
