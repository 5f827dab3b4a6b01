"""Tables with missing cells in delimited text: one line for each row, perhaps names of columns and rows.

    name,width,height,colour
    a1,0.31,,red
    a2,NA,1.25,blue

Cells are missing where they are empty, NA, NaN or null. Filled tables are written in the layout of their file.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from dmf.errors import FileError
from dmf.io.delimited import BLANKS, DelimitedText, as_number, is_meant_as_number, is_missing, is_number
from dmf.io.messages import ignored, shown
from dmf.io.writing import write_atomically

_MANY = 4  # lines of ids and a value have at most this many columns of numbers: two ids, the value, a time
# Headings of a first column of names: of those that must differ, and of those that may repeat and then name nothing.
_ROW_NAMES, _ROW_LABELS = ("", "id", "index", "row", "key"), ("name", "date", "time", "year")
_FIRST_YEAR = 1000  # evenly spaced whole numbers from here on are names of columns
_LEAST_DIGITS, _MOST_DIGITS = 6, 17  # significant, of numbers filled in


@dataclass(frozen=True)
class Table:
    """The text that a table was read from, and where in it the matrix stands.

    Attributes
    ----------
    head : bytes
        What comes before the first line: byte order mark, comments.
    text : str
        All that follows.
    delimiter : str
    width : int
        Number of columns in the text.
    rows, columns : tuple of int
        Number of the record (the header is one), and of the column, that each row and column of the matrix comes from.
    """

    head: bytes = field(repr=False)
    text: str = field(repr=False)
    delimiter: str
    width: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]


def is_table(sample: Sequence[Sequence[str]]) -> bool:
    """Whether the first records are those of a table, rather than lines of row id, column id and value.

    They are if at least two columns hold numbers and, of these columns, one has a missing cell or there are more than four;
    unless the first two columns look like ids: complete, whole numbers or text, ids of rows repeated, pairs mostly not.
    """
    body, numeric = sample, _numeric(sample[1:])
    if numeric and _is_header(sample[0], numeric):
        body = sample[1:]
    else:
        numeric = _numeric(sample)
    holes = any(is_missing(record[k]) for record in body for k in numeric)
    if len(numeric) < 2 or not (holes or len(numeric) > _MANY):
        return False
    pairs = [(record[0], record[1]) for record in sample]  # a header only adds one
    ids = all(_is_id(row) and _is_id(col) for row, col in pairs)
    return not (ids and len({row for row, _ in pairs}) < len(pairs) and 2 * len(set(pairs)) >= len(pairs))


def _is_id(text: str) -> bool:
    return not is_missing(text) and (not is_number(text) or as_number(text).is_integer())


def _numeric(records: Sequence[Sequence[str]]) -> list[int]:
    """Columns that hold numbers."""
    found = []
    for k, cells in enumerate(zip(*records, strict=True)):
        filled = [cell for cell in cells if not is_missing(cell)]
        numbers = sum(map(is_meant_as_number, filled))
        if _holds_numbers(numbers, len(filled) - numbers):
            found.append(k)
    return found


def _holds_numbers(numbers: int, texts: int) -> bool:
    return numbers > 0 and numbers >= texts


class _Columns:
    """Cells of all columns as numbers, NaN where there is none, and what else was met."""

    def __init__(self, width: int) -> None:
        self.values = array("d")
        self.numbers, self.texts = [0] * width, [0] * width
        self.wrong: dict[int, tuple[int, str]] = {}  # line and text of the first cell that is no finite number
        self.first: list[str] = []  # the first column as text
        self.lines: list[int] = []

    def add(self, record: Sequence[str], line: int) -> None:
        """Take one record."""
        self.first.append(record[0])
        self.lines.append(line)
        for k, cell in enumerate(record):
            value = math.nan
            if not is_missing(cell):
                with contextlib.suppress(ValueError):
                    value = as_number(cell)
                if not math.isfinite(value):
                    self.wrong.setdefault(k, (line, cell))
                meant = is_meant_as_number(cell)
                self.numbers[k] += meant
                self.texts[k] += not meant
            self.values.append(value)

    def numeric(self) -> list[int]:
        """Columns that hold numbers."""
        return [k for k, counts in enumerate(zip(self.numbers, self.texts, strict=True)) if _holds_numbers(*counts)]


def read_table(text: DelimitedText) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...], tuple[str, ...], Table]:
    """Read the rest of a delimited text as a table.

    - A column holds numbers if at least half of its cells that are not missing are meant as numbers; each of them must then
      be one. The other columns are no part of the matrix.
    - The first line is a header if none of its cells above numbers is a number; also if these are evenly spaced whole numbers,
      such as years, from 1000 on or under an empty first cell.
    - The first column holds row names if it is text without repetition, or if its heading says so (empty, "id", "index", "row",
      "key" or ending in "_id"; "name", "date", "time" or "year" if nothing in it is repeated or empty). A column under one of
      the latter that does repeat is no part of the matrix.
    - Rows and columns without any number are left out of the matrix: nothing is known of them.

    Where there are no names, rows and columns are called by their position in the file, from 0, row names not counted.

    Returns
    -------
    matrix : array, shape (d1, d2)
        NaN where a cell is missing.
    row_ids, col_ids : tuples of str
    notes : tuple of str
    table : Table

    Raises
    ------
    FileError
        If a line has too many or too few cells, a column of numbers holds something else, names repeat, or there are fewer
        than two columns of numbers.
    """
    lines = text.keep_lines()
    columns = _Columns(text.width)
    records = ((text.first_line(record), [cell.strip() for cell in record]) for record in text)
    first_line, first = next(records)
    for line, record in records:
        columns.add(record, line)
    alone = not columns.lines
    if alone:
        columns.add(first, first_line)
    numeric = columns.numeric()
    header = first if not alone and _is_header(first, numeric) else None
    if header is None and not alone:
        rest, columns = columns, _Columns(text.width)
        columns.add(first, first_line)
        _join(columns, rest)
        numeric = columns.numeric()
    numeric, named, about_names = _row_names(text, columns, numeric, header)
    _check(text, columns, numeric)
    matrix = np.frombuffer(columns.values).reshape(-1, text.width)[:, numeric]
    known = ~np.isnan(matrix)
    rows = np.flatnonzero(known.any(axis=1)).tolist()
    row_ids = tuple(columns.first[i] if named else str(i) for i in rows)
    col_ids = tuple(str(k - named) if header is None else header[k] for k in numeric)
    if header is not None:
        _check_names(text, header, numeric)
    matrix = matrix[rows]
    skipped = header is not None
    table = Table(
        text.head, "".join(lines), text.delimiter, text.width, tuple(i + skipped for i in rows), tuple(numeric)
    )
    notes = [
        f"{text.dialect()}; a table, {'column names in the first line' if skipped else 'no header'}, "
        f"{'row names in the first column' if named else 'no row names'}",
        *text.comments(),
        *about_names,
    ]
    others = [k for k in range(named or len(about_names), text.width) if k not in numeric]
    notes += ignored("columns without numbers", [header[k] if header else f"number {k + 1}" for k in others])
    if empty := len(known) - len(rows):
        notes.append(f"{empty} rows without any number ignored")
    notes.append(f"{int(np.isnan(matrix).sum())} of {matrix.size} cells are missing")
    return matrix, row_ids, col_ids, tuple(notes), table


def _join(columns: _Columns, more: _Columns) -> None:
    columns.values += more.values
    columns.first += more.first
    columns.lines += more.lines
    columns.numbers = [a + b for a, b in zip(columns.numbers, more.numbers, strict=True)]
    columns.texts = [a + b for a, b in zip(columns.texts, more.texts, strict=True)]
    columns.wrong = more.wrong | columns.wrong


def _is_header(first: Sequence[str], numeric: Sequence[int]) -> bool:
    above = [first[k] for k in numeric if k > 0 or first[0]]
    if not any(is_meant_as_number(cell) for cell in above if not is_missing(cell)):
        return any(not is_missing(cell) for cell in above)
    inner = above[1:] if 0 in numeric and first[0] else above
    if len(inner) < 2 or not all(cell.isascii() and cell.isdigit() for cell in inner):
        return False
    steps = np.diff([int(cell) for cell in inner])
    return bool((steps == steps[0]).all() and steps[0] > 0 and (not first[0] or int(inner[0]) >= _FIRST_YEAR))


def _row_names(
    text: DelimitedText, columns: _Columns, numeric: list[int], header: Sequence[str] | None
) -> tuple[list[int], bool, list[str]]:
    """The columns of numbers that are part of the matrix, whether the first column holds row names, and why not if it should."""
    heading = None if header is None else header[0].lower()
    expected = heading is not None and (heading in _ROW_NAMES or heading.endswith("_id"))
    label = heading in _ROW_LABELS
    if 0 in numeric and not (expected or label):
        return numeric, False, []
    others = [k for k in numeric if k > 0]
    seen: dict[str, int] = {}
    for name, line in zip(columns.first, columns.lines, strict=True):
        if not name or name in seen:
            reason = f"the row name {shown(name)} was on line {seen[name]} already" if name else "the row name is empty"
            if expected:
                raise text.error(f"{reason}. Give each row a name of its own.", line=line)
            return others, False, [f"column ignored: {heading}, which names no rows (line {line}: {reason})"] * label
        seen[name] = line
    return others, True, []


def _check(text: DelimitedText, columns: _Columns, numeric: Sequence[int]) -> None:
    """Raise unless there are columns of numbers, all of which are finite."""
    if len(numeric) < 2:
        raise FileError(
            f"cannot read {text.path} as a table: {len(numeric)} of {text.width} columns ({text.dialect()}) hold numbers, but "
            "at least 2 are needed. If its lines are row id, column id and value, read it as entries."
        )
    wrong = [(*columns.wrong[k], k + 1) for k in numeric if k in columns.wrong]
    if wrong:
        line, cell, k = min(wrong)
        if is_number(cell):
            reason = "but cells are finite numbers. Leave the cell empty if it is missing."
        elif is_meant_as_number(cell):
            reason = "but numbers have a decimal point and no commas. Replace it."
        else:
            reason = "which is no number, unlike most of this column. Leave the cell empty (or NA, NaN, null) if it is missing."
        raise text.error(f"column {k} is {shown(cell)}, {reason}", line=line)


def _check_names(text: DelimitedText, header: Sequence[str], numeric: Sequence[int]) -> None:
    seen: dict[str, int] = {}
    for k in numeric:
        name = header[k]
        if not name or name in seen:
            twice = f"columns {seen.get(name, k) + 1} and {k + 1} are both called {shown(name)}"
            problem = twice if name else f"column {k + 1} has no name"
            raise FileError(f"cannot read {text.path}: {problem}. Give each column of numbers a name of its own.")
        seen[name] = k


def write_filled(path: str | os.PathLike, table: Table, matrix: np.ndarray) -> int:
    """Write a table with its missing cells filled, in the layout of the file that it was read from.

    All that is not filled stays as it is, byte for byte. Numbers get six significant digits, or as many as the most precise
    number of their column.

    Parameters
    ----------
    path : path
    table : Table
    matrix : array, shape (d1, d2)
        Values of the missing cells; the others are not looked at.

    Returns
    -------
    int
        Number of cells filled.

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    row_of = {record: row for row, record in enumerate(table.rows)}
    digits = [_LEAST_DIGITS] * table.width
    for record, fields in _matrix_records(table):
        if record in row_of:
            for k in table.columns:
                digits[k] = max(digits[k], _significant(_content(fields[2 * k])))
    filled = 0
    parts = []
    for record, fields in _matrix_records(table):
        row = row_of.get(record)
        for col, k in enumerate(table.columns if row is not None else ()):
            raw = fields[2 * k]
            if is_missing(_content(raw)):
                number = f"{matrix[row, col]:.{min(digits[k], _MOST_DIGITS)}g}"
                fields[2 * k] = raw.replace(raw.strip(), number) if raw.strip() else number
                filled += 1
        parts += fields
    content = table.head + "".join(parts).encode()
    write_atomically(path, lambda file: file.write(content))
    return filled


