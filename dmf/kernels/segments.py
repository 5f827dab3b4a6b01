"""Rows of samples cut into segments of bounded length, so that a row that holds many of them keeps many threads busy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dmf.errors import ArgumentError

MOST = 2**31 - 1  # kernels number segments, rows and columns by 32-bit integers; samples by 64-bit ones


@dataclass(frozen=True)
class Segments:
    """Segments of rows, each row's one after another; rows without samples have one of length 0.

    Attributes
    ----------
    first : int64 array, shape (k,)
        First sample of each segment.
    count : int32 array, shape (k,)
        Its number of samples.
    row : int32 array, shape (k,)
        The row that it belongs to.
    slot : int32 array, shape (k,)
        Where its sum is kept, for rows of several segments; -1 for the others.
    long_row : int32 array, shape (q,)
        The rows of several segments.
    long_first : int32 array, shape (q + 1,)
        Where the slots of each of them begin, and the number of all slots.
    """

    first: np.ndarray
    count: np.ndarray
    row: np.ndarray
    slot: np.ndarray
    long_row: np.ndarray
    long_first: np.ndarray

    def of_long_rows(self) -> Segments:
        """The segments of the rows that have several."""
        kept = self.slot >= 0
        first, count, row, slot = (a[kept] for a in (self.first, self.count, self.row, self.slot))
        return Segments(first, count, row, slot, self.long_row, self.long_first)

    def long_of(self, rows: int) -> np.ndarray:
        """Place of each row in `long_row`, -1 for the others; int32, shape (rows,)."""
        places = np.full(rows, -1, np.int32)
        places[self.long_row] = np.arange(self.long_row.size)
        return places


def cut(starts: np.ndarray, longest: int) -> Segments:
    """Segments of at most `longest` samples of rows that begin at `starts`, int64, shape (n + 1,).

    Raises
    ------
    ArgumentError
        If there are more than 32-bit integers can number.
    """
    pieces = np.maximum(-(-np.diff(starts) // longest), 1)
    if pieces.sum() > MOST:
        raise ArgumentError(
            f"the entries of {pieces.size:,} rows or columns are cut into {pieces.sum():,} pieces of work for the GPU, but "
            f"its kernels number at most {MOST:,}. Pass NumPy arrays, or a part of the matrix.",
            argument="shape",
            value=int(pieces.sum()),
            limit=MOST,
        )
    row = np.repeat(np.arange(pieces.size), pieces)
    within = np.arange(row.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    first = starts[row] + within * longest
    count = np.minimum(starts[row + 1] - first, longest)
    several = pieces > 1
    slot = np.where(several[row], np.cumsum(several[row]) - 1, -1)
    long_first = np.concatenate([[0], np.cumsum(pieces[several])])
    small = (a.astype(np.int32) for a in (count, row, slot, np.flatnonzero(several), long_first))
    return Segments(first, *small)
