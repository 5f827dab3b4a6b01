"""Ridge regression of every row of one factor on the samples of that row, the other factor given.

The normal matrix of a row is summed with its rows in registers; then the Cholesky factors of `_LANES` bytes of rows are
computed side by side, one row in each lane of the machine vectors: a triangular solve of one row alone is bound by the
latency of its chain of subtractions. Rows of more than `WIDEST_BYTES` are far beyond the registers and are left to BLAS.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import threadpoolctl
from numba import njit, prange
from scipy.linalg import lapack

from dmf.kernels import simd

# Penalties are at least this times (the width) eps (the diagonal of the normal matrix). Below the rounding errors of a
# matrix that is singular, the columns of its Cholesky factor grow from one to the next until they overflow.
LEAST = 8
LANE_BYTES = 64  # of rows side by side: two machine vectors, so that two chains overlap
WIDEST_BYTES = 768  # of a row; at 100 samples a row, BLAS takes as long there, and is twice as fast at 192 doubles


# The helpers are no closures, see dmf.kernels.descent.


@njit(cache=True)
def accumulate(length, first, end, width, index, values, factor, gram, target):
    """Sums of ``v v^T`` into `gram` and, unless `values` is None, of ``value v`` into `target`, over the samples of one row."""
    two = length * factor.itemsize > 4 * 32  # of long rows, two samples at a time fill the registers; else four
    zeros = simd.zeros_like(simd.load(factor, 0, length))
    for a in range(width):
        simd.store(gram, a * length, zeros)
    sums = zeros
    k = first
    while k + 4 <= end:
        if k + simd.AHEAD + 4 <= index.shape[0]:
            for later in range(k + simd.AHEAD, k + simd.AHEAD + 4):
                simd.prefetch(factor, np.intp(index[later]) * length, length)
        at0, at1 = np.intp(index[k]) * length, np.intp(index[k + 1]) * length
        at2, at3 = np.intp(index[k + 2]) * length, np.intp(index[k + 3]) * length
        v0, v1 = simd.load(factor, at0, length), simd.load(factor, at1, length)
        if two:
            for a in range(width):
                row = simd.add_scaled(simd.load(gram, a * length, length), factor[at0 + a], v0)
                simd.store(gram, a * length, simd.add_scaled(row, factor[at1 + a], v1))
        v2, v3 = simd.load(factor, at2, length), simd.load(factor, at3, length)
        if two:
            for a in range(width):
                row = simd.add_scaled(simd.load(gram, a * length, length), factor[at2 + a], v2)
                simd.store(gram, a * length, simd.add_scaled(row, factor[at3 + a], v3))
        else:
            for a in range(width):
                row = simd.add_scaled(simd.load(gram, a * length, length), factor[at0 + a], v0)
                row = simd.add_scaled(row, factor[at1 + a], v1)
                row = simd.add_scaled(row, factor[at2 + a], v2)
                simd.store(gram, a * length, simd.add_scaled(row, factor[at3 + a], v3))
        if values is not None:
            sums = simd.add_scaled(simd.add_scaled(sums, values[k], v0), values[k + 1], v1)
            sums = simd.add_scaled(simd.add_scaled(sums, values[k + 2], v2), values[k + 3], v3)
        k += 4
    for rest in range(k, end):
        at = np.intp(index[rest]) * length
        v = simd.load(factor, at, length)
        for a in range(width):
            simd.store(gram, a * length, simd.add_scaled(simd.load(gram, a * length, length), factor[at + a], v))
        if values is not None:
            sums = simd.add_scaled(sums, values[rest], v)
    if values is not None:
        simd.store(target, 0, sums)


@njit(cache=True)
def solve(lanes, width, normal, target):
    """Cholesky factors of `lanes` normal matrices at once (lower triangles), and the solutions in place of `target`.

    A pivot is kept above its rounding error. The diagonals of the factors hold their inverses.
    """
    one = simd.broadcast(normal.dtype.type(1), simd.load(normal, 0, lanes))
    least = simd.broadcast(normal.dtype.type(8 * np.finfo(normal.dtype).eps), one)
    for a in range(width):
        for c in range(a + 1):
            value = simd.load(normal, (a * width + c) * lanes, lanes)
            sums = simd.zeros_like(value)
            for e in range(c):
                left = simd.load(normal, (a * width + e) * lanes, lanes)
                sums = simd.add_product(sums, left, simd.load(normal, (c * width + e) * lanes, lanes))
            if a == c:
                pivot = simd.larger(simd.difference(value, sums), simd.product(least, value))
                simd.store(normal, (a * width + a) * lanes, simd.quotient(one, simd.root(pivot)))
            else:
                scale = simd.load(normal, (c * width + c) * lanes, lanes)
                simd.store(normal, (a * width + c) * lanes, simd.product(simd.difference(value, sums), scale))
    for a in range(width):
        sums = simd.zeros_like(one)
        for e in range(a):
            left = simd.load(normal, (a * width + e) * lanes, lanes)
            sums = simd.add_product(sums, left, simd.load(target, e * lanes, lanes))
        value = simd.difference(simd.load(target, a * lanes, lanes), sums)
        simd.store(target, a * lanes, simd.product(value, simd.load(normal, (a * width + a) * lanes, lanes)))
    for back in range(width):
        a = width - 1 - back
        sums = simd.zeros_like(one)
        for e in range(a + 1, width):
            left = simd.load(normal, (e * width + a) * lanes, lanes)
            sums = simd.add_product(sums, left, simd.load(target, e * lanes, lanes))
        value = simd.difference(simd.load(target, a * lanes, lanes), sums)
        simd.store(target, a * lanes, simd.product(value, simd.load(normal, (a * width + a) * lanes, lanes)))


@cache
def compile_ridge(length: int, lanes: int, spread: bool, parallel: bool, weighted: bool):
    """Compiled form for factor rows padded to `length` numbers and `lanes` rows side by side.

    With `spread`, the other factor is uncertain: its variances enter the normal matrices, and the variances of the result
    (up to the noise) are computed. With `weighted`, the samples of a row are scaled by the roots of their weights, and summed
    from there.
    """

    def compiled(function):
        # A name of its own for every variant: see dmf.kernels.cpu.
        function.__qualname__ += f"_{length}_{lanes}_{spread}_{parallel}_{weighted}"
        return njit(cache=True, parallel=parallel)(function)

    @compiled
    def ridge(starts, index, values, factor, variances, penalty, means, roots, most, bounds):
        """Rows, inverses of diagonals, and for each row: squared residual, uncertainty of the prediction, degrees of freedom."""
        count, width = starts.shape[0] - 1, penalty.shape[0]
        rows = np.zeros((count, length), factor.dtype)
        inverses = np.zeros((count if spread else 0, length), factor.dtype)
        sums = np.zeros((count, 3), np.float64)
        least, drawn = factor.dtype.type(LEAST * width * np.finfo(factor.dtype).eps), means.shape[0] > 0
        for chunk in prange(bounds.shape[0] - 1):
            gram, target = np.empty(width * length, factor.dtype), np.empty(length, factor.dtype)
            normal, targets = np.empty(width * width * lanes, factor.dtype), np.empty(width * lanes, factor.dtype)
            added, diagonal = np.zeros((lanes, length), factor.dtype), np.empty((lanes, length), factor.dtype)
            scaled, places = np.empty(most * length, factor.dtype), np.arange(most).astype(index.dtype)
            for block in range(bounds[chunk], bounds[chunk + 1], lanes):
                used = min(lanes, bounds[chunk + 1] - block)
                for lane in range(lanes):
                    i = block + min(lane, used - 1)  # idle lanes repeat the last row
                    first, end = starts[i], starts[i + 1]
                    if weighted:
                        for k in range(first, end):
                            row = simd.load(factor, np.intp(index[k]) * length, length)
                            row = simd.add_scaled(simd.zeros_like(row), roots[k], row)
                            simd.store(scaled, (k - first) * length, row)
                        accumulate(length, 0, end - first, width, places, values[first:end], scaled, gram, target)
                    else:
                        accumulate(length, first, end, width, index, values, factor, gram, target)
                    if spread:
                        extra = simd.zeros_like(simd.load(factor, 0, length))
                        one = simd.broadcast(factor.dtype.type(1), extra)
                        for k in range(first, end):
                            if k + simd.AHEAD < index.shape[0]:
                                simd.prefetch(variances, np.intp(index[k + simd.AHEAD]) * length, length)
                            if weighted:
                                one = simd.broadcast(roots[k] * roots[k], extra)
                            extra = simd.add_product(
                                extra, one, simd.load(variances, np.intp(index[k]) * length, length)
                            )
                        simd.store(added, lane * length, extra)
                    for a in range(width):
                        for c in range(a + 1):
                            normal[(a * width + c) * lanes + lane] = gram[a * length + c]
                        diagonal[lane, a] = gram[a * length + a] + added[lane, a]
                        added_here = max(penalty[a], least * diagonal[lane, a])
                        normal[(a * width + a) * lanes + lane] = diagonal[lane, a] + added_here
                        targets[a * lanes + lane] = target[a]
                        if drawn:
                            targets[a * lanes + lane] += added_here * means[i, a]
                solve(lanes, width, normal, targets)
                for lane in range(used):
                    i = block + lane
                    for a in range(width):
                        rows[i, a] = targets[a * lanes + lane]
                    row = simd.load(rows, i * length, length)
                    square = 0.0
                    for k in range(starts[i], starts[i + 1]):
                        other = simd.load(factor, np.intp(index[k]) * length, length)
                        prediction = simd.total(simd.product(row, other))
                        if weighted:
                            prediction *= roots[k]
                        error = prediction - values[k]
                        square += np.float64(error) * np.float64(error)
                    sums[i, 0] = square
                    if spread:
                        for a in range(width):
                            whole = diagonal[lane, a] + max(penalty[a], least * diagonal[lane, a])
                            inverses[i, a] = factor.dtype.type(1) / whole
                            sums[i, 1] += np.float64(rows[i, a]) ** 2 * np.float64(added[lane, a])
                            sums[i, 2] += np.float64(diagonal[lane, a]) / np.float64(whole)
        return rows, inverses, sums

    return ridge


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
    solve_factor = lapack.get_lapack_funcs("potrs", (factor,))
    with threadpoolctl.threadpool_limits(1, "blas"):
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
    factorise = lapack.get_lapack_funcs("potrf", (normal,))
    more = 8 * np.finfo(normal.dtype).eps
    triangle, failed = factorise(normal, lower=True, clean=False)
    while failed and more < 1:
        normal = normal + more * np.diag(normal.diagonal())
        triangle, failed = factorise(normal, lower=True, clean=False)
        more *= 2
    return triangle
