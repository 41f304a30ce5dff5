"""Arrays against an inaccessible page: a read or write beyond one ends the process."""

import ctypes
import mmap

import numpy as np

PAGE, NO_ACCESS, PATTERN = mmap.PAGESIZE, 0, 0xA5
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


class AgainstPage:
    """A copy of an array, in its layout. The page after it, or before it, is inaccessible; the rest has a pattern."""

    def __init__(self, array, after):
        start = array.ctypes.data
        low, high = np.lib.array_utils.byte_bounds(array) if array.size else (start, start)
        odd = int(not array.flags.aligned)
        size = -(-(high - low + odd) // PAGE) * PAGE or PAGE
        memory = mmap.mmap(-1, PAGE + size + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        every = np.frombuffer(memory, np.uint8)
        for guard in (every[:PAGE], every[-PAGE:]):
            assert libc.mprotect(guard.ctypes.data, PAGE, NO_ACCESS) == 0, ctypes.get_errno()
        self.bytes = every[PAGE:-PAGE]
        self.bytes.fill(PATTERN)
        begin = size - odd - (high - low) if after else odd
        self.place = slice(begin, begin + high - low)
        ctypes.memmove(self.bytes.ctypes.data + begin, low, high - low)
        self.array = np.ndarray(array.shape, array.dtype, every, PAGE + begin + start - low, array.strides)
        self.array.flags.writeable = array.flags.writeable
        self.remember()

    def remember(self):
        """Take the present bytes as those that must not change."""
        self.before = self.bytes.copy()

    def is_unchanged(self, *, but_for_the_array=False):
        same = self.bytes == self.before
        if but_for_the_array:
            same[self.place] = True
        return bool(same.all())
