"""Numba kernel for the normal map of sampled entries on a tangent space, for problems so small that calls cost more than numbers.

One pass over the samples, on one thread and in their order, so that results are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numba import njit

from dmf.kernels import simd

_MOST_WORK = 500_000  # numbers in the rows of all samples; beyond, passes on several threads are faster
_WIDEST_BYTES = 256  # of a row


@cache
def _compile(length: int):
    def tangent_normal(rows, cols, u, v, step):
        """Image of `step`; `u` and `v` are padded to rows of `length` numbers and flattened."""
        d1, width = u.shape[0] // length, step.shape[1]
        steps, image = np.zeros(step.shape[0] * length, step.dtype), np.zeros(step.shape[0] * length, step.dtype)
        for i in range(step.shape[0]):
            for a in range(width):
                steps[i * length + a] = step[i, a]
        zeros = simd.zeros_like(simd.load(u, 0, length))
        for k in range(rows.shape[0]):
            i, j = np.intp(rows[k]) * length, np.intp(cols[k]) * length
            second = d1 * length + j
            by_row, by_col = simd.load(v, j, length), simd.load(u, i, length)
            sums = simd.add_product(zeros, simd.load(steps, i, length), by_row)
            entry = simd.total(simd.add_product(sums, by_col, simd.load(steps, second, length)))
            simd.store(image, i, simd.add_scaled(simd.load(image, i, length), entry, by_row))
            simd.store(image, second, simd.add_scaled(simd.load(image, second, length), entry, by_col))
        result = np.empty(step.shape, step.dtype)
        for i in range(step.shape[0]):
            for a in range(width):
                result[i, a] = image[i * length + a]
        return result

    tangent_normal.__qualname__ += f"_{length}"  # Numba's disk cache tells variants apart by their names
    return njit(cache=True, nogil=True)(tangent_normal)


def tangent_normal(
    rows: np.ndarray, cols: np.ndarray, u: np.ndarray, vt: np.ndarray
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Compiled `Observations.tangent_normal`, which is its twin, of entries at `rows` and `cols`; None where it does not pay."""
    length = simd.padded(u.shape[1], u.itemsize)
    if rows.shape[0] * length > _MOST_WORK or length * u.itemsize > _WIDEST_BYTES:
        return None
    normal, padded = _compile(length), [np.zeros((f.shape[0], length), u.dtype) for f in (u, vt.T)]
    for rows_of, factor in zip(padded, (u, vt.T), strict=True):
        rows_of[:, : u.shape[1]] = factor
    left, right = (rows_of.ravel() for rows_of in padded)
    return lambda step: normal(rows, cols, left, right, np.ascontiguousarray(step))
