"""Numba kernels for NumPy arrays on the CPU.

Factors are copied into rows padded to whole machine vectors. Up to `_NARROW` numbers a row is worked on as a whole and the
kernel is compiled once for each padded length and kept on disk; longer rows are worked through in blocks.

Every row and every column is summed by one thread in the order of its samples, and the losses of the rows are added in
one order: results do not depend on the number of threads.

Large results are allocated by NumPy, which asks for huge pages; in those of Numba the first touch of each small page costs as
much as the arithmetic.
"""

from __future__ import annotations

from functools import cache, cached_property

import numpy as np
from numba import njit, prange

from dmf.arrays.backend import thread_count
from dmf.kernels import simd, sorting
from dmf.kernels.descent import compile_descent
from dmf.kernels.ridge import LANE_BYTES, WIDEST_BYTES, compile_ridge, wide_ridge
from dmf.kernels.tangent import MOST_BYTES, WIDEST_STEP, TangentSystem

_NARROW = (
    104  # beyond the registers too: twice as fast at 100 as blocks, which pass over the samples once for each block
)
_MOST_DESCENT = 64  # numbers in a row of a chunk of descent; its dense products are then better left to BLAS
_BLOCK_BYTES = 256  # of a wide row: eight vector registers
_TRANSPOSED_ROWS = 512  # at a time
_CHUNKS = 64  # pieces of equal work, handed to the threads in order
_PARALLEL_WORK = 500_000  # multiply-adds below which starting threads costs more than it saves


