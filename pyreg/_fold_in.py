"""Keys made from a key."""

from __future__ import annotations

from typing import SupportsIndex

from pyreg import _check, _core


def fold_in(key: SupportsIndex, *numbers: SupportsIndex) -> int:
    """Return a new key, made from a key and numbers.

    One seed is enough for a training run: ``fold_in(seed, layer, step)`` is a key for each layer and step. The same
    key and numbers always give the same new key, so a run that is resumed continues with the same masks.

    Parameters
    ----------
    key : int
        A key, in [0, 2**64), for example from `random_key`.
    *numbers : int
        What to make the new key for, each in [0, 2**64). Several are folded in one after the other:
        ``fold_in(key, 1, 2)`` is ``fold_in(fold_in(key, 1), 2)``. Without numbers, the result is the key.

    Returns
    -------
    int
        The new key, in [0, 2**64).

    Raises
    ------
    TypeError
        If an argument is not an integer.
    ValueError
        If an argument is out of range.

    See Also
    --------
    random_key : A key from NumPy's random generators.

    References
    ----------
    J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC'11. The new key is the
    first eight bytes of ``philox((n % 2**32, n // 2**32, 0, 2), key)``, in domain 2 of the random stream. JAX's
    ``jax.random.fold_in`` serves the same purpose.

    Examples
    --------
    >>> import pyreg
    >>> key = pyreg.fold_in(0, 1, 2)
    >>> key == pyreg.fold_in(pyreg.fold_in(0, 1), 2)
    True
    >>> key == pyreg.fold_in(0, 2, 1)
    False
    """
    new: int = _core.fold_in(key, numbers, arguments)
    return new


def arguments(key: SupportsIndex, numbers: tuple[SupportsIndex, ...]) -> tuple[int, tuple[int, ...]]:
    made = [_check.integer(f"numbers[{i}]", number, low=0, high=2**64 - 1) for i, number in enumerate(numbers)]
    return _check.integer("key", key, low=0, high=2**64 - 1), tuple(made)
