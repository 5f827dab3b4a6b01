"""Entries of a matrix from whatever form in which users have them."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmf.arrays.backend import as_array, is_cupy_sparse, is_numpy, is_sparse, namespace, to_host
from dmf.arrays.checks import check_kind
from dmf.errors import ArgumentError, ShapeError
from dmf.io.forms import read_form
from dmf.observations.base import Observations
from dmf.observations.entries import Entries
from dmf.observations.full import FullMatrix
from dmf.observations.sampled import SampledEntries


def on_host(data: Any) -> SampledEntries:
    """Entries as `as_entries` takes them, in float64 NumPy arrays; weights, names and form are kept.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, BackendError, ObservationError
        If data cannot be used, or are entries of which the positions are not known here.
    """
    entries = timeless(data)
    check_kind("data", entries, SampledEntries, "Pass SampledEntries, an array or a sparse matrix.")
    rows, cols, values = (to_host(array) for array in (entries.rows, entries.cols, entries.entries))
    weights = None if entries.weights is None else to_host(entries.weights).astype(float)
    there = SampledEntries(rows, cols, values.astype(float), entries.shape, weights)
    there.form = entries.form
    return there


def timeless(data: Any) -> Any:
    """Entries as `as_entries` takes them, for what knows nothing of times: an error where they have some."""
    entries = as_entries(data)
    if entries.times is not None:
        raise ArgumentError(
            "the entries have times, which only complete knows what to do with. Pass SampledEntries(rows, cols, values, shape) "
            "without, or use complete.",
            argument="times",
            value="given",
        )
    return entries


def as_entries(data: Any, weights: Any = None, times: Any = None) -> Any:
    """Entries of a matrix from any form in which users have them.

    Parameters
    ----------
    data : Entries, array with NaN, data frame or DataArray, or sparse matrix of SciPy or CuPy
    weights, times : array, data frame or SciPy sparse matrix, of the shape of `data`, optional
        Looked at where entries are observed.

    Returns
    -------
    Entries

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, BackendError, ObservationError
        If data, weights or times cannot be used, or `data` have weights or times of their own.
    """
    beside = {name: of for name, of in (("weights", weights), ("times", times)) if of is not None}
    if isinstance(data, Entries):
        for name in beside:
            raise ArgumentError(
                f"{name} are given for {type(data).__name__}, but a matrix of {name} goes with an array or a sparse matrix. "
                f"Pass SampledEntries(rows, cols, values, shape, {name}={name}) instead, one for each entry.",
                argument=name,
                value=type(data).__name__,
                limit=None,
            )
        return data
    if isinstance(data, Observations):
        other = "dmf.factorize" if isinstance(data, FullMatrix) else "dmf.sense"
        raise ArgumentError(
            f"data are {type(data).__name__}, but a matrix is completed from some of its entries. Use {other}.",
            argument="data",
            value=type(data).__name__,
            limit="SampledEntries",
        )
    sparse = is_sparse(data) or is_cupy_sparse(data)
    entries = SampledEntries.from_sparse(data) if sparse else SampledEntries.from_dense(data)
    if not beside:
        return entries
    beside = {name: _at(entries, of, name) for name, of in beside.items()}
    found = SampledEntries(entries.rows, entries.cols, entries.values, entries.shape, **beside)
    found.form = entries.form
    return found


def _at(entries: SampledEntries, matrix: Any, name: str) -> Any:
    """Numbers or datetimes of a matrix where entries are observed."""
    matrix = matrix.tocsr() if is_sparse(matrix) else as_array(read_form(matrix)[0], name)
    if tuple(matrix.shape) != entries.shape:
        raise ShapeError(
            f"{name} have shape {tuple(matrix.shape)}, but the matrix {entries.shape}. Pass one for each entry.",
            argument=name,
            value=tuple(matrix.shape),
            limit=entries.shape,
        )
    if is_sparse(matrix):
        return np.asarray(matrix[entries.rows, entries.cols]).ravel()
    if is_numpy(matrix):  # datetimes are of NumPy alone
        return matrix[to_host(entries.rows), to_host(entries.cols)]
    xp = namespace(matrix, entries.rows)
    rows, cols = (xp.astype(index, xp.int64) for index in (entries.rows, entries.cols))
    return xp.take(xp.reshape(matrix, (-1,)), rows * entries.shape[1] + cols)