def _matrix_records(table: Table) -> Iterator[tuple[int, list[str]]]:
    """Number and parts of each record; -1 for blank lines."""
    number = 0
    for parts in split_records(table.text, table.delimiter):
        whole = len(parts) == 2 * table.width
        yield (number if whole else -1), parts
        number += whole


def split_records(text: str, delimiter: str) -> Iterator[list[str]]:
    """Split text into records of fields and separators in turn, which joined give the text again.

    Fields are those that `DelimitedText` reads, with the quotes and blanks around them.
    """
    end = r"\r?\n|\Z"
    if delimiter == BLANKS:
        pattern = rf"([^\S\n]*\S*)([^\S\n]*(?:{end})|(?=\s))"
    elif len(delimiter) > 1:
        pattern = rf"((?:(?!{re.escape(delimiter)})[^\r\n])*)({re.escape(delimiter)}|{end})"
    else:
        pattern = rf'( *"(?:[^"]|"")*"|[^{re.escape(delimiter)}\r\n]*)({re.escape(delimiter)}|{end})'
    record: list[str] = []
    for match in re.finditer(pattern, text):
        record += match.groups()
        if match[2].endswith("\n") or (match.end() == len(text) and match[2] != delimiter):
            yield record
            record = []


def _content(raw: str) -> str:
    """A field without blanks and quotes around it."""
    return raw.strip().removeprefix('"').removesuffix('"').strip()


def _significant(number: str) -> int:
    """Significant digits of a number as written; zeros at its end count."""
    mantissa = re.split("[eE]", number)[0]
    return len(re.sub(r"\D", "", mantissa).lstrip("0"))
