"""Numba kernels for linearised least squares on sampled entries: steps ``P V^T + U Q^T`` in a tangent space.

The normal matrix has a block for each row of P and of Q, and the samples couple one row of P with one of Q only. So P is
eliminated exactly, and conjugate gradients run on Q alone, preconditioned by its blocks: two to ten times fewer passes
over the samples than on both (Golub, Pereyra, SIAM J. Numer. Anal. 10, 1973: variable projection). A pass goes over the
samples once in the order of rows and once in that of columns; rows that it meets at random hold both factors side by side.
"""

from __future__ import annotations

import numpy as np

from dmf.kernels import rows as row
from dmf.kernels import simd
from dmf.kernels.chunks import frozen, in_chunks
from dmf.kernels.jit import jit
from dmf.kernels.ridge import BLOCK, accumulate

WIDEST_STEP = 256  # bytes of a row
MOST_BYTES = 2**28  # of all blocks; beyond, passes for both factors take less memory
_SINGULAR = 64.0  # units in the last place of the largest pivot, below which others are rounding
_ERRORS = 256  # samples of a row at a time


@jit()
def invert_block(length, width, work, gram, triangle, order, inverse, at):
    """Inverse of a symmetric matrix, from `at` on, of which directions are left out that the matrix maps to rounding errors.

    All matrices are `width` rows padded to `length` numbers, the first from `gram` on in `work`. ``gram = R^T R`` with the
    largest pivots first: only so are those below rounding known by their size. The matrix becomes R, and from `triangle` on the
    inverse of R^T; rows of either are in no order.
    """
    least, none, one = work.dtype.type(0), work.dtype.type(0), work.dtype.type(1)
    row.fill(work, triangle, none, width * length)
    row.fill(inverse, at, none, width * length)
    for a in range(width):
        order[a] = a
    for step in range(width):
        for later in range(step + 1, width):
            if work[gram + order[later] * (length + 1)] > work[gram + order[step] * (length + 1)]:
                order[step], order[later] = order[later], order[step]
        a = order[step]
        pivot = work[gram + a * (length + 1)]
        if step == 0:
            least = work.dtype.type(_SINGULAR * np.finfo(work.dtype).eps) * pivot
        scale = none if pivot <= least else one / np.sqrt(pivot)
        row.add_row(work, gram + a * length, scale - one, work, gram + a * length, length)
        for later in range(step + 1, width):
            c = order[later]
            row.add_row(work, gram + c * length, -work[gram + a * length + c], work, gram + a * length, length)
        for before in range(step):
            e = order[before]
            row.add_row(work, triangle + a * length, -work[gram + e * length + a], work, triangle + e * length, length)
        work[triangle + a * (length + 1)] += one
        row.add_row(work, triangle + a * length, scale - one, work, triangle + a * length, length)
    for a in range(width):
        for e in range(width):
            row.add_row(inverse, at + a * length, work[triangle + e * length + a], work, triangle + e * length, length)


@jit()
def invert_blocks(starts, index, factor, width, length, damping, ones, work, order, result, begin, end):
    """Inverses of ``sum v v^T + damping`` over the samples of each row, from row `begin` to `end`; `ones`: BLOCK times 1."""
    triangle = (width + 4) * length
    target = 2 * triangle
    met = target + length
    scales = met + BLOCK * length
    for i in range(begin, end):
        row.fill(work, 0, work.dtype.type(0), met)
        for first in range(starts[i], starts[i + 1], BLOCK):
            count = min(BLOCK, starts[i + 1] - first)
            for k in range(count):
                work[scales + k] = ones[k]
            # What is summed for the target is not needed here: `ones` stand for the values.
            accumulate(work, 0, target, met, scales, index, first, count, factor, ones, 0, width, length)
        for a in range(width):
            for c in range(a):
                work[c * length + a] = work[a * length + c]
            work[a * (length + 1)] += damping
        invert_block(length, width, work, 0, triangle, order, result, i * width * length)


@jit()
def multiply_blocks(blocks, width, length, rows, result, begin, end):
    """Every row times its block, from row `begin` to `end`."""
    for i in range(begin, end):
        row.fill(result, i * length, rows.dtype.type(0), length)
        for a in range(width):
            row.add_row(result, i * length, rows[i * length + a], blocks, (i * width + a) * length, length)


@jit()
def couple(starts, index, rows, others, length, products, result, begin, end):
    """For each row the sum of ``(row . other) partner`` over its samples; the partner is the first half of `other`."""
    double = 2 * length
    for i in range(begin, end):
        row.fill(result, i * length, rows.dtype.type(0), length)
        for first in range(starts[i], starts[i + 1], products.shape[0]):
            count = min(products.shape[0], starts[i + 1] - first)
            row.dots(products, 0, rows, i * double, others, double, index, first, count, double)
            row.add_rows(result, i * length, others, double, index, first, count, products, 0, length, False)


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
        width, length, ones = self._width, self._length, np.ones(BLOCK, u.dtype)
        self._blocks = []
        for (starts, index, bounds), factor in zip(samples, (v, u), strict=True):
            blocks = simd.aligned((starts.shape[0] - 1) * width * length, u.dtype)
            arguments = starts, index, frozen(self.padded(factor)).ravel(), width, length, self._damping, frozen(ones)

            def run(begin, end, arguments=arguments, blocks=blocks):
                work = simd.aligned((2 * width + 9 + BLOCK) * length + 3 * BLOCK, blocks.dtype)
                invert_blocks(*arguments, work, np.empty(width, np.intp), blocks, begin, end)

            in_chunks(index.shape[0] * length * width, bounds, run)
            self._blocks.append(frozen(blocks))
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
        arguments = self._blocks[side], self._width, self._length, frozen(rows).ravel(), result.ravel()
        bounds = self._samples[side][2]
        in_chunks(rows.size * self._width, bounds, lambda begin, end: multiply_blocks(*arguments, begin, end))
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
        result = simd.aligned(rows.shape[0] * self._length, rows.dtype).reshape(-1, self._length)
        arguments = starts, index, frozen(rows).ravel(), frozen(self._met[side]).ravel(), self._length

        def run(begin, end):
            couple(*arguments, simd.aligned(_ERRORS, rows.dtype), result.ravel(), begin, end)

        in_chunks(3 * index.shape[0] * self._length, bounds, run)
        return result
