"""Keys that select a random stream."""

from typing import Any

import numpy as np


def random_key(rng: Any = None) -> int:
    """Draw a key for `dropout`.

    Parameters
    ----------
    rng : None, int, array_like of int, numpy.random.SeedSequence, BitGenerator or Generator, optional
        The source of the key, as in ``numpy.random.default_rng(rng)``: None uses the system's entropy, an
        integer always gives the same key, and a Generator gives a new key each time. NumPy's global state
        is neither read nor changed.

    Returns
    -------
    int
        The key, in [0, 2**64).

    Raises
    ------
    TypeError, ValueError
        As raised by ``numpy.random.default_rng`` if it does not accept `rng`.

    References
    ----------
    Scientific Python's SPEC 7, "Seeding pseudo-random number generation".

    Examples
    --------
    >>> import pyreg
    >>> pyreg.random_key(0) == pyreg.random_key(0)
    True
    >>> 0 <= pyreg.random_key() < 2**64
    True
    """
    return int(np.random.default_rng(rng).integers(2**64, dtype=np.uint64))
