"""What one rank finds wrong is raised on all, before any of them goes on."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from pyreg._dtypes import FLOATS
from pyreg._param_groups import Name

ERRORS = (TypeError, ValueError, MemoryError, OSError, ImportError)  # what is none of them becomes a RuntimeError
HINTS = {"the CRC of params": "; draw them from the same seed, or send those of rank 0 with comm.Bcast"}
DIGEST = 16  # bytes


class Agreement:
    """A block that all ranks run. At its end, they tell each other whether it failed, and compare what they found.

    If it failed on one, the error is raised on all; likewise, if they differ. What is compared:

    facts : by what they are called in a message
    codes : of the dtype of each parameter's gradient, 1 for the first of FLOATS; 0 if there is none, which agrees
        with any. Afterwards, those of all ranks together.
    """

    def __init__(self, comm: MPI.Intracomm, names: Sequence[Name], facts: dict[str, Any]) -> None:
        self.comm, self.names, self.facts = comm, names, facts
        self.codes = np.zeros(len(names), np.uint8)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if (error is not None and not isinstance(error, Exception)) or self.comm.size == 1:
            return
        digest = np.frombuffer(blake2b(repr(self.facts).encode(), digest_size=DIGEST).digest(), np.uint8)
        failed = np.array([error is not None], np.uint8)
        some_failed, high, low = self._largest(failed, digest, ~digest)
        if some_failed:
            raise self._error(error) from error
        if not np.array_equal(high, ~low):
            raise self._disagreement()
        # Only now is it known that all have as many codes.
        no_code = self.codes == 0
        high, low = self._largest(self.codes, np.where(no_code, 0, ~self.codes).astype(np.uint8))
        differ = np.flatnonzero((high != ~low) & (high > 0))
        if differ.size:
            raise self._other_dtype(int(differ[0]))
        self.codes = high

    def _largest(self, *values: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
        """The largest of all ranks. (The smallest is the complement of the largest complement.)"""
        every = np.concatenate(values)
        if every.size:
            self.comm.Allreduce(MPI.IN_PLACE, every, op=MPI.MAX)
        return np.split(every, np.cumsum([len(of_one) for of_one in values])[:-1])

    def _error(self, error: BaseException | None) -> Exception:
        """The error of the first rank that has one."""
        kind = next((kind for kind in ERRORS if isinstance(error, kind)), RuntimeError)
        every = self.comm.allgather(None if error is None else (kind, str(error)))
        rank, (kind, text) = next((rank, told) for rank, told in enumerate(every) if told is not None)
        made: Exception = kind(f"on rank {rank}: {text}")
        return made

    def _disagreement(self) -> Exception:
        every: Sequence[dict[str, Any]] = self.comm.allgather(self.facts)
        first = every[0]
        for rank, facts in enumerate(every):
            for name in [*first, *facts]:
                here, there = (repr(of[name]) if name in of else "nothing" for of in (first, facts))
                if here != there:
                    got = f"{here} on rank 0 and {there} on rank {rank}{HINTS.get(name.split('[')[0], '')}"
                    return ValueError(f"{name} must be the same on all ranks, got {got}")
        return RuntimeError("the ranks differ in what they found")

    def _other_dtype(self, place: int) -> Exception:
        every = self.comm.allgather(int(self.codes[place]))
        given = [(rank, FLOATS[code - 1]) for rank, code in enumerate(every) if code]
        other = next(one for one in given if one[1] != given[0][1])
        got = " and ".join(f"{dtype} on rank {rank}" for rank, dtype in (given[0], other))
        return TypeError(f"grads[{self.names[place]!r}] must have the same dtype on all ranks, got {got}")
