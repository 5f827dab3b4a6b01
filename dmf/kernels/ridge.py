"""Ridge regression of every row of one factor on the samples of that row, the other factor given.

The samples of a row are taken in blocks that stay in the first-level cache, and its normal matrix is summed in tiles, each held
in registers. Then the Cholesky factors of `LANE_BYTES` of rows are computed side by side, one row in each lane of the machine
vectors: a triangular solve of one row alone is bound by the latency of its chain of subtractions. Rows of more than
`WIDEST_BYTES` are far beyond the registers and are left to BLAS.
"""

from __future__ import annotations

import numpy as np

from dmf.arrays.threads import one_blas_thread
from dmf.kernels import blocks, simd
from dmf.kernels import rows as row
from dmf.kernels.chunks import frozen
from dmf.kernels.jit import jit
from dmf.kernels.sampled import gather
from dmf.kernels.simd import LANE_BYTES

# Penalties are at least this times (the width) eps (the diagonal of the normal matrix). Below the rounding errors of a
# matrix that is singular, the columns of its Cholesky factor grow from one to the next until they overflow.
LEAST = 8
WIDEST_BYTES = 768  # of a row; at 100 samples a row, BLAS takes as long there, and is twice as fast at 192 doubles
BLOCK = 32  # samples of a row at a time
_PLACES = frozen(np.arange(BLOCK, dtype=np.int32))
_PIECE_BYTES = 2**19  # of normal matrices at a time: they stay in the second-level cache


@jit()
def normal_rows(starts, index, roots, factor, width, length, lanes, work, seen, places, normals, begin, end):
    """Sums of ``s^2 v v^T`` over the samples of each row, from row `begin` to `end`: their lower triangles.

    They go to `normals` with `lanes` rows side by side, in lines of `length` numbers. Factors are flat. Empty `roots`: every s
    is 1. For what is worked in, see `scratch`.
    """
    one = factor.dtype.type(1)
    vector = 32 // factor.itemsize
    weighted = roots.shape[0] > 0
    copied = weighted or length > 3 * vector  # scaled, or because they are read many times
    table, order = (seen, places) if copied else (factor, index)
    matrix = BLOCK * length  # behind the copied rows; then come the scales
    scales = matrix + (width + 3) * length
    for i in range(begin, end):
        row.fill(work, matrix, one - one, scales - matrix)
        for first in range(starts[i], starts[i + 1], BLOCK):
            count, start = starts[i + 1] - first, first
            if count > BLOCK:
                count = BLOCK
            row.fetch_rows(factor, index, first + BLOCK, count, length)
            if copied:
                start = 0
                for k in range(count):
                    work[scales + k] = roots[first + k] if weighted else one
                row.scaled_rows(work, factor, index, first, count, work, scales, length)
            for a in range(0, width, 4):
                c = 0
                while c < a + 4:
                    at = matrix + a * length + c
                    if c + 2 * vector < a + 4:
                        blocks.add_tile(work, at, table, order, start, count, a, c, length, 3)
                        c += 3 * vector
                    elif c + vector < a + 4:
                        blocks.add_tile(work, at, table, order, start, count, a, c, length, 2)
                        c += 2 * vector
                    else:
                        blocks.add_tile(work, at, table, order, start, count, a, c, length, 1)
                        c += vector
        group, lane = (i - begin) // lanes, (i - begin) % lanes
        for a in range(width):
            at = (group * width + a) * length * lanes + lane
            for c in range(a + 1):
                normals[at + c * lanes] = work[matrix + a * length + c]


@jit()
def add_penalties(
    normals, width, length, lanes, penalty, means, added, least, rows, targets, inverses, freedom, begin, end
):
    """Make normal matrices and right-hand sides those of ridge regression: see `RowRidge`.

    To the diagonals come what is `added`, if anything, and a penalty of at least `least` times the sum; `rows` are the right-hand
    sides of the fit alone.
    """
    one = least / least
    for i in range(begin, end):
        group, lane = (i - begin) // lanes, (i - begin) % lanes
        for a in range(width):
            at = ((group * width + a) * length + a) * lanes + lane
            diagonal = normals[at]
            if added.shape[0]:
                diagonal += added[i * length + a]
            more = least * diagonal
            if more < penalty[a]:
                more = penalty[a]
            whole = diagonal + more
            normals[at] = whole
            target = rows[i * length + a]
            if means.shape[0]:
                target += more * means[i * width + a]
            targets[(group * length + a) * lanes + lane] = target
            if added.shape[0]:
                inverses[i * length + a] = one / whole
                freedom[i] += np.float64(diagonal) / np.float64(whole)


