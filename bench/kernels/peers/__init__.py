"""The libraries that pyreg is compared with, a module each.

A module has `NAME` (in the tables), `VERSION`, `NOTE` (what the tables do not show), and `set_num_threads(n)`, which
returns whether the library can use n threads. For each operation that it measures, it has a function of pyreg's
name, which takes a `Case` and returns a call. The call's answer is pyreg's results in their order, or the first few
of them. A library with matrix products of its own has `product(a, b, out)`, which returns a call. One whose results
NumPy may be unable to read has `read(answer)`, which returns an answer that it can.
"""
