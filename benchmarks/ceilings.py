"""What this machine's memory and arithmetic can do, measured by loops that do one thing only, on all cores."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numba import njit, prange

from dmf.kernels import simd

_STREAM_ROW = 64  # numbers added at once
_CHUNKS = 64


def best_seconds(work: Callable[[], object], rounds: int = 7) -> float:
    """Least time of a call; the first one, which compiles, is not counted."""
    work()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


@njit(parallel=True)
def parallel_sum(flat, chunks):
    """Sums of chunks of all numbers but the last few, in registers: as fast as a loop can read memory."""
    sums = np.empty(chunks, flat.dtype)
    one, step = flat.dtype.type(1), flat.shape[0] // chunks // _STREAM_ROW * _STREAM_ROW
    for chunk in prange(chunks):
        total = simd.zeros_like(simd.load(flat, 0, _STREAM_ROW))
        for k in range(chunk * step, (chunk + 1) * step, _STREAM_ROW):
            total = simd.add_scaled(total, one, simd.load(flat, k, _STREAM_ROW))
        sums[chunk] = simd.total(total)
    return sums


def stream_bandwidth(megabytes: int = 256) -> float:
    """Bytes a second, read from memory one after another."""
    flat = np.ones(megabytes * 2**20 // 8)
    return flat.nbytes / best_seconds(lambda: parallel_sum(flat, _CHUNKS))


def flop_rate(dtype: type, size: int = 1_500) -> float:
    """Floating-point operations a second of a product of square matrices (BLAS)."""
    a, b = np.ones((2, size, size), dtype)
    return 2 * size**3 / best_seconds(lambda: a @ b)


def row_bandwidth(rows: int, length: int, dtype: type, count: int = 2_000_000) -> float:
    """Bytes a second, read as rows of `length` numbers in random order from a table of `rows` rows."""

    @njit(parallel=True)
    def read(table, index, chunks):
        sums = np.empty(chunks, table.dtype)
        one, step = table.dtype.type(1), index.shape[0] // chunks // 2 * 2
        for chunk in prange(chunks):
            even = odd = simd.zeros_like(simd.load(table, 0, length))
            for k in range(chunk * step, (chunk + 1) * step, 2):
                even = simd.add_scaled(even, one, simd.load(table, np.intp(index[k]) * length, length))
                odd = simd.add_scaled(odd, one, simd.load(table, np.intp(index[k + 1]) * length, length))
            sums[chunk] = simd.total(even) + simd.total(odd)
        return sums

    table = np.ones((rows, length), dtype)
    index = np.random.default_rng(rows).integers(0, rows, count, dtype=np.int32)
    return count * length * table.itemsize / best_seconds(lambda: read(table, index, _CHUNKS))
