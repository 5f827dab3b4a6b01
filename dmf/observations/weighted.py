"""Sampled entries that are not all known equally well."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from dmf.arrays.backend import Array, as_array, floating, from_host, move, namespace, number, on_device_of, to_host
from dmf.errors import ArgumentError, ObservationError, ShapeError
from dmf.observations.base import Observations, Ridge
from dmf.observations.checks import check_factor, check_finite, check_values
from dmf.observations.entries import SampledEntries, is_cupy_sparse


class WeightedEntries(SampledEntries):
    """Entries of a matrix with a weight each: the noise variance of an entry is that of the model over its weight.

    As measurements of the contract they are ``y_k = sqrt(w_k) X[rows[k], cols[k]]``, whose noise is the same for all; so every
    solver knows what to do with them. Noise levels that solvers find are those of an entry of weight 1. Two measurements
    of one entry count as much as one of twice the weight.

    Parameters
    ----------
    rows, cols : integer arrays, shape (m,)
        Positions, from 0.
    values : array, shape (m,)
        The entries: finite numbers, not yet multiplied by anything.
    shape : (int, int)
        (d1, d2), each below 2**31.
    weights : array, shape (m,), optional
        Finite and at least 0; an entry of weight 0 counts as not observed. All are 1 unless given.

    Attributes
    ----------
    rows, cols : int32 arrays, shape (m,)
        The positions, sorted by row, then by column; without those of weight 0.
    values : array, shape (m,)
        The measurements y in that order: entries times the square roots of their weights.
    weights : array, shape (m,)
        In that order, in the dtype of the values.

    Raises
    ------
    ShapeError, DTypeError, BackendError, ObservationError
        If lengths differ, indices are no integers or out of range, values or weights are not finite, a weight is negative,
        or nothing is observed.
    """

    def __init__(
        self, rows: Array, cols: Array, values: Array, shape: tuple[int, int], weights: Array | None = None
    ) -> None:
        entries = SampledEntries(rows, cols, values, shape)
        if weights is None:
            self._weigh(entries, namespace(entries.values).ones_like(entries.values))
            return
        namespace(entries.values, as_array(weights, "weights"))
        weights = _checked_weights(weights, entries)
        # The same positions are sorted alike, repeated ones in the order given.
        weights = SampledEntries(rows, cols, weights, shape).values
        counting = to_host(weights) > 0
        if not counting.any():
            raise ObservationError(
                "all weights are 0, so that no entry is observed, but at least 1 is needed to learn anything.",
                argument="weights",
                value=0,
                limit=1,
            )
        if not counting.all():
            entries = entries._subset(counting)
            weights = namespace(weights).take(weights, from_host(np.flatnonzero(counting), weights))
        self._weigh(entries, weights)

    def _weigh(self, entries: SampledEntries, weights: Array) -> WeightedEntries:
        """Take over entries and their weights, both in order."""
        self.rows, self.cols, self.shape, self._kernel = entries.rows, entries.cols, entries.shape, entries._kernel
        self._weights, self._roots = weights, namespace(weights).sqrt(weights)
        self._entries: SampledEntries | None = entries
        self.values = self._roots * entries.values
        return self

    @property
    def weights(self):
        return self._weights

    @property
    def unweighted(self):
        if self._entries is None:
            entries = SampledEntries.__new__(SampledEntries)
            entries.rows, entries.cols, entries.shape, entries._kernel = self.rows, self.cols, self.shape, self._kernel
            entries.values = self.values / self._roots
            self._entries = entries
        return self._entries

    def predict(self, left, right):
        return self._roots * super().predict(left, right)

    def adjoint(self, weights, left, right):
        return super().adjoint(self._roots * check_values(self, weights), left, right)

    def evaluate(self, left, right):
        return Observations.evaluate(self, left, right)

    @property
    def gain(self):
        return number(namespace(self.weights).sum(self.weights)) / (self.shape[0] * self.shape[1])

    def ridge(self, side, factor, penalty, variances=None, start=None, means=None):
        check_factor(self, side, factor)
        return Ridge(*self._kernel.ridge(side, self.values, factor, penalty, variances, means, self._roots))

    def tangent_step(self, u, vt, target, damping, tolerance, iterations):
        return Observations.tangent_step(self, u, vt, target, damping, tolerance, iterations)

    def descent(self, widths):
        return None

    def centred(self):
        xp = namespace(self.values)
        mean = number(xp.sum(self._roots * self.values)) / number(xp.sum(self.weights))
        return mean, self.with_values(self.values - mean * self._roots)

    def with_values(self, values):
        other = WeightedEntries.__new__(WeightedEntries)
        other.rows, other.cols, other.shape, other._kernel = self.rows, self.cols, self.shape, self._kernel
        other._weights, other._roots, other._entries = self._weights, self._roots, None
        other.values = check_values(self, values)
        return other

    def _moved(self, device):
        weights = move(self.weights, device)
        with on_device_of(weights):
            return WeightedEntries.__new__(WeightedEntries)._weigh(self.unweighted._moved(device), weights)

    def _subset(self, mask):
        index = from_host(np.flatnonzero(mask), self.values)
        weights = namespace(self.weights).take(self.weights, index)
        return WeightedEntries.__new__(WeightedEntries)._weigh(self.unweighted._subset(mask), weights)


def _checked_weights(weights: Any, entries: SampledEntries) -> Array:
    """Weights in the dtype of the entries."""
    count = entries.n_measurements
    weights = floating(as_array(weights, "weights"), "weights")
    if tuple(weights.shape) != (count,):
        raise ShapeError(
            f"weights have shape {tuple(weights.shape)}, but there are {count} values. Pass one for each.",
            argument="weights",
            value=tuple(weights.shape),
            limit=(count,),
        )
    with np.errstate(over="ignore"):  # of NumPy's casts: what is infinite then is refused below
        weights = namespace(weights).astype(weights, entries.dtype)
    check_finite(
        weights, "weights", "Pass 0 for entries that are not to count, and scale weights to a mean of about 1."
    )
    least = number(namespace(weights).min(weights))
    if least < 0:
        raise ObservationError(
            f"weights hold {least:g}, but a weight is the inverse of a variance, up to a common factor. Pass 0 for entries "
            "that are not to count.",
            argument="weights",
            value=least,
            limit=0,
        )
    return weights


def as_entries(data: Any, weights: Any = None) -> SampledEntries:
    """Sampled entries from any form in which users have them.

    Parameters
    ----------
    data : SampledEntries, array with NaN, or SciPy sparse matrix
    weights : array or SciPy sparse matrix, of the shape of `data`, optional
        Looked at where entries are observed.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, BackendError, ObservationError
        If data or weights cannot be used, or `data` have weights of their own.
    """
    if isinstance(data, SampledEntries):
        if weights is not None:
            raise ArgumentError(
                f"weights are given for {type(data).__name__}, but a matrix of weights goes with an array or a sparse matrix. "
                "Pass WeightedEntries(rows, cols, values, shape, weights) instead.",
                argument="weights",
                value=type(data).__name__,
                limit=None,
            )
        return data
    sparse = scipy.sparse.issparse(data) or is_cupy_sparse(data)
    entries = SampledEntries.from_sparse(data) if sparse else SampledEntries.from_dense(as_array(data, "data"))
    if weights is None:
        return entries
    weights = weights.tocsr() if scipy.sparse.issparse(weights) else as_array(weights, "weights")
    if tuple(weights.shape) != entries.shape:
        raise ShapeError(
            f"weights have shape {tuple(weights.shape)}, but the matrix {entries.shape}. Pass one for each entry.",
            argument="weights",
            value=tuple(weights.shape),
            limit=entries.shape,
        )
    if scipy.sparse.issparse(weights):
        at = np.asarray(weights[entries.rows, entries.cols]).ravel()
    else:
        xp = namespace(weights, entries.rows)
        rows, cols = (xp.astype(index, xp.int64) for index in (entries.rows, entries.cols))
        at = xp.take(xp.reshape(weights, (-1,)), rows * entries.shape[1] + cols)
    return WeightedEntries(entries.rows, entries.cols, entries.values, entries.shape, at)
