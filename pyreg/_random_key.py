"""Keys for the random stream."""

from typing import Any

import numpy as np


def random_key(rng: Any = None) -> int:
    """Draw a key for `dropout`.

    Parameters
    ----------
    rng : None, int, array_like of int, numpy.random.SeedSequence, BitGenerator or Generator, optional
        Where the key is drawn from, as ``numpy.random.default_rng(rng)`` reads it: None draws on the
        system's entropy; an integer always gives the same key; a Generator gives a new key each time.
        NumPy's global state is neither read nor changed.

    Returns
    -------
    int
        In [0, 2**64).

    Raises
    ------
    TypeError, ValueError
        What ``numpy.random.default_rng`` raises where it cannot read `rng`.

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
