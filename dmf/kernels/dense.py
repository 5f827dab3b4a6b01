"""Numba kernel for inner products with dense matrices on the CPU: residual and gradient in one pass over the matrices.

The matrices are much larger than everything else, and two passes read them from memory twice. Here four of them at a
time are multiplied with the unknown matrix and, while they are still in the second-level cache, added to the gradient.
Where four do not fit into that cache, beyond about 150 x 150 numbers of float64, the gain is smaller.

Measurements are cut into chunks that depend on their number only. Each chunk has a gradient of its own, and the chunks
are added in one order: results do not depend on the number of threads.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from dmf.kernels import reference, simd
from dmf.kernels.chunks import frozen, in_chunks
from dmf.kernels.jit import jit

_BLOCK_BYTES = 64  # read at once: one cache line
_MOST_CHUNKS = 32
_ROWS_PER_CHUNK = 16  # at least: the gradient of a chunk is written and read once more


@cache
def _compile(block: int):
    def dense_residual(matrices, rows, values, matrix, bounds, losses, gradients, some, others):
        """Loss and gradient of each chunk from `some` to `others`; `matrix` has at least `block` numbers, `gradients` zeros."""
        size = matrix.shape[0]
        whole = size - size % block
        for chunk in range(some, others):
            zeros, gradient, loss = simd.zeros_like(simd.load(matrix, 0, block)), chunk * size, 0.0
            first, end = bounds[chunk], bounds[chunk + 1]
            fours = first + (end - first) // 4 * 4
            for k in range(first, fours, 4):
                i0, i1, i2, i3 = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
                s0, s1, s2, s3 = zeros, zeros, zeros, zeros
                for j in range(0, whole, block):
                    part = simd.load(matrix, j, block)
                    s0 = simd.add_product(s0, part, simd.load(matrices, i0 * size + j, block))
                    s1 = simd.add_product(s1, part, simd.load(matrices, i1 * size + j, block))
                    s2 = simd.add_product(s2, part, simd.load(matrices, i2 * size + j, block))
                    s3 = simd.add_product(s3, part, simd.load(matrices, i3 * size + j, block))
                e0, e1, e2, e3 = simd.total(s0), simd.total(s1), simd.total(s2), simd.total(s3)
                for j in range(whole, size):
                    e0 += matrices[i0, j] * matrix[j]
                    e1 += matrices[i1, j] * matrix[j]
                    e2 += matrices[i2, j] * matrix[j]
                    e3 += matrices[i3, j] * matrix[j]
                e0, e1, e2, e3 = e0 - values[k], e1 - values[k + 1], e2 - values[k + 2], e3 - values[k + 3]
                loss += np.float64(e0) * np.float64(e0) + np.float64(e1) * np.float64(e1)
                loss += np.float64(e2) * np.float64(e2) + np.float64(e3) * np.float64(e3)
                for j in range(0, whole, block):
                    sums = simd.load(gradients, gradient + j, block)
                    sums = simd.add_scaled(sums, e0, simd.load(matrices, i0 * size + j, block))
                    sums = simd.add_scaled(sums, e1, simd.load(matrices, i1 * size + j, block))
                    sums = simd.add_scaled(sums, e2, simd.load(matrices, i2 * size + j, block))
                    sums = simd.add_scaled(sums, e3, simd.load(matrices, i3 * size + j, block))
                    simd.store(gradients, gradient + j, sums)
                for j in range(whole, size):
                    terms = e0 * matrices[i0, j] + e1 * matrices[i1, j] + e2 * matrices[i2, j] + e3 * matrices[i3, j]
                    gradients[chunk, j] += terms
            for k in range(fours, end):
                i0, s0 = rows[k], zeros
                for j in range(0, whole, block):
                    s0 = simd.add_product(s0, simd.load(matrix, j, block), simd.load(matrices, i0 * size + j, block))
                e0 = simd.total(s0)
                for j in range(whole, size):
                    e0 += matrices[i0, j] * matrix[j]
                e0 -= values[k]
                loss += np.float64(e0) * np.float64(e0)
                for j in range(size):
                    gradients[chunk, j] += e0 * matrices[i0, j]
            losses[chunk] = loss

    dense_residual.__qualname__ += f"_{block}"
    return jit()(dense_residual)


def dense_residual(matrices, rows, values, matrix):
    """Loss and gradient in one pass over `matrices`; see `dmf.kernels.reference.dense_residual`, the twin."""
    block = _BLOCK_BYTES // matrices.itemsize
    count, size = values.shape[0], matrix.shape[0]
    if not matrices.flags.c_contiguous or size < block:
        return reference.dense_residual(matrices, rows, values, matrix)
    rows = np.arange(count) if rows is None else np.ascontiguousarray(rows, np.int64)
    chunks = min(max(count // _ROWS_PER_CHUNK, 1), _MOST_CHUNKS)
    bounds = np.arange(chunks + 1) * count // chunks
    losses, gradients = np.empty(chunks), np.zeros((chunks, size), matrix.dtype)
    arguments = frozen(matrices), rows, np.array(values), np.array(matrix), bounds, losses, gradients
    in_chunks(count * size, np.arange(chunks + 1), lambda begin, end: _compile(block)(*arguments, begin, end))
    return 0.5 * np.sum(losses), np.sum(gradients, axis=0)
