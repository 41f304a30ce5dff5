"""Optimisers whose states are divided among the processes of an MPI job.

Each process, a rank, computes gradients of all parameters. They are summed over the ranks. Each rank updates its
shard of the parameters, and has the states of that shard alone. Then the ranks exchange the updated parameters.
"""

try:
    from mpi4py import MPI as MPI
except (ImportError, RuntimeError) as error:  # without mpi4py, and without an MPI
    raise ImportError(
        f"pyreg.mpi needs mpi4py and an MPI ({error}): `pip install 'pyreg[mpi]'` beside the MPI of your machine, or "
        "`pip install 'pyreg[mpi]' mpich` if it has none"
    ) from error

from pyreg.mpi._optimizers import ShardedAdam as ShardedAdam
from pyreg.mpi._optimizers import ShardedAdamW as ShardedAdamW
from pyreg.mpi._optimizers import ShardedSGD as ShardedSGD

__all__ = ["ShardedAdam", "ShardedAdamW", "ShardedSGD"]
