"""Numba kernels for NumPy arrays on the CPU.

Factors are copied into rows padded to whole machine vectors; see `dmf.kernels.vectors`. Every row and every column is summed by
one thread in the order of its samples, and the losses of the rows are added in one order: results do not depend on the number
of threads.

Results are allocated by NumPy, which asks for huge pages; in those of Numba the first touch of each small page costs as much as
the arithmetic.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from dmf.kernels import simd, sorting
from dmf.kernels.chunks import PARALLEL_WORK, frozen, in_chunks
from dmf.kernels.descent import compile_descent, scratch
from dmf.kernels.prepared import Prepared
from dmf.kernels.ridge import WIDEST_BYTES, RowRidge, wide_ridge
from dmf.kernels.sampled import ERRORS, gather, no_values, products, residual_rows
from dmf.kernels.tangent import MOST_BYTES, WIDEST_STEP, TangentSystem

_MOST_DESCENT = 64  # numbers in a row of a chunk of descent; its dense products are then better left to BLAS
_TRANSPOSED_ROWS = 512  # at a time
_CHUNKS = 64  # pieces of equal work, at most


def _transposed(rows: np.ndarray) -> np.ndarray:
    """C-contiguous transpose of tall rows, in blocks: NumPy's own copy strides over all of them again for every column."""
    result = np.empty(rows.shape[::-1], rows.dtype)
    for first in range(0, rows.shape[0], _TRANSPOSED_ROWS):
        result[:, first : first + _TRANSPOSED_ROWS] = rows[first : first + _TRANSPOSED_ROWS].T
    return result


def _flat(rows: np.ndarray, length: int) -> np.ndarray:
    """Rows padded to `length` numbers, one after another, as kernels read them."""
    flat = simd.padded_rows(rows, length).ravel()
    flat.flags.writeable = False
    return flat