def _row_length(width: int, itemsize: int) -> tuple[int, int]:
    """(padded row length, constant block length) for factors of `width` columns."""
    length = simd.padded(max(width, 1), itemsize)
    if length <= _NARROW:
        return length, length
    block = _BLOCK_BYTES // itemsize
    return -(-length // block) * block, block


def _transposed(rows: np.ndarray) -> np.ndarray:
    """C-contiguous transpose of tall rows, in blocks: NumPy's own copy strides over all of them again for every column."""
    result = np.empty(rows.shape[::-1], rows.dtype)
    for first in range(0, rows.shape[0], _TRANSPOSED_ROWS):
        result[:, first : first + _TRANSPOSED_ROWS] = rows[first : first + _TRANSPOSED_ROWS].T
    return result


@cache
def _compile(block: int, parallel: bool):
    def compiled(function):
        # Every variant needs a name of its own: Numba's disk cache ignores options, and functions of one name that come
        # from it share their constants ("descr is NULL").
        function.__qualname__ += f"_{block}_{'parallel' if parallel else 'serial'}"
        return njit(cache=True, nogil=True, parallel=parallel)(function)

    @compiled
    def sampled_product(left, right, rows, cols, values):
        length = left.shape[1]
        for k in prange(rows.shape[0]):
            i, j = np.intp(rows[k]) * length, np.intp(cols[k]) * length
            sums = simd.zeros_like(simd.load(left, i, block))
            for b in range(0, length, block):
                sums = simd.add_product(sums, simd.load(left, i + b, block), simd.load(right, j + b, block))
            values[k] = simd.total(sums)

    @compiled
    def gather(starts, index, weights, factor, bounds, result):
        length = factor.shape[1]
        for chunk in prange(bounds.shape[0] - 1):
            for i in range(bounds[chunk], bounds[chunk + 1]):
                for b in range(0, length, block):
                    sums = simd.zeros_like(simd.load(factor, b, block))
                    for k in range(starts[i], starts[i + 1]):
                        if k + simd.AHEAD < index.shape[0]:
                            simd.prefetch(factor, np.intp(index[k + simd.AHEAD]) * length + b, block)
                        sums = simd.add_scaled(
                            sums, weights[k], simd.load(factor, np.intp(index[k]) * length + b, block)
                        )
                    simd.store(result, i * length + b, sums)

    @compiled
    def residual_rows(starts, index, values, left, right, bounds, most, result):
        """Products of the residuals with the rows of `right` into `result`; returns the loss of each row.

        `most`: samples of the fullest row. Products and sums are separate loops: in one loop every sum waits for its product.
        """
        length = left.shape[1]
        losses = np.empty(left.shape[0], np.float64)
        lanes, minus_one = 32 // values.itemsize, -values.dtype.type(1)
        for chunk in prange(bounds.shape[0] - 1):
            errors = np.empty(most, values.dtype)
            for i in range(bounds[chunk], bounds[chunk + 1]):
                row = simd.load(left, i * length, block)
                first, end = starts[i], starts[i + 1]
                whole = first + (end - first) // lanes * lanes
                loss, squares = 0.0, simd.double_zeros(values)
                for k in range(first, whole, lanes):
                    some = simd.add_scaled(simd.dots(row, right, index, k), minus_one, simd.load_vector(values, k))
                    squares = simd.add_squares(squares, some)
                    simd.store(errors, k - first, some)
                for k in range(whole, end):
                    other = simd.load(right, np.intp(index[k]) * length, block)
                    error = simd.total(simd.add_product(simd.zeros_like(row), row, other)) - values[k]
                    loss += np.float64(error) * np.float64(error)
                    errors[k - first] = error
                sums = simd.zeros_like(row)
                for k in range(first, end):
                    sums = simd.add_scaled(sums, errors[k - first], simd.load(right, np.intp(index[k]) * length, block))
                losses[i] = loss + simd.total(squares)
                simd.store(result, i * length, sums)
        return losses

    return sampled_product, gather, residual_rows


def _parallel(work: int) -> bool:
    """Whether so many multiply-adds are shared out to threads."""
    return work > _PARALLEL_WORK and thread_count() > 1


def _kernels(width: int, itemsize: int, work: int):
    length, block = _row_length(width, itemsize)
    return length, block, _compile(block, _parallel(work))


def sampled_product(left: np.ndarray, right: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Entries of ``left @ right`` at (rows, cols); see `dmf.kernels.reference.sampled_product`."""
    length, _, (product, _, _) = _kernels(left.shape[1], left.itemsize, rows.shape[0] * left.shape[1])
    values = np.empty(rows.shape[0], left.dtype)
    product(simd.padded_rows(left, length), simd.padded_rows(right.T, length), rows, cols, values)
    return values


def _bounds(starts: np.ndarray) -> np.ndarray:
    """Cut rows into at most `_CHUNKS` runs with about equal numbers of samples."""
    count = starts.shape[0] - 1
    cuts = np.searchsorted(starts, np.linspace(0, starts[-1], min(_CHUNKS, count) + 1)[1:-1])
    return np.concatenate([[0], cuts, [count]]).astype(np.int64)


class SampledEntries:
    """Products with a sparse residual; see `dmf.kernels.reference.SampledEntries`, the twin that defines them."""

    def __init__(self, rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> None:
        self._rows, self._cols = rows, cols
        self._row_starts, self._col_starts = sorting.starts_of(rows, shape[0]), sorting.starts_of(cols, shape[1])
        self._most = tuple(int(np.max(np.diff(starts))) for starts in (self._row_starts, self._col_starts))
        self._row_bounds, self._col_bounds = _bounds(self._row_starts), _bounds(self._col_starts)
        self._last_values: tuple[np.ndarray | None, np.ndarray | None] = (None, None)

    @staticmethod
    def arrange(rows, cols, values, shape):
        if sorting.is_sorted(rows, cols):
            return rows, cols, values
        starts = sorting.starts_of(rows, shape[0]), sorting.starts_of(cols, shape[1])
        return sorting.sort_positions(rows, cols, np.ascontiguousarray(values), *starts)

    @cached_property
    def _column_order(self):
        """(place of each sample in the order of columns, row of each sample in that order), built when first needed."""
        places = np.empty(self._rows.shape[0], np.int32 if self._rows.shape[0] < 2**31 else np.int64)
        return places, sorting.order_columns(self._row_starts, self._cols, self._col_starts, places)

    def _to_columns(self, weights):
        """Weights in the order of columns."""
        return sorting.scatter(np.ascontiguousarray(weights), self._column_order[0])

    def _values_to_columns(self, values):
        """Values in the order of columns, kept for the next call: solvers pass the same array again and again."""
        last, by_column = self._last_values
        if last is not values:
            by_column = self._to_columns(values)
            self._last_values = values, by_column
        return by_column

    def _gathered(self, side, weights, factor):
        """Sums of the rows of `factor` times weights, which are in the order of this side; shape (n, w)."""
        starts, index, bounds = self._samples_of(side)
        width = factor.shape[1]
        if width == 0:
            return np.empty((starts.shape[0] - 1, 0), factor.dtype)
        length, _, (_, gather, _) = _kernels(width, factor.itemsize, weights.shape[0] * width)
        result = np.empty((starts.shape[0] - 1, length), factor.dtype)
        gather(starts, index, weights, simd.padded_rows(factor, length), bounds, result)
        return result[:, :width]

    def _samples_of(self, side):
        """(starts, index, bounds) of the samples of each row (side 0) or column (side 1)."""
        if side == 0:
            return self._row_starts, self._cols, self._row_bounds
        return self._col_starts, self._column_order[1], self._col_bounds

    def counts(self, side):
        return np.diff((self._row_starts, self._col_starts)[side])

    def product(self, left, right):
        return sampled_product(left, right, self._rows, self._cols)

    def adjoint(self, weights, left, right, repeated=False):
        grad_left = self._gathered(0, weights, right.T)
        by_column = weights
        if left.shape[1]:
            by_column = self._values_to_columns(weights) if repeated else self._to_columns(weights)
        grad_right = self._gathered(1, by_column, left)
        return np.ascontiguousarray(grad_left), _transposed(grad_right)

    def residual(self, values, left, right):
        width = left.shape[1]
        length, block, (_, _, residual_rows) = _kernels(width, left.itemsize, values.shape[0] * width)
        if length > block:  # a wide row does not stay in registers between its product and its sum
            residual = self.product(left, right) - values
            grad_left, grad_right = self.adjoint(residual, left, right)
            return 0.5 * np.sum(residual * residual, dtype=np.float64), grad_left, grad_right
        left, right = simd.padded_rows(left, length), simd.padded_rows(right.T, length)
        grad_left, losses = self._residual_side(residual_rows, 0, values, left, right)
        grad_right, _ = self._residual_side(residual_rows, 1, values, right, left)
        return (
            0.5 * np.sum(losses),
            np.ascontiguousarray(grad_left[:, :width]),
            _transposed(grad_right[:, :width]),
        )

    def _residual_side(self, residual_rows, side, values, rows, others):
        """Residuals are computed anew for the columns: cheaper than to scatter them into the order of columns."""
        starts, index, bounds = self._samples_of(side)
        values = self._values_to_columns(values) if side == 1 else np.ascontiguousarray(values)
        result = np.empty(rows.shape, rows.dtype)
        losses = residual_rows(starts, index, values, rows, others, bounds, self._most[side], result)
        return result, losses

    def ridge(self, side, values, factor, penalty, variances, means, roots=None):
        width = factor.shape[1]
        length = simd.padded(width, factor.itemsize)
        parallel = _parallel(values.shape[0] * width**2)
        spread = variances is not None
        starts, index, bounds = self._samples_of(side)
        values = self._values_to_columns(values) if side == 1 else np.ascontiguousarray(values)
        means = np.ascontiguousarray(factor[:0] if means is None else means)
        if roots is not None:
            roots = self._to_columns(roots) if side == 1 else np.ascontiguousarray(roots)
        if length * factor.itemsize > WIDEST_BYTES:
            rows, inverses, sums = wide_ridge(starts, index, values, factor, variances, penalty, means, roots)
        else:
            weighted = roots is not None
            rows, inverses, sums = compile_ridge(length, LANE_BYTES // factor.itemsize, spread, parallel, weighted)(
                starts,
                index,
                values,
                simd.padded_rows(factor, length).ravel(),
                simd.padded_rows(variances if spread else factor[:0], length).ravel(),
                np.ascontiguousarray(penalty),
                means,
                roots if weighted else values[:0],
                self._most[side] if weighted else 0,
                bounds if parallel else bounds[[0, -1]],  # short chunks leave lanes idle
            )
        square, uncertainty, freedom = np.sum(sums, axis=0).tolist()  # a NumPy number would widen float32
        return rows[:, :width], inverses[:, :width] if spread else None, square, uncertainty, freedom

    def tangent_system(self, u, vt, damping):
        """Linearised least squares with one factor eliminated, or None where its blocks would take too much memory."""
        length = simd.padded(u.shape[1], u.itemsize)
        size = sum(starts.shape[0] for starts in (self._row_starts, self._col_starts)) * length**2 * u.itemsize
        if length * u.itemsize > WIDEST_STEP or size > MOST_BYTES:
            return None
        samples, parallel = (self._samples_of(0), self._samples_of(1)), _parallel(self._rows.shape[0] * length)
        return TangentSystem(samples, self._most, u, np.ascontiguousarray(vt.T), damping, parallel)

    def descent(self, values, widths):
        """Compiled chunk of descent steps for a network of these inner widths, or None where it does not pay."""
        width = max(widths, default=0)
        length, _ = _row_length(width, values.dtype.itemsize)
        if not widths or length > _MOST_DESCENT or values.shape[0] * length > _PARALLEL_WORK:
            return None
        samples = (self._row_starts, self._cols, np.ascontiguousarray(values))
        shape = self._row_starts.shape[0] - 1, self._col_starts.shape[0] - 1
        return Descent(samples, self._most[0], shape, length)


class Descent:
    """Chunk of gradient-descent steps of a deep network on sampled entries.

    A step is ``W_l <- shrink W_l - rates[l] gradients[l]``, followed by loss and gradients at the new weights, both
    multiplied by `scale`. A call returns (weights, gradients, loss, steps made); it ends before `iterations` steps
    where the next loss would not be finite. Twin: one step at a time in `dmf.solvers.descent`.
    """

    def __init__(self, samples: tuple[np.ndarray, ...], most: int, shape: tuple[int, int], length: int) -> None:
        self._samples, self._most, self._shape, self._length = samples, most, shape, length
        self._descend = compile_descent(length)

    def _pack(self, layers: tuple[np.ndarray, ...]) -> np.ndarray:
        (d1, d2), length, depth = self._shape, self._length, len(layers)
        flat = np.zeros((d2 + (depth - 2) * length + d1, length), layers[0].dtype)
        flat[:d2, : layers[0].shape[0]] = layers[0].T
        for k, layer in enumerate(layers[1:]):
            flat[d2 + k * length : d2 + k * length + layer.shape[0], : layer.shape[1]] = layer
        return flat.ravel()

    def _unpack(self, flat: np.ndarray, like: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        (_, d2), length = self._shape, self._length
        flat = flat.reshape(-1, length)
        layers = [np.ascontiguousarray(flat[:d2, : like[0].shape[0]].T)]
        for k, layer in enumerate(like[1:]):
            first = d2 + k * length
            layers.append(flat[first : first + layer.shape[0], : layer.shape[1]].copy())
        return tuple(layers)

    def __call__(self, weights, gradients, loss, rates, shrink, scale, iterations):
        dtype = weights[0].dtype.type
        flat, gradient, loss, done = self._descend(
            self._samples,
            self._most,
            self._shape,
            len(weights),
            self._pack(weights),
            self._pack(gradients),
            np.float64(loss),
            np.asarray(rates, dtype),
            dtype(shrink),
            dtype(scale),
            iterations,
        )
        return self._unpack(flat, weights), self._unpack(gradient, weights), loss, done
