"""`DeepMatrixFactorization`: a truncated singular value decomposition that finds its rank and takes missing values."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.extmath import svd_flip
from sklearn.utils.validation import check_is_fitted

from dmf.completion.calls import complete, solve_on
from dmf.completion.factorization import factorize
from dmf.errors import ShapeError
from dmf.estimators.tables import DTYPES, in_dtype, observed, read_table, seed_of
from dmf.observations import FullMatrix
from dmf.recovery.fold_in import new_rows


class DeepMatrixFactorization(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Project rows onto the singular vectors of a low-rank matrix: `TruncatedSVD` with a rank found from the data.

    Columns are not centred. Missing values (NaN) are allowed, in `fit` as in `transform`.

    Parameters
    ----------
    rank : int, 1 <= rank <= min(n_samples, n_features), optional
        Number of components, or, where values are missing, its upper bound. Unless given, the number that stands out of
        noise, but at least one.
    random_state : int, RandomState instance or None
        Seed; one integer gives one result.
    device : str
        Where `fit` computes: "cpu", "cuda" or "cuda:N". All arrays that go in and come out are NumPy's.

    Attributes
    ----------
    recovery_ : dmf.Recovery
        What `dmf.factorize` found, or `dmf.complete` (without offsets) where values were missing.
    components_ : array, shape (rank, n_features)
        Orthonormal rows: right singular vectors.
    singular_values_ : array, shape (rank,)
        Descending.
    explained_variance_ : array, shape (rank,)
        Variances of the fitted rows' scores.
    rank_ : int
        Rank found; 0 if nothing stands out of noise.
    noise_ : float
        Standard deviation of what the components leave in an entry.
    n_iter_ : int
        Iterations of the solvers; 0 where no value was missing.
    n_features_in_ : int
    feature_names_in_ : array of str, shape (n_features_in_,)
        Only if X had column names that are all strings.

    References
    ----------
    .. [1] Nakajima et al., JMLR 14 (2013) (the rank). Kwon et al., AISTATS 2024 (arXiv 2311.05061).

    Examples
    --------
    >>> import numpy as np
    >>> from dmf.estimators import DeepMatrixFactorization
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((50, 2)) @ rng.standard_normal((2, 20)) + 0.01 * rng.standard_normal((50, 20))
    >>> DeepMatrixFactorization().fit_transform(X).shape
    (50, 2)
    """

    def __init__(self, rank: int | None = None, *, random_state: Any = 0, device: str = "cpu") -> None:
        self.rank = rank
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any = None) -> DeepMatrixFactorization:
        """Find singular vectors and rank.

        Parameters
        ----------
        X : array or DataFrame, shape (n_samples, n_features)
            NaN: missing.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X holds text, infinities or no value at all, or a parameter is out of range (`dmf.errors.ArgumentError` and kin).
        """
        X = read_table(self, X, first=True)
        options = {"rank": self.rank, "seed": seed_of(self.random_state)}
        if np.isnan(X).any():
            recovery = solve_on(self.device, complete, observed(X), offsets=False, **options)
        else:
            recovery = solve_on(self.device, factorize, FullMatrix(X), **options)
        model = recovery.model
        u, self.components_ = svd_flip(model.u, model.vt, u_based_decision=False)
        self.singular_values_ = model.s
        self.explained_variance_ = np.var(u * model.s, axis=0)
        self.recovery_, self.rank_ = recovery, recovery.found.rank
        self.noise_ = recovery.found.noise
        self.n_iter_ = recovery.nit
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Scores of rows: coordinates in which `components_` are the axes.

        A row without missing values is projected, ``x @ components_.T``. Of a row with missing values, the scores are the
        posterior mean given the others, by ridge regression (see `dmf.new_rows`); zero if it has none.

        Parameters
        ----------
        X : array or DataFrame, shape (n, n_features)

        Returns
        -------
        array, shape (n, rank)
        """
        check_is_fitted(self)
        X = read_table(self, X, first=False)
        scores = np.nan_to_num(X) @ self.components_.T
        holed = np.isnan(X).any(axis=1)
        if np.isnan(X[holed]).all():  # also where there is no such row
            return scores
        left, right = new_rows(self.recovery_, in_dtype(observed(X[holed]), self.components_.dtype)).factors()
        scores[holed] = left @ (right @ self.components_.T)
        return scores

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Rows from scores: ``X @ components_``.

        Parameters
        ----------
        X : array, shape (n, rank)

        Returns
        -------
        array, shape (n, n_features)
        """
        check_is_fitted(self)
        X = check_array(X, dtype=DTYPES)
        if X.shape[1] != self.components_.shape[0]:
            raise ShapeError(
                f"X has {X.shape[1]} columns, but rows are made from {self.components_.shape[0]} scores. "
                "Pass what transform gave.",
                argument="X",
                value=X.shape[1],
                limit=self.components_.shape[0],
            )
        return X @ self.components_

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
