"""Stochastic depth: each sample uses one element of the stream of `dropout`."""

from __future__ import annotations

from pyreg._results import FloatArray
from pyreg.reference.dropout import dropped, kept, threshold_of
from pyreg.reference.results import wide, written


def drop_path(x: FloatArray, p: float, key: int, offset: int, training: bool, out: FloatArray | None) -> FloatArray:
    threshold = threshold_of(p) if training else 0
    samples, *others = x.shape
    mask = kept(samples, threshold, key, offset).reshape(samples, *(1 for _ in others))
    return written(dropped(wide(x), mask, threshold), out, x.shape, x.dtype)
