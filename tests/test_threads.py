"""Thread counts, worker threads, and calls from several threads. Many calls at once: test_endurance.py."""

import math
import os
import runpy
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bits import assert_same_bits

import pyreg
from pyreg import _threads

pytestmark = pytest.mark.usefixtures("number_of_threads_restored")


def test_set_num_threads_holds_for_the_whole_process():
    pyreg.set_num_threads(3)
    assert pyreg.get_num_threads() == 3
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(pyreg.get_num_threads).result() == 3


def test_num_threads_holds_for_its_block_and_its_thread():
    pyreg.set_num_threads(2)
    with ThreadPoolExecutor(1) as pool, pyreg.num_threads(5):
        assert pyreg.get_num_threads() == 5
        assert pool.submit(pyreg.get_num_threads).result() == 2
        with pyreg.num_threads(1):
            assert pyreg.get_num_threads() == 1
        assert pyreg.get_num_threads() == 5
        pyreg.set_num_threads(2)
        assert pyreg.get_num_threads() == 5
    assert pyreg.get_num_threads() == 2
    with pytest.raises(KeyError), pyreg.num_threads(4):
        raise KeyError
    assert pyreg.get_num_threads() == 2


def test_a_limit_of_threadpoolctl_is_respected_while_it_holds():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    pyreg.set_num_threads(2)
    with threadpoolctl.threadpool_limits(1):
        assert pyreg.get_num_threads() == 1
        pyreg.set_num_threads(8)
        assert pyreg.get_num_threads() == 1
    assert pyreg.get_num_threads() == 8


def default_threads(**environment):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | environment
    command = [sys.executable, "-P", "-c", "import pyreg; print(pyreg.get_num_threads())"]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(made.stdout)


def test_the_default_is_omp_num_threads_or_the_cpus_that_may_be_used():
    assert default_threads(OMP_NUM_THREADS="5") == 5
    assert default_threads(OMP_NUM_THREADS="1") == 1
    if hasattr(os, "sched_getaffinity"):
        cpus = min(len(os.sched_getaffinity(0)), _threads._cgroup_cpus())
        assert default_threads() == max(1, math.ceil(cpus))


@pytest.mark.parametrize(("environment", "threads"), [(None, 2), ("", 2), ("8", 8)])
def test_importing_pyreg_lowers_the_default_to_the_quota_unless_omp_num_threads_is_set(
    monkeypatch, environment, threads
):
    files = {"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "150000 100000\n"}
    monkeypatch.setattr(Path, "read_text", lambda path: files[str(path)])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if environment is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    pyreg.set_num_threads(8)
    runpy.run_path(_threads.__file__)
    assert pyreg.get_num_threads() == threads


def test_a_quota_above_the_default_does_not_raise_it(monkeypatch):
    monkeypatch.setattr(_threads, "_cgroup_cpus", lambda: 7.5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    pyreg.set_num_threads(2)
    _threads._respect_cgroup()
    assert pyreg.get_num_threads() == 2


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, float("inf")),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a/cpu.max": "200000 100000\n",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/job\n1:memory:/job\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            },
            3.0,
        ),
        ({"proc/self/cgroup": "3:cpu,cpuacct:/job\n"}, float("inf")),
        ({}, float("inf")),
    ],
)
def test_the_quota_of_the_cgroup_and_those_above_it_is_read(tmp_path, files, cpus):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert _threads._cgroup_cpus(tmp_path) == cpus


def test_another_thread_may_change_a_list_of_parameters_without_affecting_a_running_call():
    params, stop = [], threading.Event()

    def empty_and_refill():
        while not stop.is_set():
            params.clear()
            params[:] = [np.full(1000, 7.0)]
            time.sleep(0)

    thread = threading.Thread(target=empty_and_refill)
    thread.start()
    try:
        for value in range(1, 41):
            params[:] = [np.full(2**20, float(value)) for _ in range(3)]
            # The other thread may change the list before the call, but its changes during the call are not seen.
            assert pyreg.l2_penalty(params, 2.0) in (3 * 2**20 * value**2, 0, 1000 * 7**2)
    finally:
        stop.set()
        thread.join()


def test_more_calls_at_once_than_there_are_workers_for_give_the_right_answers():
    pyreg.set_num_threads(3)
    x = np.random.default_rng(0).normal(size=(4096, 768)).astype(np.float32)
    expected, together = pyreg.dropout(x, 0.3, key=1), threading.Barrier(16)

    def call():
        together.wait()
        return pyreg.dropout(x, 0.3, key=1)

    with ThreadPoolExecutor(16) as pool:
        for made in [pool.submit(call) for _ in range(16)]:
            assert_same_bits(made.result(), expected)


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's /proc and affinity")


