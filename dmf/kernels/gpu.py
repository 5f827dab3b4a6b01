"""CUDA kernels for CuPy arrays: what `dmf.kernels.cpu` offers, on a device.

Samples are held twice, by row and by column, with 32-bit indices and 64-bit row pointers. Sums are made in a fixed order,
without atomic additions: two runs give the same bits. Arrays must lie on the current device, as CuPy has it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, all_true, cupy_module, to_host
from dmf.errors import ArgumentError
from dmf.kernels import cuda
from dmf.kernels.gpu_descent import Descent
from dmf.kernels.passes import Passes, Side, contiguous, kernels_of, padded
from dmf.kernels.prepared import Prepared
from dmf.kernels.ridge import LEAST
from dmf.kernels.segments import cut

_LONGEST_RIDGE = 4_096  # samples of a normal matrix summed by one block
_RESIDENT_BLOCKS = 1_024  # of ridge regressions with scratch of their own: more than run at once


def sampled_product(left: Array, right: Array, rows: Array, cols: Array) -> Array:
    """Entries of ``left @ right`` at (rows, cols); see `dmf.kernels.reference.sampled_product`."""
    cupy = cupy_module()
    width, samples = left.shape[1], rows.shape[0]
    if width > cuda.WIDEST:
        return sum(
            sampled_product(left[:, b : b + cuda.WIDEST], right[b : b + cuda.WIDEST, :], rows, cols)
            for b in range(0, width, cuda.WIDEST)
        )
    values = cupy.empty(samples, left.dtype)
    length = cuda.padded_width(width)
    cuda.launch(
        kernels_of(width, left.dtype),
        "sampled_product",
        cuda.blocks_for(samples),
        np.int64(samples),
        contiguous(rows, cupy.int32),
        contiguous(cols, cupy.int32),
        padded(left, length),
        padded(right.T, length),
        values,
    )
    return values


class SampledEntries:
    """Products with a sparse residual; see `dmf.kernels.reference.SampledEntries`, the twin that defines them."""

    def __init__(self, rows: Array, cols: Array, shape: tuple[int, int]) -> None:
        cupy = cupy_module()
        self._rows, self._cols, self._shape = contiguous(rows, cupy.int32), contiguous(cols, cupy.int32), shape
        self._checked: set[tuple[str, int, int]] = set()

    @staticmethod
    def arrange(rows: Array, cols: Array, values: Array, shape: tuple[int, int]) -> tuple[Array, Array, Array]:
        """Positions and values by row, then by column, then in the order given; see the twin."""
        cupy = cupy_module()
        samples = rows.shape[0]
        cuda.check_memory(5 * 8 * samples, f"sorting {samples:,} entries", values)
        keys = rows.astype(cupy.int64) * shape[1] + cols
        if all_true(keys[1:] >= keys[:-1]):
            return rows, cols, values
        order = cupy.argsort(keys, kind="stable")
        return rows[order], cols[order], values[order]

    @cached_property
    def _row_side(self) -> Side:
        return Side(self._starts(self._rows, self._shape[0]), self._cols)

    @cached_property
    def _column_order(self) -> Array:
        """Place, in the order of rows, of each sample in the order of columns."""
        cupy, samples = cupy_module(), self._rows.shape[0]
        cuda.check_memory(4 * 8 * samples, f"ordering {samples:,} entries by column", self._rows)
        order = cupy.argsort(self._cols, kind="stable")
        return order.astype(cupy.int32) if samples < 2**31 else order

    @cached_property
    def _col_side(self) -> Side:
        return Side(self._starts(self._cols[self._column_order], self._shape[1]), self._rows[self._column_order])

    @staticmethod
    def _starts(keys: Array, count: int) -> Array:
        """Where each key begins in sorted `keys`, and their number; int64, shape (count + 1,)."""
        cupy = cupy_module()
        return cupy.searchsorted(keys, cupy.arange(count + 1, dtype=cupy.int32)).astype(cupy.int64)

    def _passes(self, width: int, dtype: Any) -> Passes:
        """Passes over the samples, once their memory has been found to suffice."""
        itemsize, length = np.dtype(dtype).itemsize, cuda.padded_width(width)
        self._check("a pass", width, itemsize, 2 * sum(self._shape) * length * itemsize)
        return Passes(kernels_of(width, dtype), self._row_side, self._col_side, length)

    def _check(self, what: str, width: int, itemsize: int, needed: int) -> None:
        if (what, width, itemsize) not in self._checked:
            samples = self._rows.shape[0]
            cuda.check_memory(
                needed + samples * itemsize, f"{what} over {samples:,} entries, {width} wide,", self._rows
            )
            self._checked.add((what, width, itemsize))

    def prepare(self, values: Array | Prepared) -> Prepared:
        """Numbers of samples for the methods below; see the twin."""
        if isinstance(values, Prepared):
            return values
        return Prepared(contiguous(values), lambda a: a[self._column_order])

    def counts(self, side: int) -> Array:
        """Number of positions in each row or column; see the twin."""
        return cupy_module().diff((self._row_side, self._col_side)[side].starts)

    def product(self, left: Array, right: Array) -> Array:
        """Entries of ``left @ right`` at the positions; see the twin."""
        return sampled_product(left, right, self._rows, self._cols)

    def adjoint(self, weights: Array | Prepared, left: Array, right: Array) -> tuple[Array, Array]:
        """Products of the matrix that holds `weights`; see the twin."""
        cupy, width, weights = cupy_module(), max(left.shape[1], right.shape[0]), self.prepare(weights)
        if width > cuda.WIDEST:
            starts = range(0, width, cuda.WIDEST)
            blocks = [slice(b, b + cuda.WIDEST) for b in starts]
            parts = [self.adjoint(weights, left[:, b], right[b, :]) for b in blocks]
            return cupy.concatenate([p[0] for p in parts], axis=1), cupy.concatenate([p[1] for p in parts])
        passes = self._passes(width, left.dtype)
        grad_left = cupy.empty((left.shape[0], right.shape[0]), left.dtype)
        grad_right = cupy.empty((left.shape[1], right.shape[1]), left.dtype)
        if right.shape[0]:
            passes.gather(0, weights.by_row, padded(right.T, passes.length), grad_left)
        if left.shape[1]:
            passes.gather(1, weights.by_column, padded(left, passes.length), grad_right.T)
        return grad_left, grad_right

    def residual(self, values: Array | Prepared, left: Array, right: Array) -> tuple[Array, Array, Array]:
        """Loss, and `adjoint` of the residual; see the twin. The columns compute it anew: cheaper than to move it."""
        cupy, width, values = cupy_module(), left.shape[1], self.prepare(values)
        if width > cuda.WIDEST:
            residual = self.product(left, right) - values.by_row
            loss = 0.5 * _square_sum(residual)
            return loss, *self.adjoint(residual, left, right)
        passes = self._passes(width, left.dtype)
        left_rows, right_rows = padded(left, passes.length), padded(right.T, passes.length)
        grad_left, grad_right = cupy.empty(left.shape, left.dtype), cupy.empty(right.shape, left.dtype)
        losses = passes.residual(0, values.by_row, left_rows, right_rows, grad_left)
        passes.residual(1, values.by_column, right_rows, left_rows, grad_right.T)
        return passes.total(losses, 0.5), grad_left, grad_right

    @cached_property
    def _ridge_segments(self) -> list[Any]:
        """For each side: segments of its long rows, on the device, and their number; place of each row among them."""
        cupy, found = cupy_module(), []
        for side, count in zip((self._row_side, self._col_side), self._shape, strict=True):
            segments = cut(to_host(side.starts), _LONGEST_RIDGE).of_long_rows()
            arrays = (segments.first, segments.count, segments.long_of(count), segments.long_first)
            found.append((segments.first.size, *map(cupy.asarray, arrays)))
        return found

    def ridge(
        self,
        side: int,
        values: Array | Prepared,
        factor: Array,
        penalty: Array,
        variances: Array | None,
        means: Array | None,
        roots: Array | Prepared | None = None,
    ) -> tuple[Array, Array | None, float, float, float]:
        """Ridge regressions of the rows of one factor; see the twin. One read by the host, of the three sums."""
        cupy, width, count, dtype = cupy_module(), factor.shape[1], self._shape[side], factor.dtype
        if width > cuda.WIDEST_RIDGE:
            raise ArgumentError(
                f"a ridge regression has {width} unknowns in a row, but on a GPU they are at most {cuda.WIDEST_RIDGE}, what "
                "fits beside the samples on a multiprocessor. Pass a smaller rank, or NumPy arrays.",
                argument="rank",
                value=width,
                limit=cuda.WIDEST_RIDGE,
            )
        itemsize, length = dtype.itemsize, cuda.padded_width(width)
        constants = cuda.ridge_constants(length, LEAST)
        blocks = max(count if constants["IN_SHARED"] else min(count, _RESIDENT_BLOCKS), 1)
        size = (length + 1) ** 2
        slots, first, lengths, long_of, long_first = self._ridge_segments[side]
        scratch = 0 if constants["IN_SHARED"] else blocks * size
        needed = (slots * (size + length) + scratch + 2 * sum(self._shape) * length) * itemsize
        self._check(f"a ridge regression (side {side})", width, itemsize, needed)
        module = cuda.compiled("ridge.cu", dtype, **constants)
        samples = self._row_side if side == 0 else self._col_side
        values = self.prepare(values)
        ordered, root_weights = values.of_side(side), None
        if roots is not None:
            roots = self.prepare(roots if isinstance(roots, Prepared) else contiguous(roots, dtype))
            root_weights = roots.of_side(side)
        rows_of_factor = padded(factor, length)
        spread = None if variances is None else padded(contiguous(variances, dtype), length)
        partials = cupy.zeros(slots * (size + length), dtype)  # blocks write lower triangles, and all of it is added
        if slots:
            cuda.launch(
                module, "gram_segments", slots, first, lengths, samples.index, ordered, root_weights, rows_of_factor, spread,
                partials,
                threads=constants["THREADS"],
            )  # fmt: skip
        rows = cupy.empty((count, width), dtype)
        inverses = None if variances is None else cupy.empty((count, width), dtype)
        sums = cupy.zeros((2, count), cupy.float64)  # of each row: uncertainty, freedom
        cuda.launch(
            module,
            "ridge_rows",
            blocks,
            np.int32(count),
            samples.starts,
            samples.index,
            ordered,
            root_weights,
            long_of,
            long_first,
            partials,
            rows_of_factor,
            spread,
            contiguous(penalty, dtype),
            None if means is None else contiguous(means, dtype),
            np.int32(width),
            rows,
            inverses,
            sums[0],
            sums[1],
            cupy.empty(scratch, dtype),
            threads=constants["THREADS"],
        )
        found = cupy.stack([self._square(side, values, rows, factor, roots), *map(cupy.sum, sums)])
        square, uncertainty, freedom = to_host(found).tolist()
        return rows, inverses, square, uncertainty, freedom

    def _square(self, side: int, values: Prepared, rows: Array, factor: Array, roots: Prepared | None) -> Array:
        """Squared residual of ``rows factor^T`` (side 0) or its transpose, a float64 array of shape ()."""
        width = factor.shape[1]
        if roots is not None or width > cuda.WIDEST:
            product = self.product(*((rows, factor.T) if side == 0 else (factor, rows.T)))
            residual = (product if roots is None else roots.by_row * product) - values.by_row
            return _square_sum(residual)
        passes = self._passes(width, factor.dtype)
        losses = passes.squares(side, values.of_side(side), padded(rows, passes.length), padded(factor, passes.length))
        return passes.total(losses, 1.0)

    def tangent_system(self, u: Array, vt: Array, damping: float) -> None:
        """None, as in the twin."""
        return

    def descent(self, values: Array | Prepared, widths: tuple[int, ...]) -> Descent | None:
        """Chunk of descent steps for a network of these inner widths, recorded as CUDA graphs; None where there is none."""
        if not widths or max(widths) > cuda.WIDEST:
            return None
        values = self.prepare(values)
        if widths not in values.made:
            passes = self._passes(widths[0], values.by_row.dtype)
            values.made = {widths: Descent(passes, (values.by_row, values.by_column), self._shape, widths)}
        return values.made[widths]


def _square_sum(residual: Array) -> Array:
    """Squared norm in float64, an array of shape ()."""
    residual = residual.astype(np.float64, copy=False)
    return cupy_module().sum(residual * residual)


def dense_residual(matrices: Array, rows: Array | None, values: Array, matrix: Array) -> tuple[Array, Array]:
    """Loss and gradient by two matrix-vector products of cuBLAS; see `dmf.kernels.reference.dense_residual`, the twin."""
    cupy = cupy_module()
    measured = matrices @ matrix
    residual = (measured if rows is None else measured[rows]) - values
    loss = 0.5 * _square_sum(residual)
    weights = residual
    if rows is not None:  # the others count with weight 0, so that no matrix is copied
        weights = cupy.zeros(matrices.shape[0], matrices.dtype)
        weights[rows] = residual
    return loss, weights @ matrices
