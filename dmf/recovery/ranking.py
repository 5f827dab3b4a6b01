"""The best columns of each row: what a model would recommend, and how good that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, as_array, to_host
from dmf.arrays.checks import positive_integer
from dmf.arrays.threads import one_blas_thread, share_out
from dmf.errors import ObservationError, ShapeError
from dmf.observations import SampledEntries
from dmf.recovery.results import Recovery

_BLOCK = 2**20  # predictions held at a time: few enough to stay in a cache
_STRIDE = 32  # columns that one maximum stands for, on the way to the best of a row


def top_columns(
    recovery: Recovery, rows: Array, count: int, seen: SampledEntries | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The columns with the highest predictions in each row.

    Never holds the whole matrix: rows are worked on in blocks.

    Parameters
    ----------
    recovery : Recovery
    rows : integer array, shape (n,)
        Positions from 0; a row may occur more than once.
    count : int, >= 1
        Most columns for each row.
    seen : SampledEntries, optional
        Entries that are left out, such as ``recovery.observations``; of the shape of the recovery. Their values are not used.

    Returns
    -------
    rows, columns : integer arrays, shape (k,)
        By row in the order given, then by falling prediction; of equal ones the first column comes first. A row has fewer than
        `count` columns where it has fewer unseen ones.
    predictions : array, shape (k,)
        Within the bounds of the recovery; the order is that before bounds.

    Raises
    ------
    ArgumentError, ObservationError, ShapeError
        If `count` is below 1, a row is out of range, or `seen` is of another shape.
    """
    d1, d2 = recovery.shape
    rows = to_host(as_array(rows, "rows"))
    count = min(positive_integer(count, "count"), d2)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise ShapeError(
            f"rows has shape {rows.shape} and dtype {rows.dtype}, but it is a vector of integers.", argument="rows"
        )
    if rows.size and not 0 <= rows.min() <= rows.max() < d1:
        wrong = rows.min() if rows.min() < 0 else rows.max()
        raise ObservationError(
            f"rows holds {wrong}, but the matrix has {d1} rows. Pass positions from 0 to {d1 - 1}.",
            argument="rows",
            value=int(wrong),
            limit=(0, d1 - 1),
        )
    if seen is not None:
        _check_shape(seen, "seen", recovery)
    left, right = map(to_host, recovery.factors())
    right = np.pad(right, ((0, 0), (0, -d2 % _STRIDE)))
    size = max(1, _BLOCK // d2)
    parts: list[Any] = [None] * -(-len(rows) // size)

    def rank(number: int) -> None:
        block = rows[number * size : (number + 1) * size]
        scores = left[block] @ right
        scores[:, d2:] = -np.inf
        if seen is not None:
            scores[_positions_in(block, seen)] = -np.inf
        index, columns, values = _best(scores, count)
        parts[number] = block[index], columns, recovery.bounded(values)

    with one_blas_thread():
        share_out(rank, len(parts))
    empty = (rows[:0].astype(np.int64), np.zeros(0, np.int64), left[:0, 0])
    chosen, columns, values = (np.concatenate(part) for part in zip(empty, *parts, strict=True))
    return chosen, columns, values


@dataclass(frozen=True)
class RankingMeasures:
    """How well the best columns of rows hold those that were held out; means over rows, and their standard errors.

    Parameters
    ----------
    ndcg, ndcg_error : float
        Normalised discounted cumulative gain: a hit at place p counts ``1 / log2(p + 1)``, relative to the best order.
    recall, recall_error : float
        Share of the held-out columns that are among the best.
    average_precision, average_precision_error : float
        Mean over the hits of the share of hits up to there, relative to the most hits possible ("MAP").
    coverage : float
        Share of all columns that are among the best of some row.
    n_rows : int
        Rows with held-out entries; the others have no part in it.
    """

    ndcg: float
    ndcg_error: float
    recall: float
    recall_error: float
    average_precision: float
    average_precision_error: float
    coverage: float
    n_rows: int


def ranking_measures(
    recovery: Recovery, held: SampledEntries, count: int = 10, seen: SampledEntries | None = None
) -> RankingMeasures:
    """Quality of the `count` best columns of each row that has held-out entries.

    Parameters
    ----------
    recovery : Recovery
        Fitted without `held`.
    held : SampledEntries
        What should be among the best: all of them alike, whatever their values.
    count : int, >= 1
    seen : SampledEntries, optional
        Entries that are left out of the ranking, such as ``recovery.observations``.

    Returns
    -------
    RankingMeasures

    Raises
    ------
    ArgumentError, ObservationError, ShapeError
        As `top_columns`; or if `held` is of another shape than the recovery.

    References
    ----------
    .. [1] Jarvelin, Kekalainen, ACM Transactions on Information Systems 20 (2002) (discounted cumulative gain).
    """
    _check_shape(held, "held", recovery)
    width = recovery.shape[1]
    wanted = np.unique(to_host(held.rows).astype(np.int64) * width + to_host(held.cols))
    rows, sizes = np.unique(wanted // width, return_counts=True)
    ranked, columns, _ = top_columns(recovery, rows, count, seen)
    row = np.searchsorted(rows, ranked)
    place = np.arange(row.size) - np.searchsorted(row, row)
    hit = np.isin(ranked * width + columns, wanted, assume_unique=True)
    gains = 1 / np.log2(np.arange(2, min(count, width) + 2))
    most = np.minimum(sizes, gains.size)
    before = np.concatenate([[0], np.cumsum(hit)])
    hits = before[1:] - before[np.searchsorted(row, row)]  # in the row, up to each place

    def total(numbers: np.ndarray) -> np.ndarray:
        return np.bincount(row[hit], numbers[hit], rows.size)

    ndcg = _mean(total(gains[place]) / np.cumsum(gains)[most - 1])
    recall = _mean(total(np.ones(row.size)) / sizes)
    precision = _mean(total(hits / (place + 1)) / most)
    covered = np.unique(columns).size / width
    return RankingMeasures(*ndcg, *recall, *precision, coverage=covered, n_rows=rows.size)


def _mean(numbers: np.ndarray) -> tuple[float, float]:
    """Their mean and its standard error, which is not known of a single one."""
    error = np.std(numbers, ddof=1) / np.sqrt(numbers.size) if numbers.size > 1 else np.nan
    return float(np.mean(numbers)), float(error)


def _check_shape(entries: SampledEntries, name: str, recovery: Recovery) -> None:
    if entries.shape != recovery.shape:
        raise ShapeError(
            f"{name} has the shape {entries.shape}, but the model {recovery.shape}. Use `align` for entries of other rows.",
            argument=name,
            value=entries.shape,
            limit=recovery.shape,
        )


def _best(scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column in `scores` (b, n) of the `count` highest of each row, and these; -inf never counts."""
    maxima = scores.reshape(len(scores), _STRIDE, -1).max(axis=1)
    candidates = scores > -np.inf
    if count < maxima.shape[1]:  # so many columns at least are as good as this maximum
        candidates = scores >= np.maximum(np.partition(maxima, -count)[:, -count, None], np.finfo(scores.dtype).min)
    rows, columns = np.divmod(np.flatnonzero(candidates), scores.shape[1])
    values = scores[rows, columns]
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    kept = np.arange(rows.size) - np.searchsorted(rows, rows) < count
    return rows[kept], columns[kept], values[kept]


def _positions_in(block: np.ndarray, seen: SampledEntries) -> tuple[np.ndarray, np.ndarray]:
    """Row in the block and column of each seen entry of its rows."""
    sorted_rows, cols = to_host(seen.rows), to_host(seen.cols)
    starts, ends = (np.searchsorted(sorted_rows, block, side=side) for side in ("left", "right"))
    counts = ends - starts
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(np.arange(len(block)), counts), cols[np.repeat(starts, counts) + within]


def row_positions(recovery: Recovery, names: Sequence[str]) -> np.ndarray:
    """Positions of rows given by name; by their number from 0, where the model has no names.

    Raises
    ------
    ObservationError
        If a name is unknown.
    """
    known = _known(recovery.row_ids, recovery.shape[0])
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ObservationError(
            f"{len(unknown)} of {len(names)} rows were not in the data (the first: {unknown[0]!r}), so nothing can be "
            "ranked for them. Leave them out.",
            argument="names",
            value=unknown[0],
        )
    return np.asarray([known[name] for name in names], np.int64)


def align(
    recovery: Recovery,
    entries: SampledEntries,
    row_ids: Sequence[str] | None = None,
    col_ids: Sequence[str] | None = None,
) -> tuple[SampledEntries | None, int]:
    """Entries at the positions that their rows and columns have in a model.

    Parameters
    ----------
    recovery : Recovery
    entries : SampledEntries
    row_ids, col_ids : sequences of str, optional
        Names of the rows and columns of `entries`; unless given, their positions are their names.

    Returns
    -------
    aligned : SampledEntries or None
        Those whose row and column the model knows; None if there are none.
    unknown : int
        Number of the others.
    """
    positions = []
    for index, ids, names, size, other in zip(
        (entries.rows, entries.cols),
        (row_ids, col_ids),
        (recovery.row_ids, recovery.col_ids),
        recovery.shape,
        entries.shape,
        strict=True,
    ):
        known = _known(names, size)
        table = np.asarray([known.get(name, -1) for name in (map(str, range(other)) if ids is None else ids)])
        positions.append(table[to_host(index)])
    rows, cols = positions
    kept = (rows >= 0) & (cols >= 0)
    if not kept.any():
        return None, kept.size
    values = to_host(entries.values)[kept]
    return SampledEntries(rows[kept], cols[kept], values, recovery.shape), int((~kept).sum())


def _known(names: Sequence[str] | None, size: int) -> dict[str, int]:
    return {name: position for position, name in enumerate(map(str, range(size)) if names is None else names)}
