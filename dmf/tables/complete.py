"""`complete_table`: fill the holes of a table whose columns have different units and kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dmf.arrays.checks import check_bounds, check_option
from dmf.errors import ArgumentError, ObservationError, ShapeError
from dmf.tables.frames import read_frame
from dmf.tables.kinds import Column
from dmf.tables.recovery import TableRecovery, Units
from dmf.tables.stack import Told, choose, fit_members, silent

_CONSTANT = 1e-12  # of the size of a column: columns that vary by less are constant


def complete_table(
    data: Any,
    *,
    kinds: Mapping[Any, str] | None = None,
    bounds: Any = None,
    sample_weight: Any = None,
    seed: int = 0,
    callback: Told | None = None,
) -> TableRecovery:
    """Fill the holes of a table whose columns have different units and kinds.

    Gaussian distributions of the rows with full covariance, mixtures of them, and models of low rank are fitted, each to the
    columns as they are, to their normal scores, and to a mean of both; their predictions are added with weights that predict
    held-out cells best. For matrices whose cells have one unit, such as ratings or images, see `dmf.complete`.

    Parameters
    ----------
    data : array, pandas or polars data frame, pyarrow Table, xarray DataArray, shape (n, d)
        NaN, None and masked cells are missing. Columns of dates and times are left aside, and come back as they are.
    kinds : mapping of column names (numbers for arrays) to str, optional
        "real", "count" (whole numbers), "boolean", "ordinal" or "nominal", where the dtype does not say it: floats are real,
        integers count, truth values boolean, ordered categories ordinal, other categories and text nominal.
    bounds : (float, float) or mapping of column names to such, optional
        Least and largest value filled in. By default a half of the observed range beyond it, and nothing negative in a column
        without negative values.
    sample_weight : array, shape (n,), optional
        How often each row counts, at least 0.
    seed : int
        Of what is held out, and of groups that mixtures start from.
    callback : callable, optional
        Called with what is being done, the number of steps done and of all: ``callback("trying candidates", 3, 45)``, then
        "fitting candidates to all cells". What it raises ends the call.

    Returns
    -------
    TableRecovery
        ``filled()`` gives the table. ``intervals()``, ``predict_proba(column)`` and ``sample(n)`` say how sure it is, and
        ``summary()`` what was found.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, ObservationError
        If an argument is out of range, or the table holds nothing or something that is neither number, text nor truth value.

    Notes
    -----
    A column of which nothing is known is left as it is. A constant column is filled with its constant. Panels: one row for each
    unit, one column for each time; a single series: folded by its period, one row for each.

    References
    ----------
    .. [1] Little, Rubin, Statistical Analysis with Missing Data (EM). Wolpert, Neural Networks 1992 (stacking).

    Examples
    --------
    >>> import numpy as np
    >>> import dmf
    >>> x = np.random.default_rng(0).standard_normal((100, 1))
    >>> table = np.hstack([x, 10 * x, 3 - x])
    >>> table[4, 1] = np.nan
    >>> recovery = dmf.complete_table(table)
    >>> bool(abs(recovery.filled()[4, 1] - 10 * x[4, 0]) < 0.1)
    True
    """
    frame = read_frame(data, kinds)
    n, d = frame.values.shape
    weights = _weights(sample_weight, n)
    seed = int(check_option("seed", seed, whole=True))
    counted = frame.values if weights is None else frame.values[weights > 0]
    if counted.size == 0 or np.isnan(counted).all():
        raise ObservationError(
            f"all of the {n} x {d} cells are missing, but a model needs some that are known.",
            argument="data", value=(n, d), limit=1,
        )  # fmt: skip
    units = _units(frame.columns, frame.values, weights, bounds)
    table = units.encoded(frame.columns, frame.values)
    counts = np.ones(n) if weights is None else weights
    told = silent if callback is None else callback
    held_out = choose(table[counts > 0], units.groups, counts[counts > 0], units.bounds, seed, told)
    chosen = zip(held_out.candidates, held_out.weights.tolist(), strict=True)
    members = fit_members(chosen, table, counts, units.bounds, seed, told)
    return TableRecovery(frame.columns, units, tuple(members), held_out, seed, frame, weights)


def _weights(sample_weight: Any, n: int) -> np.ndarray | None:
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight, float)
    if weights.shape != (n,):
        raise ShapeError(
            f"sample_weight has shape {weights.shape}, but the table has {n} rows. Pass one number for each.",
            argument="sample_weight", value=weights.shape, limit=(n,),
        )  # fmt: skip
    if not (np.isfinite(weights).all() and weights.min(initial=0) >= 0 and weights.max(initial=0) > 0):
        raise ArgumentError(
            "sample_weight holds a negative or infinite number, or nothing but zeros; weights are finite, at least 0.",
            argument="sample_weight", value=sample_weight, limit=0,
        )  # fmt: skip
    return weights


def _units(columns: tuple[Column, ...], values: np.ndarray, weights: np.ndarray | None, bounds: Any) -> Units:
    parts = [column.encoded(values[:, j]) for j, column in enumerate(columns)]
    groups = np.repeat(np.arange(len(columns)), [part.shape[1] for part in parts])
    encoded = np.column_stack(parts)
    seen = ~np.isnan(encoded)
    counts = seen * (1.0 if weights is None else weights[:, None])
    totals = np.maximum(counts.sum(axis=0), np.finfo(float).tiny)
    known = np.where(seen, encoded, 0)
    center = np.sum(counts * known, axis=0) / totals
    scale = np.sqrt(np.sum(counts * (known - center) ** 2, axis=0) / totals)
    constant = scale <= _CONSTANT * np.max(np.abs(known), axis=0, initial=0)
    scale[constant] = 1
    limits = np.array([[-np.inf], [np.inf]]).repeat(len(groups), axis=1)
    positive = np.all(known >= 0, axis=0) & np.array([not columns[j].levels for j in groups])
    limits[0, positive] = -center[positive] / scale[positive]
    given = bounds if isinstance(bounds, Mapping) else {column.name: bounds for column in columns if not column.levels}
    names = [column.name for column in columns]
    for name, pair in given.items():
        if name not in names:
            raise ArgumentError(
                f"bounds names {name!r}, but the columns are {', '.join(map(str, names))}.",
                argument="bounds", value=name, limit=tuple(names),
            )  # fmt: skip
        checked, k = check_bounds(pair), int(np.flatnonzero(groups == names.index(name))[0])
        if checked is not None:
            limits[:, k] = (np.array(checked) - center[k]) / scale[k]
    center[~seen.any(axis=0)] = np.nan  # so that nothing is said of these columns
    return Units(groups, center, scale, limits)
