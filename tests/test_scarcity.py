"""Calls where memory or threads run out: an error that changes nothing, or the right result with what there is."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and /proc of Linux")


def run(code, *arguments):
    made = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert made.returncode == 0, f"status {made.returncode}\n{made.stderr[-2000:]}"
    return made.stdout


# Everything is updated in place.
CALLS = {
    "layer_norm": "x, weight, out=x",
    "layer_norm_backward": "dy, x, mean, rstd, weight, out=x",
    "rms_norm": "x, weight, out=x",
    "rms_norm_backward": "dy, x, rstd, weight, out=x",
    "dropout": "x, 0.1, key=3, out=x",
    "drop_path": "x, 0.1, key=3, out=x",
    "softmax_dropout_forward": "x, p=0.1, key=3, out=x",
    "softmax_dropout_backward": "dy, x, maximum, rsum, p=0.1, key=3, out=x",
    "gelu_dropout_forward": "x, weight, p=0.1, key=3, out=x",
    "gelu_dropout_backward": "dy, x, weight, p=0.1, key=3, out=x",
    "dropout_add_layer_norm_forward": "x, dy, weight, p=0.1, key=3, out=x, z_out=dy",
    "dropout_add_layer_norm_backward": "dy, None, x, mean, rstd, weight, p=0.1, key=3, out=x, dresidual_out=dy",
    "dropout_add_rms_norm_forward": "x, dy, weight, p=0.1, key=3, out=x, z_out=dy",
    "dropout_add_rms_norm_backward": "dy, None, x, rstd, weight, p=0.1, key=3, out=x, dresidual_out=dy",
    "sgd_update": "x, dy, step=1",
    "adamw_update": "x, dy, exp_avg, exp_avg_sq, step=1",
}

# Two rows, so that two threads take one each, whose scratch is megabytes.
MEMORY = """
import resource, sys
import numpy as np
import pyreg

KiB, MiB = 1024, 2**20
pyreg.set_num_threads(2)
x, dy = np.random.default_rng(0).standard_normal((2, 2, 1_500_000), dtype=np.float32)
weight = np.ones_like(x[0])
exp_avg, exp_avg_sq = np.zeros_like(x), np.zeros_like(x)
_, mean, rstd = pyreg.layer_norm_forward(x, weight)
_, maximum, rsum = pyreg.softmax_dropout_forward(x, p=0.1, key=3)
arrays = x, dy, weight, exp_avg, exp_avg_sq, mean, rstd, maximum, rsum
name, arguments = sys.argv[1:]
call = eval(f"lambda: pyreg.{name}({arguments})")

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
for slack in (0, 64 * KiB, 256 * KiB, *(n * MiB for n in (1, 2, 3, 5, 7, 8, 11, 13, 16, 20, 24, 32, 48))):
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
# Each of these takes memory as large as a row; softmax, one of the fused functions and gradients of weights.
TAKE_MEMORY = {name for name in CALLS if "softmax" in name or "add" in name or "backward" in name}


@pytest.mark.parametrize("name", CALLS)
def test_memory_that_runs_out_is_a_memory_error_that_changes_nothing(name):
    refused = int(run(MEMORY, name, CALLS[name]))
    assert refused > 0 or name not in TAKE_MEMORY


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
        pytest.skip("root may not become another user here")
    # The user whom root becomes may have other threads, which count too.
    assert started <= min(spare, 3)
    if spare == 1000 and os.getuid() == 0 and len(os.sched_getaffinity(0)) > 1:
        assert started == 3
