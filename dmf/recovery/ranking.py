"""The best columns of each row: what a model would recommend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dmf.arrays.backend import Array, as_array, to_host
from dmf.arrays.checks import positive_integer
from dmf.errors import ObservationError, ShapeError
from dmf.observations import SampledEntries
from dmf.recovery.results import Recovery

_BLOCK = 2**22  # predictions held at a time, 32 MiB of float64


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
    if seen is not None and seen.shape != recovery.shape:
        raise ShapeError(
            f"seen has the shape {seen.shape}, but the model {recovery.shape}. Use `align` for entries of other rows.",
            argument="seen",
            value=seen.shape,
            limit=recovery.shape,
        )
    left, right = map(to_host, recovery.factors())
    parts = []
    size = max(1, _BLOCK // d2)
    for first in range(0, len(rows), size):
        block = rows[first : first + size]
        scores = left[block] @ right
        if seen is not None:
            scores[_positions_in(block, seen)] = -np.inf
        index, columns, values = _best(scores, count)
        parts.append((block[index], columns, recovery.bounded(values)))
    empty = (rows[:0].astype(np.int64), np.zeros(0, np.int64), left[:0, 0])
    chosen, columns, values = (np.concatenate(part) for part in zip(empty, *parts, strict=True))
    return chosen, columns, values


def _best(scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column in `scores` (b, d2) of the `count` highest of each row, and these; -inf never counts."""
    threshold = np.partition(scores, -count, axis=1)[:, -count, None]
    above, level = scores > threshold, scores == threshold
    room = count - above.sum(axis=1, keepdims=True)
    chosen = (above | (level & (np.cumsum(level, axis=1) <= room))) & (scores > -np.inf)
    rows, columns = np.nonzero(chosen)
    values = scores[rows, columns]
    order = np.lexsort((columns, -values, rows))
    return rows[order], columns[order], values[order]


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
