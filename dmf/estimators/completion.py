"""`DeepMatrixCompletion`: low-rank completion of matrices whose cells have one unit."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from dmf.arrays.backend import on_device_of
from dmf.arrays.checks import check_bounds, check_option
from dmf.completion.calls import complete
from dmf.completion.ranks import rank_path
from dmf.errors import ArgumentError
from dmf.estimators.tables import in_dtype, observed, read_table, seed_of, stacked
from dmf.io.messages import listed
from dmf.observations import SampledEntries
from dmf.recovery.fold_in import new_rows, unknown_row
from dmf.recovery.intervals import half_width
from dmf.tables.units import look_alike

_LARGEST_LOOKED_AT = 10_000_000  # cells of a matrix whose columns are looked at for their units


class DeepMatrixCompletion(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Fill the holes of a matrix with what a low-rank matrix fitted to the other entries holds there.

    For matrices whose cells have one unit, such as ratings; `TableImputer` is for tables whose columns have different ones.
    Rank and noise level are found from the data. Missing are NaN in an array or DataFrame; in a SciPy sparse matrix, all that is
    not stored (explicit zeros are observed). Results are dense.

    Parameters
    ----------
    rank : int, 1 <= rank <= min(n_samples, n_features), or "path", optional
        Upper bound on the rank; found from the data unless given. "path": the smallest rank that predicts held-out
        entries as well as any does, by `dmf.completion.rank_path`; then all entries are fitted. Takes a fit for each rank.
    offsets : bool or "auto"
        Whether the model has row and column offsets, as in `dmf.complete`.
    min_value, max_value : float or array, shape (n_features,)
        Least and largest value filled in, for all columns or for each. Entries that were there are kept.
    holdout : float, 0 <= holdout < 1
        Share of the entries held out first, for honest errors and `intervals`, as in `dmf.complete`; then all are fitted.
    outliers : bool
        Whether some entries may be wrong: they are found and left out, as in `dmf.complete`, and `fit_transform` says what should
        be there. Of new rows, which `transform` fills, every entry counts.
    max_iter : int, >= 0
        Most iterations of all solvers together, for each fit.
    missing_values : float
        A number that marks missing cells, such as -999, besides NaN.
    random_state : int, RandomState instance or None
        Seed; one integer gives one result.
    device : str
        Where `fit` computes: "cpu", "cuda" or "cuda:N". All arrays that go in and come out are NumPy's.

    Attributes
    ----------
    recovery_ : dmf.Recovery
        The fitted model; its `observations` are the entries fitted. With `holdout` its `heldout` holds the errors, with
        `outliers` its `outliers` tells those that were found.
    rank_path_ : dmf.completion.RankPath
        Only if `rank` is "path"; `dmf.report.pictures.plot_rank_path` draws it.
    rank_ : int
        Rank found.
    noise_ : float
        Standard deviation of the noise; 0 where the recovery is exact.
    components_ : array, shape (max(rank_, 1), n_features)
        Right factor of the model, with orthonormal rows.
    n_iter_ : int
        Iterations of all solvers together.
    n_features_in_ : int
    feature_names_in_ : array of str, shape (n_features_in_,)
        Only if X had column names that are all strings.

    Notes
    -----
    A column without any entry is kept, with a warning: it is filled with the means of rows, or, where columns seem to have units
    of their own, left empty. Rows without any entry get the mean of the fitted ones.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061). Lim, Teh, KDD Cup 2007 (variational Bayes for factor models).

    Examples
    --------
    >>> import numpy as np
    >>> from dmf.estimators import DeepMatrixCompletion
    >>> table = np.outer(np.arange(1.0, 9.0), [1.0, 2.0, 3.0, 4.0])
    >>> table[1, 2] = np.nan
    >>> print(DeepMatrixCompletion().fit_transform(table)[1].round(6))
    [2. 4. 6. 8.]
    """

    def __init__(
        self,
        rank: int | str | None = None,
        *,
        offsets: bool | str = "auto",
        min_value: Any = -np.inf,
        max_value: Any = np.inf,
        holdout: float = 0.0,
        outliers: bool = False,
        max_iter: int = 10_000,
        missing_values: float = np.nan,
        random_state: Any = 0,
        device: str = "cpu",
    ) -> None:
        self.rank = rank
        self.offsets = offsets
        self.min_value = min_value
        self.max_value = max_value
        self.holdout = holdout
        self.outliers = outliers
        self.max_iter = max_iter
        self.missing_values = missing_values
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, weights: Any = None) -> DeepMatrixCompletion:
        """Fit a low-rank matrix to the entries that are there.

        Parameters
        ----------
        X : array, DataFrame or sparse matrix, shape (n_samples, n_features)
            At least one entry must be there.
        y : ignored
        sample_weight : array, shape (n_samples,), optional
            How much the entries of each row count, as `weights` do, which they multiply; a row of weight 0 counts as not seen.
        weights : array or sparse matrix, shape (n_samples, n_features), optional
            How much each entry counts, as in `dmf.complete`: the inverse of its noise variance, up to a common factor.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X holds text, infinities or no entry at all, or a parameter is out of range (`dmf.errors.ArgumentError` and kin).
        """
        return self._fit(observed(read_table(self, X, first=True, accept_sparse=True), weights, sample_weight))

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None, weights: Any = None) -> np.ndarray:
        """Fit, and fill the holes of `X` itself, each row with its own fitted factor.

        Returns
        -------
        array, shape (n_samples, n_features)
            Entries that were there are kept, but outliers that were found.
        """
        self.fit(X, sample_weight=sample_weight, weights=weights)
        fitted: Any = self.recovery_.observations
        return fitted.fill(self._completed(self.recovery_.product()))

    def partial_fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, weights: Any = None
    ) -> DeepMatrixCompletion:
        """Add rows to those fitted so far, and fit all of them again.

        The result is that of `fit` on all rows seen so far, one table above the other. Rows are always new ones: to change a
        row, fit anew. To fill new rows without fitting again, `transform` them.

        Parameters
        ----------
        X : array, DataFrame or sparse matrix, shape (n, n_features)
            More rows with holes, in the same columns.
        y : ignored
        sample_weight : array, shape (n,), optional
        weights : array or sparse matrix, shape (n, n_features), optional
            Both as in `fit`; 1 unless given.

        Returns
        -------
        self
        """
        if not hasattr(self, "_entries"):
            return self.fit(X, sample_weight=sample_weight, weights=weights)
        more = observed(read_table(self, X, first=False, accept_sparse=True), weights, sample_weight)
        return self._fit(stacked(self._entries, more))

    def transform(self, X: Any) -> np.ndarray:
        """Fill the holes of rows, each of which counts as a new one: only its own entries and the fitted columns matter.

        Rows that were fitted get nearly, but not exactly, what `fit_transform` gave them. See `dmf.new_rows`. Entries have
        weight 1.

        Parameters
        ----------
        X : array, DataFrame or sparse matrix, shape (n, n_features)

        Returns
        -------
        array, shape (n, n_features)
            Entries that were there are kept.
        """
        return self._filled(X)[0]

    def intervals(self, X: Any, coverage: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Intervals that hold what is missing in rows, from the errors on the entries held out.

        They hold a share `coverage` of the missing entries of all columns together, if these are missing at random; see
        `dmf.prediction_interval`. Their width is the same within a column.

        Parameters
        ----------
        X : array, DataFrame or sparse matrix, shape (n, n_features)
            As for `transform`.
        coverage : float, 0 < coverage < 1

        Returns
        -------
        low, high : arrays, shape (n, n_features)
            Entries that were there are their own interval.

        Raises
        ------
        ValueError
            If nothing was held out, or too little for this coverage (`dmf.errors.ArgumentError`).
        """
        table, entries = self._filled(X)
        half = half_width(self.recovery_, coverage)
        bounded = (self._clipped(self.recovery_.bounded(end)) for end in (table - half, table + half))
        low, high = (end.astype(table.dtype) for end in bounded)
        return (low, high) if entries is None else (entries.fill(low), entries.fill(high))

    def _filled(self, X: Any) -> tuple[np.ndarray, SampledEntries | None]:
        """The rows with their holes filled, and the entries that are there."""
        check_is_fitted(self)
        X = read_table(self, X, first=False, accept_sparse=True)
        nothing_there = X.nnz == 0 if scipy.sparse.issparse(X) else np.isnan(X).all()
        entries = None if nothing_there else observed(X)
        if entries is None:
            means = np.zeros(X.shape, X.dtype) + unknown_row(self.recovery_)
        else:
            means = new_rows(self.recovery_, in_dtype(entries, self.recovery_.model.dtype)).product()
        table = self._completed(means).astype(X.dtype)
        return (table if entries is None else entries.fill(table)), entries

    def _fit(self, entries: SampledEntries) -> DeepMatrixCompletion:
        bounds = self._bounds(entries.shape[1])
        there = entries.to_device(self.device)
        options: dict[str, Any] = {"offsets": self.offsets, "seed": seed_of(self.random_state)}
        rank: Any = self.rank
        limit = int(check_option("max_iter", self.max_iter, whole=True))
        with on_device_of(there.values):
            if isinstance(rank, str) and rank == "path":
                trusted: Any = there
                if self.outliers:
                    trusted = complete(there, outliers=self.outliers, iterations=limit, **options).observations
                path = self.rank_path_ = replace(rank_path(trusted, **options), observations=trusted.to_device("cpu"))
                rank, options["offsets"] = max(path.best, 1), path.offsets
            elif hasattr(self, "rank_path_"):  # of an earlier fit
                del self.rank_path_
            options |= {"holdout": self.holdout, "outliers": self.outliers, "iterations": limit}
            recovery = complete(there, rank, **options).to_device("cpu")
        self._entries = entries
        self._min, self._max = bounds
        self._unknown = _unknown_columns(entries)
        self.recovery_, self.rank_ = recovery, recovery.found.rank
        self.noise_ = recovery.found.noise
        self.components_ = recovery.model.vt
        self.n_iter_ = recovery.nit
        return self

    def _bounds(self, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of each column; ArgumentError unless they are numbers, the first below the second."""
        given = self.min_value, self.max_value
        try:
            low, high = (np.broadcast_to(np.add(bound, 0.0), (columns,)) for bound in given)  # text is no number
        except (TypeError, ValueError) as error:
            raise ArgumentError(
                f"min_value={given[0]!r} and max_value={given[1]!r}, but each is a number, or one for each of the {columns} "
                "columns.",
                argument="min_value, max_value",
                value=given,
                limit=columns,
            ) from error
        for pair in zip(low.tolist(), high.tolist(), strict=True):
            check_bounds(pair)
        return low, high

    def _completed(self, table: np.ndarray) -> np.ndarray:
        """Predictions within bounds, NaN where nothing is known, not even a unit."""
        table = self._clipped(table)
        table[:, self._unknown] = np.nan
        return table

    def _clipped(self, table: np.ndarray) -> np.ndarray:
        return np.clip(table, self._min.astype(table.dtype), self._max.astype(table.dtype))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _unknown_columns(entries: SampledEntries) -> np.ndarray:
    """Columns of which not even the unit is known: without any entry, and the others have units of their own.

    Both are warned of.
    """
    empty = np.flatnonzero(np.bincount(entries.cols, minlength=entries.shape[1]) == 0)
    if entries.shape[0] * entries.shape[1] > _LARGEST_LOOKED_AT:
        alike, reason = True, ""
    else:
        alike, reason = look_alike(entries.fill(np.full(entries.shape, np.nan)))
    problems = [] if alike else [f"{reason}: if columns have units of their own, fill them by TableImputer"]
    if len(empty):
        filled = "are filled with the means of rows" if alike else "stay empty"
        problems.append(
            f"{len(empty)} columns without any entry ({', '.join(listed(list(map(str, empty.tolist()))))}) {filled}"
        )
    if problems:
        warnings.warn("; ".join(problems) + ".", UserWarning, stacklevel=4)
    return empty[:0] if alike else empty