def sampled_product(left: np.ndarray, right: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Entries of ``left @ right`` at (rows, cols); see `dmf.kernels.reference.sampled_product`."""
    count, width = rows.shape[0], left.shape[1]
    length, values = simd.padded(max(width, 1), left.itemsize), np.empty(count, left.dtype)
    positions = frozen(rows), frozen(cols)
    arguments = _flat(left, length), _flat(right.T, length), length, *positions, no_values(left.dtype), values
    bounds = np.arange(_CHUNKS + 1) * count // _CHUNKS
    in_chunks(count * length, bounds, lambda begin, end: products(*arguments, begin, end))
    return values


def _bounds(starts: np.ndarray) -> np.ndarray:
    """Cut rows into at most `_CHUNKS` runs with about equal numbers of samples."""
    count = starts.shape[0] - 1
    cuts = np.searchsorted(starts, np.linspace(0, starts[-1], min(_CHUNKS, count) + 1)[1:-1])
    return np.concatenate([[0], cuts, [count]]).astype(np.int64)


class SampledEntries:
    """Products with a sparse residual; see `dmf.kernels.reference.SampledEntries`, the twin that defines them."""

    def __init__(self, rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> None:
        self._rows, self._cols, self._shape = frozen(rows), frozen(cols), shape
        self._row_starts = frozen(sorting.starts_of(self._rows, shape[0]))
        self._row_bounds = _bounds(self._row_starts)

    @staticmethod
    def arrange(rows, cols, values, shape):
        if sorting.is_sorted(rows, cols):
            return rows, cols, values
        return sorting.sort_positions(rows, cols, values, shape)

    @cached_property
    def _column_order(self):
        """(number of each sample in the order of rows, starts, index, bounds) in the order of columns, when first needed."""
        numbers, rows, starts = map(frozen, sorting.by_column(self._row_starts, self._cols, self._shape[1]))
        return numbers, starts, rows, _bounds(starts)

    def prepare(self, values):
        if isinstance(values, Prepared):
            return values
        return Prepared(frozen(values), lambda a: frozen(a[self._column_order[0]]))

    def _gathered(self, side, weights, factor):
        """Sums of the rows of `factor` times weights, which are in the order of this side; shape (n, w)."""
        width = factor.shape[1]
        if width == 0:  # the order of columns may never be needed
            return np.empty((self._shape[side], 0), factor.dtype)
        starts, index, bounds = self._samples_of(side)
        length = simd.padded(width, factor.itemsize)
        result = np.empty((starts.shape[0] - 1) * length, factor.dtype)
        arguments = starts, index, weights, 1, _flat(factor, length), length, result
        in_chunks(weights.shape[0] * length, bounds, lambda begin, end: gather(*arguments, begin, end))
        return result.reshape(starts.shape[0] - 1, length)[:, :width]

    def _samples_of(self, side):
        """(starts, index, bounds) of the samples of each row (side 0) or column (side 1)."""
        if side == 0:
            return self._row_starts, self._cols, self._row_bounds
        return self._column_order[1:]

    def counts(self, side):
        return np.diff(self._samples_of(side)[0])

    def product(self, left, right):
        return sampled_product(left, right, self._rows, self._cols)

    def adjoint(self, weights, left, right):
        weights = self.prepare(weights)
        grad_left = self._gathered(0, weights.by_row, right.T)
        grad_right = self._gathered(1, weights.of_side(1 if left.shape[1] else 0), left)
        return np.ascontiguousarray(grad_left), _transposed(grad_right)

    def residual(self, values, left, right):
        values, width = self.prepare(values), left.shape[1]
        length = simd.padded(max(width, 1), left.itemsize)
        left, right = _flat(left, length), _flat(right.T, length)
        grad_left, losses = self._residual_side(0, values, left, right, length)
        grad_right, _ = self._residual_side(1, values, right, left, length)
        return (
            0.5 * np.sum(losses),
            np.ascontiguousarray(grad_left[:, :width]),
            _transposed(grad_right[:, :width]),
        )

    def _residual_side(self, side, values, rows, others, length):
        """Residuals are computed anew for the columns: cheaper than to scatter them into the order of columns."""
        starts, index, bounds = self._samples_of(side)
        values = values.of_side(side)
        result, losses = np.empty(rows.size, rows.dtype), np.empty(starts.shape[0] - 1)
        none = rows[:0]
        arguments = starts, index, values, 1, rows, others, length, none, none

        def run(begin, end):
            residual_rows(*arguments, np.empty(ERRORS, rows.dtype), result, length, losses, begin, end)

        in_chunks(2 * values.shape[0] * length, bounds, run)
        return result.reshape(-1, length), losses

    def ridge(self, side, values, factor, penalty, variances, means, roots=None):
        width, spread = factor.shape[1], variances is not None
        length = simd.padded(width, factor.itemsize)
        starts, index, bounds = self._samples_of(side)
        values, roots = self.prepare(values).of_side(side), None if roots is None else self.prepare(roots).of_side(side)
        if length * factor.itemsize > WIDEST_BYTES:
            return wide_ridge(starts, index, values, factor, variances, penalty, means, roots)
        none, losses = frozen(factor[:0, 0]), np.zeros(starts.shape[0] - 1)
        means = none if means is None else frozen(means).ravel()
        others = _flat(factor, length)
        spreads = _flat(variances, length) if spread else none
        scales = none if roots is None else roots
        found = RowRidge(starts, index, values, scales, others, spreads, frozen(penalty), means, length)
        rows = frozen(found.rows)
        subtracted = (values, 1) if roots is None else (no_values(factor.dtype), 0)
        arguments = starts, index, *subtracted, rows, others, length, scales, values

        def run(begin, end):
            found.solve(begin, end)
            residual_rows(*arguments, np.empty(ERRORS, factor.dtype), found.rows[:0], length, losses, begin, end)

        in_chunks(values.shape[0] * length * width, bounds, run, calls=10)
        solutions = found.rows.reshape(-1, length)[:, :width]
        inverses = found.inverses.reshape(-1, length)[:, :width] if spread else None
        # In Python's numbers: a NumPy number would widen float32.
        return solutions, inverses, *(float(np.add.reduce(a)) for a in (losses, found.uncertainty, found.freedom))

    def tangent_system(self, u, vt, damping):
        """Linearised least squares with one factor eliminated, or None where its blocks would take too much memory."""
        length = simd.padded(u.shape[1], u.itemsize)
        size = sum(self._shape) * length**2 * u.itemsize
        if length * u.itemsize > WIDEST_STEP or size > MOST_BYTES:
            return None
        samples = self._samples_of(0), self._samples_of(1)
        return TangentSystem(samples, u, np.ascontiguousarray(vt.T), damping)

    def descent(self, values, widths):
        """Compiled chunk of descent steps for a network of these inner widths, or None where it does not pay."""
        values = self.prepare(values).by_row
        length = simd.padded(max(widths, default=0), values.dtype.itemsize)
        if not widths or length > _MOST_DESCENT or values.shape[0] * length > PARALLEL_WORK:
            return None
        samples = (self._row_starts, self._cols, values)
        return Descent(samples, int(np.max(np.diff(self._row_starts))), self._shape, length)


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
        count = d2 + (depth - 2) * length + d1
        flat = simd.aligned(count * length, layers[0].dtype).reshape(count, length)
        flat[:] = 0
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
        dtype, start = weights[0].dtype, (self._pack(weights), self._pack(gradients))
        states = start, tuple(simd.aligned(flat.size, dtype) for flat in start)
        work = scratch(self._length, self._most, self._shape, len(weights), dtype)
        numbers = np.float64(loss), np.asarray(rates, dtype), dtype.type(shrink), dtype.type(scale)
        loss, done = self._descend(self._samples, self._shape, len(weights), work, states, *numbers, iterations)
        flat, gradient = states[done % 2]
        return self._unpack(flat, weights), self._unpack(gradient, weights), loss, done
