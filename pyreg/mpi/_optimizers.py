"""The optimiser classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsIndex

import numpy.typing as npt
from mpi4py.MPI import Intracomm

from pyreg._optimizer_params import Arrays
from pyreg._optimizers import SGD, Adam, AdamW
from pyreg._param_groups import Params
from pyreg.mpi._sharded import Sharded
from pyreg.mpi._sharded_params import Op, Reduce


class ShardedAdamW(Sharded, AdamW):
    """AdamW over a model's parameters, by all ranks of an MPI job: `pyreg.AdamW` with its states divided among them.

    All ranks make it, with the same arguments, and call the same methods in the same order.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        The ranks, such as ``MPI.COMM_WORLD``. pyreg sends its messages over a copy of it, which is freed with it.
    params : list or dict of ndarray, or list of dict
        As in `pyreg.AdamW`, and with the same values on all ranks. Each rank has all of them. A parameter that is in
        C order may be cut into shards at multiples of 16,384 elements; others stay whole.
    lr, betas, eps, weight_decay, amsgrad, maximize, bias_correction : optional
        As in `pyreg.AdamW`.
    rounding, key, state_dtype, ema_decay : optional
        As in `pyreg.AdamW`. The random numbers are the same for any number of ranks.
    param_out : list or dict of ndarray, optional
        As in `pyreg.AdamW`. If it is given, the ranks exchange these copies in place of the parameters: a rank's
        parameters are then right in its own shard only, until `gather_params` is called.
    op : {"mean", "sum"}, optional
        What becomes of the gradients of all ranks.
    reduce : {"ordered", "mpi"}, optional
        How they are added: in the order of the ranks, so that the result is the same in each run; or in the order
        that MPI's own reduction chooses, which may depend on the machines.

    Attributes
    ----------
    param_groups : list of dict
        As in `pyreg.AdamW`. A change of an option must be made on all ranks.
    state : dict of dict of ndarray
        This rank's part of each parameter's states, as one axis: empty where it has none.
    ema : dict of ndarray
        Likewise, the averages, if `ema_decay` is given.
    step_count, key
        As in `pyreg.AdamW`.

    Raises
    ------
    TypeError, ValueError
        As in `pyreg.AdamW`, or if the ranks differ in an argument, or in the shapes, dtypes or values of the
        parameters. It is raised on all ranks.

    See Also
    --------
    pyreg.AdamW : The same for one process.

    Notes
    -----
    That each process updates a shard is stage 1 of ZeRO [1]_, and that it keeps the summed gradients of that shard
    alone, stage 2. Ranks that share a machine share its CPUs: the constructor lowers `pyreg.get_num_threads` to this
    rank's share, unless ``OMP_NUM_THREADS`` is set.

    References
    ----------
    .. [1] S. Rajbhandari, J. Rasley, O. Ruwase, Y. He, "ZeRO: Memory Optimizations Toward Training Trillion Parameter
       Models", SC20, arXiv:1910.02054.

    Examples
    --------
    On one rank; with ``mpiexec -n 4``, on four:

    >>> import numpy as np
    >>> from mpi4py import MPI
    >>> from pyreg.mpi import ShardedAdamW
    >>> model = {"w": np.ones((2, 3)), "b": np.ones(3)}
    >>> optimizer = ShardedAdamW(MPI.COMM_WORLD, model, lr=0.1, weight_decay=0.1)
    >>> optimizer.step({"b": np.full(3, 0.5), "w": np.full((2, 3), 0.5)})  # the gradients that this rank computed
    >>> model["w"][0].round(4)
    array([0.89, 0.89, 0.89])
    """

    def __init__(
        self,
        comm: Intracomm,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        bias_correction: bool = True,
        rounding: str | Mapping[str, str] = "nearest",
        key: SupportsIndex | None = None,
        state_dtype: npt.DTypeLike | None = None,
        ema_decay: float | None = None,
        param_out: Arrays | None = None,
        op: Op = "mean",
        reduce: Reduce = "ordered",
    ) -> None:
        with self._set_up(comm, op, reduce):
            super().__init__(
                params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, bias_correction=bias_correction,
                rounding=rounding, key=key, state_dtype=state_dtype, ema_decay=ema_decay, param_out=param_out,
            )  # fmt: skip


class ShardedAdam(Sharded, Adam):
    """Classic Adam, with coupled weight decay, by all ranks of an MPI job: `pyreg.Adam` with its states divided.

    Parameters
    ----------
    comm, params
        As in `ShardedAdamW`.
    lr, betas, eps, weight_decay, amsgrad : optional
        As in `pyreg.Adam`.
    maximize, bias_correction, rounding, key, state_dtype, ema_decay : optional
        As in `pyreg.Adam`.
    param_out, op, reduce : optional
        As in `ShardedAdamW`.

    Attributes
    ----------
    param_groups, state, ema, step_count, key
        As in `ShardedAdamW`.

    Raises
    ------
    TypeError, ValueError
        As in `ShardedAdamW`.

    See Also
    --------
    ShardedAdamW : Says what is divided.

    Examples
    --------
    >>> import numpy as np
    >>> from mpi4py import MPI
    >>> from pyreg.mpi import ShardedAdam
    >>> param = np.array([1.0, -2.0])
    >>> optimizer = ShardedAdam(MPI.COMM_WORLD, [param], lr=0.1)
    >>> optimizer.step([np.array([0.5, 0.5])])
    >>> param.round(6)
    array([ 0.9, -2.1])
    """

    def __init__(
        self,
        comm: Intracomm,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        bias_correction: bool = True,
        rounding: str | Mapping[str, str] = "nearest",
        key: SupportsIndex | None = None,
        state_dtype: npt.DTypeLike | None = None,
        ema_decay: float | None = None,
        param_out: Arrays | None = None,
        op: Op = "mean",
        reduce: Reduce = "ordered",
    ) -> None:
        with self._set_up(comm, op, reduce):
            super().__init__(
                params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, bias_correction=bias_correction,
                rounding=rounding, key=key, state_dtype=state_dtype, ema_decay=ema_decay, param_out=param_out,
            )  # fmt: skip


class ShardedSGD(Sharded, SGD):
    """Stochastic gradient descent by all ranks of an MPI job: `pyreg.SGD` with its momentum buffers divided.

    Parameters
    ----------
    comm, params
        As in `ShardedAdamW`, but a group's options are those of `pyreg.SGD`.
    lr, momentum, dampening, weight_decay, nesterov : optional
        As in `pyreg.SGD`.
    maximize, rounding, key, state_dtype, ema_decay : optional
        As in `pyreg.SGD`.
    param_out, op, reduce : optional
        As in `ShardedAdamW`.

    Attributes
    ----------
    param_groups, state, ema, step_count, key
        As in `ShardedAdamW`.

    Raises
    ------
    TypeError, ValueError
        As in `ShardedAdamW`.

    See Also
    --------
    ShardedAdamW : Says what is divided.

    Examples
    --------
    >>> import numpy as np
    >>> from mpi4py import MPI
    >>> from pyreg.mpi import ShardedSGD
    >>> param, grad = np.array([1.0, -2.0]), np.array([0.5, 0.5])
    >>> optimizer = ShardedSGD(MPI.COMM_WORLD, [param], lr=0.1, momentum=0.9)
    >>> for _ in range(2):
    ...     optimizer.step([grad])
    >>> param
    array([ 0.855, -2.145])
    """

    def __init__(
        self,
        comm: Intracomm,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        rounding: str | Mapping[str, str] = "nearest",
        key: SupportsIndex | None = None,
        state_dtype: npt.DTypeLike | None = None,
        ema_decay: float | None = None,
        param_out: Arrays | None = None,
        op: Op = "mean",
        reduce: Reduce = "ordered",
    ) -> None:
        with self._set_up(comm, op, reduce):
            super().__init__(
                params, lr, momentum, dampening, weight_decay, nesterov, maximize=maximize, rounding=rounding,
                key=key, state_dtype=state_dtype, ema_decay=ema_decay, param_out=param_out,
            )  # fmt: skip
