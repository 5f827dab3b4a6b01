"""What the estimators share: reading tables, seeds."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from dmf.arrays.backend import as_array, floating
from dmf.errors import DTypeError, ShapeError
from dmf.io.forms import is_sparse_dtype, is_time, read_form
from dmf.io.messages import listed
from dmf.observations import SampledEntries
from dmf.observations.conversion import as_entries
from dmf.tables.frames import library_of, names_of

DTYPES = [np.float64, np.float32]  # others become the first


def read_table(estimator: Any, X: Any, *, first: bool, accept_sparse: bool = False) -> Any:
    """`X` as a float array or CSR matrix, checked as scikit-learn does; NaN pass, infinities do not.

    Cells that hold the `missing_values` of the estimator, if it has that parameter, become NaN.

    Parameters
    ----------
    first : bool
        Whether this is the table that is fitted: its number of columns and their names are kept.
    """
    if isinstance(X, np.ma.MaskedArray):
        X = as_array(X, "X")
    if library_of(X) in ("pandas", "polars", "pyarrow"):
        X = _checked_frame(X)
    elif getattr(getattr(X, "dtype", None), "kind", "") in ("M", "m"):
        raise _no_numbers(X, f"dtype {X.dtype}")
    try:
        table = validate_data(
            estimator,
            X,
            reset=first,
            accept_sparse="csr" if accept_sparse else False,
            dtype=DTYPES,
            ensure_all_finite="allow-nan",
        )
    except (ValueError, np.exceptions.DTypePromotionError) as error:
        if isinstance(error, ValueError) and "could not convert" not in str(error):
            raise
        raise _no_numbers(X, str(error)) from error
    return without_marks(table, getattr(estimator, "missing_values", np.nan))


def _checked_frame(X: Any) -> Any:
    """A data frame whose columns have names of their own, no dates, and all of their cells."""
    names, dtypes = names_of(X), list(X.schema.types if library_of(X) == "pyarrow" else X.dtypes)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ShapeError(
            f"X has two columns called {twice!r}, but estimators know columns by name. Rename one.",
            argument="X",
            value=twice,
        )
    if dates := [repr(name) for name, dtype in zip(names, dtypes, strict=True) if is_time(dtype)]:
        raise _no_numbers(X, f"dates or times in {', '.join(listed(dates))}")
    if library_of(X) == "pyarrow":
        return read_form(X)[0]
    stored = {
        name: X[name].sparse.to_dense() for name, dtype in zip(names, dtypes, strict=True) if is_sparse_dtype(dtype)
    }
    return X.assign(**stored) if stored else X


def _no_numbers(X: Any, reason: str) -> DTypeError:
    return DTypeError(
        f"X holds what is no number ({reason}), but low-rank recovery takes numbers. Leave such columns out or encode them, "
        "for example with sklearn.preprocessing.OneHotEncoder in a ColumnTransformer.",
        argument="X",
        value=type(X).__name__,
        limit="numbers",
    )


def without_marks(X: Any, mark: Any) -> Any:
    """A table with its cells that hold `mark` missing; those that are NaN are in any case."""
    if mark is None or mark != mark:
        return X
    library = library_of(X)
    if library == "pandas":
        return X.mask(X.eq(mark))
    if library == "polars":
        numeric = [name for name, dtype in zip(X.columns, X.dtypes, strict=True) if dtype.is_numeric()]
        return X.with_columns(X[name].set(X[name] == mark, None) for name in numeric)
    if not scipy.sparse.issparse(X):
        return np.where(np.equal(X, mark), np.asarray(np.nan, X.dtype), X)
    kept = X.tocoo()
    known = kept.data != mark
    return type(kept)((kept.data[known], (kept.row[known], kept.col[known])), kept.shape).tocsr()


def observed(X: Any, weights: Any = None, sample_weight: Any = None) -> SampledEntries:
    """The entries of a checked table that are there: not NaN in an array, stored in a sparse matrix."""
    if weights is not None and not scipy.sparse.issparse(weights):
        weights = np.asarray(weights)
    entries = as_entries(X, weights)
    if sample_weight is None:
        return entries
    by_row = np.asarray(sample_weight)
    if by_row.shape != X.shape[:1]:
        raise ShapeError(
            f"sample_weight has shape {by_row.shape}, but X has {X.shape[0]} rows. Pass one number for each of them; `weights` "
            "takes one for each entry.",
            argument="sample_weight",
            value=by_row.shape,
            limit=X.shape[:1],
        )
    product = floating(by_row, "sample_weight")[entries.rows] * (1 if entries.weights is None else entries.weights)
    return SampledEntries(entries.rows, entries.cols, entries.entries, entries.shape, product)


def in_dtype(entries: SampledEntries, dtype: Any) -> SampledEntries:
    """The same entries in the dtype of a model."""
    if entries.dtype == dtype:
        return entries
    return SampledEntries(entries.rows, entries.cols, entries.entries.astype(dtype), entries.shape, entries.weights)


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
