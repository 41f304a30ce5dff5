"""Write bytes of the random stream to standard output, without end, for a battery of statistical tests.

By default, these are the numbers U that dropout compares with its threshold, lowest byte first. docs/random_stream.md
defines them and the strings B.
"""

import argparse
import itertools
import signal
import sys

import numpy as np

from pyreg.reference.philox import philox

BLOCKS = 2**13  # generated at once: the arrays stay in cache


def string(first, blocks, digit, domain, key):
    """The bytes of `blocks` blocks of B[domain, digit], from block `first` on."""
    block = np.arange(first, first + blocks, dtype=np.uint64)
    counter = (
        block & np.uint64(0xFFFFFFFF),
        block >> np.uint64(32),
        np.full_like(block, digit),
        np.full_like(block, domain),
    )
    return np.stack(philox(counter, (key & 0xFFFFFFFF, key >> 32)), axis=-1).astype("<u4").view(np.uint8).ravel()


def numbers(first, blocks, key):
    """The numbers U of the same places, four bytes each, lowest byte first."""
    return np.stack([string(first, blocks, digit, 0, key) for digit in (3, 2, 1, 0)], axis=-1).ravel()


def integer(text):
    return int(text, 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--key", type=integer, default=0, help="in [0, 2**64), default 0")
    parser.add_argument("--digit", type=int, help="the string B[domain, digit] instead of the numbers U")
    parser.add_argument("--domain", type=int, default=0, help="default 0; only with --digit")
    args = parser.parse_args()
    if not 0 <= args.key < 2**64:
        parser.error(f"--key must be in [0, 2**64), not {args.key}")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # ends quietly when its reader does
    for first in itertools.count(0, BLOCKS):
        if args.digit is None:
            part = numbers(first, BLOCKS, args.key)
        else:
            part = string(first, BLOCKS, args.digit, args.domain, args.key)
        sys.stdout.buffer.write(part)


if __name__ == "__main__":
    main()
