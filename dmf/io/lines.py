"""Delimited text with one entry of a matrix in each line."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from dmf.errors import FileError
from dmf.io.blocks import Block
from dmf.io.cells import Cells, Column, Stated
from dmf.io.delimited import DelimitedText
from dmf.io.filling import Text
from dmf.io.ids import Numbering, Stack
from dmf.io.messages import ignored, shown
from dmf.io.reading import Entries
from dmf.io.roles import entry_columns, notes_on_outliers

_EQUAL_VALUES = 10  # equal values that are no accident
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
    names, (row_at, col_at, value_at, *time_at) = _roles(text, stated, how)
    kept = text.keep_lines() if keep_text else None
    if names is not None:
        text.skip_header()
    rows, cols, values, times, any_value = Numbering(), Numbering(), Stack(np.float64), Stack(np.float64), False
    for block in text.blocks():
        found = _values(text, block, value_at, how)
        any_value |= not np.isnan(found).all()
        values.add(found)
        for k in time_at:
            times.add(_times(text, block, k, how))
        for ids, k in ((rows, row_at), (cols, col_at)):
            integers = block.integers(k)
            if integers is not None:
                ids.add_integers(integers)
            elif not ids.add(*block.distinct(k)):
                raise text.error("an id is empty. Give every id.", block.first(k, lambda field: not field)[0])
    if not any_value:
        what = "no value in any line" if len(values) else "a header, but no entry follows"
        raise text.error(f"{what}. Give at least one line of row id, column id and value.")
    entries, holes = entries_and_holes(rows, cols, values, value_at, times.result() if time_at else None)
    layout = None if kept is None else Text(text, kept, how, (value_at,), holes)
    notes = (*_notes(text, names, (row_at, col_at, value_at, *time_at)), *entries.notes)
    return replace(entries, notes=notes, text=layout)


def entries_and_holes(
    rows: Numbering, cols: Numbering, stack: Stack, column: int, times: np.ndarray | None = None
) -> tuple[Entries, np.ndarray]:
    """Entries of ids and values, NaN where one is missing, and where these are.

    Parameters
    ----------
    rows, cols : Numbering
    stack : Stack
        The values.
    column : int
        In which they stand.
    times : float64 array, optional
        Of all of them.

    Returns
    -------
    Entries
        Those that have a value; with notes on the others, and on values that may mark missing ones.
    holes : int array, shape (n, 4)
        Of the others: record, column, row and column of the matrix.
    """
    values = stack.result()
    (row_of, row_ids), (col_of, col_ids) = rows.result(), cols.result()
    missing = np.isnan(values)
    at, notes = np.flatnonzero(missing), []
    holes = np.column_stack([at, np.full(len(at), column), row_of[at], col_of[at]])
    if len(at):
        notes.append(f"{len(at):,} lines have no value: these entries are missing")
        row_of, col_of, values = row_of[~missing], col_of[~missing], values[~missing]
    notes += notes_on_outliers(values)
    if len(values) >= _EQUAL_VALUES and values.min() == values.max():
        notes.append(
            f"all values are {values[0]:g}: they hold no ranking, and every prediction will be {values[0]:g}; give ratings, or "
            "counts in which what was not chosen is 0"
        )
    shape = len(row_ids), len(col_ids)
    of_entries, of_holes = (None, None) if times is None else (times[~missing], times[missing])
    found = Entries(row_of, col_of, values, shape, row_ids, col_ids, tuple(notes), None, of_entries, of_holes)
    return found, holes


def _values(text: DelimitedText, block: Block, k: int, how: Cells) -> np.ndarray:
    """The numbers in column `k`, NaN where one is missing; raises if one is none, or infinite."""
    fields, which = block.distinct(k)
    try:
        values = how.values(fields)
    except ValueError:
        line, field = block.first(k, lambda field: not how.is_number(field) and not how.is_missing(field))
        raise text.error(f"the value (column {k + 1}) is {shown(field)}, {how.hint(field)}", line) from None
    if np.isinf(values).any():
        line, field = block.first(k, lambda field: math.isinf(how.value(field)))
        problem = f"the value is {shown(field)}, but entries are finite. Leave it empty if the entry is missing."
        raise text.error(problem, line)
    return values if which is None else values[which]


def _times(text: DelimitedText, block: Block, k: int, how: Cells) -> np.ndarray:
    """The times in column `k`; raises if one is none."""
    fields, which = block.distinct(k)
    times = how.times(fields)
    if not np.isfinite(times).all():
        line, field = block.first(k, lambda field: not np.isfinite(how.times([field])[0]))
        raise text.error(
            f"the time (column {k + 1}) is {shown(field)}, but each entry has one: a number, or a date such as 2024-01-31 "
            "18:30. Give it, or leave the line out.",
            line,
        )
    return times if which is None else times[which]


def _roles(text: DelimitedText, stated: Stated, how: Cells) -> tuple[list[str] | None, tuple[int, ...]]:
    """Column names, if the first line holds them, and the columns of row ids, column ids, values and, where asked for, times."""
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


def _notes(text: DelimitedText, names: list[str] | None, places: tuple[int, ...]) -> list[str]:
    called = names or [f"number {k}" for k in range(1, text.width + 1)]
    row, col, value, *time = (shown(called[k]) if names else str(k + 1) for k in places)
    others = [called[k] for k in range(text.width) if k not in places]
    return [
        f"{text.dialect()}, {'a header' if names else 'no header'}; each line an entry: row id in column {row}, column id in "
        f"{col}, value in {value}{''.join(f', time in {at}' for at in time)} (--columns changes it)",
        *text.comments(),
        *ignored("columns", others),
    ]
