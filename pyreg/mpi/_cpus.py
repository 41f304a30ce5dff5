"""How many threads a rank may use: ranks on one machine share its CPUs."""

import math
import os

from mpi4py import MPI

from pyreg._threads import _cgroup_cpus, get_num_threads, set_num_threads


def share_cpus(comm: MPI.Intracomm) -> None:
    """Lower pyreg's number of threads to this rank's share of the CPUs that it may use.

    `OMP_NUM_THREADS` takes precedence, and so does a lower number that is set already.
    """
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    machine = comm.Split_type(MPI.COMM_TYPE_SHARED)
    try:
        sharing = sum(bool(own & others) for others in machine.allgather(own))
    finally:
        machine.Free()
    share = max(1, math.ceil(min(len(own), _cgroup_cpus())) // sharing)
    if get_num_threads() > share and not os.environ.get("OMP_NUM_THREADS"):
        set_num_threads(share)
