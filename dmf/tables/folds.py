"""Which observed cells are held out. Equal tables give equal cells, in whatever order their rows and columns come."""

from __future__ import annotations

import numpy as np

_SHARE = 0.15  # of the observed cells in each fold
_FOLDS = ((8_000, 5), (16_000, 3), (40_000, 2))  # folds of tables with fewer observed cells; else one
_TURNS = 3  # in which held-out cells of a row are predicted
_DECIMALS = 9  # of moments that columns are ordered by: sums depend on the order of rows by less


def natural_order(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order of rows and one of columns that depend on what is in them alone.

    Parameters
    ----------
    table : array, shape (n, d)
        Standardised columns, of mean 0; NaN where nothing is observed.

    Returns
    -------
    rows : array of int, shape (n,)
    columns : array of int, shape (d,)
        By their third and fourth moments.
    """
    known = np.nan_to_num(table)
    moments = np.stack([np.sum(known**power, axis=0) / max(len(table), 1) for power in (4, 3)])
    columns = np.lexsort(np.round(moments, _DECIMALS))
    return np.lexsort(table[:, columns[::-1]].T), columns


def folds(table: np.ndarray, groups: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    """Disjoint sets of observed cells, each a share of them.

    Parameters
    ----------
    table : array, shape (n, d)
        Standardised columns; NaN where nothing is observed.
    groups : array of int, shape (d,)
        Columns of one group are held out together.
    generator : numpy Generator

    Returns
    -------
    list of int arrays, shape (n, d)
        Of each set, 0 where a cell is not in it, and else the turn in which it is predicted, from 1: cells of one row have
        different ones, unless they are of one group, or more than there are turns.
    """
    first, place = np.unique(groups, return_index=True, return_inverse=True)[1:]
    row_order, column_order = natural_order(table[:, first])
    rows, columns = np.nonzero(~np.isnan(table[np.ix_(row_order, first[column_order])]))
    order = generator.permutation(len(rows))
    count = next((number for limit, number in _FOLDS if len(rows) < limit), 1)
    size = min(max(int(_SHARE * len(rows)), 1), len(rows) - 1)  # something must be left to learn from
    sets = []
    for k in range(min(count, len(rows))):
        part = order[k * size : (k + 1) * size]
        cells = np.zeros((len(table), len(first)), bool)
        cells[rows[part], columns[part]] = True
        turns = np.empty(cells.shape, np.int8)
        turns[np.ix_(row_order, column_order)] = np.where(cells, (np.cumsum(cells, axis=1) - 1) % _TURNS + 1, 0)
        sets.append(turns[:, place])
    return sets
