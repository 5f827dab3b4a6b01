"""What the user says of a file, and cells read by that: numbers, and marks of missing ones."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from dmf.errors import ArgumentError
from dmf.io.messages import shown

# Marks of missing cells, as pandas reads them, in lower case.
_MARKS = frozenset([
    "", "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>", "n/a", "na", "nan", "none", "null",
])  # fmt: skip
_NOTHING = "none"
_TIMES = ((10**8, 42 * 10**8), (10**11, 42 * 10**11))  # seconds and milliseconds since 1970 that are times of data


@dataclass(frozen=True)
class Stated:
    """What the user says of a file with rows and columns; each field may be left open.

    Attributes
    ----------
    layout : {"auto", "entries", "table", "matrix"}
        Lines of row id, column id and value; or a table, with one row of the matrix in each line. "matrix" is a table whose cells
        have one unit, which makes no difference to reading.
    columns : sequence of str, optional
        Names of columns, or numbers counted from 1. Of entries: row id, column id and value, or only the first two. With the
        layout "table": the columns of the matrix.
    texts : sequence of str
        Those of `columns` that hold text, not numbers.
    value : str, optional
        The column of values of entries.
    time : str, optional
        The column of times of entries: numbers, or dates; none is read unless given.
    index_column : str, optional
        The column that holds the row names of a table; "none" if no column does.
    header : bool, optional
        Whether the first line holds column names.
    missing : sequence of str
        What marks a missing cell, beside empty cells, NA, NaN, null and the others that pandas reads as missing.
    decimal : {".", ","}
        Decimal sign of the numbers.
    thousands : str, optional
        What groups the digits of numbers, such as "," or " "; nothing unless given.
    skip : int
        Lines at the top to leave out, such as a title.
    sheet : str, optional
        The sheet of an Excel workbook; the first unless given.
    query : str, optional
        What to read from a database of DuckDB or SQLite; its only table unless given.
    """

    layout: str = "auto"
    columns: Sequence[str] | None = None
    texts: Sequence[str] = ()
    value: str | None = None
    time: str | None = None
    index_column: str | None = None
    header: bool | None = None
    missing: Sequence[str] = ()
    decimal: str = "."
    thousands: str | None = None
    skip: int = 0
    sheet: str | None = None
    query: str | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("layout", self.layout, ("auto", "entries", "table", "matrix")),
            ("decimal", self.decimal, (".", ",")),
            ("thousands", self.thousands, (None, *(sign for sign in ".,' _\u00a0\u202f" if sign != self.decimal))),
        ):
            if value not in known:
                raise ArgumentError(
                    f"{name}={value!r}, but it is one of {', '.join(map(repr, known))}.",
                    argument=name,
                    value=value,
                    limit=known,
                )
        named = self.value is not None or self.time is not None
        of_entries = named or (self.columns is not None and self.layout == "auto")
        if of_entries and (self.layout in ("table", "matrix") or self.index_column is not None):
            raise ArgumentError(
                "a column of values or times, or columns without the layout 'table', are of entries, but the layout 'table' and "
                "an index column are of tables. Leave out one or the other.",
                argument="columns, value, time, index_column",
                value=(self.columns, self.value, self.time, self.index_column),
            )
        if self.columns is not None and self.layout in ("auto", "entries"):
            count = len(self.columns)
            if not 2 <= count <= 3 or (count == 3 and self.value not in (None, self.columns[2])):
                raise ArgumentError(
                    f"columns={list(self.columns)} and value={self.value!r}, but entries have a column of row ids, one of "
                    "column ids and one of values. Name these three, or two and the value.",
                    argument="columns",
                    value=list(self.columns),
                )

    @property
    def is_entries(self) -> bool:
        """Whether the file is said to list entries."""
        return self.layout == "entries" or (
            self.layout == "auto" and not (self.columns is None and self.value is None and self.time is None)
        )

    @property
    def is_table(self) -> bool:
        """Whether the file is said to be a table."""
        return self.layout in ("table", "matrix") or self.index_column is not None


class Cells:
    """How fields are read: marks of missing cells, and numbers."""

    def __init__(self, stated: Stated) -> None:
        self.decimal, self._thousands = stated.decimal, stated.thousands
        self._comma = stated.decimal == ","
        marks = [mark.strip() for mark in stated.missing]
        self._marks = _MARKS | {mark.lower() for mark in marks}
        self._is_nothing_stated = _NOTHING in map(str.lower, marks)
        self._spelled = self._marks | set(map(str.upper, self._marks)) | set(map(str.title, self._marks))
        self._numbers = {self.number(mark) for mark in marks if self.is_number(mark)}

    def number(self, text: str) -> float:
        """The number that a field is, NaN and infinities included; ValueError if it is none.

        Python also takes 1_000 and the digits of other scripts for numbers; in a file they are more likely ids or mistakes.
        """
        text = text.strip()  # `float` leaves some separators that are blanks to `strip`
        if self._thousands is not None:
            text = text.replace(self._thousands, "")
        if self._comma:
            if "." in text:
                raise ValueError(f"{shown(text)} has a point, but numbers have decimal commas")
            text = text.replace(",", ".", 1)
        value = float(text)
        if "_" in text or not text.isascii():
            raise ValueError(f"{shown(text)} is no number")
        return value

    def value(self, text: str) -> float:
        """The number that a field is, NaN if it marks a missing cell; ValueError if it is neither."""
        try:
            value = self.number(text)
        except ValueError:
            if self.is_missing(text):
                return math.nan
            raise
        return math.nan if value in self._numbers else value

    def values(self, texts: Sequence[str]) -> np.ndarray:
        """The numbers that fields are, as `value` reads each; ValueError if one is neither a number nor missing."""
        whole = "\n".join(texts)
        if self._thousands is not None:
            whole = whole.replace(self._thousands, "")
        if whole.isascii() and "_" not in whole and not (self._comma and "." in whole):
            fields = (whole.replace(",", ".") if self._comma else whole).split("\n")
            spelled = self._spelled
            try:
                values = np.fromiter((float("nan" if f in spelled else f) for f in fields), np.float64, len(texts))
            except ValueError:  # a mistake, a mark in another spelling, or a field that goes over lines
                pass
            else:
                return self.unmarked(values)
        return np.array([self.value(text) for text in texts])

    def unmarked(self, values: np.ndarray) -> np.ndarray:
        """Numbers with NaN in the place of those that mark missing cells."""
        return np.where(np.isin(values, list(self._numbers)), math.nan, values) if self._numbers else values

    def times(self, texts: Sequence[str]) -> np.ndarray:
        """Numbers, or seconds since 1970 of dates, which are in UTC unless they say otherwise; NaN for what is neither."""
        try:
            return self.values(texts)
        except ValueError:
            return np.array([self.value(text) if self.is_number(text) else _seconds(text.strip()) for text in texts])

    def is_number(self, text: str) -> bool:
        """Whether a field is a number, NaN and infinities included."""
        try:
            self.number(text)
        except ValueError:
            return False
        return True

    def is_meant(self, text: str) -> bool:
        """Whether a field is a number, perhaps one with decimal or grouping commas or points, which is refused with a hint."""
        if self.is_number(text):
            return True
        if self._comma:
            return "." in text and (self.is_number(text.replace(".", ",")) or self.is_number(text.replace(".", "")))
        return "," in text and (self.is_number(text.replace(",", ".")) or self.is_number(text.replace(",", "")))

    def is_missing(self, text: str) -> bool:
        """Whether a field marks a missing cell."""
        text = text.strip()
        if text.lower() in self._marks:
            return True
        return bool(self._numbers) and self.is_number(text) and self.number(text) in self._numbers

    def is_no_text(self, text: str) -> bool:
        """Whether a field of a column of text marks a missing cell; "none" may be a category, and does only where stated."""
        return self.is_missing(text) and (text.strip().lower() != _NOTHING or self._is_nothing_stated)

    def hint(self, text: str) -> str:
        """What to do about a field in a column of numbers that is none."""
        if self.is_meant(text):
            sign, other = (",", ".") if self._comma else (".", ",")
            return (
                f"but numbers have the decimal sign {sign!r} and no {other!r}. Pass --decimal {other} or --thousands {other} if "
                "that is what it is."
            )
        mark = shlex.quote(text) if text.isprintable() and len(text) <= 40 else shown(text)
        return f"which is no number. If it marks a missing cell, pass --missing {mark}."


def _seconds(text: str) -> float:
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return math.nan
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


class Column:
    """The cells of one column in the first lines of a file."""

    def __init__(self, cells: Sequence[str], how: Cells) -> None:
        self.filled = [cell for cell in cells if not how.is_missing(cell)]
        self.complete = len(self.filled) == len(cells)
        numbers, meant = [], 0
        for cell in self.filled:
            try:
                numbers.append(how.number(cell))
            except ValueError:
                meant += how.is_meant(cell)
        meant += len(numbers)
        self.is_numeric = meant > 0 and 2 * meant >= len(self.filled)  # the others are mistakes, and refused
        self.is_whole = bool(numbers) and len(numbers) == len(self.filled) and all(n.is_integer() for n in numbers)
        self.numbers = np.array(numbers)
        self.is_distinct = len(set(self.filled)) == len(self.filled)
        self.as_integers = self.is_whole and all(cell.lstrip("+-").isdecimal() for cell in self.filled)

    @property
    def is_even(self) -> bool:
        """Whether these are at least three whole numbers, each larger than the last by the same."""
        steps = np.diff(self.numbers)
        return self.complete and self.is_whole and len(steps) > 1 and steps[0] > 0 and bool((steps == steps[0]).all())

    @property
    def is_times(self) -> bool:
        """Whether these look like seconds or milliseconds since 1970."""
        low, high = (self.numbers.min(), self.numbers.max()) if self.as_integers else (0, 0)
        return any(first <= low <= high <= last for first, last in _TIMES)
