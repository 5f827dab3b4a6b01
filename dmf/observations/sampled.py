"""Entries of a matrix at given positions, in arrays."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

import numpy as np

from dmf.arrays.backend import (
    Array,
    all_true,
    as_array,
    device,
    floating,
    from_host,
    frozen,
    is_cupy_sparse,
    is_numpy,
    is_sparse,
    kept,
    move,
    namespace,
    number,
    on_device_of,
    to_host,
)
from dmf.arrays.linalg import truncated_svd
from dmf.arrays.threads import one_blas_thread
from dmf.errors import DTypeError, ObservationError, ShapeError
from dmf.io.forms import Form, read_form, read_long
from dmf.kernels import kernel
from dmf.observations.base import Ridge
from dmf.observations.checks import (
    check_factor,
    check_factors,
    check_finite,
    check_least_squares,
    check_rank,
    check_shape,
    check_times,
    check_two_dimensions,
    check_values,
    check_weights,
    has_own_loss,
    held_out_count,
    nothing_left,
)
from dmf.observations.design import Design
from dmf.observations.entries import Entries
from dmf.observations.positions import checked_index, components, draws, looked_up, numbered
from dmf.observations.tangent import eliminated_step


class SampledEntries(Entries):
    """Entries of a matrix at given positions, possibly with a weight each.

    A position that occurs k times counts as k separate measurements of one entry, so a fit approaches their mean; a split
    keeps them together. No method forms a d1 x d2 matrix, except `fill`, which is given one.

    With weights the noise variance of an entry is that of the model over its weight. As measurements of the contract they are
    ``y_k = sqrt(w_k) X[rows[k], cols[k]]``, whose noise is the same for all; so every solver knows what to do with them. Noise
    levels that solvers find are those of an entry of weight 1. Two measurements of one entry count as much as one of twice the
    weight.

    Parameters
    ----------
    rows, cols : integer arrays, shape (m,)
        Positions, from 0. Signed or unsigned integers of any size, no floats.
    values : array, shape (m,)
        The entries: finite numbers, not yet multiplied by anything; float32 and float64 are kept, integers become float64.
    shape : (int, int)
        (d1, d2), each below 2**31.
    weights : array, shape (m,), optional
        Finite and at least 0; an entry of weight 0 counts as not observed. All are 1 unless given.
    times : array, shape (m,), optional
        When each entry was observed: finite numbers, of any unit and from any beginning, or datetimes. Entries of one position
        may have different times. `dmf.complete` then asks how rows and columns drift.

    Attributes
    ----------
    rows, cols : int32 arrays, shape (m,)
        The positions, sorted by row, then by column; without those of weight 0.
    entries : array, shape (m,)
        The entries in that order.
    weights : array, shape (m,), or None
        In that order, in the dtype of the values; None unless given.
    times : float64 NumPy array, shape (m,), or None
        In that order, on the host; None unless given.
    values : array, shape (m,)
        The measurements y in that order: the entries, times the square roots of their weights.

    Raises
    ------
    ShapeError, DTypeError, BackendError, ObservationError
        If lengths differ, indices are no integers or out of range, values, weights or times are not finite, a weight is
        negative, or nothing is observed.
    """

    def __init__(
        self,
        rows: Array,
        cols: Array,
        values: Array,
        shape: tuple[int, int],
        weights: Array | None = None,
        times: Array | None = None,
    ) -> None:
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
        arguments = rows, cols, values
        rows, cols = checked_index(rows, "rows", shape[0]), checked_index(cols, "cols", shape[1])
        values = floating(values, "values")
        check_finite(values, "values", "Leave missing entries out instead.", (rows, cols))
        arrange = kernel("SampledEntries", values).arrange
        if weights is not None:
            weights = kept(arrange(rows, cols, check_weights(weights, values), shape)[2], as_array(weights, "weights"))
        if times is not None:
            times = check_times(times, values.shape[0])
            order = kernel("SampledEntries", times).arrange
            times = order(to_host(rows), to_host(cols), times, shape)[2]
        rows, cols, values = (
            kept(array, given) for array, given in zip(arrange(rows, cols, values, shape), arguments, strict=True)
        )
        if weights is not None and not all_true(weights > 0):
            there = to_host(weights) > 0
            index, times = from_host(np.flatnonzero(there), values), None if times is None else times[there]
            rows, cols, values, weights = (namespace(values).take(a, index) for a in (rows, cols, values, weights))
        self._assign(rows, cols, values, shape, weights, times)

    def _assign(self, rows, cols, entries, shape, weights=None, times=None):
        """Take over arrays in order, which are nobody else's or read-only."""
        self.times = None if times is None else frozen(times)
        self.rows, self.cols, self.shape = frozen(rows), frozen(cols), shape
        self._entries, self._weights = frozen(entries), None if weights is None else frozen(weights)
        self._build()
        return self._measure(entries if weights is None else frozen(self._roots.by_row * entries))

    def _build(self):
        """What the passes need of positions and weights."""
        self._kernel = kernel("SampledEntries", self.rows)(self.rows, self.cols, self.shape)
        weights = self._weights
        self._roots: Any = None if weights is None else self._kernel.prepare(frozen(namespace(weights).sqrt(weights)))

    def _measure(self, values):
        self.values, self._prepared = values, self._kernel.prepare(values)
        return self

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name not in ("_kernel", "_roots", "_prepared")}

    def __setstate__(self, state):
        super().__setstate__(state)
        self._build()
        self._measure(self.values)

    @classmethod
    def none(cls, shape: tuple[int, int], dtype: Any, weighted: bool) -> SampledEntries:
        """No entry of a matrix, which is a part of one that has some."""
        index, values = np.empty(0, np.int32), np.empty(0, dtype)
        return object.__new__(cls)._assign(index, index.copy(), values, shape, values.copy() if weighted else None)

    @classmethod
    def from_dense(cls, matrix: Array) -> SampledEntries:
        """The entries of a matrix that are not NaN.

        Parameters
        ----------
        matrix : array, nested lists, pandas or polars DataFrame, pyarrow Table or xarray DataArray, shape (d1, d2)
            NaN, None and masked entries are missing; infinities are errors. Columns of dates are left aside. Names of rows and
            columns are kept.
        """
        matrix, form = read_form(matrix)
        matrix = as_array(matrix, "matrix")
        check_two_dimensions(matrix)
        matrix = floating(matrix, "matrix")
        xp = namespace(matrix)
        rows, cols = xp.nonzero(~xp.isnan(matrix))
        values = xp.take(xp.reshape(matrix, (-1,)), rows * matrix.shape[1] + cols)
        found = cls(rows, cols, frozen(values), matrix.shape)
        found.form = form
        return found

    @classmethod
    def from_frame(cls, frame: Any, row: Any, column: Any, value: Any, time: Any = None) -> SampledEntries:
        """The entries of a long data frame: one for each row that has a value.

        Parameters
        ----------
        frame : pandas or polars DataFrame, pyarrow Table, or dict of arrays
        row, column, value : names of columns
            Those of the ids of rows, of the ids of columns, and of the values. Ids may be anything; they become the names of rows
            and columns, numbered in the order of their first appearance.
        time : name of a column, optional
            That of the times of the entries, numbers or datetimes.

        Raises
        ------
        ArgumentError, DTypeError, ObservationError
            If there are no such columns, an id is missing, or a value or time is no finite number.

        Examples
        --------
        >>> import dmf
        >>> seen = dmf.SampledEntries.from_frame({"user": ["a", "b"], "film": [7, 7], "stars": [5, 3]}, "user", "film", "stars")
        >>> seen.shape
        (2, 1)
        """
        return cls.from_entries(read_long(frame, row, column, value, time))

    @classmethod
    def from_sparse(cls, matrix: Any) -> SampledEntries:
        """The stored entries of a SciPy or CuPy sparse matrix or array, explicit zeros included.

        Repeated positions of a COO matrix are summed, as SciPy defines the matrix that it stands for.
        """
        if is_cupy_sparse(matrix):
            coo = matrix.tocoo(copy=True)
            coo.sum_duplicates()
            return cls(coo.row, coo.col, coo.data, coo.shape)
        if not is_sparse(matrix):
            raise DTypeError(
                f"matrix is a {type(matrix).__name__}, but from_sparse takes a SciPy or CuPy sparse matrix or array. "
                "For dense arrays use from_dense.",
                argument="matrix",
                value=type(matrix).__name__,
            )
        check_two_dimensions(matrix)
        import scipy.sparse

        coo = scipy.sparse.coo_array(matrix, copy=True)
        coo.sum_duplicates()
        rows, cols = coo.coords
        return cls(frozen(rows), frozen(cols), frozen(coo.data), coo.shape)

    @classmethod
    def from_entries(cls, entries: Any) -> SampledEntries:
        """The entries of a file, with the names of its rows and columns.

        Parameters
        ----------
        entries : dmf.io.reading.Entries
            What `dmf.io.read_entries` returns, or anything else with rows, cols, values, shape, and perhaps row_ids, col_ids and
            times.
        """
        times = getattr(entries, "times", None)
        found = cls(entries.rows, entries.cols, entries.values, entries.shape, times=times)
        found.form = Form(getattr(entries, "row_ids", None), getattr(entries, "col_ids", None))
        return found

    @property
    def entries(self):
        if self._entries is None:
            self._entries = frozen(self.values / self._roots.by_row)
        return self._entries

    @property
    def weights(self):
        return self._weights

    @cached_property
    def n_distinct(self):
        return int(np.count_nonzero(self.new_positions))

    @property
    def nbytes(self) -> int:
        """Bytes of positions, entries, weights and times."""
        arrays = self.rows, self.cols, self.values, self._entries, self._weights, self.times
        return sum(0 if a is None else a.nbytes for a in arrays)

    @property
    def new_positions(self) -> np.ndarray:
        """Which entries, in the order of `rows`, are at another position than the one before them: bool, (m,), on the host."""
        rows, cols = to_host(self.rows), to_host(self.cols)
        return np.concatenate([[True], (rows[1:] != rows[:-1]) | (cols[1:] != cols[:-1])])

    def centred(self):
        xp = namespace(self.values)
        if self.weights is None:
            mean = number(xp.sum(self.values, dtype=xp.float64)) / self.n_measurements
            return mean, self.with_values(frozen(self.values - mean))
        total, weight = (xp.sum(a, dtype=xp.float64) for a in (self._roots.by_row * self.values, self.weights))
        mean = number(total) / number(weight)
        return mean, self.with_values(frozen(self.values - mean * self._roots.by_row))

    def threads(self):
        return one_blas_thread() if is_numpy(self.values) else super().threads()

    def product(self, left, right):
        check_factors(self, left, right)
        return self._kernel.product(left, right)

    def predict(self, left, right):
        product = self.product(left, right)
        return product if self.weights is None else self._roots.by_row * product

    def adjoint(self, weights, left, right):
        check_factors(self, left, right)
        weights = check_values(self, weights)
        return self._kernel.adjoint(weights if self.weights is None else self._roots.by_row * weights, left, right)

    def evaluate(self, left, right):
        if self.weights is not None:
            return super().evaluate(left, right)
        check_factors(self, left, right)
        return self._kernel.residual(self._prepared, left, right)

    @property
    def gain(self):
        size = self.shape[0] * self.shape[1]
        if self.weights is None:
            return self.n_measurements / size
        xp = namespace(self.weights)
        return number(xp.sum(self.weights, dtype=xp.float64)) / size

    def ridge(self, side, factor, penalty, variances=None, start=None, means=None):
        check_least_squares(self, SampledEntries, "ridge")
        check_factor(self, side, factor)
        return Ridge(*self._kernel.ridge(side, self._prepared, factor, penalty, variances, means, self._roots))

    def tangent_step(self, u, vt, target, damping, tolerance, iterations):
        check_least_squares(self, SampledEntries, "tangent_step")
        check_factors(self, u, vt)
        system = self._kernel.tangent_system(u, vt, damping) if self.weights is None else None
        if system is None:
            return super().tangent_step(u, vt, target, damping, tolerance, iterations)
        return eliminated_step(system, target, tolerance, iterations)

    def descent(self, widths):
        if self.weights is not None or has_own_loss(self, SampledEntries):
            return None
        return self._kernel.descent(self._prepared, widths)

    def pattern_product(self, side, factor):
        check_factor(self, side, factor)
        ones = self._kernel.prepare(namespace(self.values, factor).ones_like(self.values))
        ones.by_column = ones.by_row
        return self.sparse_product(ones, side, factor)

    def sparse_product(self, numbers: Any, side: int, factor: Array) -> Array:
        """``Z @ factor`` (side 0) or ``Z^T @ factor`` (side 1), Z the matrix of the numbers (m,) at the positions."""
        prepared, xp, (d1, d2) = self._kernel.prepare(numbers), namespace(factor), self.shape
        none = xp.zeros((0, d2) if side else (d1, 0), dtype=self.dtype, device=device(self.values))
        if side == 0:
            return self._kernel.adjoint(prepared, none, xp.matrix_transpose(factor))[0]
        return xp.matrix_transpose(self._kernel.adjoint(prepared, factor, none)[1])

    def counts(self, side):
        return self._kernel.counts(side)

    def restricted(self, rows, cols):
        places = [to_host(index) for index in (rows, cols)]
        numbers = [
            looked_up(numbered(place, size), index)
            for place, size, index in zip(places, self.shape, (self.rows, self.cols), strict=True)
        ]
        kept = to_host((numbers[0] >= 0) & (numbers[1] >= 0))
        if not kept.any():
            raise nothing_left(places[0].size, places[1].size)
        part = self.chosen(kept, numbers[0], numbers[1], (places[0].size, places[1].size))
        part.known = self._known(lambda design, side: design.restricted(places[side]))
        return part

    def connectivity(self):
        d1 = self.shape[0]
        labels = components(to_host(self.rows), to_host(self.cols), self.shape)
        return from_host(labels[:d1], self.values), from_host(labels[d1:], self.values)

    def surrogate_svd(self, rank, seed=0, sweeps=12):
        """Of the matrix that holds ``values / p`` at the positions and zeros elsewhere, p the share of entries seen.

        With weights, that holds ``weights values / p``, p the sum of the weights over the size of the matrix.
        """
        rank = check_rank(rank, self.shape)
        weights = self.values if self.weights is None else self._roots.by_row * self.values
        prepared, gain = self._kernel.prepare(weights), self.gain
        return truncated_svd(
            lambda block: self.sparse_product(prepared, 0, block) / gain,
            lambda block: self.sparse_product(prepared, 1, block) / gain,
            self.shape,
            rank,
            like=self.values,
            seed=seed,
            sweeps=sweeps,
        )

    def split(self, fraction, seed=0):
        drawn = draws(to_host(self.rows), to_host(self.cols), self.shape[1], seed)
        count = held_out_count(fraction, self.n_distinct)
        held = drawn <= np.partition(drawn[self.new_positions], count - 1)[count - 1]
        return self.chosen(~held), self.chosen(held)

    def chosen(self, mask: np.ndarray, rows=None, cols=None, shape=None) -> Self:
        """The entries of a mask on the host, at positions of their own where these are given."""
        arrays: Any = (
            self.rows if rows is None else rows,
            self.cols if cols is None else cols,
            self.entries,
            self.weights,
        )
        if not mask.all():
            xp, index = namespace(self.values), from_host(np.flatnonzero(mask), self.values)
            arrays = tuple(None if a is None else xp.take(a, index) for a in arrays)
        rows, cols, entries, weights = arrays
        times = None if self.times is None else self.times[mask]
        return self._new()._assign(rows, cols, entries, self.shape if shape is None else shape, weights, times)

    def knowing(self, rows: Design | None, cols: Design | None) -> Self:
        """The same entries, with what is known of the rows and of the columns besides them; shares what was sorted."""
        other = self._new()
        other.form, other.known = self.form, (rows, cols)
        return other

    def with_values(self, values):
        """The same positions and weights with other measurements; shares what was sorted."""
        other = self._new()._measure(kept(check_values(self, values), values))
        other._entries = other.values if self._weights is None else None
        return other

    def _moved(self, device):
        rows, cols, entries = (move(a, device) for a in (self.rows, self.cols, self.entries))
        weights = None if self.weights is None else move(self.weights, device)
        with on_device_of(entries):
            moved = self._new()._assign(rows, cols, entries, self.shape, weights, self.times)
            moved.known = self._known(lambda design, side: design.moved(lambda array: move(array, device)))
            return moved

    def fill(self, matrix):
        rows, cols, values = to_host(self.rows), to_host(self.cols), to_host(self.entries)
        weights = None if self.weights is None else to_host(self.weights)
        first = self.new_positions
        group = np.cumsum(first) - 1
        means = values[first]
        if not first.all():  # repeated measurements
            total = np.bincount(group, weights=values if weights is None else weights * values)
            means = total / np.bincount(group, weights=weights)
        result = np.array(to_host(matrix))
        result[rows[first], cols[first]] = means
        return from_host(result, matrix)
