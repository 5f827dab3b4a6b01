"""Which column of a file is what: as the user states it, or else by headings and content, and told in either case.

A guess that would spoil every number, such as times taken for values, is an error that names the option to state it with.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dmf.errors import ArgumentError, FileError
from dmf.io.messages import listed, shown

# The one list of headings: what they name, whatever follows ("user_id", "movieIds", "rating:float").
_WORDS = {
    "row": "row user person member customer client reader viewer patient",
    "column": "col column item movie film product book song track artist drug sensor variable",
    "value": "value rating score stars prediction",
    "time": "timestamp time date datetime epoch year month day hour",
}
_ROLES = {word: role for role, words in _WORDS.items() for word in words.split()}
_ENDING = re.compile(r"[ _.-]?(id|ids|name|key|code|index|no|nr|number)$")
_NAMES = ("id", "name", "key", "index")  # alone: names of rows or columns

# Marks of missing cells, as pandas reads them, in lower case.
_MARKS = frozenset([
    "", "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>", "n/a", "na", "nan", "none", "null",
])  # fmt: skip
_NOTHING = "none"
_TIMES = ((10**8, 42 * 10**8), (10**11, 42 * 10**11))  # seconds and milliseconds since 1970 that are times of data
_MIN_LINES = 20  # repetitions among fewer say nothing


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
        of_entries = self.value is not None or (self.columns is not None and self.layout == "auto")
        if of_entries and (self.layout in ("table", "matrix") or self.index_column is not None):
            raise ArgumentError(
                "a column of values, or columns without the layout 'table', are of entries, but the layout 'table' and an index "
                "column are of tables. Leave out one or the other.",
                argument="columns, value, index_column",
                value=(self.columns, self.value, self.index_column),
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
            self.layout == "auto" and (self.columns is not None or self.value is not None)
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


def role_of(heading: str) -> str | None:
    """What a heading names: "row", "column", "value", "time", "name" (of either), or None."""
    word = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", heading.strip()).lower()
    word = re.sub(r":\w+$", "", word)  # a type, as RecBole writes it
    if word in _NAMES:
        return "name"
    if re.fullmatch("[ui]id", word):
        return "row" if word == "uid" else "column"
    stem = _ENDING.sub("", word)
    return _ROLES.get(stem) or _ROLES.get(stem.removesuffix("s")) or _ROLES.get(stem.removesuffix("id"))


def position(reference: str, names: Sequence[str] | None, width: int, where: object, option: str) -> int:
    """Position of the column that a user names, by its name or its number from 1."""
    if names is not None and reference in names:
        if list(names).count(reference) > 1:
            raise FileError(
                f"cannot read {where}: two columns are called {shown(reference)}. Name them by number ({option})."
            )
        return list(names).index(reference)
    if reference.isascii() and reference.isdecimal() and 1 <= int(reference) <= width:
        return int(reference) - 1
    there = (
        f"its columns are {', '.join(listed(names))}" if names is not None else f"it has no header and {width} columns"
    )
    raise FileError(
        f"cannot read {where}: no column {shown(reference)} ({option}), but {there}. Pass a name or a number from 1 to {width}."
    )


def entry_columns(
    names: Sequence[str] | None, columns: Sequence[Column], stated: Stated, where: object
) -> tuple[int, int, int]:
    """Positions of the columns of row ids, column ids and values.

    What is stated holds; then headings that name users, items, values and times; then the order of the columns, where a first
    column without a heading that counts the lines, as pandas writes it, and times (headings that name them, or whole numbers
    like seconds since 1970) are left out.
    """
    width = len(columns)
    found: dict[str, int] = {}
    given = [*(stated.columns or ())]
    for role, reference in zip(("row", "column", "value"), given, strict=False):
        found[role] = position(reference, names, width, where, "--columns")
    if stated.value is not None:
        found["value"] = position(stated.value, names, width, where, "--value")
    if len(set(found.values())) < len(found):
        raise FileError(
            f"cannot read {where}: one column is named twice. Rows, columns and values have one each (--columns)."
        )
    roles = [role_of(name) for name in names] if names is not None else [None] * width
    for role in ("row", "column", "value"):
        named = [k for k in range(width) if roles[k] == role and k not in found.values()]
        if role not in found and len(named) == 1 and (role != "value" or columns[named[0]].is_numeric):
            found[role] = named[0]
    needed = 3 - len(found)
    left = [k for k in range(width) if k not in found.values() and roles[k] != "time"]
    times = [k for k in left if columns[k].is_times and 2 * len(set(columns[k].filled)) > len(columns[k].filled)]
    if times and len(left) - len(times) >= needed:
        left = [k for k in left if k not in times]
    unnamed = (names is None and len(columns[0].filled) >= _MIN_LINES) or (names is not None and not names[0].strip())
    if unnamed and len(left) > needed and 0 in left and columns[0].is_even:
        left.remove(0)
    if len(left) < needed:
        left = [k for k in range(width) if k not in found.values()]
    if len(left) < needed:
        raise FileError(f"cannot read {where}: {width} columns, but row ids, column ids and values need one each.")
    if "value" not in found:
        later = left[needed - 1 :]
        found["value"] = next((k for k in later if columns[k].is_numeric), later[0])
        left.remove(found["value"])
    for role in ("row", "column"):
        if role not in found:
            found[role] = left.pop(0)
    row, col, value = found["row"], found["column"], found["value"]
    free = [k for k in range(width) if k not in found.values() and roles[k] is None and not columns[k].is_distinct]
    if (
        not given
        and free
        and roles[row] is None
        and columns[row].is_distinct
        and len(columns[row].filled) >= _MIN_LINES
    ):
        raise _told(
            where, f"no two lines have the same id in column {row + 1}, which would be row ids", row, col, value
        )
    if not given and (names is None or roles[value] != "value") and stated.value is None:
        _check_guess(columns, row, col, value, where)
    return row, col, value


def _check_guess(columns: Sequence[Column], row: int, col: int, value: int, where: object) -> None:
    """Raise if the columns taken by their order look like others than row ids, column ids and values."""
    column, problem = columns[value], ""
    if column.is_times:
        problem = f"column {value + 1} would be the values, but holds whole numbers like seconds since 1970"
    for k, ids in ((row, columns[row]), (col, columns[col])):
        fractions = ids.is_numeric and not ids.is_whole and len(ids.numbers) == len(ids.filled)
        if fractions and (column.as_integers or len(ids.filled) >= _MIN_LINES):
            problem = f"column {k + 1} would be ids, but holds fractions"
    one, two, three = (columns[k].filled for k in (row, col, value))
    same_length = len(one) == len(two) == len(three) >= _MIN_LINES
    if not problem and same_length and column.as_integers:
        pairs, swapped = len(set(zip(one, two, strict=True))), ((one, three), (two, three))
        never = any(len(set(zip(*ids, strict=True))) == len(one) for ids in swapped)
        if 2 * pairs < len(one) and never:
            problem = f"most pairs of columns {row + 1} and {col + 1} repeat, those with column {value + 1} never"
    if problem:
        raise _told(where, problem, row, col, value)


def _told(where: object, problem: str, row: int, col: int, value: int) -> FileError:
    return FileError(
        f"cannot read {where} by the order of its columns: {problem}. Say which columns hold row ids, column ids and values: "
        f"--columns {row + 1},{col + 1},{value + 1} if it is right as it is, or others; or --format table, if it is one."
    )


def notes_on_outliers(values: np.ndarray) -> list[str]:
    """Note on values such as -999 that repeat far outside all others, and may mark missing cells."""
    finite = np.isfinite(values)
    notes, rest = [], values if finite.all() else values[finite]
    for sign in (1, -1, 1, -1):
        if len(rest) < 4:
            break
        ends = float(rest.min()), float(rest.max())
        outer, far = ends[::sign]
        probe = rest[:: max(len(rest) // 1_000, 1)]  # a few say in most cases that the others are not that far away
        if ((probe != outer) & (sign * probe < sign * (outer + 0.75 * (far - outer)))).any():
            continue
        others = rest[rest != outer]
        count = len(rest) - len(others)
        if count < 2 or len(others) < 2:
            continue
        first, last = float(others.min()), float(others.max())
        gap = first - outer if sign == 1 else outer - last
        if last > first and gap / 3 > last - first:
            notes.append(
                f"the value {outer:.10g} occurs {count:,} times, far outside the others: if it marks missing entries, pass "
                f"--missing {outer:.10g}"
            )
            rest = others
    return notes
