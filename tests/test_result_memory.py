"""New results own their memory, which is NumPy's and starts on a cache line."""

import ctypes
import tracemalloc

import numpy as np
import pytest
from numpy._core.multiarray import get_handler_name  # documented in NEP 49

import pyreg

LINE = 64  # bytes


def new_results(case, dtype, shape=(40, 70)):
    made = case.call(pyreg, case.arguments(shape, dtype))
    return [value for name, value in made.items() if isinstance(value, np.ndarray) and name not in case.updated]


def test_results_start_on_a_cache_line_and_own_their_data(case, dtype):
    kept = []  # so that memory is not used again
    for _ in range(10):
        kept += new_results(case, dtype)
    assert all(result.ctypes.data % LINE == 0 and result.flags.owndata for result in kept)


@pytest.mark.parametrize("size", [0, 1, 3, 1_000, 300_000, 3_000_000])
@pytest.mark.parametrize("new_size", [0, 1, 2, 1_100, 400_000, 5_000_000])
def test_a_result_can_be_resized(size, new_size):
    x = np.arange(size, dtype=np.float32)
    y = pyreg.dropout(x, 0.0)
    y.resize(new_size)
    same = min(size, new_size)
    assert y.shape == (new_size,)
    np.testing.assert_array_equal(y[:same], x[:same])
    assert not y[same:].any()
    assert y.ctypes.data % LINE == 0


def test_tracemalloc_counts_results():
    x = np.ones(1_000_000, np.float32)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        y = pyreg.dropout(x, 0.0)
        with_result, _ = tracemalloc.get_traced_memory()
        del y
        without, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert x.nbytes <= with_result - before < x.nbytes + 10_000
    assert without - before < 10_000


class Handler(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("allocator", ctypes.c_void_p * 5)]


def test_a_memory_handler_of_the_user_is_used():
    of_capsule = ctypes.pythonapi.PyCapsule_GetPointer
    of_capsule.restype, of_capsule.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    new_capsule = ctypes.pythonapi.PyCapsule_New
    new_capsule.restype, new_capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    api = ctypes.cast(of_capsule(np._core.multiarray._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(api[304])
    get_handler = ctypes.PYFUNCTYPE(ctypes.py_object)(api[305])

    users = Handler.from_buffer_copy(
        ctypes.string_at(of_capsule(get_handler(), b"mem_handler"), ctypes.sizeof(Handler))
    )
    users.name = b"users"
    before = set_handler(new_capsule(ctypes.addressof(users), b"mem_handler", None))
    try:
        y = pyreg.dropout(np.ones(1000, np.float32), 0.0)
    finally:
        set_handler(before)
    assert get_handler_name(y) == "users"
    assert get_handler_name(pyreg.dropout(y, 0.0)) == "pyreg"
    del y  # before the handler
