"""Numba kernel for dense measurements restricted to factors: the design matrix of a regression, in one pass over the matrices.

BLAS multiplies stacks of matrices with a few columns at a fifth of its speed, and one side after the other. Here four rows
of a matrix at a time meet both factors while they are in the first-level cache: a row of the design is a sum over
machine vectors that hold one row of a factor each.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import njit, prange

from dmf.arrays.backend import thread_count
from dmf.kernels import reference, simd

_WIDEST_BYTES = 96  # of a factor's row: four sums of three machine vectors fill the registers; beyond, BLAS is as fast
_MOST_CHUNKS = 32
_PARALLEL_WORK = 500_000  # numbers of the matrices below which starting threads costs more than it saves


@cache
def _compile(length: int, parallel: bool):
    def restricted_map(matrices, rows, left, right, shape, width, bounds, design):
        """Fill `design`; factors are padded to rows of `length` numbers and flattened, and empty where they are not given."""
        d1, d2 = shape
        by_row, by_col = right.shape[0] > 0, left.shape[0] > 0
        second = d1 * width if by_row else 0  # column at which the part of the left factor begins
        whole = d1 // 4 * 4
        for chunk in prange(bounds.shape[0] - 1):
            some, sums = np.zeros(4 * length, matrices.dtype), np.zeros(d2 * length, matrices.dtype)
            zeros = simd.zeros_like(simd.load(some, 0, length))
            for i in range(bounds[chunk], bounds[chunk + 1]):
                at = rows[i]
                for k in range(d2):
                    simd.store(sums, k * length, zeros)
                for j in range(0, whole, 4):
                    b0 = j * d2
                    b1, b2, b3 = b0 + d2, b0 + 2 * d2, b0 + 3 * d2
                    if by_row:
                        s0, s1, s2, s3 = zeros, zeros, zeros, zeros
                        for k in range(d2):
                            v = simd.load(right, k * length, length)
                            s0 = simd.add_scaled(s0, matrices[at, b0 + k], v)
                            s1 = simd.add_scaled(s1, matrices[at, b1 + k], v)
                            s2 = simd.add_scaled(s2, matrices[at, b2 + k], v)
                            s3 = simd.add_scaled(s3, matrices[at, b3 + k], v)
                        simd.store(some, 0, s0)
                        simd.store(some, length, s1)
                        simd.store(some, 2 * length, s2)
                        simd.store(some, 3 * length, s3)
                        for e in range(4):
                            for a in range(width):
                                design[i, (j + e) * width + a] = some[e * length + a]
                    if by_col:
                        u0, u1 = simd.load(left, j * length, length), simd.load(left, (j + 1) * length, length)
                        u2, u3 = simd.load(left, (j + 2) * length, length), simd.load(left, (j + 3) * length, length)
                        for k in range(d2):
                            s0 = simd.add_scaled(simd.load(sums, k * length, length), matrices[at, b0 + k], u0)
                            s0 = simd.add_scaled(s0, matrices[at, b1 + k], u1)
                            s0 = simd.add_scaled(s0, matrices[at, b2 + k], u2)
                            simd.store(sums, k * length, simd.add_scaled(s0, matrices[at, b3 + k], u3))
                for j in range(whole, d1):
                    b0 = j * d2
                    if by_row:
                        s0 = zeros
                        for k in range(d2):
                            s0 = simd.add_scaled(s0, matrices[at, b0 + k], simd.load(right, k * length, length))
                        simd.store(some, 0, s0)
                        for a in range(width):
                            design[i, j * width + a] = some[a]
                    if by_col:
                        u0 = simd.load(left, j * length, length)
                        for k in range(d2):
                            s0 = simd.load(sums, k * length, length)
                            simd.store(sums, k * length, simd.add_scaled(s0, matrices[at, b0 + k], u0))
                if by_col:
                    for k in range(d2):
                        for a in range(width):
                            design[i, second + k * width + a] = sums[k * length + a]

    # Every variant needs a name of its own: Numba's disk cache ignores options.
    restricted_map.__qualname__ += f"_{length}_{'parallel' if parallel else 'serial'}"
    return njit(cache=True, nogil=True, parallel=parallel)(restricted_map)


def restricted_map(matrices, rows, shape, left, right):
    """Design matrix in one pass over `matrices`; see `dmf.kernels.reference.restricted_map`, the twin."""
    width = (left if right is None else right).shape[1]
    length = simd.padded(width, matrices.itemsize)
    if not matrices.flags.c_contiguous or length * matrices.itemsize > _WIDEST_BYTES:
        return reference.restricted_map(matrices, rows, shape, left, right)
    rows = np.arange(matrices.shape[0]) if rows is None else np.ascontiguousarray(rows, np.int64)
    sides = (shape[0] if right is not None else 0) + (shape[1] if left is not None else 0)
    design = np.empty((rows.shape[0], sides * width), matrices.dtype)
    chunks = min(max(rows.shape[0], 1), _MOST_CHUNKS)
    matrices = matrices.view()
    matrices.flags.writeable = False  # one compiled form for arrays that can be written to and for those that cannot
    _compile(length, rows.shape[0] * matrices.shape[1] > _PARALLEL_WORK and thread_count() > 1)(
        matrices,
        rows,
        _padded(left, length, matrices.dtype),
        _padded(right, length, matrices.dtype),
        shape,
        width,
        np.arange(chunks + 1) * rows.shape[0] // chunks,
        design,
    )
    return design


def _padded(factor, length, dtype):
    """Rows padded with zeros to `length` numbers, flattened; empty for None."""
    result = np.zeros((0 if factor is None else factor.shape[0], length), dtype)
    if factor is not None:
        result[:, : factor.shape[1]] = factor
    return result.ravel()
