"""Numba kernels for linearised least squares on sampled entries: steps ``P V^T + U Q^T`` in a tangent space.

The normal matrix has a block for each row of P and of Q, and the samples couple one row of P with one of Q only. So P is
eliminated exactly, and conjugate gradients run on Q alone, preconditioned by its blocks: two to ten times fewer passes
over the samples than on both (Golub, Pereyra, SIAM J. Numer. Anal. 10, 1973: variable projection). A pass goes over the
samples once in the order of rows and once in that of columns; rows that it meets at random hold both factors side by side.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import njit, prange

from dmf.kernels import simd
from dmf.kernels.ridge import accumulate

WIDEST_STEP = 256  # bytes of a row
MOST_BYTES = 2**28  # of all blocks; beyond, passes for both factors take less memory
_SINGULAR = 64.0  # units in the last place of the largest pivot, below which others are rounding


@njit(cache=True)
def invert_block(length, width, gram, triangle, order, inverse, at):
    """Inverse of a symmetric matrix, from `at` on, of which directions are left out that the matrix maps to rounding errors.

    All matrices are `width` rows padded to `length` numbers. ``gram = R^T R`` with the largest pivots first: only so are those
    below rounding known by their size. `gram` becomes R, `triangle` the inverse of R^T; rows of either are in no order.
    """
    zeros = simd.zeros_like(simd.load(gram, 0, length))
    least = gram.dtype.type(0)
    for a in range(width):
        order[a] = a
    for step in range(width):
        for later in range(step + 1, width):
            if gram[order[later] * (length + 1)] > gram[order[step] * (length + 1)]:
                order[step], order[later] = order[later], order[step]
        a = order[step]
        pivot = gram[a * (length + 1)]
        if step == 0:
            least = gram.dtype.type(_SINGULAR * np.finfo(gram.dtype).eps) * pivot
        scale = gram.dtype.type(0) if pivot <= least else gram.dtype.type(1) / np.sqrt(pivot)
        row = simd.add_scaled(zeros, scale, simd.load(gram, a * length, length))
        simd.store(gram, a * length, row)
        for later in range(step + 1, width):
            c = order[later]
            left = simd.add_scaled(simd.load(gram, c * length, length), -gram[a * length + c], row)
            simd.store(gram, c * length, left)
        row = zeros
        for before in range(step):
            e = order[before]
            row = simd.add_scaled(row, -gram[e * length + a], simd.load(triangle, e * length, length))
        simd.store(triangle, a * length, row)
        triangle[a * (length + 1)] += 1
        simd.store(triangle, a * length, simd.add_scaled(zeros, scale, simd.load(triangle, a * length, length)))
    for a in range(width):
        row = zeros
        for e in range(width):
            row = simd.add_scaled(row, triangle[e * length + a], simd.load(triangle, e * length, length))
        simd.store(inverse, at + a * length, row)


@cache
def _compile(length: int, parallel: bool):
    double = 2 * length

    def compiled(function):
        # A name of its own for every variant: see dmf.kernels.cpu.
        function.__qualname__ += f"_{length}_{'parallel' if parallel else 'serial'}"
        return njit(cache=True, nogil=True, parallel=parallel)(function)

    @compiled
    def invert_blocks(starts, index, factor, width, damping, bounds, result):
        """Inverses of ``sum v v^T + damping`` over the samples of each row."""
        size = width * length
        for chunk in prange(bounds.shape[0] - 1):
            gram, triangle = np.empty(size, factor.dtype), np.empty(size, factor.dtype)
            order = np.empty(width, np.intp)
            for i in range(bounds[chunk], bounds[chunk + 1]):
                accumulate(length, starts[i], starts[i + 1], width, index, None, factor, gram, None)
                for a in range(width):
                    gram[a * (length + 1)] += damping
                invert_block(length, width, gram, triangle, order, result, i * size)

    @compiled
    def multiply_blocks(blocks, width, rows, bounds, result):
        """Every row times its block."""
        for chunk in prange(bounds.shape[0] - 1):
            for i in range(bounds[chunk], bounds[chunk + 1]):
                sums = simd.zeros_like(simd.load(rows, i * length, length))
                for a in range(width):
                    block = simd.load(blocks, (i * width + a) * length, length)
                    sums = simd.add_scaled(sums, rows[i, a], block)
                simd.store(result, i * length, sums)

    @compiled
    def couple(starts, index, rows, others, bounds, most, result):
        """For each row the sum of ``(row . other) partner`` over its samples; the partner is the first half of `other`."""
        lanes = 32 // rows.itemsize
        for chunk in prange(bounds.shape[0] - 1):
            products = np.empty(most, rows.dtype)
            for i in range(bounds[chunk], bounds[chunk + 1]):
                row = simd.load(rows, i * double, double)
                first, end = starts[i], starts[i + 1]
                whole = first + (end - first) // lanes * lanes
                for k in range(first, whole, lanes):
                    simd.store(products, k - first, simd.dots(row, others, index, k))
                for k in range(whole, end):
                    other = simd.load(others, np.intp(index[k]) * double, double)
                    products[k - first] = simd.total(simd.add_product(simd.zeros_like(row), row, other))
                sums = simd.zeros_like(simd.load(result, i * length, length))
                for k in range(first, end):
                    partner = simd.load(others, np.intp(index[k]) * double, length)
                    sums = simd.add_scaled(sums, products[k - first], partner)
                simd.store(result, i * length, sums)

    return invert_blocks, multiply_blocks, couple


class TangentSystem:
    """Blocks and couplings of the normal matrix ``T^T A^T A T + damping`` for ``T(P, Q) = P V^T + U Q^T`` and sampled entries.

    Its arrays have rows padded with zeros; `padded` makes them.

    Parameters
    ----------
    samples : two tuples (starts, index, bounds)
        Of the rows and of the columns; see `dmf.kernels.cpu.SampledEntries`.
    most : (int, int)
        Samples of the fullest row and column.
    u, v : array, shapes (d1, r) and (d2, r)
    damping : float, >= 0
    parallel : bool
    """

    def __init__(self, samples, most, u, v, damping, parallel):
        self._samples, self._most, self._width = samples, most, u.shape[1]
        self._length, self._damping = simd.padded(u.shape[1], u.itemsize), u.dtype.type(damping)
        invert, self._multiply, self._couple = _compile(self._length, parallel)
        self._blocks = []
        for (starts, index, bounds), factor in zip(samples, (v, u), strict=True):
            blocks = np.empty((starts.shape[0] - 1) * self._width * self._length, u.dtype)
            invert(starts, index, self.padded(factor).ravel(), self._width, self._damping, bounds, blocks)
            self._blocks.append(blocks)
        # What the samples of a row meet, and of a column, and the rows and columns themselves: halves are those of the step.
        double = 2 * self._length
        self._met = [simd.padded_rows(factor, double) for factor in (v, u)]
        self._rows, self._cols = (simd.padded_rows(factor[:, :0], double) for factor in (u, v))
        for rows, factor in ((self._rows, u), (self._cols, v)):
            rows[:, self._length : self._length + self._width] = factor

    @property
    def n_columns(self) -> int:
        """d2."""
        return self._cols.shape[0]

    def padded(self, factor):
        """Rows of the length that the methods take."""
        return simd.padded_rows(factor, self._length)

    def solve_blocks(self, side, rows):
        """The rows of P (side 0) or of Q (side 1) that the blocks of the normal matrix map to these."""
        result = np.empty_like(rows)
        self._multiply(self._blocks[side], self._width, rows, self._samples[side][2], result)
        return result

    def by_rows(self, q):
        """For each row i the sum of ``(u_i . q_j) v_j`` over its samples."""
        self._met[0][:, self._length :] = q
        starts, index, bounds = self._samples[0]
        result = np.empty_like(q, shape=(self._rows.shape[0], self._length))
        self._couple(starts, index, self._rows, self._met[0], bounds, self._most[0], result)
        return result

    def by_columns(self, p, q):
        """For each column j the sum of ``(p_i . v_j + u_i . q_j) u_i`` over its samples, and ``damping q_j``."""
        self._met[1][:, self._length :] = p
        self._cols[:, : self._length] = q
        starts, index, bounds = self._samples[1]
        result = np.empty_like(q)
        self._couple(starts, index, self._cols, self._met[1], bounds, self._most[1], result)
        return result + self._damping * q
