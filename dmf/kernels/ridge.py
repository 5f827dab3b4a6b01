"""Ridge regression of every row of one factor on the samples of that row, the other factor given.

The samples of a row are taken in blocks that stay in the first-level cache. Of short rows the normal matrix is summed sample by
sample; of longer ones tile by tile, each held in registers. Then the Cholesky factors of `LANE_BYTES` of rows are computed side
by side, one row in each lane of the machine vectors: a triangular solve of one row alone is bound by the latency of its chain of
subtractions. Rows of more than `WIDEST_BYTES` are far beyond the registers and are left to BLAS.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from dmf.arrays.threads import one_blas_thread
from dmf.kernels import rows as row
from dmf.kernels import simd
from dmf.kernels.jit import jit

# Penalties are at least this times (the width) eps (the diagonal of the normal matrix). Below the rounding errors of a
# matrix that is singular, the columns of its Cholesky factor grow from one to the next until they overflow.
LEAST = 8
LANE_BYTES = 64  # of rows side by side: two machine vectors, so that two chains overlap
WIDEST_BYTES = 768  # of a row; at 100 samples a row, BLAS takes as long there, and is twice as fast at 192 doubles
BLOCK = 32  # samples at a time


@jit()
def accumulate(work, gram, target, met, scales, index, first, count, factor, values, first_value, width, length):
    """Add ``sum s^2 v v^T`` to the lower triangle from `gram` on, ``sum s value v`` from `target` on, for at most BLOCK samples.

    s are the numbers from `scales` on; BLOCK more follow, for use here, and BLOCK rows from `met` on.
    """
    squares = scales + BLOCK
    products = squares + BLOCK
    for k in range(count):
        work[squares + k] = work[scales + k] * work[scales + k]
        work[products + k] = work[scales + k] * values[first_value + k]
    if row.add_narrow(work, gram, target, factor, index, first, count, squares, products, width, length):
        return
    row.scaled_rows(work, met, factor, index, first, count, work, scales, length)
    row.add_rows(work, target, factor, length, index, first, count, work, products, length, False)
    lanes = 32 // factor.itemsize
    for a in range(0, width, 4):
        for c in range(0, a + 4, 2 * lanes):
            if c + lanes < a + 4:
                row.add_tile(work, gram + a * length + c, work, met + a, met + c, length, count, 2)
            else:
                row.add_tile(work, gram + a * length + c, work, met + a, met + c, length, count, 1)


@jit()
def solve(lanes, width, work, normal, target):
    """Cholesky factors of `lanes` normal matrices at once (lower triangles), and the solutions in place of the targets.

    A pivot is kept above its rounding error. The diagonals of the factors hold their inverses.
    """
    one = simd.broadcast(work.dtype.type(1), simd.load(work, normal, lanes))
    least = simd.broadcast(work.dtype.type(8 * np.finfo(work.dtype).eps), one)
    for a in range(width):
        for c in range(a + 1):
            value = simd.load(work, normal + (a * width + c) * lanes, lanes)
            sums = simd.zeros_like(value)
            for e in range(c):
                left = simd.load(work, normal + (a * width + e) * lanes, lanes)
                sums = simd.add_product(sums, left, simd.load(work, normal + (c * width + e) * lanes, lanes))
            if a == c:
                pivot = simd.larger(simd.difference(value, sums), simd.product(least, value))
                simd.store(work, normal + (a * width + a) * lanes, simd.quotient(one, simd.root(pivot)))
            else:
                scale = simd.load(work, normal + (c * width + c) * lanes, lanes)
                simd.store(work, normal + (a * width + c) * lanes, simd.product(simd.difference(value, sums), scale))
    for backwards in range(2):  # first with the factor, then with its transpose
        for step in range(width):
            a, first, end, start, stride = step, 0, step, step * width, 1
            if backwards:
                a = width - 1 - step
                first, end, start, stride = a + 1, width, a, width
            sums = simd.zeros_like(one)
            for e in range(first, end):
                left = simd.load(work, normal + (start + e * stride) * lanes, lanes)
                sums = simd.add_product(sums, left, simd.load(work, target + e * lanes, lanes))
            value = simd.difference(simd.load(work, target + a * lanes, lanes), sums)
            scale = simd.load(work, normal + (a * width + a) * lanes, lanes)
            simd.store(work, target + a * lanes, simd.product(value, scale))


def scratch(width: int, length: int, dtype: np.dtype) -> np.ndarray:
    """Memory that one call of the compiled form works in."""
    lanes = LANE_BYTES // dtype.itemsize
    size = (width + 4 + BLOCK + 1) * length + 3 * BLOCK + (width * width + width + 2 * length) * lanes
    return simd.aligned(size, dtype)


@cache
def compile_ridge(lanes: int):
    """Compiled form for `lanes` rows side by side."""

    def ridge(
        starts, index, values, factor, variances, penalty, means, roots, length, rows, inverses, sums, work, begin, end
    ):
        """Rows from `begin` to `end`: solutions, inverses of diagonals, and squared residual, uncertainty and degrees of freedom.

        Arrays of factors are flat, with rows of `length` numbers. Empty `variances`: the other factor is certain, and nothing
        is known of the last three. Empty `roots`: all weights are 1. Empty `means`: 0. `work`: see `scratch`.
        """
        width, one = penalty.shape[0], factor.dtype.type(1)
        spread, weighted, drawn = variances.shape[0] > 0, roots.shape[0] > 0, means.shape[0] > 0
        least = factor.dtype.type(LEAST * width * np.finfo(factor.dtype).eps)
        target = (
            width + 4
        ) * length  # where each part of `work` begins; that of the normal matrix of a row is the first
        met = target + length
        scales = met + BLOCK * length
        normals = scales + 3 * BLOCK
        targets = normals + width * width * lanes
        added = targets + width * lanes
        diagonals = added + lanes * length
        for some in range(begin, end, lanes):
            row.fill(work, added, one - one, lanes * length)
            for lane in range(lanes):
                i = min(some + lane, end - 1)  # idle lanes repeat the last row
                row.fill(work, 0, one - one, met)
                for first in range(starts[i], starts[i + 1], BLOCK):
                    count = min(BLOCK, starts[i + 1] - first)
                    for k in range(count):
                        work[scales + k] = roots[first + k] if weighted else one
                    accumulate(work, 0, target, met, scales, index, first, count, factor, values, first, width, length)
                    if spread and some + lane < end:
                        at = added + lane * length
                        row.add_rows(
                            work, at, variances, length, index, first, count, work, scales + BLOCK, length, True
                        )
                for a in range(width):
                    for c in range(a + 1):
                        work[normals + (a * width + c) * lanes + lane] = work[a * length + c]
                    diagonal = work[a * length + a] + work[added + lane * length + a]
                    work[diagonals + lane * length + a] = diagonal
                    more = max(penalty[a], least * diagonal)
                    work[normals + (a * width + a) * lanes + lane] = diagonal + more
                    value = work[target + a]
                    if drawn:
                        value += more * means[i * width + a]
                    work[targets + a * lanes + lane] = value
            solve(lanes, width, work, normals, targets)
            for i in range(some, min(some + lanes, end)):
                lane = i - some
                for a in range(width):
                    rows[i * length + a] = work[targets + a * lanes + lane]
                square = 0.0
                for first in range(starts[i], starts[i + 1], BLOCK):
                    count = min(BLOCK, starts[i + 1] - first)
                    row.dots(work, scales, rows, i * length, factor, length, index, first, count, length)
                    if weighted:
                        for k in range(count):
                            work[scales + k] *= roots[first + k]
                    square += row.subtract(work, scales, values, first, count)
                sums[3 * i] = square
                if spread:
                    for a in range(width):
                        diagonal = work[diagonals + lane * length + a]
                        whole = diagonal + max(penalty[a], least * diagonal)
                        inverses[i * length + a] = one / whole
                        solution = np.float64(rows[i * length + a])
                        sums[3 * i + 1] += solution * solution * np.float64(work[added + lane * length + a])
                        sums[3 * i + 2] += np.float64(diagonal) / np.float64(whole)

    ridge.__qualname__ += f"_{lanes}"
    return jit()(ridge)


def wide_ridge(starts, index, values, factor, variances, penalty, means, roots):
    """What the compiled form returns, by BLAS row after row, for wide rows; `variances` and `roots` may be None.

    On one thread: two of them fight over the small matrices (25 times slower on a busy machine), and results would depend
    on their number.
    """
    count, width = starts.shape[0] - 1, penalty.shape[0]
    rows = np.zeros((count, width), factor.dtype)
    inverses = np.zeros((0 if variances is None else count, width), factor.dtype)
    sums = np.zeros((count, 3), np.float64)
    least = factor.dtype.type(LEAST * width * np.finfo(factor.dtype).eps)
    from scipy.linalg import lapack

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
            triangle = _cholesky(normal)
            right = design.T @ target + (penalised * means[i] if means.shape[0] else 0)
            row = solve_factor(triangle, right, lower=True)[0]
            rows[i] = row
            sums[i, 0] = np.sum((design @ row - target).astype(np.float64) ** 2)
            if variances is not None:
                inverses[i] = 1 / whole
                sums[i, 1] = np.sum(row.astype(np.float64) ** 2 * added)
                sums[i, 2] = np.sum(diagonal.astype(np.float64) / whole)
    return rows, inverses, sums


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
