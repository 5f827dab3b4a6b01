"""Numba kernels for linearised least squares on sampled entries: steps ``P V^T + U Q^T`` in a tangent space.

The normal matrix has a block for each row of P and of Q, and the samples couple one row of P with one of Q only. So P is
eliminated exactly, and conjugate gradients run on Q alone, preconditioned by its blocks: two to ten times fewer passes
over the samples than on both (Golub, Pereyra, SIAM J. Numer. Anal. 10, 1973: variable projection). A pass goes over the
samples once in the order of rows and once in that of columns; rows that it meets at random hold both factors side by side.
"""

from __future__ import annotations

import numpy as np

from dmf.kernels import blocks as small
from dmf.kernels import rows as row
from dmf.kernels import simd
from dmf.kernels.chunks import frozen, in_chunks
from dmf.kernels.jit import jit
from dmf.kernels.ridge import normal_rows, scratch
from dmf.kernels.sampled import ERRORS, gather, no_values, residual_rows

WIDEST_STEP = 256  # bytes of a row
MOST_BYTES = 2**28  # of all blocks; beyond, passes for both factors take less memory
_SINGULAR = 64.0  # units in the last place of the largest pivot, below which others are rounding


@jit()
def invert_rows(width, length, damping, least, gram, triangle, order, blocks, begin, end):
    """Replace symmetric matrices, the lower triangles of rows `begin` to `end`, by the inverses of them plus `damping`.

    All matrices are `width` rows padded to `length` numbers. Directions are left out that a matrix maps to rounding errors:
    less than `least` times its largest pivot. ``gram = R^T R`` with the largest pivots first: only so are those below rounding
    known by their size. `gram` becomes R, and `triangle` the inverse of R^T; rows of either are in no order.
    """
    one = least / least
    none = one - one
    for i in range(begin, end):
        start = i * width * length
        row.fill(gram, 0, none, width * length)
        row.fill(triangle, 0, none, width * length)
        for a in range(width):
            order[a] = a
            for c in range(a + 1):
                gram[a * length + c] = gram[c * length + a] = blocks[start + a * length + c]
            gram[a * (length + 1)] += damping
        largest = none
        for step in range(width):
            where, pivot = step, gram[order[step] * (length + 1)]
            for later in range(step + 1, width):
                other = gram[order[later] * (length + 1)]
                where = (
                    later if other > pivot else where
                )  # without a branch, which would be guessed wrong half the time
                pivot = other if other > pivot else pivot
            order[step], order[where] = order[where], order[step]
            a = order[step]
            if step == 0:
                largest = pivot
            scale = none if pivot <= least * largest else one / np.sqrt(pivot)
            for c in range(width):
                gram[a * length + c] *= scale
            small.eliminate(gram, order, step + 1, width, a, length)
            small.combine(triangle, a * length, gram, a, triangle, order, step, -scale, length)
            triangle[a * (length + 1)] += scale
        for a in range(width):
            small.combine(blocks, start + a * length, triangle, a, triangle, order, width, one, length)


class TangentSystem:
    """Blocks and couplings of the normal matrix ``T^T A^T A T + damping`` for ``T(P, Q) = P V^T + U Q^T`` and sampled entries.

    Its arrays have rows padded with zeros; `padded` makes them.

    Parameters
    ----------
    samples : two tuples (starts, index, bounds)
        Of the rows and of the columns; see `dmf.kernels.cpu.SampledEntries`.
    u, v : array, shapes (d1, r) and (d2, r)
    damping : float, >= 0
    """

    def __init__(self, samples, u, v, damping):
        self._samples, self._width = samples, u.shape[1]
        self._length, self._damping = simd.padded(u.shape[1], u.itemsize), u.dtype.type(damping)
        width, length, dtype = self._width, self._length, u.dtype
        least, none = dtype.type(_SINGULAR * np.finfo(dtype).eps), frozen(np.empty(0, dtype))
        size, self._blocks = width * length, []
        for (starts, index, bounds), factor in zip(samples, (v, u), strict=True):
            blocks = simd.aligned((starts.shape[0] - 1) * size, dtype)
            arguments = starts, index, none, frozen(self.padded(factor)).ravel(), width, length, 1

            def run(begin, end, arguments=arguments, blocks=blocks):
                normal_rows(*arguments, *scratch(width, length, dtype), blocks[begin * size :], begin, end)
                work = simd.aligned(2 * size, dtype)
                order = np.empty(width, np.intp)
                invert_rows(width, length, self._damping, least, work[:size], work[size:], order, blocks, begin, end)

            in_chunks(index.shape[0] * length * width, bounds, run, calls=8)
            self._blocks.append(frozen(blocks))
        # A product with a block is a weighted sum of its lines.
        self._lines = [frozen(np.arange(width * bounds[-1], dtype=np.int32)) for _, _, bounds in samples]
        # Rows (left half, right half): what the samples of a row meet (v_j, q_j), and those of a column (u_i, p_i); then the rows
        # (0, u_i) and the columns (q_j, v_j) themselves. A step fills in its p and q.
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
        result, bounds = np.empty_like(rows), self._samples[side][2]
        starts = frozen(np.arange(rows.shape[0] + 1) * self._width)
        weights = frozen(rows[:, : self._width]).ravel()
        arguments = starts, self._lines[side], weights, 1, self._blocks[side], self._length, result.ravel()
        in_chunks(rows.size * self._width, bounds, lambda begin, end: gather(*arguments, begin, end))
        return result

    def by_rows(self, q):
        """For each row i the sum of ``(u_i . q_j) v_j`` over its samples."""
        self._met[0][:, self._length :] = q
        return self._coupled(0, self._rows)

    def by_columns(self, p, q):
        """For each column j the sum of ``(p_i . v_j + u_i . q_j) u_i`` over its samples, and ``damping q_j``."""
        self._met[1][:, self._length :] = p
        self._cols[:, : self._length] = q
        return self._coupled(1, self._cols) + self._damping * q

    def _coupled(self, side, rows):
        starts, index, bounds = self._samples[side]
        result = np.empty(rows.shape[0] * self._length, rows.dtype)
        zeros, losses = no_values(rows.dtype), np.empty(rows.shape[0])
        others, none = frozen(self._met[side]).ravel(), zeros[:0]
        arguments = starts, index, zeros, 0, frozen(rows).ravel(), others, 2 * self._length, none, none

        def run(begin, end):
            residual_rows(*arguments, np.empty(ERRORS, rows.dtype), result, self._length, losses, begin, end)

        in_chunks(3 * index.shape[0] * self._length, bounds, run)
        return result.reshape(-1, self._length)
