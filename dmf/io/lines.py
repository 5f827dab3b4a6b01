"""Delimited text with one entry of a matrix in each line."""

from __future__ import annotations

import itertools
from array import array
from collections import defaultdict
from math import isinf, isnan

import numpy as np

from dmf.errors import FileError
from dmf.io.delimited import DelimitedText
from dmf.io.filling import Text
from dmf.io.messages import ignored, shown
from dmf.io.reading import Entries
from dmf.io.roles import Cells, Column, Stated, entry_columns, outliers_that_repeat

TRIPLET = ("row id", "column id", "value")


def read_lines(text: DelimitedText, stated: Stated, keep_text: bool = False) -> Entries:
    """Read the rest of a delimited text as lines of row id, column id and value.

    `dmf.io.roles.entry_columns` says which columns these are. The first line is a header where its field in the column of values
    has letters, or no digits, and is no number. Ids are any text without the blanks around it, numbered in the order of their
    first appearance. An entry whose value is missing is left out, but its row and column are part of the matrix.

    Raises
    ------
    FileError
        If a value is no finite number, an id is empty, or no line has a value.
    """
    how = Cells(stated)
    names, (row_at, col_at, value_at) = _roles(text, stated, how)
    kept = text.keep_lines() if keep_text else None
    if names is not None:
        text.skip_header()
    rows, cols, values = array("i"), array("i"), array("d")
    row_ids: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    col_ids: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    holes = array("q")
    for number, record in enumerate(text):
        field = record[value_at]
        try:
            value = how.value(field)
        except ValueError:
            field = field.strip()
            problem = f"the value (column {value_at + 1}) is {shown(field)}, {how.hint(field)}"
            raise text.error(problem, record) from None
        row, col = record[row_at].strip(), record[col_at].strip()
        if not (row and col):
            raise text.error("an id is empty. Give every id.", record)
        if isnan(value):
            holes.extend((number, value_at, row_ids[row], col_ids[col]))
            continue
        if isinf(value):
            raise text.error(
                f"the value is {shown(field.strip())}, but entries are finite. Leave it empty if the entry is missing.",
                record,
            )
        rows.append(row_ids[row])
        cols.append(col_ids[col])
        values.append(value)
    if not values:
        what = "no value in any line" if holes else "a header, but no entry follows"
        raise text.error(f"{what}. Give at least one line of row id, column id and value.")
    d1, d2 = len(row_ids), len(col_ids)
    found = np.asarray(values)
    notes = [*_notes(text, names, (row_at, col_at, value_at)), *outliers_that_repeat(found)]
    if missing := len(holes) // 4:
        notes.append(f"{missing:,} lines have no value: these entries are missing")
    layout = None
    if kept is not None:
        layout = Text(text, kept, how, (value_at,), np.asarray(holes).reshape(-1, 4))
    return Entries(
        np.asarray(rows), np.asarray(cols), found, (d1, d2), tuple(row_ids), tuple(col_ids), tuple(notes), layout
    )


def _roles(text: DelimitedText, stated: Stated, how: Cells) -> tuple[list[str] | None, tuple[int, int, int]]:
    """Column names, if the first line holds them, and the columns of row ids, column ids and values."""
    if stated.header is not False:
        below = [Column(cells, how) for cells in _transposed(text.sample[1:], text.width)]
        try:
            columns = entry_columns(text.first, below, stated, text.path)
            failure = None
        except FileError as error:  # without a header the numbers of the columns may be all right
            failure = error
        if failure is None and (stated.header or _is_heading(text.first[columns[2]], how)):
            return text.first, columns
        if failure is not None and (stated.header or not any(map(how.is_meant, text.first))):
            raise failure
    everything = [Column(cells, how) for cells in _transposed(text.sample, text.width)]
    return None, entry_columns(None, everything, stated, text.path)


def _transposed(records: list[list[str]], width: int) -> list[tuple[str, ...]]:
    return list(zip(*records, strict=True)) if records else [()] * width


def _is_heading(field: str, how: Cells) -> bool:
    """Whether a field in a column of numbers heads it; a decimal comma, 1_000 and 12% are numbers badly written."""
    letters, digits = any(map(str.isalpha, field)), any(map(str.isdigit, field))
    return not how.is_missing(field) and not how.is_meant(field) and (letters or not digits)


def _notes(text: DelimitedText, names: list[str] | None, places: tuple[int, int, int]) -> list[str]:
    called = names or [f"number {k}" for k in range(1, text.width + 1)]
    row, col, value = (shown(called[k]) if names else str(k + 1) for k in places)
    others = [called[k] for k in range(text.width) if k not in places]
    return [
        f"{text.dialect()}, {'a header' if names else 'no header'}; each line an entry: row id in column {row}, column id in "
        f"{col}, value in {value} (--columns changes it)",
        *text.comments(),
        *ignored("columns", others),
    ]
