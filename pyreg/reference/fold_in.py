"""Keys made from a key: the first eight bytes of a block of Philox, in domain 2."""

from __future__ import annotations

import numpy as np

from pyreg.reference.philox import philox

DOMAIN = 2


def fold_in(key: int, numbers: tuple[int, ...]) -> int:
    for number in numbers:
        counter = [np.array(word, np.uint64) for word in (number % 2**32, number >> 32, 0, DOMAIN)]
        low, high, *_ = philox((counter[0], counter[1], counter[2], counter[3]), (key % 2**32, key >> 32))
        key = int(low) | int(high) << 32
    return key
