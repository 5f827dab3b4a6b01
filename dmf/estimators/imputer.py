"""`TableImputer`: imputation of tables whose columns have different units and kinds."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import _check_feature_names, _check_n_features, check_is_fitted

from dmf.errors import ArgumentError
from dmf.estimators.tables import read_table, seed_of, without_marks
from dmf.tables import complete_table
from dmf.tables.frames import library_of


class TableImputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Fill the holes of a table whose columns have different units and kinds, by `dmf.complete_table`.

    For matrices whose cells have one unit, such as ratings, see `DeepMatrixCompletion`.

    Parameters
    ----------
    kinds : mapping of column names (numbers for arrays) to str, optional
        "real", "count", "boolean", "ordinal" or "nominal", where the dtype does not say it; see `dmf.complete_table`.
    bounds : (float, float) or mapping of column names to such, optional
        Least and largest value filled in.
    missing_values : float
        A number that marks missing cells, such as -999, besides NaN.
    random_state : int, RandomState instance or None
        Seed; one integer gives one result.

    Attributes
    ----------
    recovery_ : dmf.TableRecovery
        What was fitted; it gives probabilities of levels and draws as well.
    n_features_in_ : int
    feature_names_in_ : array of str, shape (n_features_in_,)
        Only if X had column names that are all strings.

    Notes
    -----
    Rows that were fitted and new ones are filled alike: each from its own cells, by the fitted distribution. Columns without any
    entry are left empty. Arrays, and data frames of numbers, give arrays (or what `set_output` says); data frames that hold
    anything else give data frames with the same dtypes.

    Examples
    --------
    >>> import numpy as np
    >>> from dmf.estimators import TableImputer
    >>> x = np.random.default_rng(0).standard_normal((100, 1))
    >>> table = np.hstack([x, 10 * x, 3 - x])
    >>> table[4, 1] = np.nan
    >>> bool(abs(TableImputer().fit_transform(table)[4, 1] - 10 * x[4, 0]) < 0.1)
    True
    """

    def __init__(
        self, *, kinds: Any = None, bounds: Any = None, missing_values: float = np.nan, random_state: Any = 0
    ) -> None:
        self.kinds = kinds
        self.bounds = bounds
        self.missing_values = missing_values
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> TableImputer:
        """Fit distributions of the rows to the entries that are there.

        Parameters
        ----------
        X : array or data frame, shape (n_samples, n_features)
            Missing are NaN and None. Arrays hold numbers.
        y : ignored
        sample_weight : array, shape (n_samples,), optional
            How often each row counts.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X holds infinities or no entry at all, or a parameter is out of range (`dmf.errors.ArgumentError` and kin).
        """
        return self._fit(self._table(X, first=True), sample_weight)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> TableImputer:
        """Add rows to those fitted so far, and fit all of them again.

        The result is that of `fit` on all rows seen so far, one table above the other; to fill new rows without fitting,
        `transform` them.

        Parameters
        ----------
        X : array or data frame, shape (n, n_features)
            More rows, in the same columns.
        y : ignored
        sample_weight : array, shape (n,), optional
            As in `fit`; 1 unless given.

        Returns
        -------
        self
        """
        if not hasattr(self, "recovery_"):
            return self.fit(X, sample_weight=sample_weight)
        above, below = self._fitted, self._table(X, first=False)
        old, new = self.recovery_.row_weights, sample_weight
        weights = None
        if old is not None or new is not None:
            weights = np.concatenate([
                np.ones(len(part)) if given is None else np.asarray(given, float)
                for part, given in ((above, old), (below, new))
            ])  # fmt: skip
        library = library_of(above)
        if library_of(below) != library:
            raise ArgumentError(
                f"X is a table of {library_of(below)}, but the rows fitted so far are one of {library}. Pass the same type.",
                argument="X",
                value=library_of(below),
                limit=library,
            )
        if library == "numpy":
            return self._fit(np.vstack([above, below]), weights)
        both = import_module(library).concat([above, below])
        return self._fit(both.reset_index(drop=True) if library == "pandas" else both, weights)

    def transform(self, X: Any) -> Any:
        """Fill the holes of rows.

        Parameters
        ----------
        X : array or data frame, shape (n, n_features)

        Returns
        -------
        array or data frame, shape (n, n_features)
            Entries that were there are kept.
        """
        check_is_fitted(self)
        return self.recovery_.filled(self._table(X, first=False))

    def intervals(self, X: Any, coverage: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Intervals that hold what is missing in rows; see `dmf.TableRecovery.intervals`.

        Parameters
        ----------
        X : array or data frame, shape (n, n_features)
        coverage : float, 0 < coverage < 1

        Returns
        -------
        low, high : arrays, shape (n, n_features)
        """
        check_is_fitted(self)
        return self.recovery_.intervals(coverage, self._table(X, first=False))

    def _fit(self, table: Any, sample_weight: Any) -> TableImputer:
        self.recovery_ = complete_table(
            table,
            kinds=self._by_place(table, self.kinds),
            bounds=self._by_place(table, self.bounds),
            sample_weight=sample_weight,
            seed=seed_of(self.random_state),
        )
        self._fitted = table
        return self

    def _by_place(self, table: Any, given: Any) -> Any:
        """What is given by the names of columns, by their numbers where a data frame became an array."""
        names = getattr(self, "feature_names_in_", None)
        if names is None or not isinstance(given, Mapping) or library_of(table) != "numpy":
            return given
        places = {name: place for place, name in enumerate(names)}
        return {places.get(name, name): value for name, value in given.items()}

    def _table(self, X: Any, *, first: bool) -> Any:
        """The table with its names checked: an array of numbers, or a data frame that holds other things."""
        if not _is_mixed(X):
            return read_table(self, X, first=first)
        _check_feature_names(self, X, reset=first)
        _check_n_features(self, X, reset=first)
        return without_marks(X, self.missing_values)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _is_mixed(X: Any) -> bool:
    """Whether a table is a data frame with columns that are not of numbers."""
    library = library_of(X)
    if library == "pandas":
        return any(getattr(dtype, "kind", "O") not in "fiu" for dtype in X.dtypes)
    if library == "pyarrow":
        return not all(
            str(dtype).startswith(("int", "uint", "float", "double", "halffloat")) for dtype in X.schema.types
        )
    return library == "polars" and not all(dtype.is_numeric() for dtype in X.dtypes)
