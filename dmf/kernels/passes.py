"""Launches of the passes over samples of sampled.cu: which segments, which scratch, in which order."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmf.arrays.backend import Array, cupy_module, to_host
from dmf.kernels import cuda
from dmf.kernels.segments import cut

_LONGEST = 512  # samples of a segment: what a warp does in some ten microseconds
_TOTAL_BLOCKS = 128  # that sum the losses of segments; few losses need one
_FEW_LOSSES = 4_096


def contiguous(array: Array, dtype: Any = None) -> Array:
    """`array` itself if it is contiguous and of this dtype, a copy otherwise."""
    return cupy_module().ascontiguousarray(array, dtype)


def padded(factor: Array, length: int) -> Array:
    """Copy of the rows of a factor, padded with zeros to `length` numbers; new memory, so that it is aligned."""
    rows = cupy_module().empty((factor.shape[0], length), factor.dtype)
    rows[:, : factor.shape[1]] = factor
    rows[:, factor.shape[1] :] = 0
    return rows


def kernels_of(width: int, dtype: Any) -> Any:
    """Compiled sampled.cu for factors of this width."""
    length = cuda.padded_width(width)
    return cuda.compiled("sampled.cu", dtype, **cuda.pass_constants(length, np.dtype(dtype).itemsize))


class Side:
    """Samples in the order of the rows of one side.

    Parameters
    ----------
    starts : int64 array, shape (n + 1,)
        First sample of each row, and their number.
    index : int32 array, shape (m,)
        Row of the other factor that each sample meets.
    """

    def __init__(self, starts: Array, index: Array) -> None:
        cupy = cupy_module()
        self.starts, self.index = starts, index
        segments = cut(to_host(starts), _LONGEST)
        self.segments, self.slots, self.long_rows = (
            segments.row.size,
            int(segments.long_first[-1]),
            segments.long_row.size,
        )
        self.first, self.count, self.row, self.slot, self.long_row, self.long_first = map(
            cupy.asarray,
            (segments.first, segments.count, segments.row, segments.slot, segments.long_row, segments.long_first),
        )


class Passes:
    """Passes over samples with factor rows padded to `length` numbers; each takes those of side 0 or of side 1.

    Results are written to `out`, an array (n, w) of any strides. `scratch`, where it is given, holds what a pass needs besides,
    so that it allocates nothing: see `scratch_of`.
    """

    def __init__(self, module: Any, row_side: Side, col_side: Side, length: int) -> None:
        self._module, self.sides, self.length = module, (row_side, col_side), length

    def scratch_of(self, side: int, dtype: Any) -> tuple[Array, Array]:
        """Arrays for the partial sums and for the losses of the segments of a side."""
        cupy, samples = cupy_module(), self.sides[side]
        return cupy.empty((samples.slots, self.length), dtype), cupy.empty(samples.segments, cupy.float64)

    def residual(
        self,
        side: int,
        values: Array,
        rows: Array,
        others: Array,
        out: Array,
        scratch: tuple[Array, Array] | None = None,
    ) -> Array:
        """``R others`` for ``R = rows others^T - values`` at the samples; returns the squared residual of each segment."""
        partials, losses = self.scratch_of(side, rows.dtype) if scratch is None else scratch
        self._launch("residual_rows", side, values, rows, others, *_steps(out), partials, losses)
        self._sum_partials(side, partials, out)
        return losses

    def gather(self, side: int, weights: Array, others: Array, out: Array) -> None:
        """``R others`` for the R that holds `weights` at the samples."""
        partials, _ = self.scratch_of(side, others.dtype)
        self._launch("gather_rows", side, weights, others, *_steps(out), partials)
        self._sum_partials(side, partials, out)

    def squares(self, side: int, values: Array, rows: Array, others: Array) -> Array:
        """Squared residual of each segment."""
        _, losses = self.scratch_of(side, rows.dtype)
        self._launch("square_rows", side, values, rows, others, losses)
        return losses

    def total(self, losses: Array, factor: float, scratch: tuple[Array, Array] | None = None) -> Array:
        """`factor` times the sum of the losses, a float64 array of shape ()."""
        first, result = self.total_scratch(losses) if scratch is None else scratch
        count, blocks = losses.shape[0], first.shape[0]
        if blocks:
            cuda.launch(self._module, "sum_doubles", blocks, np.int64(count), losses, first, np.float64(1))
            losses, count = first, blocks
        cuda.launch(self._module, "sum_doubles", 1, np.int64(count), losses, result, np.float64(factor))
        return result

    @staticmethod
    def total_scratch(losses: Array) -> tuple[Array, Array]:
        """Arrays for sums of blocks, where there are many losses, and for the total."""
        cupy, blocks = cupy_module(), _TOTAL_BLOCKS if losses.shape[0] > _FEW_LOSSES else 0
        return cupy.empty(blocks, cupy.float64), cupy.empty((), cupy.float64)

    def _launch(self, name: str, side: int, values: Array, *arguments: Any) -> None:
        samples = self.sides[side]
        cuda.launch(
            self._module,
            name,
            cuda.blocks_for(samples.segments, cuda.BLOCK // 32),
            np.int32(samples.segments),
            samples.first,
            samples.count,
            samples.row,
            samples.slot,
            samples.index,
            values,
            *arguments,
        )

    def _sum_partials(self, side: int, partials: Array, out: Array) -> None:
        samples = self.sides[side]
        if samples.long_rows:
            arguments = samples.long_row, samples.long_first, partials, *_steps(out)
            cuda.launch(self._module, "sum_partials", samples.long_rows, *arguments)


def _steps(out: Array) -> tuple[Any, ...]:
    """An array (n, w) as kernels take it: itself, the steps of its rows and columns in numbers, and w."""
    row_step, column_step = (np.int64(stride // out.itemsize) for stride in out.strides)
    return out, row_step, column_step, np.int32(out.shape[1])
