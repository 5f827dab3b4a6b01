"""Some entries of a matrix: matrix completion."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from dmf.arrays.backend import (
    Array,
    as_array,
    device,
    floating,
    from_host,
    is_numpy,
    move,
    namespace,
    number,
    on_device_of,
    one_blas_thread,
    to_host,
)
from dmf.arrays.checks import random_generator
from dmf.arrays.linalg import truncated_svd
from dmf.errors import DTypeError, ObservationError, ShapeError
from dmf.kernels import kernel
from dmf.observations.base import Observations, Ridge
from dmf.observations.checks import (
    check_factor,
    check_factors,
    check_finite,
    check_rank,
    check_shape,
    check_values,
    held_out_count,
)
from dmf.observations.tangent import eliminated_step


class SampledEntries(Observations):
    """Entries of a matrix at given positions.

    A position that occurs k times counts as k separate measurements of one entry, so a fit approaches their mean; a split
    keeps them together. No method forms a d1 x d2 matrix, except `fill`, which is given one.

    Parameters
    ----------
    rows, cols : integer arrays, shape (m,)
        Positions, from 0. Signed or unsigned integers of any size, no floats.
    values : array, shape (m,)
        Finite numbers; float32 and float64 are kept, integers become float64.
    shape : (int, int)
        (d1, d2), each below 2**31.

    Attributes
    ----------
    rows, cols : int32 arrays, shape (m,)
        The positions, sorted by row, then by column.
    values : array, shape (m,)
        The entries in that order.

    Raises
    ------
    ShapeError, DTypeError, BackendError, ObservationError
        If lengths differ, indices are no integers or out of range, values are not finite, or nothing is observed.
    """

    def __init__(self, rows: Array, cols: Array, values: Array, shape: tuple[int, int]) -> None:
        rows, cols, values = as_array(rows, "rows"), as_array(cols, "cols"), as_array(values, "values")
        shape = check_shape(shape)
        namespace(rows, cols, values)
        lengths = tuple(tuple(a.shape) for a in (rows, cols, values))
        if any(len(length) != 1 for length in lengths) or len(set(lengths)) > 1:
            raise ShapeError(
                f"rows, cols and values have shapes {', '.join(map(str, lengths))}, but they are three vectors of one "
                "length: one row index, one column index and one value for each observed entry.",
                argument="rows, cols, values",
                value=lengths,
            )
        if values.shape[0] == 0:
            raise ObservationError(
                "no entry is observed, but at least 1 is needed to learn anything.", argument="values", value=0, limit=1
            )
        rows, cols = _checked_index(rows, "rows", shape[0]), _checked_index(cols, "cols", shape[1])
        values = floating(values, "values")
        check_finite(values, "values", "Leave missing entries out instead.")
        rows, cols, values = kernel("SampledEntries", values).arrange(rows, cols, values, shape)
        self._assign(rows, cols, values, shape)

    def _assign(self, rows, cols, values, shape):
        self.rows, self.cols, self.values, self.shape = rows, cols, values, shape
        self._kernel = kernel("SampledEntries", values)(rows, cols, shape)
        return self

    @classmethod
    def from_dense(cls, matrix: Array) -> SampledEntries:
        """The entries of a matrix that are not NaN.

        Parameters
        ----------
        matrix : array, shape (d1, d2)
            NaN marks a missing entry; infinities are errors.
        """
        matrix = as_array(matrix, "matrix")
        if matrix.ndim != 2:
            raise ShapeError(
                f"matrix has {matrix.ndim} dimensions (shape {tuple(matrix.shape)}), but a matrix has 2.",
                argument="matrix",
                value=tuple(matrix.shape),
                limit=2,
            )
        matrix = floating(matrix, "matrix")
        xp = namespace(matrix)
        rows, cols = xp.nonzero(~xp.isnan(matrix))
        values = xp.take(xp.reshape(matrix, (-1,)), rows * matrix.shape[1] + cols)
        return cls(rows, cols, values, matrix.shape)

    @classmethod
    def from_sparse(cls, matrix: Any) -> SampledEntries:
        """The stored entries of a SciPy or CuPy sparse matrix or array, explicit zeros included.

        Repeated positions of a COO matrix are summed, as SciPy defines the matrix that it stands for.
        """
        if is_cupy_sparse(matrix):
            coo = matrix.tocoo(copy=True)
            coo.sum_duplicates()
            return cls(coo.row, coo.col, coo.data, coo.shape)
        if not scipy.sparse.issparse(matrix):
            raise DTypeError(
                f"matrix is a {type(matrix).__name__}, but from_sparse takes a SciPy or CuPy sparse matrix or array. "
                "For dense arrays use from_dense.",
                argument="matrix",
                value=type(matrix).__name__,
            )
        if matrix.ndim != 2:
            raise ShapeError(
                f"matrix has {matrix.ndim} dimensions, but a matrix has 2.",
                argument="matrix",
                value=matrix.ndim,
                limit=2,
            )
        coo = scipy.sparse.coo_array(matrix, copy=True)
        coo.sum_duplicates()
        return cls(coo.coords[0], coo.coords[1], coo.data, coo.shape)

    @classmethod
    def from_entries(cls, entries: Any) -> SampledEntries:
        """The entries of a file: what `dmf.io.matrices.read_entries` returns, or anything with rows, cols, values and shape."""
        return cls(entries.rows, entries.cols, entries.values, entries.shape)

    @property
    def weights(self) -> Array | None:
        """Weights of the entries, shape (m,), in the order of `rows`; None where all are alike."""
        return None

    @property
    def unweighted(self) -> SampledEntries:
        """The entries as they are, whose `values` are those of the matrix."""
        return self

    @cached_property
    def n_distinct(self):
        return int(np.count_nonzero(self.new_positions()))

    def new_positions(self) -> np.ndarray:
        """Which entries, in the order of `rows`, are at another position than the one before them: bool, (m,), on the host."""
        rows, cols = to_host(self.rows), to_host(self.cols)
        return np.concatenate([[True], (rows[1:] != rows[:-1]) | (cols[1:] != cols[:-1])])

    @property
    def mean_weight(self) -> float:
        """Mean of the weights; 1 where there are none."""
        return self.gain * self.shape[0] * self.shape[1] / self.n_measurements

    def centred(self) -> tuple[float, SampledEntries]:
        """Mean of the entries, each counted by its weight, and the entries of the matrix without it."""
        mean = number(namespace(self.values).mean(self.values))
        return mean, self.with_values(self.values - mean)

    def threads(self):
        return one_blas_thread() if is_numpy(self.values) else super().threads()

    def predict(self, left, right):
        check_factors(self, left, right)
        return self._kernel.product(left, right)

    def adjoint(self, weights, left, right):
        check_factors(self, left, right)
        return self._kernel.adjoint(check_values(self, weights), left, right)

    def evaluate(self, left, right):
        check_factors(self, left, right)
        return self._kernel.residual(self.values, left, right)

    @property
    def gain(self):
        return self.n_measurements / (self.shape[0] * self.shape[1])

    def ridge(self, side, factor, penalty, variances=None, start=None, means=None):
        """See `Observations.ridge`; the penalty draws the rows to `means`, an array (n, w), if it is given."""
        check_factor(self, side, factor)
        return Ridge(*self._kernel.ridge(side, self.values, factor, penalty, variances, means))

    def tangent_step(self, u, vt, target, damping, tolerance, iterations):
        check_factors(self, u, vt)
        system = self._kernel.tangent_system(u, vt, damping)
        if system is None:
            return super().tangent_step(u, vt, target, damping, tolerance, iterations)
        return eliminated_step(system, target, tolerance, iterations)

    def descent(self, widths):
        return self._kernel.descent(self.values, widths)

    def surrogate_svd(self, rank, seed=0, sweeps=12):
        """Of the matrix that holds ``values / p`` at the positions and zeros elsewhere, p the share of entries seen.

        With weights, that holds ``weights values / p``, p the sum of the weights over the size of the matrix.
        """
        rank = check_rank(rank, self.shape)
        weights = self.values / self.gain
        if self.weights is not None:
            weights = weights * namespace(weights).sqrt(self.weights)
        return self.sparse_svd(weights, rank, seed, sweeps)

    def sparse_svd(self, weights: Array, rank: int, seed: int = 0, sweeps: int = 12) -> tuple[Array, Array, Array]:
        """Top singular triplets of the matrix with `weights` (m,) at the positions and zeros elsewhere.

        See `dmf.arrays.linalg.truncated_svd` for `sweeps` and for what is returned.
        """
        xp = namespace(check_values(self, weights))
        like = {"dtype": self.dtype, "device": device(self.values)}
        no_rows, no_cols = xp.zeros((self.shape[0], 0), **like), xp.zeros((0, self.shape[1]), **like)
        return truncated_svd(
            lambda block: self._kernel.adjoint(weights, no_rows, xp.matrix_transpose(block), repeated=True)[0],
            lambda block: xp.matrix_transpose(self._kernel.adjoint(weights, block, no_cols, repeated=True)[1]),
            self.shape,
            rank,
            like=self.values,
            seed=seed,
            sweeps=sweeps,
        )

    def split(self, fraction, seed=0):
        position = np.cumsum(self.new_positions()) - 1
        count = int(position[-1]) + 1
        held = np.zeros(count, bool)
        held[random_generator(seed).permutation(count)[: held_out_count(fraction, count)]] = True
        return self._subset(~held[position]), self._subset(held[position])

    def _subset(self, mask: np.ndarray) -> SampledEntries:
        xp = namespace(self.values)
        index = from_host(np.flatnonzero(mask), self.values)
        rows, cols, values = (xp.take(a, index) for a in (self.rows, self.cols, self.values))
        return SampledEntries.__new__(SampledEntries)._assign(rows, cols, values, self.shape)

    def with_values(self, values):
        """The same positions with other values; shares the sorted positions."""
        other = SampledEntries.__new__(SampledEntries)
        other.rows, other.cols, other.shape = self.rows, self.cols, self.shape
        other.values = check_values(self, values)
        other._kernel = self._kernel
        return other

    def _moved(self, device):
        rows, cols, values = (move(a, device) for a in (self.rows, self.cols, self.values))
        with on_device_of(values):
            return SampledEntries.__new__(SampledEntries)._assign(rows, cols, values, self.shape)

    def fill(self, matrix):
        rows, cols, values = to_host(self.rows), to_host(self.cols), to_host(self.unweighted.values)
        weights = None if self.weights is None else to_host(self.weights)
        first = self.new_positions()
        group = np.cumsum(first) - 1
        means = values[first]
        if not first.all():  # repeated measurements
            total = np.bincount(group, weights=values if weights is None else weights * values)
            means = total / np.bincount(group, weights=weights)
        result = np.array(to_host(matrix))
        result[rows[first], cols[first]] = means
        return from_host(result, matrix)


def _checked_index(index: Array, argument: str, size: int) -> Array:
    xp = namespace(index)
    if not xp.isdtype(index.dtype, "integral"):
        raise DTypeError(
            f"{argument} has dtype {index.dtype}, but positions are integers from 0. Convert them with astype(int) if "
            "they are whole numbers.",
            argument=argument,
            value=str(index.dtype),
            limit="integer",
        )
    least, most = number(xp.min(index)), number(xp.max(index))
    if least < 0 or most >= size:
        wrong = least if least < 0 else most
        where = int(xp.argmax(xp.astype((index < 0) | (index >= size), xp.int64)))
        raise ObservationError(
            f"{argument}[{where}] = {int(index[where])} (the range found is {least:.0f} to {most:.0f}), but the matrix has "
            f"{size} {argument}, so indices run from 0 to {size - 1}. "
            "Pass a larger shape, or subtract 1 if your indices start at 1.",
            argument=argument,
            value=int(wrong),
            limit=(0, size - 1),
        )
    if is_numpy(index):
        return np.ascontiguousarray(index, dtype=np.int32)
    return xp.astype(index, xp.int32)


def is_cupy_sparse(data: Any) -> bool:
    """Whether `data` is a sparse matrix of CuPy."""
    return type(data).__module__.startswith("cupyx.scipy.sparse")