TASKS = """
import os, sys, time, numpy as np, pyreg
x = np.ones((8192, 768), np.float32)

def tasks():
    return set(os.listdir("/proc/self/task"))

before = tasks()
"""


def run_tasks(code):
    command = [sys.executable, "-P", "-c", TASKS + code]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert made.returncode == 0, made.stderr


@linux
def test_a_large_call_starts_workers_and_no_more_than_its_threads_but_one():
    run_tasks("""
pyreg.dropout(x[:8], 0.5, key=1)
with pyreg.num_threads(1):
    pyreg.dropout(x, 0.5, key=1)
assert tasks() == before
with pyreg.num_threads(3):
    for _ in range(3):
        pyreg.dropout(x, 0.5, key=1)
cpus = len(os.sched_getaffinity(0))
assert len(tasks() - before) == (2 if cpus > 1 else 0), tasks() - before
""")


@linux
def test_calls_and_forks_leave_affinity_environment_and_signal_mask_alone():
    run_tasks("""
import signal

def state():
    return os.sched_getaffinity(0), dict(os.environ), signal.pthread_sigmask(signal.SIG_BLOCK, ())

expected = state()
with pyreg.num_threads(3):
    for _ in range(20):
        pyreg.dropout(x, 0.5, key=1)
        if os.fork() == 0:
            os._exit(0)
        os.wait()
assert state() == expected
""")


@linux
def test_a_process_that_is_held_to_one_cpu_after_the_import_starts_no_worker():
    run_tasks("""
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
with pyreg.num_threads(3):
    pyreg.dropout(x, 0.5, key=1)
assert tasks() == before
""")


@linux
def test_a_thread_of_low_priority_starts_no_worker_that_others_would_wait_for():
    run_tasks("""
import threading

def low():
    os.setpriority(os.PRIO_PROCESS, 0, 19)  # of this thread only
    with pyreg.num_threads(3):
        pyreg.dropout(x, 0.5, key=1)

thread = threading.Thread(target=low)
thread.start()
thread.join()
time.sleep(0.1)
assert tasks() <= before
""")


@linux
def test_no_worker_is_there_when_a_process_is_forked():
    run_tasks("""
with pyreg.num_threads(3):
    pyreg.dropout(x, 0.5, key=1)
    child = os.fork()
    if child == 0:
        pyreg.dropout(x, 0.5, key=1)
        os._exit(0)
    deadline = time.monotonic() + 5  # a joined thread is listed for a moment longer
    while not tasks() <= before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert tasks() <= before  # Python warns if a process with more threads forks
    assert os.waitpid(child, 0)[1] == 0
    pyreg.dropout(x, 0.5, key=1)
""")


def test_the_gil_is_released_while_a_kernel_runs():
    x = np.ones((4000, 4096), np.float32)
    stop, steps = threading.Event(), [0]

    def count():
        while not stop.is_set():
            steps[0] += 1

    # A thread that waits for the GIL asks for it only after half a second, far longer than a call takes. So `count`
    # goes on during a call only if the call released the GIL. In a single call, it may find no free CPU.
    interval = sys.getswitchinterval()
    thread = threading.Thread(target=count)
    counted = False
    try:
        sys.setswitchinterval(0.5)
        thread.start()
        for _ in range(10):
            before = steps[0]
            with pyreg.num_threads(1):
                pyreg.layer_norm(x, out=x)
            counted = counted or steps[0] > before
            if counted:
                break
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        thread.join()
    assert counted


@pytest.mark.skipif(getattr(sys, "_is_gil_enabled", lambda: True)(), reason="not a free-threaded interpreter")
def test_importing_pyreg_does_not_bring_back_the_gil():
    code = "import numpy, pyreg, sys; sys.exit(sys._is_gil_enabled())"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("value", ["", "abc", "4abc", "3,", "0", "-1", "1e3", "99999999999999999999"])
def test_an_omp_num_threads_that_openmp_rejects_counts_as_unset(value):
    assert default_threads(OMP_NUM_THREADS=value) == default_threads()


@pytest.mark.parametrize(("value", "threads"), [(" 3 ", 3), ("3,2", 3), (str(2**31), 2**31 - 1)])
def test_omp_num_threads_may_be_a_list_or_larger_than_an_int(value, threads):
    assert default_threads(OMP_NUM_THREADS=value) == threads


def test_the_thread_limit_of_openmp_is_respected():
    assert default_threads(OMP_NUM_THREADS="4", OMP_THREAD_LIMIT="1") == 1
