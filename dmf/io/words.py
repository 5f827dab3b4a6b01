"""Columns of text in tables, whose cells repeat: categories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

MOST_LEVELS = 50  # of a column of categories that models see; rarer ones are never filled in
_LEAST_REPEATS = 2  # times that a level occurs on average; in names and remarks, less


class Levels:
    """Cells of a column as numbers of their levels, kept as long as these are few.

    Attributes
    ----------
    names : dict
        Number of each level, in the order in which they appear; more than MOST_LEVELS once there are too many.
    """

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self._parts: list[np.ndarray] = []

    @property
    def are_few(self) -> bool:
        """Whether they are at most MOST_LEVELS."""
        return len(self.names) <= MOST_LEVELS

    def add(self, texts: Sequence[str], which: np.ndarray | None, is_missing: Callable[[str], bool]) -> None:
        """Add cells: different texts, and which of them each cell has; None: one a cell."""
        if self.are_few:
            codes = [-1 if is_missing(t) else self.names.setdefault(t.strip(), len(self.names)) for t in texts]
            self._parts.append(np.array(codes, np.int8 if self.are_few else int))
            if which is not None:
                self._parts[-1] = self._parts[-1][which]

    def codes(self) -> np.ndarray:
        """Number of the level of each cell, -1 where it is missing."""
        return np.concatenate([np.empty(0, np.int8), *self._parts])


@dataclass(frozen=True)
class Words:
    """A column of text of a table, with few different cells.

    Attributes
    ----------
    name : str
    place, before : int
        Number of the column in the file, and of the columns of numbers of the matrix that stand before it.
    levels : tuple of str
    codes : int array, shape (d1,)
        Level of each row of the matrix, -1 where the cell is missing.
    records : int array, shape (d1,)
        Record of each row in the file.
    """

    name: str
    place: int
    before: int
    levels: tuple[str, ...]
    codes: np.ndarray
    records: np.ndarray

    @property
    def are_categories(self) -> bool:
        """Whether there are at least two levels, which repeat. Where there is but one, an empty cell rather means its absence."""
        return len(self.levels) >= 2 and _LEAST_REPEATS * len(self.levels) <= int(np.count_nonzero(self.codes >= 0))

    def cells(self) -> np.ndarray:
        """The texts, None where they are missing, shape (d1,) of objects."""
        return np.array([*self.levels, None], object)[self.codes]

    def filled(self, cells: np.ndarray) -> list[tuple[int, int, str]]:
        """Record and column in the file, and text, of the missing cells, from a text or None for each row."""
        holes = np.flatnonzero(self.codes < 0).tolist()
        return [(int(self.records[i]), self.place, text) for i in holes if (text := cells[i]) is not None]


def with_words(matrix: np.ndarray, words: Sequence[Words]) -> tuple[np.ndarray, list[int]]:
    """A matrix with columns of text where they stand in the file, as objects if there are any; and their places.

    Parameters
    ----------
    matrix : array, shape (d1, d2)
    words : sequence of Words
        In the order of the file.
    """
    if not words:
        return matrix, []
    texts = np.column_stack([column.cells() for column in words])
    table = np.insert(matrix.astype(object), [column.before for column in words], texts, axis=1)
    return table, [column.before + k for k, column in enumerate(words)]
