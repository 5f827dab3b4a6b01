"""`ImplicitRecommender`: what rows choose next, from counts of what they chose."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from dmf.arrays.checks import check_option
from dmf.completion.calls import complete, solve_on
from dmf.estimators.tables import DTYPES, in_dtype, seed_of
from dmf.observations import SampledEntries
from dmf.recovery.fold_in import factors_of_counts, new_rows
from dmf.recovery.ranking import top_columns


class ImplicitRecommender(TransformerMixin, BaseEstimator):
    """Rank the columns of each row by how likely it chooses them, from how often it chose others.

    A cell that is 0, or not stored in a sparse matrix, was never chosen: that counts, too, with less weight. Rank and weights are
    those that rank held-out counts best; see `dmf.complete` with ``feedback="implicit"``.

    Parameters
    ----------
    rank : int, 1 <= rank <= min(n_samples, n_features), optional
        Upper bound on the rank; found from the data unless given.
    holdout : float, 0 <= holdout < 1
        Share of the counts that a first fit does not see, for an honest ``recovery_.ranking``; then all are fitted.
    max_iter : int, >= 0
        Most sweeps of each fit.
    random_state : int, RandomState instance or None
        Seed; one integer gives one result.
    device : str
        Where `fit` computes: "cpu", "cuda" or "cuda:N". All arrays that go in and come out are NumPy's.

    Attributes
    ----------
    recovery_ : dmf.Recovery
        The fitted model; `dmf.recovery.ranking.nearest_columns` finds what is alike in it.
    rank_ : int
        Rank found.
    components_ : array, shape (rank_, n_features)
        Factors of the columns.
    n_iter_ : int
        Sweeps of all fits together, trials included.
    n_features_in_ : int
    feature_names_in_ : array of str, shape (n_features_in_,)
        Only if X had column names that are all strings.

    References
    ----------
    .. [1] Hu, Koren, Volinsky, Collaborative filtering for implicit feedback datasets, ICDM 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from dmf.estimators import ImplicitRecommender
    >>> plays = np.kron(np.eye(2), np.ones((6, 5)))  # two kinds of listeners
    >>> plays[0, 4] = 0
    >>> ImplicitRecommender().fit(plays).recommend(plays[:1], 1)
    array([[4]])
    """

    def __init__(
        self,
        rank: int | None = None,
        *,
        holdout: float = 0.0,
        max_iter: int = 10_000,
        random_state: Any = 0,
        device: str = "cpu",
    ) -> None:
        self.rank = rank
        self.holdout = holdout
        self.max_iter = max_iter
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any = None) -> ImplicitRecommender:
        """Fit factors to all cells.

        Parameters
        ----------
        X : array, DataFrame or sparse matrix, shape (n_samples, n_features)
            How often each row chose each column, at least 0; some cell must have been chosen.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a count is negative or none is positive, or a parameter is out of range (`dmf.errors.ArgumentError` and kin).
        """
        recovery = solve_on(
            self.device,
            complete,
            self._counts(X, first=True),
            rank=self.rank,
            feedback="implicit",
            holdout=self.holdout,
            iterations=int(check_option("max_iter", self.max_iter, whole=True)),
            seed=seed_of(self.random_state),
        )
        self.recovery_, self.rank_, self.n_iter_ = recovery, recovery.found.rank, recovery.nit
        self.components_ = recovery.model.halves()[1]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Factors of rows, each fitted to its own counts, the factors of the columns given.

        Parameters
        ----------
        X : array, DataFrame or sparse matrix, shape (n, n_features)

        Returns
        -------
        array, shape (n, rank_)
            ``transform(X) @ components_`` are the scores.
        """
        check_is_fitted(self)
        return factors_of_counts(self.recovery_, self._new(X)).rows

    def recommend(self, X: Any, count: int = 10, *, exclude_chosen: bool = True) -> np.ndarray:
        """The columns that rows, fitted or new, choose most likely.

        Parameters
        ----------
        X : array, DataFrame or sparse matrix, shape (n, n_features)
            Their counts.
        count : int, >= 1
        exclude_chosen : bool
            Leave out what a row has chosen already.

        Returns
        -------
        integer array, shape (n, count)
            Positions of columns, best first; -1 where fewer are left.
        """
        check_is_fitted(self)
        counts = self._new(X)
        n = counts.shape[0]
        found = new_rows(self.recovery_, counts)
        rows, columns, _ = top_columns(found, np.arange(n), count, counts if exclude_chosen else None)
        best = np.full((n, count), -1)
        best[rows, np.arange(rows.size) - np.searchsorted(rows, rows)] = columns
        return best

    def _new(self, X: Any) -> SampledEntries:
        return in_dtype(self._counts(X, first=False), self.recovery_.model.dtype)

    def _counts(self, X: Any, *, first: bool) -> SampledEntries:
        X = validate_data(self, X, reset=first, accept_sparse="csr", dtype=DTYPES, ensure_non_negative=True)
        there = scipy.sparse.coo_array(X)
        there.eliminate_zeros()
        if there.nnz == 0:  # of which the solver tells what is wrong
            return SampledEntries([0], [0], np.zeros(1, X.dtype), X.shape)
        return SampledEntries.from_sparse(there)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
