"""The cells of a table as numbers, with what else was met, whatever the form of the file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import isfinite, isnan, nan
from typing import Any

import numpy as np

from dmf.errors import FileError
from dmf.io.blocks import Block
from dmf.io.cells import Cells
from dmf.io.words import Levels


class Sheet:
    """Cells of all columns of a file as numbers, NaN where there is none.

    Parameters
    ----------
    path : path
    dialect : str
        What the file is, for messages.
    header : list of str, or None
        Names of the columns.
    width : int
        Number of columns.
    unit : str
        What a record is in the file: a line, a row.

    Attributes
    ----------
    numbers, texts : list of int
        How many cells of each column are meant as numbers, and how many are others that are not missing.
    wrong : dict
        Of each column that has one: record and text of the first cell that is no finite number.
    names : list of str
        The cells of the column that may hold row names.
    levels : dict of Levels
        Of columns that seem to hold text, set before records are added.
    """

    def __init__(self, path: object, dialect: str, header: list[str] | None, width: int, unit: str = "line") -> None:
        self.path, self.dialect, self.header, self.width, self._unit = path, dialect, header, width, unit
        self.numbers, self.texts = [0] * width, [0] * width
        self.wrong: dict[int, tuple[int, str]] = {}
        self.names: list[str] = []
        self.levels: dict[int, Levels] = {}
        self._lines: list[int] = []
        self._parts: list[np.ndarray] = []

    def add_text(self, block: Block, how: Cells, index: int) -> None:
        """Add records of text, whose row names may be in column `index`."""
        part, first = np.empty((len(block), self.width)), len(self._lines)
        for k in range(self.width):
            fields = block.column(k)
            try:
                part[:, k] = how.values(fields)
            except ValueError:
                part[:, k] = [self._number(k, field, first + record, how) for record, field in enumerate(fields)]
            else:
                self._count(k, part[:, k], fields)
        for k, levels in self.levels.items():
            levels.add(*block.distinct(k), how.is_no_text)
        self._lines += block.lines
        self.names += map(str.strip, block.column(index))
        self._parts.append(part)

    def add_columns(self, lines: Sequence[int], columns: Sequence[np.ndarray | None], names: Sequence[str]) -> None:
        """Add records by the column: numbers, or None for a column of others."""
        part = np.full((len(lines), self.width), nan)
        for k, column in enumerate(columns):
            if column is None:
                self.texts[k] += len(lines)
            else:
                part[:, k] = column
                self._count(k, part[:, k], column)
        self._lines += lines
        self.names += names
        self._parts.append(part)

    def _count(self, k: int, column: np.ndarray, cells: Sequence[Any] | np.ndarray) -> None:
        self.numbers[k] += int(np.count_nonzero(~np.isnan(column)))
        infinite = np.flatnonzero(np.isinf(column))
        if len(infinite):
            self.wrong.setdefault(k, (len(self._lines) + int(infinite[0]), str(cells[infinite[0]]).strip()))

    def _number(self, k: int, field: str, record: int, how: Cells) -> float:
        try:
            value = how.value(field)
        except ValueError:
            meant = how.is_meant(field.strip())
            self.numbers[k] += meant
            self.texts[k] += not meant
            self.wrong.setdefault(k, (record, field.strip()))
            return nan
        if not isnan(value):
            self.numbers[k] += 1
            if not isfinite(value):
                self.wrong.setdefault(k, (record, field.strip()))
        return value

    @cached_property
    def values(self) -> np.ndarray:
        """All cells, shape (n, width); no record is added after this was asked for."""
        return np.concatenate([np.empty((0, self.width)), *self._parts])

    def numeric(self) -> list[int]:
        """Columns that hold numbers."""
        counts = zip(self.numbers, self.texts, strict=True)
        return [k for k, (numbers, texts) in enumerate(counts) if numbers > 0 and numbers >= texts]

    def place(self, record: int) -> str:
        """Where a record stands in the file, for messages."""
        return f"{self._unit} {self._lines[record]}" if self._lines else f"{self._unit} 1"

    def error(self, record: int, reason: str) -> FileError:
        """FileError that names the file and the place of a record."""
        return FileError(f"cannot read {self.path}, {self.place(record)}: {reason}")

    def called(self, k: int) -> str:
        """A column by its name, or its number from 1."""
        return str(k + 1) if self.header is None else self.header[k]
