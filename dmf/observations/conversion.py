"""Entries of a matrix from whatever form in which users have them."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmf.arrays.backend import as_array, is_cupy_sparse, is_sparse, namespace, to_host
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
    entries = as_entries(data)
    check_kind("data", entries, SampledEntries, "Pass SampledEntries, an array or a sparse matrix.")
    rows, cols, values = (to_host(array) for array in (entries.rows, entries.cols, entries.entries))
    weights = None if entries.weights is None else to_host(entries.weights).astype(float)
    there = SampledEntries(rows, cols, values.astype(float), entries.shape, weights)
    there.form = entries.form
    return there


def as_entries(data: Any, weights: Any = None) -> Any:
    """Entries of a matrix from any form in which users have them.

    Parameters
    ----------
    data : Entries, array with NaN, data frame or DataArray, or sparse matrix of SciPy or CuPy
    weights : array, data frame or SciPy sparse matrix, of the shape of `data`, optional
        Looked at where entries are observed.

    Returns
    -------
    Entries

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, BackendError, ObservationError
        If data or weights cannot be used, or `data` have weights of their own.
    """
    if isinstance(data, Entries):
        if weights is not None:
            raise ArgumentError(
                f"weights are given for {type(data).__name__}, but a matrix of weights goes with an array or a sparse matrix. "
                "Pass SampledEntries(rows, cols, values, shape, weights) instead.",
                argument="weights",
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
    if weights is None:
        return entries
    weights = weights.tocsr() if is_sparse(weights) else as_array(read_form(weights)[0], "weights")
    if tuple(weights.shape) != entries.shape:
        raise ShapeError(
            f"weights have shape {tuple(weights.shape)}, but the matrix {entries.shape}. Pass one for each entry.",
            argument="weights",
            value=tuple(weights.shape),
            limit=entries.shape,
        )
    if is_sparse(weights):
        at = np.asarray(weights[entries.rows, entries.cols]).ravel()
    else:
        xp = namespace(weights, entries.rows)
        rows, cols = (xp.astype(index, xp.int64) for index in (entries.rows, entries.cols))
        at = xp.take(xp.reshape(weights, (-1,)), rows * entries.shape[1] + cols)
    weighted = SampledEntries(entries.rows, entries.cols, entries.values, entries.shape, at)
    weighted.form = entries.form
    return weighted
