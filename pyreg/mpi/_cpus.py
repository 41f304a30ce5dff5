"""How many threads a rank may use: ranks on one machine share its CPUs."""

import os

from mpi4py import MPI

from pyreg import get_num_threads, set_num_threads

_alone = get_num_threads()  # what this process would use


def share_cpus(comm: MPI.Intracomm) -> None:
    """Lower pyreg's number of threads to this rank's share of the CPUs that it may use.

    `OMP_NUM_THREADS` takes precedence, and so does a lower number that is set already.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
    sharing = sum(bool(own & others) for others in node.allgather(own))
    node.Free()
    share = max(1, _alone // sharing)
    if get_num_threads() > share:
        set_num_threads(share)