def scratch(width: int, length: int, dtype: np.dtype) -> tuple[np.ndarray, ...]:
    """What `normal_rows` works in: rows of a block, a matrix and scales; the same, read-only; and the numbers of the rows."""
    work = simd.aligned((BLOCK + width + 3) * length + BLOCK, dtype)
    return work, frozen(work), _PLACES


@jit()
def solve_rows(normals, targets, width, length, lanes, least, rows, added, uncertainty, begin, end):
    """Solutions of the normal equations of rows `begin` to `end`, `lanes` of them at once; the matrices become Cholesky factors.

    A pivot is kept above `least` times itself before the elimination. The diagonals of the factors hold their inverses. Where
    something was `added` to the matrices, `uncertainty` is its product with the squared solutions.
    """
    one = simd.broadcast(least / least, simd.load_lanes(normals, 0))
    least = simd.broadcast(least, one)
    zeros = simd.zeros_like(one)
    for some in range(begin, end, lanes):
        group = (some - begin) // lanes
        normal, target = group * width * length * lanes, group * length * lanes
        for a in range(width):
            for c in range(a + 1):
                value, sums = simd.load_lanes(normals, normal + (a * length + c) * lanes), zeros
                for e in range(c):
                    left = simd.load_lanes(normals, normal + (a * length + e) * lanes)
                    sums = simd.add_product(sums, left, simd.load_lanes(normals, normal + (c * length + e) * lanes))
                left = simd.difference(value, sums)
                if a == c:
                    left = simd.quotient(one, simd.root(simd.larger(left, simd.product(least, value))))
                else:
                    left = simd.product(left, simd.load_lanes(normals, normal + (c * length + c) * lanes))
                simd.store(normals, normal + (a * length + c) * lanes, left)
        for step in range(2 * width):  # first with the factor, then with its transpose
            a, e, last, at, stride = step, 0, step, normal + step * length * lanes, lanes
            if step >= width:
                a = 2 * width - 1 - step
                e, last, at, stride = a + 1, width, normal + a * lanes, length * lanes
            sums = zeros
            while e < last:
                left = simd.load_lanes(normals, at + e * stride)
                sums = simd.add_product(sums, left, simd.load_lanes(targets, target + e * lanes))
                e += 1
            left = simd.difference(simd.load_lanes(targets, target + a * lanes), sums)
            scale = simd.load_lanes(normals, normal + (a * length + a) * lanes)
            simd.store(targets, target + a * lanes, simd.product(left, scale))
        for i in range(some, some + lanes):
            if i < end:
                for a in range(width):
                    solution = targets[target + a * lanes + i - some]
                    rows[i * length + a] = solution
                    if added.shape[0]:
                        uncertainty[i] += (
                            np.float64(solution) * np.float64(solution) * np.float64(added[i * length + a])
                        )


