"""The best columns of each row: what a model would recommend, and how good that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, as_array, to_host
from dmf.arrays.checks import positive_integer
from dmf.arrays.threads import one_blas_thread, share_out
from dmf.errors import ObservationError, ShapeError
from dmf.observations import SampledEntries
from dmf.recovery.names import check_order, positions_of
from dmf.recovery.results import Recovery
from dmf.recovery.values import RankingMeasures

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
    rows = _checked(rows, "rows", recovery.shape[0])
    count = min(positive_integer(count, "count"), recovery.shape[1])
    if seen is not None:
        _check_shape(seen, "seen", recovery)
    left, right = map(to_host, recovery.factors())
    chosen, columns, values = _best_in_blocks(
        left, right, rows, count, lambda block: None if seen is None else _positions_in(block, seen)
    )
    return chosen, columns, recovery.predicted(values)


def nearest_columns(recovery: Recovery, columns: Array, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The columns whose factors point most nearly in the direction of that of a column: what is chosen by the same rows.

    Parameters
    ----------
    recovery : Recovery
    columns : integer array, shape (n,)
        Positions from 0.
    count : int, >= 1
        Most neighbours of each column, which is none of its own.

    Returns
    -------
    columns, neighbours : integer arrays, shape (k,)
        By column in the order given, then by falling similarity.
    similarities : array, shape (k,)
        Cosine of the angle between the balanced factors; 0 where one of them is 0. Offsets have no part in it.

    Raises
    ------
    ArgumentError, ObservationError, ShapeError
        If `count` is below 1, or a column is out of range.
    """
    columns = _checked(columns, "columns", recovery.shape[1])
    count = min(positive_integer(count, "count"), recovery.shape[1])
    right = to_host(recovery.model.halves()[1])
    sizes = np.linalg.norm(right, axis=0)
    directions = right / np.where(sizes > 0, sizes, 1)
    itself = np.arange(_BLOCK)
    return _best_in_blocks(directions.T, directions, columns, count, lambda block: (itself[: len(block)], block))


def _checked(index: Array, name: str, size: int) -> np.ndarray:
    """Positions on the host; raises unless they are a vector of integers below `size`."""
    index = to_host(as_array(index, name))
    if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
        raise ShapeError(
            f"{name} has shape {index.shape} and dtype {index.dtype}, but it is a vector of integers.", argument=name
        )
    if index.size and not 0 <= index.min() <= index.max() < size:
        wrong = index.min() if index.min() < 0 else index.max()
        raise ObservationError(
            f"{name} holds {wrong}, but the matrix has {size} {name}. Pass positions from 0 to {size - 1}.",
            argument=name,
            value=int(wrong),
            limit=(0, size - 1),
        )
    return index


def _best_in_blocks(
    left: np.ndarray, right: np.ndarray, rows: np.ndarray, count: int, left_out: Callable[[np.ndarray], Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and value of the largest entries of rows of ``left @ right``, without those at the places `left_out`."""
    width = right.shape[1]
    right = np.pad(right, ((0, 0), (0, -width % _STRIDE)))
    size = max(1, _BLOCK // width)
    parts: list[Any] = [None] * -(-len(rows) // size)

    def rank(number: int) -> None:
        block = rows[number * size : (number + 1) * size]
        scores = left[block] @ right
        scores[:, width:] = -np.inf
        if (places := left_out(block)) is not None:
            scores[places] = -np.inf
        index, columns, values = _best(scores, count)
        parts[number] = block[index], columns, values

    with one_blas_thread():
        share_out(rank, len(parts))
    empty = (rows[:0].astype(np.int64), np.zeros(0, np.int64), left[:0, 0])
    chosen, columns, values = (np.concatenate(part) for part in zip(empty, *parts, strict=True))
    return chosen, columns, values


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
    check_order(entries.form, (recovery.row_ids, recovery.col_ids), name)


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


def positions(names: Sequence[str], ids: Sequence[str] | None, size: int, what: str = "rows") -> np.ndarray:
    """Positions of rows, or columns, given by name; by their number from 0, where the model has no names.

    Parameters
    ----------
    names : sequence of str
    ids : sequence of str, or None
        Names that the model has.
    size : int
    what : {"rows", "columns"}

    Raises
    ------
    ObservationError
        If a name is unknown.
    """
    found = positions_of(names, ids, size)
    unknown = np.flatnonzero(found < 0)
    if unknown.size:
        first = names[unknown[0]]
        raise ObservationError(
            f"{unknown.size} of {len(names)} {what} were not in the data (the first: {first!r}), so nothing can be ranked for "
            "them. Leave them out.",
            argument="names",
            value=first,
        )
    return found


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
        positions.append(positions_of(range(other) if ids is None else ids, names, size)[to_host(index)])
    rows, cols = positions
    kept = (rows >= 0) & (cols >= 0)
    if not kept.any():
        return None, kept.size
    beside = (None if a is None else to_host(a)[kept] for a in (entries.weights, entries.times))
    values = to_host(entries.entries)[kept]
    return SampledEntries(rows[kept], cols[kept], values, recovery.shape, *beside), int((~kept).sum())
