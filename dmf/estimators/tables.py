"""What the estimators share: reading tables, units of columns, seeds."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from dmf.errors import DTypeError
from dmf.observations import SampledEntries
from dmf.observations.conversion import as_entries

DTYPES = [np.float64, np.float32]  # others become the first
_CONSTANT = 10  # units in the last place of the largest entry: columns that vary by less are constant


def read_table(estimator: Any, X: Any, *, first: bool, accept_sparse: bool = False) -> Any:
    """`X` as a float array or CSR matrix, checked as scikit-learn does; NaN pass, infinities do not.

    Parameters
    ----------
    first : bool
        Whether this is the table that is fitted: its number of columns and their names are kept.
    """
    try:
        return validate_data(
            estimator,
            X,
            reset=first,
            accept_sparse="csr" if accept_sparse else False,
            dtype=DTYPES,
            ensure_all_finite="allow-nan",
        )
    except ValueError as error:
        if "could not convert" not in str(error):
            raise
        raise DTypeError(
            f"X holds text ({error}), but low-rank recovery takes numbers. Leave such columns out or encode them first, for "
            "example with sklearn.preprocessing.OneHotEncoder in a ColumnTransformer.",
            argument="X",
            value=type(X).__name__,
            limit="numbers",
        ) from error


def observed(X: Any, weights: Any = None) -> SampledEntries:
    """The entries of a checked table that are there: not NaN in an array, stored in a sparse matrix."""
    if weights is not None and not scipy.sparse.issparse(weights):
        weights = np.asarray(weights)
    return as_entries(X, weights)


def _like(entries: SampledEntries, values: np.ndarray, kept: np.ndarray | slice = slice(None)) -> SampledEntries:
    """Some of the entries of a table, with other values, and the weights that they had."""
    weights = None if entries.weights is None else entries.weights[kept]
    return SampledEntries(entries.rows[kept], entries.cols[kept], values, entries.shape, weights)


def in_dtype(entries: SampledEntries, dtype: Any) -> SampledEntries:
    """The same entries in the dtype of a model."""
    if entries.dtype == dtype:
        return entries
    return _like(entries, entries.entries.astype(dtype))


def stacked(above: SampledEntries, below: SampledEntries) -> SampledEntries:
    """The entries of two tables with the same columns, one above the other, in the dtype of the upper one."""
    rows, cols = np.concatenate([above.rows, below.rows + above.shape[0]]), np.concatenate([above.cols, below.cols])
    values = np.concatenate([above.entries, in_dtype(below, above.dtype).entries])
    shape = (above.shape[0] + below.shape[0], above.shape[1])
    if above.weights is None and below.weights is None:
        return SampledEntries(rows, cols, values, shape)
    weights = [np.ones_like(part.values) if part.weights is None else part.weights for part in (above, below)]
    return SampledEntries(rows, cols, values, shape, np.concatenate(weights))


def seed_of(random_state: Any) -> int:
    """Seed for dmf: an integer is itself; of a generator or None, the next number."""
    if isinstance(random_state, numbers.Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


@dataclass(frozen=True, eq=False)
class ColumnUnits:
    """Zero and unit of each column.

    Parameters
    ----------
    center, scale : arrays, shape (d2,)
        A scale of 0 marks a column that tells nothing of the rows.
    """

    center: np.ndarray
    scale: np.ndarray

    @classmethod
    def plain(cls, entries: SampledEntries) -> ColumnUnits:
        """Units that change nothing."""
        return cls(np.zeros(entries.shape[1], entries.dtype), np.ones(entries.shape[1], entries.dtype))

    @classmethod
    def standard(cls, entries: SampledEntries) -> ColumnUnits:
        """Mean and standard deviation of each column's entries, by their weights; of all entries, for columns without any.

        Columns that are constant get the scale 0.
        """
        cols, values, size = entries.cols, entries.entries.astype(np.float64), entries.shape[1]
        weights = np.ones_like(values) if entries.weights is None else entries.weights.astype(np.float64)
        count = np.bincount(cols, weights, size)
        mean = np.average(values, weights=weights)
        deviation = np.sqrt(np.average((values - mean) ** 2, weights=weights))
        center, scale = np.full(size, mean), np.full(size, deviation)
        there = count > 0
        center[there] = np.bincount(cols, weights * values, size)[there] / count[there]
        squares = np.bincount(cols, weights * (values - center[cols]) ** 2, size)
        scale[there] = np.sqrt(squares[there] / count[there])
        largest = np.zeros(size)
        np.maximum.at(largest, cols, np.abs(values))
        scale[scale <= _CONSTANT * np.finfo(entries.dtype).eps * largest] = 0
        return cls(center.astype(entries.dtype), scale.astype(entries.dtype))

    def telling(self, entries: SampledEntries) -> SampledEntries | None:
        """The entries in these units, without constant columns; None if nothing is left."""
        kept = self.scale[entries.cols] > 0
        if not kept.any():
            return None
        cols = entries.cols[kept]
        values = (entries.entries[kept] - self.center[cols]) / self.scale[cols]
        return _like(entries, values, kept)

    def restored(self, table: np.ndarray) -> np.ndarray:
        """A table (n, d2) in these units in those of the data."""
        return table * self.scale + self.center