class RowRidge:
    """Ridge regression of rows on their samples, compiled.

    Parameters
    ----------
    starts, index : integer arrays
        The samples; see `dmf.kernels.cpu.SampledEntries`.
    values, roots : array, shape (m,)
        What the rows are fitted to, and the roots of the weights, which multiply it already; `roots` may be empty.
    factor, variances : array
        The other factor and the variances of its numbers, flat, with rows of `length` numbers; `variances` may be empty.
    penalty : array, shape (w,)
    means : array, shape (n w,) or empty
    length : int

    Attributes
    ----------
    rows, inverses : array, shape (n length,)
        Solutions, and inverses of the diagonals of their matrices (empty without `variances`).
    uncertainty, freedom : float64 array, shape (n,)
        Of each row, the squared solution times what the variances add to its matrix, and its degrees of freedom (or empty).
    """

    def __init__(self, starts, index, values, roots, factor, variances, penalty, means, length):
        self._samples, self._roots, self._factor, self._variances = (starts, index), roots, factor, variances
        self._length, self._penalty, self._means, dtype = length, penalty, means, factor.dtype
        weighted, count = roots.shape[0] > 0, starts.shape[0] - 1
        self._weights = frozen(roots * values) if weighted else values
        self._squares = (frozen(roots * roots), 1) if weighted else (frozen(np.ones(1, dtype)), 0)
        self.rows = np.empty(count * length, dtype)  # the right-hand sides, first
        self._added = np.empty(count * length if variances.shape[0] else 0, dtype)
        self.inverses = np.zeros(self._added.shape, dtype)
        self.uncertainty, self.freedom = np.zeros((2, count if variances.shape[0] else 0))

    def solve(self, begin: int, end: int) -> None:
        """Fit the rows from `begin` to `end`."""
        width, length, dtype = self._penalty.shape[0], self._length, self._factor.dtype
        lanes, eps = LANE_BYTES // dtype.itemsize, np.finfo(dtype).eps
        gather(*self._samples, self._weights, 1, self._factor, length, self.rows, begin, end)
        if self._added.shape[0]:
            gather(*self._samples, *self._squares, self._variances, length, self._added, begin, end)
        size = lanes * max(_PIECE_BYTES // (LANE_BYTES * width * length), 1)
        groups = -(-min(size, end - begin) // lanes)
        normals, targets = np.empty(groups * width * length * lanes, dtype), np.empty(groups * length * lanes, dtype)
        normals[-width * length * lanes :] = targets[-length * lanes :] = 0  # some of its lanes may stay idle
        sizes, work = (width, length, lanes), scratch(width, length, dtype)
        sums = *self._samples, self._roots, self._factor, *sizes, *work, normals
        penalties = normals, *sizes, self._penalty, self._means, self._added, dtype.type(LEAST * width * eps)
        system = *penalties, self.rows, targets, self.inverses, self.freedom
        solution = normals, targets, *sizes, dtype.type(LEAST * eps), self.rows, self._added, self.uncertainty
        for first in range(begin, end, size):
            piece = first, min(first + size, end)
            normal_rows(*sums, *piece)
            add_penalties(*system, *piece)
            solve_rows(*solution, *piece)


def wide_ridge(starts, index, values, factor, variances, penalty, means, roots):
    """`dmf.kernels.reference.SampledEntries.ridge` for wide rows, by BLAS row after row.

    On one thread: two of them fight over the small matrices (25 times slower on a busy machine), and results would depend
    on their number.
    """
    from scipy.linalg import lapack

    count, width = starts.shape[0] - 1, penalty.shape[0]
    rows, inverses = np.zeros((count, width), factor.dtype), np.zeros((count, width), factor.dtype)
    squares, uncertainty, freedom = np.zeros((3, count))
    least = factor.dtype.type(LEAST * width * np.finfo(factor.dtype).eps)
    solve_factor = lapack.get_lapack_funcs("potrs", (factor,))
    with one_blas_thread():
        for i in range(count):
            part = slice(starts[i], starts[i + 1])
            design, target = factor[index[part]], values[part]
            if roots is not None:
                design = roots[part, None] * design
            normal = design.T @ design
            diagonal = normal.diagonal().copy()
            if variances is not None:
                met = variances[index[part]]
                added = np.sum(met if roots is None else roots[part, None] ** 2 * met, axis=0)
                diagonal += added
            penalised = np.maximum(penalty, least * diagonal)
            whole = diagonal + penalised
            np.fill_diagonal(normal, whole)
            right = design.T @ target + (0 if means is None else penalised * means[i])
            rows[i] = solve_factor(_cholesky(normal), right, lower=True)[0]
            squares[i] = np.sum((design @ rows[i] - target).astype(np.float64) ** 2)
            if variances is not None:
                inverses[i] = 1 / whole
                uncertainty[i] = np.sum(rows[i].astype(np.float64) ** 2 * added)
                freedom[i] = np.sum(diagonal.astype(np.float64) / whole)
    sums = (float(np.add.reduce(a)) for a in (squares, uncertainty, freedom))  # a NumPy number would widen float32
    return rows, None if variances is None else inverses, *sums


def _cholesky(normal):
    """Lower Cholesky factor; a matrix that is still singular up to rounding gets a little more on its diagonal."""
    from scipy.linalg import lapack

    factorise = lapack.get_lapack_funcs("potrf", (normal,))
    more = 8 * np.finfo(normal.dtype).eps
    triangle, failed = factorise(normal, lower=True, clean=False)
    while failed and more < 1:
        normal = normal + more * np.diag(normal.diagonal())
        triangle, failed = factorise(normal, lower=True, clean=False)
        more *= 2
    return triangle
