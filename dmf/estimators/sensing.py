"""`DeepMatrixSensing`: linear regression on matrices, with a matrix of coefficients of low rank."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from dmf.arrays.checks import check_option
from dmf.completion.calls import sense, solve_on
from dmf.errors import ShapeError
from dmf.estimators.tables import DTYPES, seed_of
from dmf.observations import LinearMeasurements
from dmf.observations.checks import check_shape


class DeepMatrixSensing(RegressorMixin, BaseEstimator):
    """Linear regression ``y = <A, M>`` on matrices A, with a coefficient matrix M of low rank.

    There is no intercept. Rank and noise level are found from the data.

    Parameters
    ----------
    rank : int, 1 <= rank <= min(d1, d2), optional
        Upper bound on the rank; found from the data unless given.
    shape : (int, int), optional
        (d1, d2) of the matrices, whose rows are joined in each row of X. Unless given, (n_features, 1): a vector of
        coefficients.
    max_iter : int, >= 0
        Most iterations of all solvers together, for each fit.
    random_state : int, RandomState instance or None
        Seed; one integer gives one result.
    device : str
        Where `fit` computes: "cpu", "cuda" or "cuda:N". All arrays that go in and come out are NumPy's.

    Attributes
    ----------
    recovery_ : dmf.Recovery
    matrix_ : array, shape (d1, d2)
        The coefficients M.
    coef_ : array, shape (n_features,)
        The same, row after row.
    rank_ : int
        Rank found.
    noise_ : float
        Standard deviation of the noise in y; 0 where the recovery is exact.
    n_iter_ : int
        Iterations of all solvers together.
    n_features_in_ : int
    feature_names_in_ : array of str, shape (n_features_in_,)
        Only if X had column names that are all strings.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from dmf.estimators import DeepMatrixSensing
    >>> A = np.random.default_rng(0).standard_normal((40, 6 * 5))
    >>> M = np.outer(np.arange(6.0), np.ones(5))
    >>> print(DeepMatrixSensing(shape=(6, 5)).fit(A, A @ M.ravel()).rank_)
    1
    """

    def __init__(
        self,
        rank: int | None = None,
        *,
        shape: tuple[int, int] | None = None,
        max_iter: int = 10_000,
        random_state: Any = 0,
        device: str = "cpu",
    ) -> None:
        self.rank = rank
        self.shape = shape
        self.max_iter = max_iter
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any) -> DeepMatrixSensing:
        """Find the matrix of coefficients.

        Parameters
        ----------
        X : array, DataFrame or sparse matrix, shape (n_samples, d1 * d2)
            A measurement matrix in each row.
        y : array, shape (n_samples,)

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the data are not finite numbers, the shapes do not fit, or a parameter is out of range (`dmf.errors.ArgumentError`
            and kin).
        """
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=DTYPES, y_numeric=True)
        shape = (X.shape[1], 1) if self.shape is None else check_shape(self.shape)
        if shape[0] * shape[1] != X.shape[1]:
            raise ShapeError(
                f"shape={self.shape!r}, but X has {X.shape[1]} features, and matrices of this shape have "
                f"{shape[0] * shape[1]} entries. Pass shape=(d1, d2) with d1 * d2 = {X.shape[1]}.",
                argument="shape",
                value=self.shape,
                limit=X.shape[1],
            )
        measured = LinearMeasurements(
            X.reshape(-1, *shape) if isinstance(X, np.ndarray) else X, y.astype(X.dtype, copy=False), shape
        )
        options = {
            "rank": self.rank,
            "iterations": int(check_option("max_iter", self.max_iter, whole=True)),
            "seed": seed_of(self.random_state),
        }
        recovery = solve_on(self.device, sense, measured, **options)
        self.recovery_, self.rank_ = recovery, recovery.found.rank
        self.matrix_ = recovery.product()
        self.coef_ = self.matrix_.ravel()
        self.noise_ = recovery.found.noise
        self.n_iter_ = recovery.nit
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Measurements ``<A_i, M>`` of the matrices in the rows of X, shape (n,)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, accept_sparse="csr", dtype=DTYPES)
        return X @ self.coef_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
