"""Philox4x32-10, the counter-based generator (Salmon et al., SC'11)."""

from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]  # each holds 32 bits

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox(
    counter: tuple[Words, Words, Words, Words], key: tuple[int, int], rounds: int = 10
) -> tuple[Words, Words, Words, Words]:
    """Encrypt counters of four 32-bit words (arrays of one shape) with a key of two."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        product0 = c0 * np.uint64(0xD2511F53)
        product1 = c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (product1 >> _32) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _32) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def philox_bytes(
    index: npt.NDArray[Any], digit: int, domain: int, key: int, width: int = 1, part: int = 0
) -> npt.NDArray[np.uint8]:
    """Bytes of the endless string B[domain, digit], at the positions ``index * width + part`` (index: uint64).

    Block b of the string is the 16 bytes, little-endian word by word, of
    ``philox((b & 0xffffffff, b >> 32, digit, domain), key)``.
    """
    in_block = np.uint64(16 // width)  # the product might not fit in 64 bits
    block, byte = index // in_block, (index % in_block).astype(np.intp) * width + part
    counter = (
        block & _LOW,
        block >> _32,
        np.full_like(block, digit),
        np.full_like(block, domain),
    )
    words = np.stack(philox(counter, (key & 0xFFFFFFFF, key >> 32)), axis=-1)
    strings = words.astype("<u4").view(np.uint8)  # (..., 16)
    return np.take_along_axis(strings, byte[..., None], axis=-1)[..., 0]
